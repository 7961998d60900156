/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Searching a guest's RAM, physical and by an address space of pages of 4 KiB at random places, against reading the same
 * octets by memchr(), which finds next to nothing, and by a sum over 64-bit words: whichever is faster is the floor.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "fake_tables.h"

#define MIB (UINT64_C(1) << 20)
#define SPACE UINT64_C(0x7f0000000000)
#define STEP (16 * MIB)

struct scene {
    struct fake_tables tables;
    struct vmibus_guest_ram *ram;
    struct vmibus_guest_reader reader;
    struct vmibus_guest_root root;
    uint64_t mapped; /* octets from SPACE on */
};

typedef int (*pass_fn)(struct scene *scene);

static const struct vmibus_guest_pattern pattern = {.octets = (const uint8_t *)"a pattern that is not there", .len = 27};

static int scan_to_end(struct vmibus_guest_scan *scan) {
    uint64_t match;
    size_t found = 0;
    int r;

    do
        r = vmibus_guest_scan_step(scan, STEP, &match, 1, &found);
    while (r == VMIBUS_GUEST_UNFINISHED && found == 0);
    vmibus_guest_scan_free(scan);
    return found ? -EBADMSG : r;
}

static int scan_physical(struct scene *scene) {
    struct vmibus_guest_scan *scan;
    int r = vmibus_guest_scan_new_physical(&scan, &scene->reader, NULL, 0, &pattern, 0, UINT64_MAX);

    return r ? r : scan_to_end(scan);
}

static int scan_virtual(struct scene *scene) {
    struct vmibus_guest_scan *scan;
    int r = vmibus_guest_scan_new(&scan, &scene->reader, &scene->root, &pattern, SPACE, SPACE + scene->mapped - 1);

    return r ? r : scan_to_end(scan);
}

static int find_octet(struct scene *scene) {
    const uint8_t *at = scene->tables.memory, *end = at + scene->tables.size;

    /* Page tables have one now and then. */
    while ((at = memchr(at, 0xfd, (size_t)(end - at))))
        at++;
    return 0;
}

static int sum_words(struct scene *scene) {
    static volatile uint64_t sink;
    const uint64_t *words = fake_tables_at(&scene->tables, 0);
    uint64_t sum[4] = {};

    for (uint64_t i = 0; i < scene->tables.size / 8; i += 4)
        for (unsigned k = 0; k < 4; k++)
            sum[k] += words[i + k];
    sink += sum[0] + sum[1] + sum[2] + sum[3];
    return 0;
}

static int scene_init(struct scene *scene, uint64_t size) {
    const struct vmibus_ram_range range = {.len = size};
    int r = fake_tables_init(&scene->tables, size);

    if (r == 0)
        r = vmibus_guest_ram_new(&scene->ram, &range, 1, &scene->tables.fd, 1);
    if (r)
        return r;
    scene->reader = vmibus_guest_ram_reader(scene->ram);
    scene->root = (struct vmibus_guest_root){.cr3 = fake_tables_page(&scene->tables), .levels = 4};
    scene->mapped = size / 2;
    for (uint64_t at = 0; at < scene->mapped; at += FAKE_PAGE) {
        uint64_t gpa = fake_tables_page(&scene->tables);

        memset(scene->tables.memory + gpa, 2, FAKE_PAGE);
        fake_tables_map(&scene->tables, &scene->root, SPACE + at, gpa);
    }
    return 0;
}

/* The least of some passes, in nanoseconds; taken in turns, the first ones warm up. */
static int measure(const struct bench *bench, struct scene *scene, const pass_fn *passes, size_t n, double *least) {
    unsigned runs = bench->quick ? 8 : 20;

    for (unsigned run = 0; run <= runs; run++)
        for (size_t i = 0; i < n; i++) {
            uint64_t begun = bench_now();
            int r = passes[i](scene);
            double took = (double)(bench_now() - begun);

            if (r)
                return r;
            if (run <= 1 || took < least[i])
                least[i] = took;
        }
    return 0;
}

static double rate(uint64_t octets, double nanoseconds) {
    return (double)octets / nanoseconds;
}

int main(int argc, char **argv) {
    static const pass_fn passes[] = {scan_physical, scan_virtual, find_octet, sum_words};
    static struct scene scene;
    struct bench bench;
    double least[4] = {}, floor;
    uint64_t size;
    int r = bench_begin(&bench, "search", argc, argv);

    if (r)
        return r;
    size = bench.quick ? 256 * MIB : 1024 * MIB;
    r = bench_place(true);
    if (r == 0)
        r = scene_init(&scene, size);
    if (r == 0)
        r = measure(&bench, &scene, passes, 4, least);
    if (r == 0) {
        floor = least[2] < least[3] ? least[2] : least[3];
        bench_tell(&bench, floor / least[0], "x", BENCH_AT_LEAST, 0.75, "%lu MiB, physical / reading", (unsigned long)(size / MIB));
        bench_tell(&bench, floor / 2 / least[1], "x", BENCH_TOLD, 0, "half of it by pages of 4 KiB / reading");
        bench_tell(&bench, rate(size, least[0]), "GB/s", BENCH_TOLD, 0, "search, physical");
        bench_tell(&bench, rate(scene.mapped, least[1]), "GB/s", BENCH_TOLD, 0, "search, by pages of 4 KiB");
        bench_tell(&bench, rate(size, least[2]), "GB/s", BENCH_TOLD, 0, "memchr");
        bench_tell(&bench, rate(size, least[3]), "GB/s", BENCH_TOLD, 0, "sum of words");
    }
    vmibus_guest_ram_free(scene.ram);
    fake_tables_deinit(&scene.tables);
    return bench_end(&bench, r);
}
