/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the symbols of a kernel cost: taking in all of them once from guest RAM, against a memcpy of the tables and of the names
 * that come of them; then looking one up by name and by address, against bsearch() over the same arrays.
 *
 * The kernel is made up: 160,000 names of 6 to 12 tokens, as many as distributions have, in a sealed memory file whose pages
 * lie in disorder.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "fake_tables.h"
#include "guest/linux/kallsyms.h"
#include "guest/linux/kernel.h"

#define SYMBOLS 160000u
#define TEXT UINT64_C(0xffffffff81000000)
#define TABLES (TEXT + (UINT64_C(16) << 20))
#define LOOKUPS 10000u
#define RAM_SIZE (UINT64_C(32) << 20)

static const char LETTERS[] = "abcdefghijklmnopqrstuvwxyz_";
static const char FIRST[] = "binit_top_pgt";

struct rig {
    struct fake_tables tables;
    struct vmibus_guest_ram *ram;
    struct vmibus_guest_reader reader;
    struct vmibus_guest_root root;
    uint64_t note_gpa;
    uint8_t *image;             /* the tables as they lie in the guest, by address */
    size_t image_len;
    struct vmibus_linux *kernel;
    const struct kallsyms *symbols;
    const char **sorted;        /* names by strcmp() */
    uint64_t *addresses;        /* ascending */
    uint32_t order[LOOKUPS];    /* symbols that are looked up */
    uint8_t *copy;
    size_t texts_len;
};

static struct rig rig;

/* --- the kernel ----------------------------------------------------------------------------------- */

struct tables {
    uint64_t names, tokens, token_index, offsets, number, base;
};

static void put(uint64_t *place, const void *octets, size_t len) {
    *place = TABLES + rig.image_len;
    memcpy(rig.image + rig.image_len, octets, len);
    rig.image_len = (rig.image_len + len + 7) & ~(size_t)7;
}

/* Tokens of one to four letters; the first 27 are the letters and '_'. */
static void put_tokens(struct tables *tables) {
    char tokens[KALLSYMS_TOKENS * 8];
    uint16_t index[KALLSYMS_TOKENS];
    size_t len = 0;

    for (unsigned i = 0; i < KALLSYMS_TOKENS; i++) {
        size_t letters = i < 27 ? 1 : 1 + (size_t)(fake_tables_random(&rig.tables) % 4);

        index[i] = (uint16_t)len;
        for (size_t k = 0; k < letters; k++)
            tokens[len++] = LETTERS[i < 27 ? i : fake_tables_random(&rig.tables) % 27];
        tokens[len++] = '\0';
    }
    put(&tables->tokens, tokens, len);
    put(&tables->token_index, index, sizeof(index));
}

/* The first is the top page table, whose address the note tells too: by it the others are proven. */
static void put_names(struct tables *tables) {
    uint8_t *names = malloc((size_t)SYMBOLS * 16), *at = names;
    uint32_t *offsets = calloc(SYMBOLS, sizeof(*offsets));

    if (!names || !offsets)
        abort();
    for (unsigned i = 0; i < SYMBOLS; i++) {
        unsigned n = 6 + (unsigned)(fake_tables_random(&rig.tables) % 7);

        if (i == 0)
            n = sizeof(FIRST) - 1;
        *at++ = (uint8_t)n;
        for (unsigned k = 0; k < n; k++)
            *at++ = i == 0 ? (uint8_t)(strchr(LETTERS, FIRST[k]) - LETTERS) : (uint8_t)fake_tables_random(&rig.tables);
        offsets[i] = (uint32_t)-1 - 64 * i;
    }
    put(&tables->offsets, offsets, SYMBOLS * sizeof(*offsets));
    put(&tables->base, &(uint64_t){TEXT}, 8);
    put(&tables->number, &(uint64_t){SYMBOLS}, 8);
    put(&tables->names, names, (size_t)(at - names));
    free(names);
    free(offsets);
}

static void write_note(const struct tables *tables) {
    snprintf((char *)rig.tables.memory + rig.note_gpa, FAKE_PAGE,
             "OSRELEASE=6.1.0-bench\nSYMBOL(swapper_pg_dir)=%" PRIx64 "\nNUMBER(phys_base)=0\nSYMBOL(kallsyms_names)=%" PRIx64
             "\nSYMBOL(kallsyms_num_syms)=%" PRIx64 "\nSYMBOL(kallsyms_token_table)=%" PRIx64
             "\nSYMBOL(kallsyms_token_index)=%" PRIx64 "\nSYMBOL(kallsyms_offsets)=%" PRIx64
             "\nSYMBOL(kallsyms_relative_base)=%" PRIx64 "\n",
             TEXT, tables->names, tables->number, tables->tokens, tables->token_index, tables->offsets, tables->base);
}

/* --- what is compared ------------------------------------------------------------------------------ */

static int sample_decode(void *context, uint64_t *samples, size_t n) {
    (void)context;
    for (size_t i = 0; i < n; i++) {
        struct vmibus_linux *kernel;
        const struct kallsyms *symbols;
        uint64_t begin;
        int r = vmibus_linux_new(&kernel, &rig.reader, &rig.root, rig.note_gpa);

        if (r)
            return -EIO;
        begin = bench_now();
        r = kallsyms_get(kernel, &symbols);
        samples[i] = bench_now() - begin;
        vmibus_linux_free(kernel);
        if (r)
            return -EIO;
    }
    return 0;
}

/* What comes in, and the names and addresses that come out. */
static int sample_copy(void *context, uint64_t *samples, size_t n) {
    (void)context;
    for (size_t i = 0; i < n; i++) {
        uint64_t begin = bench_now();

        memcpy(rig.copy, rig.image, rig.image_len);
        memcpy(rig.copy + rig.image_len, kallsyms_name(rig.symbols, 0, NULL), rig.texts_len);
        memcpy(rig.copy + rig.image_len + rig.texts_len, rig.addresses, SYMBOLS * sizeof(*rig.addresses));
        __asm__ volatile("" : : "r"(rig.copy) : "memory");
        samples[i] = bench_now() - begin;
    }
    return 0;
}

/* A sample is the mean of LOOKUPS. */
static int sample_lookups(uint64_t *samples, size_t n, int (*look)(uint32_t index)) {
    for (size_t i = 0; i < n; i++) {
        uint64_t begin = bench_now();

        for (unsigned k = 0; k < LOOKUPS; k++)
            if (look(rig.order[k]))
                return -EIO;
        samples[i] = (bench_now() - begin) / LOOKUPS;
    }
    return 0;
}

static int look_by_name(uint32_t index) {
    return kallsyms_find(rig.symbols, kallsyms_name(rig.symbols, index, NULL)) > index;
}

static int compare_names(const void *left, const void *right) {
    return strcmp(*(const char *const *)left, *(const char *const *)right);
}

static int bisect_names(uint32_t index) {
    const char *name = kallsyms_name(rig.symbols, index, NULL);

    return bsearch(&name, rig.sorted, SYMBOLS, sizeof(*rig.sorted), compare_names) == NULL;
}

static int look_by_address(uint32_t index) {
    return kallsyms_at(rig.symbols, rig.addresses[index] + 5) != index;
}

static int compare_addresses(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

    return a < b ? -1 : a > b;
}

static int bisect_addresses(uint32_t index) {
    return bsearch(&rig.addresses[index], rig.addresses, SYMBOLS, sizeof(*rig.addresses), compare_addresses) == NULL;
}

static int sample_by_name(void *context, uint64_t *samples, size_t n) {
    (void)context;
    return sample_lookups(samples, n, look_by_name);
}

static int sample_bisect_names(void *context, uint64_t *samples, size_t n) {
    (void)context;
    return sample_lookups(samples, n, bisect_names);
}

static int sample_by_address(void *context, uint64_t *samples, size_t n) {
    (void)context;
    return sample_lookups(samples, n, look_by_address);
}

static int sample_bisect_addresses(void *context, uint64_t *samples, size_t n) {
    (void)context;
    return sample_lookups(samples, n, bisect_addresses);
}

/* --- building, measuring --------------------------------------------------------------------------- */

static int make_guest(void) {
    const struct vmibus_ram_range range = {.len = RAM_SIZE};
    struct tables tables;
    int r = fake_tables_init(&rig.tables, RAM_SIZE);

    if (r)
        return r;
    rig.image = calloc(1, RAM_SIZE);
    if (!rig.image)
        return -ENOMEM;
    rig.root = (struct vmibus_guest_root){.cr3 = fake_tables_page(&rig.tables), .levels = 4};
    rig.note_gpa = fake_tables_page(&rig.tables);
    put_names(&tables);
    put_tokens(&tables);
    for (size_t at = 0; at < rig.image_len; at += FAKE_PAGE) {
        uint64_t gpa = fake_tables_page(&rig.tables);

        memcpy(rig.tables.memory + gpa, rig.image + at, FAKE_PAGE);
        fake_tables_map(&rig.tables, &rig.root, TABLES + at, gpa);
    }
    fake_tables_map(&rig.tables, &rig.root, TEXT, rig.root.cr3);
    write_note(&tables);
    r = vmibus_guest_ram_new(&rig.ram, &range, 1, &rig.tables.fd, 1);
    if (r == 0)
        rig.reader = vmibus_guest_ram_reader(rig.ram);
    return r;
}

/* What the lookups and their floors stand on. */
static int make_arrays(void) {
    const char *last;
    int r = vmibus_linux_new(&rig.kernel, &rig.reader, &rig.root, rig.note_gpa);

    if (r == 0)
        r = kallsyms_get(rig.kernel, &rig.symbols);
    if (r)
        return -EIO;
    last = kallsyms_name(rig.symbols, SYMBOLS - 1, NULL);
    rig.texts_len = (size_t)(last + strlen(last) - kallsyms_name(rig.symbols, 0, NULL));
    rig.sorted = calloc(SYMBOLS, sizeof(*rig.sorted));
    rig.addresses = calloc(SYMBOLS, sizeof(*rig.addresses));
    rig.copy = malloc(rig.image_len + rig.texts_len + SYMBOLS * sizeof(*rig.addresses));
    if (!rig.sorted || !rig.addresses || !rig.copy)
        return -ENOMEM;
    for (uint32_t i = 0; i < SYMBOLS; i++) {
        rig.sorted[i] = kallsyms_name(rig.symbols, i, NULL);
        rig.addresses[i] = kallsyms_address(rig.symbols, i);
    }
    qsort(rig.sorted, SYMBOLS, sizeof(*rig.sorted), compare_names);
    for (unsigned i = 0; i < LOOKUPS; i++)
        rig.order[i] = (uint32_t)(fake_tables_random(&rig.tables) % SYMBOLS);
    return 0;
}

/* The least of the blocks' medians: what is measured is memory, and others take the machine's away. */
static double least(const struct bench_lane *lane) {
    double value = lane->p50[0];

    for (size_t i = 1; i < lane->n_blocks; i++)
        value = lane->p50[i] < value ? lane->p50[i] : value;
    return value;
}

static int measure(struct bench *bench) {
    struct bench_lane all[] = {
        {.name = "all symbols", .sample = sample_decode},
        {.name = "memcpy", .sample = sample_copy},
    };
    struct bench_lane one[] = {
        {.name = "by name", .sample = sample_by_name},
        {.name = "bsearch of names", .sample = sample_bisect_names},
        {.name = "by address", .sample = sample_by_address},
        {.name = "bsearch of addresses", .sample = sample_bisect_addresses},
    };
    int r = bench_interleave(all, 2, bench->quick ? 25 : 75, 2);

    if (r == 0)
        r = bench_interleave(one, 4, bench->quick ? 25 : 75, 2);
    if (r == 0) {
        bench_tell(bench, least(&all[0]) / 1e6, "ms", BENCH_AT_MOST, 20, "160,000 symbols, once");
        bench_tell(bench, bench_ratio(&all[0], &all[1], false), "x", BENCH_TOLD, 0, "160,000 symbols / memcpy of tables and names");
        bench_tell(bench, least(&one[0]), "ns", BENCH_AT_MOST, 1000, "one by name");
        bench_tell(bench, bench_ratio(&one[0], &one[1], false), "x", BENCH_TOLD, 0, "one by name / bsearch");
        bench_tell(bench, least(&one[2]), "ns", BENCH_AT_MOST, 1000, "one by address");
        bench_tell(bench, bench_ratio(&one[2], &one[3], false), "x", BENCH_TOLD, 0, "one by address / bsearch");
        bench_tell(bench, (double)(rig.image_len + rig.texts_len) / 1048576, "MiB", BENCH_TOLD, 0, "tables and names");
    }
    bench_lanes_free(all, 2);
    bench_lanes_free(one, 4);
    return r;
}

int main(int argc, char **argv) {
    struct bench bench;
    int r = bench_begin(&bench, "symbols", argc, argv);

    if (r)
        return r;
    r = bench_place(true);
    if (r == 0)
        r = make_guest();
    if (r == 0)
        r = make_arrays();
    if (r == 0)
        r = measure(&bench);
    vmibus_linux_free(rig.kernel);
    vmibus_guest_ram_free(rig.ram);
    fake_tables_deinit(&rig.tables);
    free(rig.image);
    free(rig.sorted);
    free(rig.addresses);
    free(rig.copy);
    return bench_end(&bench, r);
}
