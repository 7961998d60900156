/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The parsers of HMP text: flat view, locations, registers, and /proc/PID/stat.  Real answers of
 * QEMU first, then text that lies.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "machine/layout.h"
#include "machine/mtree.h"
#include "machine/registers.h"

#define GIB (UINT64_C(1) << 30)
#define MIB (UINT64_C(1) << 20)
#define HEAD "FlatView #0\n AS \"memory\", root: system\n Root memory region: system\n"

static char *fixture(const char *name, const char *what) {
    const char *top = getenv("VMIBUS_SOURCE_DIR");
    char path[512], *text = calloc(1, 65536);
    FILE *file;

    snprintf(path, sizeof(path), "%s/tests/fixtures/qemu/%s.%s.txt", top ? top : ".", name, what);
    file = fopen(path, "re");
    if (!file)
        test_skip("%s is missing: set VMIBUS_SOURCE_DIR", path);
    ck_assert_uint_lt(fread(text, 1, 65535, file), 65535);
    fclose(file);

    return text;
}

static int parse(const char *text, struct mtree *tree) {
    return mtree_parse(text, strlen(text), tree);
}

static bool is(const struct mtree_range *range, const char *name) {
    return strcmp(range->name, name) == 0 && range->priority == 0 && !range->persistent;
}

/* --- real flat views ------------------------------------------------------------------------- */

/* What each shows: RAM of its backends, below and above 4 GiB, and where the low part ends. */
static const struct {
    const char *name;
    const char *backends[2];
    uint64_t total, low_end, high;
} views[] = {
    {"q35-512M", {"ram0"}, 512 * MIB, 512 * MIB, 0},
    {"q35-512M-qemu64", {"ram0"}, 512 * MIB, 512 * MIB, 0},
    {"pc-512M", {"ram0"}, 512 * MIB, 512 * MIB, 0},
    {"q35-3G", {"ram0"}, 3 * GIB, 2 * GIB, GIB},
    {"pc-4608M-numa2", {"node0", "node1"}, 4608 * MIB, 3 * GIB, 1536 * MIB},
    {"firmware/q35-512M-reset", {"ram0"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/q35-512M", {"ram0"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/q35-2560M", {"ram0"}, 2560 * MIB, 2560 * MIB, 0},
    {"firmware/q35-3G", {"ram0"}, 3 * GIB, 2 * GIB, GIB},
    {"firmware/q35-2500M-below-1537M", {"ram0"}, 2500 * MIB, 1537 * MIB, 963 * MIB},
    {"firmware/pc-3500M", {"ram0"}, 3500 * MIB, 3500 * MIB, 0},
    {"firmware/pc-4G", {"ram0"}, 4 * GIB, 3 * GIB, GIB},
    {"firmware/pc31-512M", {"/objects/ram0"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/pc-512M-private", {"pc.ram"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/microvm-512M", {"ram0"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/microvm-512M-private", {"microvm.ram"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/q35-1G-numa2", {"ram0", "ram1"}, GIB, GIB, 0},
    {"firmware/pc-4608M-numa2", {"node0", "node1"}, 4608 * MIB, 3 * GIB, 1536 * MIB},
    {"firmware/q35-512M-dimm", {"ram0", "mem1"}, 768 * MIB, 512 * MIB, 256 * MIB},
    {"firmware/q35-512M-dimm-readonly", {"ram0", "mem1"}, 768 * MIB, 512 * MIB, 256 * MIB},
    {"firmware/q35-512M-virtio-mem", {"ram0", "mem1"}, 1536 * MIB, 512 * MIB, GIB},
    {"firmware/q35-512M-nvdimm", {"ram0", "mem1"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/q35-512M-nvdimm-readonly", {"ram0", "mem1"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/q35-512M-virtio-pmem", {"ram0"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/q35-512M-ivshmem", {"ram0", "mem1"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/q35-512M-flash", {"ram0"}, 512 * MIB, 512 * MIB, 0},
    {"firmware/q35-512M-smm", {"ram0"}, 512 * MIB, 512 * MIB, 0},
};

#define N_VIEWS ((int)(sizeof(views) / sizeof(*views)))

TEST(test_p12_real_flat_views, .iterations = N_VIEWS) {
    char *text = fixture(views[_i].name, "mtree");
    uint64_t total = 0, low_end = 0, high = 0;
    struct mtree tree;

    ck_assert_int_eq(parse(text, &tree), 0);
    for (size_t i = 0; i < tree.n_ranges; i++) {
        const struct mtree_range *range = &tree.ranges[i];

        if (!is(range, views[_i].backends[0]) &&
            (!views[_i].backends[1] || !is(range, views[_i].backends[1])))
            continue;
        total += range->len;
        if (range->gpa < 4 * GIB)
            low_end = range->gpa + range->len;
        else
            high += range->len;
    }
    /* Less the holes for video memory and the firmware's shadow. */
    ck_assert_uint_le(total, views[_i].total);
    ck_assert_uint_ge(total, views[_i].total - MIB);
    ck_assert_uint_eq(low_end, views[_i].low_end);
    ck_assert_uint_eq(high, views[_i].high);
    mtree_deinit(&tree);
    free(text);
}

/* Each range of a real view lies where gpa2hva says, in one piece; what is neither RAM nor ROM lies nowhere. */
TEST(test_p12_real_locations, .iterations = N_VIEWS) {
    char *view = fixture(views[_i].name, "mtree"), *text = fixture(views[_i].name, "gpa2hva"), *at = text;
    uint64_t first = 0, hva = 0;
    struct mtree tree;
    size_t located = 0;

    ck_assert_int_eq(parse(view, &tree), 0);
    while ((at = strstr(at, "(qemu) gpa2hva "))) {
        uint64_t gpa = strtoull(at + 15, NULL, 16);
        char *answer = strchr(at, '\n') + 1, *end = strchr(answer, '\n');
        const struct mtree_range *range = NULL;

        for (size_t i = 0; i < tree.n_ranges; i++)
            if (gpa >= tree.ranges[i].gpa && gpa - tree.ranges[i].gpa < tree.ranges[i].len)
                range = &tree.ranges[i];
        *end = '\0';
        ck_assert_int_eq(layout_parse_location(answer, gpa, range ? range->name : "", &hva), range != NULL);
        if (range && gpa == range->gpa)
            first = hva;
        if (range)
            ck_assert_uint_eq(hva - first, gpa - range->gpa);
        located += range != NULL;
        at = end + 1;
    }
    ck_assert_uint_ge(located, tree.n_ranges);
    mtree_deinit(&tree);
    free(view);
    free(text);
}

TEST(test_video_memory_has_another_priority) {
    char *text = fixture("firmware/q35-2560M", "mtree");
    struct mtree tree;
    bool found = false;

    ck_assert_int_eq(parse(text, &tree), 0);
    for (size_t i = 0; i < tree.n_ranges; i++)
        if (strcmp(tree.ranges[i].name, "vga.vram") == 0) {
            ck_assert_int_eq(tree.ranges[i].priority, 1);
            found = true;
        }
    ck_assert(found);
    mtree_deinit(&tree);
    free(text);
}

TEST(test_carriage_returns_are_taken) {
    struct mtree tree;

    ck_assert_int_eq(
        parse("FlatView #0\r\n AS \"memory\", root: system\r\n Root memory region: system\r\n"
              "  0000000000001000-0000000000001fff (prio 0, rom): ram0 @0000000000005000\r\n\r\n",
              &tree),
        0);
    ck_assert_uint_eq(tree.n_ranges, 1);
    ck_assert_uint_eq(tree.ranges[0].gpa, 0x1000);
    ck_assert_uint_eq(tree.ranges[0].len, 0x1000);
    ck_assert_uint_eq(tree.ranges[0].offset, 0x5000);
    ck_assert(tree.ranges[0].read_only);
    ck_assert_str_eq(tree.ranges[0].name, "ram0");
    mtree_deinit(&tree);
}

TEST(test_names_may_hold_anything) {
    struct mtree tree;

    ck_assert_int_eq(
        parse(HEAD "  0000000000000000-0000000000000fff (prio -7, nv-ram): a @b (prio 0, ram): c\n",
              &tree),
        0);
    ck_assert_str_eq(tree.ranges[0].name, "a @b (prio 0, ram): c");
    ck_assert(tree.ranges[0].persistent);
    ck_assert_int_eq(tree.ranges[0].priority, -7);
    ck_assert(!tree.ranges[0].read_only);
    mtree_deinit(&tree);
}

/* Every prefix of a real text is refused or parsed, and never read past its end. */
TEST(test_p09_truncated_views) {
    char *text = fixture("q35-3G", "mtree");
    size_t len = strlen(text);

    for (size_t n = 0; n < len; n += n < 2048 ? 1 : 13) {
        char *copy = malloc(n ? n : 1);
        struct mtree tree;

        memcpy(copy, text, n);
        if (mtree_parse(copy, n, &tree) == 0)
            mtree_deinit(&tree);
        free(copy);
    }
    free(text);
}

/* --- text that lies -------------------------------------------------------------------------- */

static const struct {
    const char *text;
    int outcome;
} lies[] = {
    {"", MTREE_NO_VIEW},
    {"garbage\n", MTREE_NO_VIEW},
    {"FlatView #0\n AS \"I/O\", root: io\n Root memory region: io\n  No rendered FlatView\n",
     MTREE_NO_VIEW},
    {"FlatView #0\n AS \"memory", MTREE_MALFORMED},
    {"FlatView #0\n AS \"memory\", root: system\n", MTREE_MALFORMED},
    {"FlatView #0\n AS \"memory\", root: system\nnonsense\n Root memory region: system\n",
     MTREE_MALFORMED},
    {HEAD, MTREE_MALFORMED},
    {HEAD "  No rendered FlatView\n", MTREE_MALFORMED},
    {HEAD "  0000000000000000-0000000000000fff (prio 0, ram)\n", MTREE_MALFORMED},
    {HEAD "  0000000000000000-0000000000000fff (prio 0, ram: x\n", MTREE_MALFORMED},
    {HEAD "  0000000000000000-0000000000000fff (prio , ram): x\n", MTREE_MALFORMED},
    {HEAD "  0000000000000000-0000000000000fff (prio 2147483648, ram): x\n", MTREE_MALFORMED},
    {HEAD "  0000000000000000-0000000000000fff (prio 99999999999, ram): x\n", MTREE_MALFORMED},
    {HEAD "  000000000000000-0000000000000fff (prio 0, ram): x\n", MTREE_MALFORMED},
    {HEAD "  000000000000000G-0000000000000fff (prio 0, ram): x\n", MTREE_MALFORMED},
    {HEAD "  00000000000000000-0000000000000fff (prio 0, ram): x\n", MTREE_MALFORMED},
    /* backwards, wrapping, overlapping, falling */
    {HEAD "  0000000000001000-0000000000000fff (prio 0, ram): x\n", MTREE_MALFORMED},
    {HEAD "  0000000000000000-ffffffffffffffff (prio 0, ram): x\n", MTREE_MALFORMED},
    {HEAD "  0000000000000000-0000000000000fff (prio 0, ram): x @ffffffffffffffff\n",
     MTREE_MALFORMED},
    {HEAD "  0000000000000000-0000000000001fff (prio 0, ram): x\n  "
          "0000000000001000-0000000000002fff (prio 0, ram): x\n",
     MTREE_MALFORMED},
    {HEAD "  0000000000000000-0000000000001fff (prio 0, i/o): x\n  "
          "0000000000001000-0000000000002fff (prio 0, ram): x\n",
     MTREE_MALFORMED},
    {HEAD "  0000000000002000-0000000000002fff (prio 0, ram): x\n  "
          "0000000000000000-0000000000000fff (prio 0, ram): x\n",
     MTREE_MALFORMED},
    /* two views of memory: which one counts nobody knows */
    {HEAD "  0000000000000000-0000000000000fff (prio 0, ram): x\n\n" HEAD
          "  0000000000000000-0000000000001fff (prio 0, ram): x\n",
     MTREE_NO_VIEW},
};

TEST(test_p12_lies_are_refused, .iterations = (int)(sizeof(lies) / sizeof(*lies))) {
    struct mtree tree;

    ck_assert_int_eq(parse(lies[_i].text, &tree), lies[_i].outcome);
    ck_assert_ptr_null(tree.ranges);
}

TEST(test_p09_ranges_are_bounded) {
    char *text = malloc(80 * (MTREE_RANGES_BOUND + 2) + sizeof(HEAD)), *at = stpcpy(text, HEAD);
    struct mtree tree;

    for (unsigned int i = 0; i <= MTREE_RANGES_BOUND; i++)
        at += sprintf(at, "  %016x-%016x (prio 0, i/o): x\n", i * 16, i * 16 + 15);
    ck_assert_int_eq(parse(text, &tree), MTREE_TOO_MANY);
    free(text);
}

TEST(test_overlong_name_reads_as_empty) {
    char text[1024] = HEAD "  0000000000000000-0000000000000fff (prio 0, ram): ";
    struct mtree tree;

    memset(text + strlen(text), 'x', MTREE_NAME_BOUND + 1);
    ck_assert_int_eq(parse(text, &tree), 0);
    ck_assert_str_eq(tree.ranges[0].name, "");
    mtree_deinit(&tree);
}

/* --- locations ------------------------------------------------------------------------------- */

TEST(test_locations) {
    const char *good = "Host virtual address for 0x9f000 (ram0) is 0x7f72f809e000\r\n";
    uint64_t hva = 0;

    ck_assert(layout_parse_location(good, 0x9f000, "ram0", &hva));
    ck_assert_uint_eq(hva, UINT64_C(0x7f72f809e000));
    ck_assert(!layout_parse_location(good, 0x9f001, "ram0", &hva));
    ck_assert(!layout_parse_location(good, 0x9f000, "ram", &hva));
    ck_assert(
        !layout_parse_location("Memory at address 0xa0000 is not RAM\r\n", 0xa0000, "ram0", &hva));
    ck_assert(!layout_parse_location("Host virtual address for 0x0 (r) is 0x\r\n", 0, "r", &hva));
    ck_assert(!layout_parse_location("Host virtual address for 0x0 (r) is 0x0\r\n", 0, "r", &hva));
    ck_assert(!layout_parse_location("Host virtual address for 0x0 (r) is 0x11112222333344445\r\n",
                                     0, "r", &hva));
    ck_assert(!layout_parse_location("Host virtual address for 0x0 (r) is 0x1000 and more\r\n", 0,
                                     "r", &hva));
}

static struct vmibus_layout_range range_at(uint64_t gpa, uint64_t len, uint64_t location,
                                           uint16_t flags) {
    return (struct vmibus_layout_range){
        .gpa = gpa, .len = len, .location = location, .object = 0xffff, .flags = flags};
}

TEST(test_neighbours_join_and_aliases_are_marked) {
    struct vmibus_layout_range ranges[] = {
        range_at(0, 0x1000, 0x7000, 0),
        range_at(0x1000, 0x1000, 0x8000, 0),
        range_at(0x2000, 0x1000, 0x9000, VMIBUS_RANGE_READ_ONLY),
        range_at(0x10000, 0x1000, 0x7800, 0),
    };
    struct layout_ranges list = {ranges, 4};

    ck_assert(layout_finish(&list));
    ck_assert_uint_eq(list.n_ranges, 3);
    ck_assert_uint_eq(ranges[0].len, 0x2000);
    ck_assert_uint_eq(ranges[1].flags, VMIBUS_RANGE_READ_ONLY);
    ck_assert_uint_eq(ranges[2].flags, VMIBUS_RANGE_ALIAS);
}

TEST(test_p12_wrapping_ranges_are_refused) {
    struct vmibus_layout_range wraps = range_at(0, 0x1000, UINT64_MAX - 0xffe, 0);
    struct vmibus_layout_range high = range_at(UINT64_MAX, 2, 0x1000, 0);
    struct vmibus_layout_range overlap[] = {range_at(0, 0x2000, 0x7000, 0),
                                            range_at(0x1000, 0x1000, 0x9000, 0)};

    ck_assert(!layout_finish(&(struct layout_ranges){&wraps, 1}));
    ck_assert(!layout_finish(&(struct layout_ranges){&high, 1}));
    ck_assert(!layout_finish(&(struct layout_ranges){overlap, 2}));
}

/* --- registers ------------------------------------------------------------------------------- */

#define PAGING(cr4) "CR0=80050033 CR2=0 CR3=0000000000200000 CR4=" cr4 "\r\nEFER=0000000000000d01\r\n"

TEST(test_registers_tell_depth_and_a_probe) {
    static const struct {
        const char *text;
        uint64_t probe;
        uint8_t levels;
        bool in_process;
    } vcpus[] = {
        {"CPU#0\r\nRIP=ffffffff81000000 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\r\n"
         "IDT=     fffffe0000000000 00000fff\r\n" PAGING("00350ef0"),
         UINT64_C(0xffffffff81000000), 4, false},
        {"CPU#0\r\nRIP=0000000000401000 RFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=0\r\n"
         "IDT=     fffffe0000000000 00000fff\r\n" PAGING("00351ef0"),
         UINT64_C(0xfffffe0000000000), 5, true},
        /* What is not told, or not understood. */
        {"CPU#0\r\n" PAGING("20"), 0, 4, false},
        {"CPU#0\r\nRIP=ffffffff81000000 RFL=\r\nIDT=\r\n" PAGING("20"), 0, 4, false},
        {"CPU#0\r\nRIP=ffffffff81000000fff CPL=0\r\nIDT=     \r\n" PAGING("20"), 0, 4, false},
    };
    struct registers registers;
    static const char smm[] = "CPU#0\r\nRIP=1000 RFL=2 [-] CPL=0 II=0 A20=1 SMM=1 HLT=0\r\n" PAGING("20");

    for (size_t i = 0; i < sizeof(vcpus) / sizeof(vcpus[0]); i++) {
        registers_parse(vcpus[i].text, strlen(vcpus[i].text), &registers);
        ck_assert_uint_eq(registers.n_cr3, 1);
        ck_assert_uint_eq(registers.probe[0], vcpus[i].probe);
        ck_assert_uint_eq(registers.levels[0], vcpus[i].levels);
        ck_assert_uint_eq(registers.in_process[0], vcpus[i].in_process);
    }
    registers_parse(smm, strlen(smm), &registers);
    ck_assert_uint_eq(registers.n_vcpus, 1);
    ck_assert_uint_eq(registers.n_cr3, 0);
}

TEST(test_registers_of_a_guest_that_is_up) {
    static const struct {
        const char *name;
        size_t vcpus;
    } guests[] = {{"q35-512M", 1}, {"pc-4608M-numa2", 2}};

    for (size_t i = 0; i < 2; i++) {
        char *text = fixture(guests[i].name, "registers");
        struct registers registers;

        registers_parse(text, strlen(text), &registers);
        ck_assert_uint_eq(registers.n_vcpus, guests[i].vcpus);
        ck_assert_uint_eq(registers.n_cr3, guests[i].vcpus);
        ck_assert_uint_ne(registers.cr3[0], 0);
        ck_assert(registers.levels[0] == 4 || registers.levels[0] == 5);
        ck_assert_uint_ge(registers.probe[0], UINT64_C(0xff00000000000000)); /* idle, in its kernel */
        ck_assert(!registers.in_process[0]);
        ck_assert_uint_ne(registers_fingerprint(text, strlen(text)),
                          registers_fingerprint(text, strlen(text) - 1));
        free(text);
    }
}

#define LONG_MODE                                                                                  \
    "CPU#0\nCR0=80050033 CR2=0 CR3=000000000a5c2000 CR4=00350ef0\nEFER=0000000000000d01\n"

TEST(test_only_long_mode_counts) {
    static const struct {
        const char *text;
        size_t n_cr3;
    } texts[] = {
        {LONG_MODE, 1},
        {LONG_MODE LONG_MODE, 2},
        {"", 0},
        {"CPU#0\nCR0=00050033 CR2=0 CR3=a5c2000 CR4=00350ef0\nEFER=d01\n", 0}, /* no paging */
        {"CPU#0\nCR0=80050033 CR2=0 CR3=a5c2000 CR4=00350ed0\nEFER=d01\n", 0}, /* no PAE */
        {"CPU#0\nCR0=80050033 CR2=0 CR3=a5c2000 CR4=00350ef0\nEFER=901\n", 0}, /* no long mode */
        {"CPU#0\nCR0=80050033 CR2=0 CR4=00350ef0\nEFER=d01\n", 0},
        {"CPU#0\nCR0=80050033 CR3=11112222333344445 CR4=00350ef0\nEFER=d01\n", 0},
        {"CPU#0\nCR0=80050033 CR3=", 0},
        {"CPU#0\nCR0=", 0},
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
        struct registers registers;

        registers_parse(texts[i].text, strlen(texts[i].text), &registers);
        ck_assert_msg(registers.n_cr3 == texts[i].n_cr3, "text %zu: %zu", i, registers.n_cr3);
    }
}

TEST(test_p09_vcpus_are_bounded) {
    size_t len = sizeof(LONG_MODE) - 1;
    char *text = malloc(len * 100);
    struct registers registers;

    for (size_t i = 0; i < 100; i++)
        memcpy(text + i * len, LONG_MODE, len);
    registers_parse(text, len * 100, &registers);
    ck_assert_uint_eq(registers.n_vcpus, 100);
    ck_assert_uint_eq(registers.n_cr3, REGISTERS_VCPUS_BOUND);
    free(text);
}

HARNESS_SUITE("qemu: texts", HARNESS_QUICK)
