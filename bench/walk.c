/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A walk of all levels and a read of eight octets, and a read of a page, against plain loads and memcpy() over the same
 * pages: 10,000 random pages of 4 KiB in a sealed memfd.  Least of many rounds: what is measured is memory, and others
 * take the machine's away.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "fake_tables.h"

#define PAGES 10000u
#define ROUNDS 6 /* in a turn */
#define SPACE UINT64_C(0x7f0000000000)
#define ADDRESS UINT64_C(0xffffffffff000)

struct scene {
    struct fake_tables tables;
    struct vmibus_guest_ram *ram;
    struct vmibus_guest_reader reader;
    struct vmibus_guest_root root;
    uint64_t span;              /* octets of address space that the pages are spread over */
    uint64_t gvas[PAGES];       /* of eight octets, each of which holds the next one */
};

typedef int (*round_fn)(struct scene *scene, uint64_t *check);

/* --- what is compared ---------------------------------------------------------------------------- */

static int read_independent(struct scene *scene, uint64_t *check) {
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t value;
        int r = vmibus_guest_read(&scene->reader, &scene->root, scene->gvas[i], &value, sizeof(value), NULL, NULL);

        if (r != 0)
            return -EBADMSG;
        *check += value;
    }
    return 0;
}

static int read_dependent(struct scene *scene, uint64_t *check) {
    uint64_t gva = scene->gvas[0];

    for (unsigned i = 0; i < PAGES; i++) {
        if (vmibus_guest_read(&scene->reader, &scene->root, gva, &gva, sizeof(gva), NULL, NULL) != 0)
            return -EBADMSG;
        *check += gva;
    }
    return 0;
}

static inline uint64_t load(const struct scene *scene, uint64_t gpa) {
    return *(const volatile uint64_t *)fake_tables_at(&scene->tables, gpa);
}

static inline uint64_t load_entry(const struct scene *scene, uint64_t table, uint64_t gva, unsigned level) {
    return load(scene, (table & ADDRESS) + (gva >> (3 + 9 * level) & 511) * 8);
}

/* Five loads, each of which needs the one before, and nothing else. */
static int load_dependent(struct scene *scene, uint64_t *check) {
    uint64_t gva = scene->gvas[0];

    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t entry = scene->root.cr3;

        entry = load_entry(scene, entry, gva, 4);
        entry = load_entry(scene, entry, gva, 3);
        entry = load_entry(scene, entry, gva, 2);
        entry = load_entry(scene, entry, gva, 1);
        gva = load(scene, (entry & ADDRESS) + (gva & 4095));
        *check += gva;
    }
    return 0;
}

static int load_independent(struct scene *scene, uint64_t *check) {
    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t gva = scene->gvas[i], entry = scene->root.cr3;

        entry = load_entry(scene, entry, gva, 4);
        entry = load_entry(scene, entry, gva, 3);
        entry = load_entry(scene, entry, gva, 2);
        entry = load_entry(scene, entry, gva, 1);
        *check += load(scene, (entry & ADDRESS) + (gva & 4095));
    }
    return 0;
}

static int read_pages(struct scene *scene, uint64_t *check) {
    uint8_t buffer[FAKE_PAGE];

    for (unsigned i = 0; i < PAGES; i++) {
        uint64_t gva = scene->gvas[i] & ~(FAKE_PAGE - 1);

        if (vmibus_guest_read(&scene->reader, &scene->root, gva, buffer, sizeof(buffer), NULL, NULL) != 0)
            return -EBADMSG;
        *check += buffer[scene->gvas[i] % FAKE_PAGE];
    }
    return 0;
}

static uint64_t gpas[PAGES];

static int copy_pages(struct scene *scene, uint64_t *check) {
    uint8_t buffer[FAKE_PAGE];

    for (unsigned i = 0; i < PAGES; i++) {
        memcpy(buffer, scene->tables.memory + gpas[i], sizeof(buffer));
        __asm__ volatile("" : : "r"(buffer) : "memory");
        *check += buffer[scene->gvas[i] % FAKE_PAGE];
    }
    return 0;
}

/* --- the scene ----------------------------------------------------------------------------------- */

/* Each page of the space at most once: a page is given up where it was drawn before. */
static void map_pages(struct scene *scene) {
    struct fake_tables *tables = &scene->tables;
    uint64_t n = scene->span / FAKE_PAGE;
    uint8_t *drawn = calloc(1, (size_t)n);

    for (unsigned i = 0; drawn && i < PAGES;) {
        uint64_t page = fake_tables_random(tables) % n;

        if (drawn[page])
            continue;
        drawn[page] = 1;
        gpas[i] = fake_tables_page(tables);
        scene->gvas[i] = SPACE + page * FAKE_PAGE + (fake_tables_random(tables) % (FAKE_PAGE / 8)) * 8;
        fake_tables_map(tables, &scene->root, scene->gvas[i], gpas[i]);
        i++;
    }
    free(drawn);
    for (unsigned i = 0; i < PAGES; i++)
        *fake_tables_at(tables, gpas[i] + scene->gvas[i] % FAKE_PAGE) = scene->gvas[(i + 1) % PAGES];
}

static int scene_init(struct scene *scene, uint8_t levels, uint64_t span) {
    const struct vmibus_ram_range range = {.len = UINT64_C(256) << 20};
    int r;

    *scene = (struct scene){.span = span};
    r = fake_tables_init(&scene->tables, range.len);
    if (r == 0)
        r = vmibus_guest_ram_new(&scene->ram, &range, 1, &scene->tables.fd, 1);
    if (r)
        return r;
    scene->reader = vmibus_guest_ram_reader(scene->ram);
    scene->root = (struct vmibus_guest_root){.cr3 = fake_tables_page(&scene->tables), .levels = levels};
    map_pages(scene);
    return 0;
}

static void scene_deinit(struct scene *scene) {
    vmibus_guest_ram_free(scene->ram);
    fake_tables_deinit(&scene->tables);
}

/* --- measuring ----------------------------------------------------------------------------------- */

static int take_round(struct scene *scene, round_fn round, double *took) {
    static volatile uint64_t sink;
    uint64_t begun = bench_now(), check = 0;
    int r = round(scene, &check);

    *took = (double)(bench_now() - begun) / PAGES;
    sink += check;
    return r;
}

/*
 * Takes some rounds of each in turns; the least of each, in nanoseconds for one page.  The first of them find the caches as
 * the one before left them.
 */
static int measure(const struct bench *bench, struct scene **scenes, const round_fn *rounds, size_t n, double *least) {
    unsigned turns = bench->quick ? 30 : 100;

    for (unsigned turn = 0; turn < turns; turn++)
        for (size_t i = 0; i < n; i++)
            for (unsigned round = 0; round < ROUNDS; round++) {
                double took;
                int r = take_round(scenes[i], rounds[i], &took);

                if (r)
                    return r;
                if (turn + round == 0 || took < least[i])
                    least[i] = took;
            }
    return 0;
}

static void tell(struct bench *bench, const char *where, bool held, const double *least) {
    enum bench_relation relation = held ? BENCH_AT_MOST : BENCH_TOLD;

    bench_tell(bench, least[0], "ns", relation, 25, "%s, independent reads of 8 octets", where);
    bench_tell(bench, least[3], "ns", BENCH_TOLD, 0, "%s, independent chains of five loads", where);
    bench_tell(bench, least[1] / least[2], "x", relation, 1.8, "%s, dependent read / chain of five loads", where);
    bench_tell(bench, least[1], "ns", BENCH_TOLD, 0, "%s, dependent reads of 8 octets", where);
    bench_tell(bench, least[2], "ns", BENCH_TOLD, 0, "%s, dependent chains of five loads", where);
    bench_tell(bench, least[4] / least[0], "x", relation, 1.25, "%s, 5 levels / 4 levels, independent", where);
    bench_tell(bench, least[5] / least[1], "x", relation, 1.25, "%s, 5 levels / 4 levels, dependent", where);
    bench_tell(bench, least[6] / least[7], "x", relation, 1.5, "%s, read of 4 KiB / memcpy", where);
    bench_tell(bench, least[6], "ns", BENCH_TOLD, 0, "%s, read of 4 KiB", where);
    bench_tell(bench, least[7], "ns", BENCH_TOLD, 0, "%s, memcpy of 4 KiB", where);
}

static int compare(struct bench *bench, const char *where, bool held, uint64_t span) {
    static struct scene four, five;
    struct scene *scenes[] = {&four, &four, &four, &four, &five, &five, &four, &four};
    static const round_fn rounds[] = {
        read_independent, read_dependent, load_dependent, load_independent,
        read_independent, read_dependent, read_pages,     copy_pages,
    };
    double least[8] = {};
    int r;

    r = scene_init(&five, 5, span);
    if (r == 0)
        r = scene_init(&four, 4, span); /* the last one: gpas are of this one */
    if (r == 0)
        r = measure(bench, scenes, rounds, 8, least);
    if (r == 0)
        tell(bench, where, held, least);
    scene_deinit(&four);
    scene_deinit(&five);
    return r;
}

int main(int argc, char **argv) {
    struct bench bench;
    int r = bench_begin(&bench, "walk", argc, argv);

    if (r)
        return r;
    r = bench_place(true);
    if (r == 0)
        r = compare(&bench, "10,000 pages in 64 MiB", true, UINT64_C(64) << 20);
    if (r == 0)
        r = compare(&bench, "10,000 pages in 1 GiB", false, UINT64_C(1) << 30);
    return bench_end(&bench, r);
}
