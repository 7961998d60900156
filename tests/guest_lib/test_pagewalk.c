/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The page walk over synthetic tables: vmibus_guest_translate() and vmibus_guest_read(). */
#include "harness.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "fake_guest.h"

#define MEMORY_PAGES 64
#define LOW UINT64_C(0x00007f1234567abc)
#define HIGH UINT64_C(0xffffffff81234abc)

static _Alignas(4096) uint8_t memory[MEMORY_PAGES * 4096];
static struct fake_guest guest;
static struct vmibus_guest_reader reader;
static struct vmibus_guest_root root;
static struct vmibus_guest_translation found;

static void set_up_levels(uint8_t levels) {
    memset(memory, 0, sizeof(memory));
    guest = (struct fake_guest){.memory = memory, .len = sizeof(memory), .next_table = FAKE_PAGE};
    reader = fake_guest_reader(&guest);
    root = (struct vmibus_guest_root){.cr3 = fake_guest_page(&guest), .levels = levels};
}

static void set_up(void) {
    set_up_levels(4);
}

static int translate(uint64_t gva) {
    /* What was there before must not show through. */
    memset(&found, 0xa5, sizeof(found));
    guest.reads = 0;
    return vmibus_guest_translate(&reader, &root, gva, &found);
}

static uint64_t size_of_level(unsigned int level) {
    return UINT64_C(1) << (12 + 9 * (level - 1));
}

/* --- where addresses lead --------------------------------------------------------------------- */

TEST(test_every_page_size_at_every_depth, .iterations = 12) {
    uint8_t levels = _i / 6 ? 5 : 4;
    unsigned int leaf = 1 + (unsigned int)_i / 2 % 3;
    uint64_t gva = _i % 2 ? HIGH : LOW, size = size_of_level(leaf);
    uint64_t gpa = UINT64_C(0x000fedcb40000000) + (leaf == 1 ? 0x5000 : leaf == 2 ? 0x600000 : 0);

    set_up_levels(levels);
    fake_guest_map(&guest, root, gva, gpa, leaf, ENTRY_WRITABLE);
    ck_assert_int_eq(translate(gva), 0);
    ck_assert_uint_eq(found.gpa, gpa + (gva & (size - 1)));
    ck_assert_uint_eq(found.page_size, size);
    ck_assert_uint_eq(found.level, leaf);
    ck_assert_uint_eq(found.depth, levels - leaf + 1);
    ck_assert_uint_eq(found.rights, VMIBUS_GUEST_WRITABLE);
    for (unsigned int i = 0; i < 5; i++) {
        unsigned int level = levels - i;
        uint64_t *entry = i < found.depth ? fake_guest_entry(&guest, root, gva, level) : NULL;

        ck_assert_uint_eq(found.entries[i].gpa, entry ? (uint64_t)((uint8_t *)entry - memory) : 0);
        ck_assert_uint_eq(found.entries[i].value, entry ? *entry : 0);
    }
}

TEST(test_first_and_last_octet_of_a_page, .setup = set_up) {
    fake_guest_map(&guest, root, 0x200000, 0x40000000, 2, 0);
    ck_assert_int_eq(translate(0x200000), 0);
    ck_assert_uint_eq(found.gpa, 0x40000000);
    ck_assert_int_eq(translate(0x3fffff), 0);
    ck_assert_uint_eq(found.gpa, 0x401fffff);
    ck_assert_int_eq(translate(0x400000), VMIBUS_GUEST_NOT_PRESENT);
    ck_assert_int_eq(translate(0x1fffff), VMIBUS_GUEST_NOT_PRESENT);
}

TEST(test_rights_are_what_all_levels_allow, .setup = set_up) {
    fake_guest_map(&guest, root, LOW, 0x5000, 1, ENTRY_WRITABLE | ENTRY_USER);
    ck_assert_int_eq(translate(LOW), 0);
    ck_assert_uint_eq(found.rights, VMIBUS_GUEST_WRITABLE | VMIBUS_GUEST_USER);
    *fake_guest_entry(&guest, root, LOW, 3) &= ~ENTRY_WRITABLE;
    ck_assert_int_eq(translate(LOW), 0);
    ck_assert_uint_eq(found.rights, VMIBUS_GUEST_USER);
    *fake_guest_entry(&guest, root, LOW, 2) &= ~ENTRY_USER;
    ck_assert_int_eq(translate(LOW), 0);
    ck_assert_uint_eq(found.rights, 0);
    *fake_guest_entry(&guest, root, LOW, 4) |= ENTRY_NX;
    ck_assert_int_eq(translate(LOW), 0);
    ck_assert_uint_eq(found.rights, VMIBUS_GUEST_NO_EXECUTE);
}

TEST(test_bits_that_are_no_address_do_not_become_one, .setup = set_up) {
    /* 52..62 are the system's or protection keys, 8..11 the system's, 12 of a large page PAT. */
    uint64_t ignored = UINT64_C(0x7ff) << 52 | UINT64_C(0xf60);

    fake_guest_map(&guest, root, LOW, 0x7000, 1, ignored | UINT64_C(1) << 7 | UINT64_C(1) << 8);
    for (unsigned int level = 2; level <= 4; level++)
        *fake_guest_entry(&guest, root, LOW, level) |= ignored;
    ck_assert_int_eq(translate(LOW), 0);
    ck_assert_uint_eq(found.gpa, 0x7000 | (LOW & 0xfff));

    fake_guest_map(&guest, root, HIGH, 0x600000, 2, ignored | UINT64_C(1) << 12);
    ck_assert_int_eq(translate(HIGH), 0);
    ck_assert_uint_eq(found.gpa, 0x600000 | (HIGH & 0x1fffff));
}

TEST(test_flags_of_cr3_are_ignored, .setup = set_up) {
    fake_guest_map(&guest, root, LOW, 0x7000, 1, 0);
    root.cr3 |= UINT64_C(0xfff) | UINT64_C(0xfff) << 52;
    ck_assert_int_eq(translate(LOW), 0);
    ck_assert_uint_eq(found.gpa, 0x7000 | (LOW & 0xfff));
}

/* --- where they do not ------------------------------------------------------------------------ */

TEST(test_absent_entry_is_told_with_its_level, .iterations = 9) {
    uint8_t levels = _i < 4 ? 4 : 5;
    unsigned int absent = _i < 4 ? 1 + (unsigned int)_i : (unsigned int)_i - 3;

    set_up_levels(levels);
    fake_guest_map(&guest, root, LOW, 0x7000, 1, 0);
    *fake_guest_entry(&guest, root, LOW, absent) &= ~ENTRY_PRESENT;
    ck_assert_int_eq(translate(LOW), VMIBUS_GUEST_NOT_PRESENT);
    ck_assert_uint_eq(found.level, absent);
    ck_assert_uint_eq(found.depth, levels - absent + 1);
    ck_assert_uint_eq(found.gpa, 0);
    ck_assert_uint_eq(found.page_size, 0);
}

TEST(test_large_bit_above_the_third_level_is_reserved, .iterations = 2) {
    set_up_levels(5);
    *fake_guest_entry(&guest, root, LOW, 4 + (unsigned int)_i) = ENTRY_PRESENT | ENTRY_LARGE;
    ck_assert_int_eq(translate(LOW), VMIBUS_GUEST_RESERVED_BITS);
    ck_assert_uint_eq(found.level, 4 + _i);
    ck_assert_uint_eq(found.page_size, 0);
}

TEST(test_address_bits_below_a_large_page_are_reserved, .setup = set_up) {
    for (unsigned int leaf = 2; leaf <= 3; leaf++) {
        uint64_t gva = leaf == 2 ? LOW : HIGH;

        for (unsigned int bit = 13; bit < 12 + 9 * (leaf - 1); bit++) {
            fake_guest_map(&guest, root, gva, UINT64_C(1) << bit, leaf, 0);
            ck_assert_msg(translate(gva) == VMIBUS_GUEST_RESERVED_BITS, "bit %u", bit);
            ck_assert_uint_eq(found.level, leaf);
        }
        fake_guest_map(&guest, root, gva, size_of_level(leaf), leaf, 0);
        ck_assert_int_eq(translate(gva), 0);
    }
}

TEST(test_absent_entry_may_have_reserved_bits, .setup = set_up) {
    *fake_guest_entry(&guest, root, LOW, 2) = ~ENTRY_PRESENT;
    ck_assert_int_eq(translate(LOW), VMIBUS_GUEST_NOT_PRESENT);
}

TEST(test_address_is_canonical_for_its_depth) {
    static const struct {
        uint64_t gva;
        bool four, five;
    } cases[] = {
        {0x00007fffffffffff, true, true},   {0x0000800000000000, false, true},
        {0xffff7fffffffffff, false, true},  {0xffff800000000000, true, true},
        {0x00ffffffffffffff, false, true},  {0x0100000000000000, false, false},
        {0xfeffffffffffffff, false, false}, {0xff00000000000000, false, true},
        {0x8000000000000000, false, false}, {0xffffffffffffffff, true, true},
        {0, true, true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        for (uint8_t levels = 4; levels <= 5; levels++) {
            bool canonical = levels == 4 ? cases[i].four : cases[i].five;

            set_up_levels(levels);
            ck_assert_msg(translate(cases[i].gva) ==
                              (canonical ? VMIBUS_GUEST_NOT_PRESENT : VMIBUS_GUEST_NON_CANONICAL),
                          "case %zu, %u levels", i, levels);
            ck_assert_uint_eq(guest.reads, canonical ? 1 : 0);
            ck_assert_uint_eq(found.level, levels);
        }
}

TEST(test_only_four_and_five_levels_are_known, .setup = set_up) {
    static const uint8_t levels[] = {0, 1, 2, 3, 6, 7, 64, 255};

    for (size_t i = 0; i < sizeof(levels); i++) {
        root.levels = levels[i];
        ck_assert_int_eq(translate(LOW), -EINVAL);
        ck_assert_uint_eq(guest.reads, 0);
    }
}

TEST(test_failing_reader_is_told, .iterations = 4) {
    static const int failures[] = {VMIBUS_GUEST_TRUNCATED, -EIO};

    for (size_t i = 0; i < 2; i++) {
        set_up();
        fake_guest_map(&guest, root, LOW, 0x7000, 1, 0);
        guest.fail_at_read = _i + 1;
        guest.failure = failures[i];
        ck_assert_int_eq(translate(LOW), failures[i]);
        ck_assert_uint_eq(found.level, 4 - _i);
        ck_assert_uint_eq(found.depth, _i);
        ck_assert_uint_eq(found.gpa, guest.read_gpa[_i]);
    }
}

/* --- hostile tables --------------------------------------------------------------------------- */

TEST(test_p09_entry_outside_ram_is_told_with_its_level, .iterations = 4) {
    unsigned int level = 1 + (unsigned int)_i;
    uint64_t outside = UINT64_C(0x000ffffffffff000);

    set_up();
    fake_guest_map(&guest, root, LOW, 0x7000, 1, 0);
    if (level == 4)
        root.cr3 = outside;
    else
        *fake_guest_entry(&guest, root, LOW, level + 1) = outside | ENTRY_TABLE;
    ck_assert_int_eq(translate(LOW), VMIBUS_GUEST_OUTSIDE_RAM);
    ck_assert_uint_eq(found.level, level);
    ck_assert_uint_eq(found.depth, 4 - level);
    ck_assert_uint_eq(found.gpa, outside | (LOW >> (12 + 9 * (level - 1)) & 0x1ff) << 3);
    ck_assert_uint_eq(found.entries[found.depth].gpa, found.gpa);
}

TEST(test_p09_table_loops_end, .iterations = 2) {
    uint8_t levels = 4 + (uint8_t)_i;
    uint64_t gva = 0;

    /* Every entry leads back to the top table: a self map at every index. */
    set_up_levels(levels);
    for (unsigned int i = 0; i < 512; i++)
        ((uint64_t *)(void *)(memory + root.cr3))[i] = root.cr3 | ENTRY_TABLE;
    for (unsigned int i = 0; i < 200; i++, gva = gva * 6364136223846793005 + 1442695040888963407) {
        uint64_t canonical = gva & UINT64_C(0x00007fffffffffff);

        ck_assert_int_eq(translate(canonical), 0);
        ck_assert_uint_eq(found.gpa, root.cr3 | (canonical & 0xfff));
        ck_assert_uint_eq(guest.reads, levels);
    }
}

TEST(test_self_map_shows_the_tables, .setup = set_up) {
    unsigned int slot = 0x1ed;
    uint64_t window = UINT64_C(0xffff000000000000) | (uint64_t)slot << 39;
    uint64_t *entry;

    fake_guest_map(&guest, root, LOW, 0x7000, 1, 0);
    ((uint64_t *)(void *)(memory + root.cr3))[slot] = root.cr3 | ENTRY_TABLE;
    entry = fake_guest_entry(&guest, root, LOW, 1);
    ck_assert_int_eq(translate(window + (LOW >> 12 << 3)), 0);
    ck_assert_uint_eq(found.gpa, (uint64_t)((uint8_t *)entry - memory));
}

/* Turns every entry that was read into one that leads elsewhere. */
static void spoil(struct fake_guest *fake, uint64_t gpa) {
    uint64_t elsewhere = UINT64_C(0x000abcdef0000000) | ENTRY_TABLE | ENTRY_LARGE;

    memcpy(fake->memory + gpa, &elsewhere, sizeof(elsewhere));
}

TEST(test_p09_tables_that_change_underfoot_are_read_once, .iterations = 3) {
    unsigned int leaf = 1 + (unsigned int)_i;
    uint64_t gpa = leaf == 3 ? 0x40000000 : 0x600000;

    set_up();
    fake_guest_map(&guest, root, LOW, gpa, leaf, ENTRY_WRITABLE);
    guest.after_read = spoil;
    ck_assert_int_eq(translate(LOW), 0);
    ck_assert_uint_eq(found.gpa, gpa + (LOW & (size_of_level(leaf) - 1)));
    ck_assert_uint_eq(found.page_size, size_of_level(leaf));
    ck_assert_uint_eq(guest.reads, 4 - leaf + 1);
    for (size_t i = 0; i < guest.reads; i++)
        for (size_t k = 0; k < i; k++)
            ck_assert_uint_ne(guest.read_gpa[i], guest.read_gpa[k]);
}

/* --- reading ---------------------------------------------------------------------------------- */

static uint8_t octet_at(uint64_t gpa) {
    return (uint8_t)(gpa * 31 + (gpa >> 8));
}

static void fill_page(uint64_t gpa) {
    for (uint64_t i = 0; i < FAKE_PAGE; i++)
        memory[gpa + i] = octet_at(gpa + i);
}

TEST(test_read_follows_each_page, .setup = set_up) {
    static const uint64_t gpas[] = {0x3a000, 0x31000, 0x3c000};
    uint8_t buffer[3 * 4096];
    size_t done = 77;

    for (size_t i = 0; i < 3; i++) {
        fake_guest_map(&guest, root, HIGH + i * FAKE_PAGE, gpas[i], 1, 0);
        fill_page(gpas[i]);
    }
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, HIGH, buffer, 2 * 4096, &done, NULL), 0);
    ck_assert_uint_eq(done, 2 * 4096);
    for (uint64_t i = 0; i < done; i++) {
        uint64_t at = (HIGH & 0xfff) + i;

        ck_assert_uint_eq(buffer[i], octet_at(gpas[at >> 12] + (at & 0xfff)));
    }
}

TEST(test_read_of_nothing_walks_nothing, .setup = set_up) {
    size_t done = 77;

    ck_assert_int_eq(vmibus_guest_read(&reader, &root, LOW, NULL, 0, &done, NULL), 0);
    ck_assert_uint_eq(done, 0);
    ck_assert_uint_eq(guest.reads, 0);
}

TEST(test_read_stops_where_translation_does, .setup = set_up) {
    uint8_t buffer[8192];
    size_t done;

    fake_guest_map(&guest, root, LOW, 0x30000, 1, 0);
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, LOW, buffer, sizeof(buffer), &done, &found),
                     VMIBUS_GUEST_NOT_PRESENT);
    ck_assert_uint_eq(done, 0x1000 - (LOW & 0xfff));
    ck_assert_uint_eq(found.level, 1);
    /* Neither is asked for by everybody. */
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, LOW, buffer, sizeof(buffer), NULL, NULL),
                     VMIBUS_GUEST_NOT_PRESENT);
}

TEST(test_read_does_not_wrap, .iterations = 2) {
    uint64_t top = UINT64_C(0xfffffffffffffff8);
    uint8_t buffer[16];
    size_t done;

    set_up_levels(4 + (uint8_t)_i);
    fake_guest_map(&guest, root, top, 0x30000, 1, 0);
    fake_guest_map(&guest, root, 0, 0x31000, 1, 0);
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, top, buffer, 8, &done, NULL), 0);
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, top, buffer, 9, &done, &found),
                     VMIBUS_GUEST_NON_CANONICAL);
    ck_assert_uint_eq(done, 8);
    ck_assert_uint_eq(found.level, root.levels);
    ck_assert_uint_eq(found.depth, 0);
}

TEST(test_read_stops_at_the_canonical_hole, .setup = set_up) {
    uint64_t last = UINT64_C(0x00007ffffffffffe);
    uint8_t buffer[4];
    size_t done;

    fake_guest_map(&guest, root, last, 0x30000, 1, 0);
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, last, buffer, sizeof(buffer), &done, &found),
                     VMIBUS_GUEST_NON_CANONICAL);
    ck_assert_uint_eq(done, 2);
}

TEST(test_read_of_a_page_outside_ram_has_level_zero, .setup = set_up) {
    uint8_t buffer[4];
    size_t done;

    fake_guest_map(&guest, root, LOW, sizeof(memory), 1, 0);
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, LOW, buffer, sizeof(buffer), &done, &found),
                     VMIBUS_GUEST_OUTSIDE_RAM);
    ck_assert_uint_eq(done, 0);
    ck_assert_uint_eq(found.level, 0);
    ck_assert_uint_eq(found.gpa, sizeof(memory) + (LOW & 0xfff));
}

TEST(test_read_of_a_large_page_goes_as_far_as_ram, .setup = set_up) {
    static uint8_t buffer[sizeof(memory) + 8192];
    uint64_t gva = UINT64_C(0xffff888000000000);
    size_t done;

    fill_page(sizeof(memory) - FAKE_PAGE);
    fake_guest_map(&guest, root, gva, 0, 3, 0);
    ck_assert_int_eq(
        vmibus_guest_read(&reader, &root, gva + 5, buffer, sizeof(buffer), &done, &found),
        VMIBUS_GUEST_OUTSIDE_RAM);
    ck_assert_uint_eq(done, sizeof(memory) - 5);
    ck_assert_uint_eq(found.gpa, sizeof(memory));
    ck_assert_uint_eq(found.level, 0);
    ck_assert_mem_eq(buffer, memory + 5, done);
}

TEST(test_read_passes_errors_on, .setup = set_up) {
    uint8_t buffer[8];
    size_t done = 7;

    fake_guest_map(&guest, root, LOW, 0x30000, 1, 0);
    guest.fail_at_read = 5;
    guest.failure = -EIO;
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, LOW, buffer, sizeof(buffer), &done, NULL),
                     -EIO);
    ck_assert_uint_eq(done, 0);
    root.levels = 3;
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, LOW, buffer, sizeof(buffer), &done, NULL),
                     -EINVAL);
}

HARNESS_SUITE("pagewalk", HARNESS_QUICK)
