/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Finding and proving the root of a Linux kernel in synthetic RAM: vmibus_guest_find_linux() and
 * vmibus_guest_search_…().
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_guest.h"

#define MEMORY_LEN (UINT64_C(16) << 20)
#define TABLES (UINT64_C(1) << 20)    /* where tables are put */
#define NOTE_GPA (UINT64_C(5) << 20)  /* where notes are put, unless a test says otherwise */
#define PHYS_BASE (-(UINT64_C(2) << 20)) /* negative, as with KASLR it may be */

static int memory_fd;
static struct fake_guest guest;
static struct vmibus_guest_ram *ram;
static struct fake_kernel kernel;
static struct vmibus_guest_kernel found;

static void set_up_levels(uint8_t levels) {
    const struct vmibus_ram_range range = {.len = MEMORY_LEN};

    memory_fd = memfd_create("ram", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(memory_fd, MEMORY_LEN), 0);
    guest = (struct fake_guest){.len = MEMORY_LEN, .next_table = TABLES};
    guest.memory = mmap(NULL, MEMORY_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
    ck_assert_ptr_ne(guest.memory, MAP_FAILED);
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, &range, 1, &memory_fd, 1), 0);
    kernel = (struct fake_kernel){.levels = levels, .phys_base = PHYS_BASE};
    fake_guest_boot(&guest, &kernel);
}

static void set_up(void) {
    set_up_levels(4);
}

static void tear_down(void) {
    vmibus_guest_ram_free(ram);
    munmap(guest.memory, MEMORY_LEN);
    close(memory_fd);
}

#define FIXTURE .setup = set_up, .teardown = tear_down

static int find(const uint64_t *cr3, size_t n) {
    const struct vmibus_guest_hints hints = {.vcpu_cr3 = cr3, .n_vcpu_cr3 = n};
    struct vmibus_guest_kernel zeros = {0};
    int r;

    memset(&found, 0xa5, sizeof(found));
    r = vmibus_guest_find_linux(ram, &hints, &found);
    if (r != 0)
        ck_assert_mem_eq(&found, &zeros, sizeof(found));
    return r;
}

static int find_with(uint64_t cr3) {
    return find(&cr3, 1);
}

static int find_without_hints(void) {
    return find(NULL, 0);
}

static void assert_is_kernel(const struct fake_kernel *expected, uint64_t note_gpa) {
    ck_assert_uint_eq(found.root.cr3, expected->root.cr3);
    ck_assert_uint_eq(found.root.levels, expected->levels);
    ck_assert_uint_eq(found.note.gpa, note_gpa);
    ck_assert_uint_eq(found.note.swapper_pg_dir, expected->swapper);
    ck_assert_str_eq(found.note.release, "6.1.0-99-test");
}

/* A second kernel, elsewhere in RAM and in its addresses. */
static struct fake_kernel boot_another(void) {
    struct fake_kernel another = {.levels = kernel.levels,
                                  .phys_base = kernel.phys_base - UINT64_C(0x1000000)};

    fake_guest_boot(&guest, &another);
    return another;
}

/* --- found ------------------------------------------------------------------------------------ */

TEST(test_note_alone_is_noted, .iterations = 2) {
    size_t len;

    set_up_levels(4 + (uint8_t)_i);
    len = fake_guest_note(&guest, NOTE_GPA, &kernel);
    ck_assert_int_eq(find_without_hints(), 0);
    assert_is_kernel(&kernel, NOTE_GPA);
    ck_assert_uint_eq(found.note.len, len);
    ck_assert_uint_eq(found.confidence, VMIBUS_CONFIDENCE_NOTED);
    ck_assert_uint_eq(found.evidence, VMIBUS_EVIDENCE_NOTE | VMIBUS_EVIDENCE_NOTE_MAPPED);
    ck_assert_uint_eq(found.vcpu_cr3, 0);
    ck_assert_int_eq(vmibus_guest_find_linux(ram, NULL, &found), 0);
    assert_is_kernel(&kernel, NOTE_GPA);
    tear_down();
}

TEST(test_vcpu_proves_the_note, .iterations = 2) {
    uint64_t process;

    set_up_levels(4 + (uint8_t)_i);
    fake_guest_note(&guest, NOTE_GPA, &kernel);
    process = fake_guest_process(&guest, &kernel);
    ck_assert_int_eq(find_with(process), 0);
    assert_is_kernel(&kernel, NOTE_GPA);
    ck_assert_uint_eq(found.confidence, VMIBUS_CONFIDENCE_PROVEN);
    ck_assert_uint_eq(found.evidence, VMIBUS_EVIDENCE_NOTE | VMIBUS_EVIDENCE_NOTE_MAPPED |
                                          VMIBUS_EVIDENCE_VCPU_CR3);
    ck_assert_uint_eq(found.vcpu_cr3, process);
    ck_assert_int_eq(find_with(kernel.root.cr3), 0);
    ck_assert_uint_eq(found.confidence, VMIBUS_CONFIDENCE_PROVEN);
    tear_down();
}

TEST(test_vcpu_in_user_mode_with_isolated_tables_proves_it_too, FIXTURE) {
    uint64_t process;

    fake_guest_note(&guest, NOTE_GPA, &kernel);
    process = fake_guest_process(&guest, &kernel);
    /* With the flags that Linux sets: PCID, its user bit, no flush. */
    ck_assert_int_eq(find_with((process + FAKE_PAGE) | 0x806 | UINT64_C(1) << 63), 0);
    ck_assert_uint_eq(found.vcpu_cr3, process);
    ck_assert_uint_eq(found.confidence, VMIBUS_CONFIDENCE_PROVEN);
}

TEST(test_one_vcpu_that_agrees_suffices, FIXTURE) {
    uint64_t cr3[] = {0x7000, UINT64_MAX, MEMORY_LEN, 0, 0};

    fake_guest_note(&guest, NOTE_GPA, &kernel);
    cr3[4] = fake_guest_process(&guest, &kernel);
    ck_assert_int_eq(find(cr3, 4), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(find(cr3, 5), 0);
    ck_assert_uint_eq(found.vcpu_cr3, cr3[4]);
}

TEST(test_note_is_found_on_any_page, .iterations = 5) {
    /* The first, the last, and those about the end of what is read at once. */
    static const uint64_t gpas[] = {0, MEMORY_LEN - FAKE_PAGE, 0x83f000, 0x840000, 0x841000};

    set_up();
    memset(guest.memory + (UINT64_C(8) << 20), 'O', UINT64_C(1) << 20);
    fake_guest_note(&guest, gpas[_i], &kernel);
    ck_assert_int_eq(find_without_hints(), 0);
    assert_is_kernel(&kernel, gpas[_i]);
    tear_down();
}

TEST(test_note_is_found_in_any_range) {
    /* The low range shows the end of the file, the high one its beginning. */
    uint64_t half = MEMORY_LEN / 2, high = UINT64_C(0x100000000);
    const struct vmibus_ram_range ranges[] = {
        {.gpa = high, .len = half, .offset = 0},
        {.gpa = 0, .len = half - FAKE_PAGE, .offset = half},
    };

    set_up();
    vmibus_guest_ram_free(ram);
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, ranges, 2, &memory_fd, 1), 0);
    /* The fake guest's own addresses are those of the file. */
    kernel.root.cr3 = half + TABLES;
    guest.next_table = half + TABLES + FAKE_PAGE;
    *fake_guest_entry(&guest, kernel.root, kernel.swapper, 4) = (TABLES + FAKE_PAGE) | ENTRY_TABLE;
    *(uint64_t *)(void *)(guest.memory + half + TABLES + FAKE_PAGE + 8 * 510) =
        (TABLES + 2 * FAKE_PAGE) | ENTRY_TABLE;
    *(uint64_t *)(void *)(guest.memory + half + TABLES + 2 * FAKE_PAGE +
                          8 * (kernel.swapper >> 21 & 511)) =
        (TABLES + 3 * FAKE_PAGE) | ENTRY_TABLE;
    *(uint64_t *)(void *)(guest.memory + half + TABLES + 3 * FAKE_PAGE +
                          8 * (kernel.swapper >> 12 & 511)) = TABLES | ENTRY_PRESENT;
    fake_guest_note(&guest, NOTE_GPA, &kernel);
    ck_assert_int_eq(find_with(TABLES), 0);
    kernel.root.cr3 = TABLES;
    assert_is_kernel(&kernel, high + NOTE_GPA);
    /* What lies in the file, but in no range, is not the guest's. */
    memset(guest.memory + NOTE_GPA, 0, FAKE_PAGE);
    fake_guest_note(&guest, MEMORY_LEN - FAKE_PAGE, &kernel);
    ck_assert_int_eq(find_with(TABLES), VMIBUS_GUEST_NOT_FOUND);
    tear_down();
}

TEST(test_note_is_found_behind_half_a_page, FIXTURE) {
    const struct vmibus_ram_range range = {
        .gpa = 0x800, .len = MEMORY_LEN - 0x800, .offset = 0x800};

    memset(guest.memory, 'x', TABLES);
    vmibus_guest_ram_free(ram);
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, &range, 1, &memory_fd, 1), 0);
    fake_guest_note(&guest, FAKE_PAGE, &kernel);
    ck_assert_int_eq(find_without_hints(), 0);
    assert_is_kernel(&kernel, FAKE_PAGE);
}

/* --- not found -------------------------------------------------------------------------------- */

TEST(test_guest_without_a_note_is_not_found, FIXTURE) {
    ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_NOT_FOUND);
    ck_assert_int_eq(find_with(kernel.root.cr3), VMIBUS_GUEST_NOT_FOUND);
}

TEST(test_note_inside_a_page_is_not_one, FIXTURE) {
    fake_guest_note(&guest, NOTE_GPA + 24, &kernel);
    ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_NOT_FOUND);
}

TEST(test_p11_search_does_not_fill_holes, FIXTURE) {
    struct stat before, after;

    fake_guest_note(&guest, NOTE_GPA, &kernel);
    ck_assert_int_eq(fstat(memory_fd, &before), 0);
    ck_assert_int_lt(before.st_blocks, 100 * 8);
    ck_assert_int_eq(find_with(UINT64_C(12) << 20), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(find_without_hints(), 0);
    ck_assert_int_eq(fstat(memory_fd, &after), 0);
    ck_assert_int_eq(before.st_blocks, after.st_blocks);
}

/* --- not believed ----------------------------------------------------------------------------- */

TEST(test_p12_stale_note_is_not_believed_against_a_live_vcpu, FIXTURE) {
    /* The machine was reset: note and tables of the old kernel are still there, and still prove
     * each other; the new kernel runs, and has not written its note. */
    struct fake_kernel live = boot_another();

    fake_guest_note(&guest, NOTE_GPA, &kernel);
    ck_assert_int_eq(find_with(fake_guest_process(&guest, &live)), VMIBUS_GUEST_UNPROVEN);
    /* Firmware, or the early kernel, maps all of low memory where it is, and nothing above. */
    fake_guest_map(&guest, (struct vmibus_guest_root){.cr3 = 0x3000, .levels = 4}, 0, 0, 3,
                   ENTRY_WRITABLE);
    ck_assert_int_eq(find_with(0x3000), VMIBUS_GUEST_UNPROVEN);
}

TEST(test_p12_stale_note_is_not_believed_against_the_same_kernel_elsewhere, FIXTURE) {
    /* The same addresses, but loaded to another place. */
    struct fake_kernel live = {.levels = 4,
                               .phys_base = kernel.phys_base + guest.next_table - kernel.root.cr3};

    fake_guest_boot(&guest, &live);
    ck_assert_uint_eq(live.swapper, kernel.swapper);
    fake_guest_note(&guest, NOTE_GPA, &kernel);
    ck_assert_int_eq(find_with(fake_guest_process(&guest, &live)), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(find_with(kernel.root.cr3), 0);
}

TEST(test_p12_vcpu_tells_the_live_note_from_stale_ones, .iterations = 2) {
    struct fake_kernel live;
    uint64_t process, note_gpa;

    set_up();
    live = boot_another();
    process = fake_guest_process(&guest, &live);
    note_gpa = _i ? NOTE_GPA + FAKE_PAGE : NOTE_GPA - FAKE_PAGE;
    fake_guest_note(&guest, NOTE_GPA, &kernel);
    fake_guest_note(&guest, note_gpa, &live);
    ck_assert_int_eq(find_with(process), 0);
    assert_is_kernel(&live, note_gpa);
    ck_assert_uint_eq(found.confidence, VMIBUS_CONFIDENCE_PROVEN);
    tear_down();
}

TEST(test_p12_two_kernels_without_a_vcpu_are_not_guessed, FIXTURE) {
    struct fake_kernel another = boot_another();

    fake_guest_note(&guest, NOTE_GPA, &kernel);
    fake_guest_note(&guest, NOTE_GPA + FAKE_PAGE, &another);
    ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_UNPROVEN);
}

TEST(test_two_notes_of_one_kernel_are_one, FIXTURE) {
    fake_guest_note(&guest, NOTE_GPA, &kernel);
    fake_guest_note(&guest, NOTE_GPA + FAKE_PAGE, &kernel);
    ck_assert_int_eq(find_without_hints(), 0);
    assert_is_kernel(&kernel, NOTE_GPA);
}

TEST(test_torn_note_beside_a_good_one_does_no_harm, FIXTURE) {
    fake_guest_note(&guest, NOTE_GPA, &kernel);
    guest.memory[NOTE_GPA + 60] = 0;
    ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_UNPROVEN);
    fake_guest_note(&guest, NOTE_GPA + FAKE_PAGE, &kernel);
    ck_assert_int_eq(find_without_hints(), 0);
    assert_is_kernel(&kernel, NOTE_GPA + FAKE_PAGE);
}

TEST(test_p12_tables_must_map_themselves, FIXTURE) {
    uint64_t *entry = fake_guest_entry(&guest, kernel.root, kernel.swapper, 1), proper = *entry;
    static const uint64_t flips[] = {ENTRY_PRESENT, FAKE_PAGE, UINT64_C(1) << 51};

    fake_guest_note(&guest, NOTE_GPA, &kernel);
    for (size_t i = 0; i < sizeof(flips) / sizeof(flips[0]); i++) {
        *entry = proper ^ flips[i];
        ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_UNPROVEN);
        ck_assert_int_eq(find_with(kernel.root.cr3), VMIBUS_GUEST_UNPROVEN);
    }
    *entry = proper;
    ck_assert_int_eq(find_without_hints(), 0);
}

TEST(test_p12_mapping_open_to_user_mode_is_no_kernels, FIXTURE) {
    fake_guest_note(&guest, NOTE_GPA, &kernel);
    *fake_guest_entry(&guest, kernel.root, kernel.swapper, 1) |= ENTRY_USER;
    ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_UNPROVEN);
}

TEST(test_p12_address_outside_the_kernels_image_is_no_kernels, .iterations = 6) {
    /* A process can write a note, make tables, and map them where it wants: but not there. */
    static const uint64_t addresses[] = {0x400000, UINT64_C(0xffff888000000000), 0,
                                         UINT64_C(0xffffffff7ffff000),
                                         UINT64_C(0xffffffffc0000000), UINT64_MAX - 0xfff};

    set_up();
    kernel.swapper = addresses[_i];
    kernel.phys_base = kernel.root.cr3 + FAKE_IMAGE - kernel.swapper;
    fake_guest_map(&guest, kernel.root, kernel.swapper, kernel.root.cr3, 1, ENTRY_WRITABLE);
    fake_guest_note(&guest, NOTE_GPA, &kernel);
    ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(find_with(kernel.root.cr3), VMIBUS_GUEST_UNPROVEN);
    tear_down();
}

TEST(test_p09_impossible_roots_are_refused, FIXTURE) {
    static const uint64_t bases[] = {1, 0x800, UINT64_C(1) << 52, UINT64_C(1) << 63, MEMORY_LEN};
    struct fake_kernel claim = kernel;

    for (size_t i = 0; i < sizeof(bases) / sizeof(bases[0]); i++) {
        claim.phys_base = kernel.phys_base + bases[i];
        fake_guest_note(&guest, NOTE_GPA, &claim);
        ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_UNPROVEN);
        ck_assert_int_eq(find_with(kernel.root.cr3), VMIBUS_GUEST_UNPROVEN);
    }
    /* An address within the table: it is mapped where it should be, but no table begins there. */
    claim = kernel;
    claim.swapper += 0x800;
    fake_guest_note(&guest, NOTE_GPA, &claim);
    ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_UNPROVEN);
    /* A sound table, but at 0, which means that there is none. */
    claim = (struct fake_kernel){.levels = 4};
    guest.next_table = 0;
    fake_guest_boot(&guest, &claim);
    fake_guest_note(&guest, NOTE_GPA, &claim);
    ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_UNPROVEN);
}

TEST(test_p12_depth_must_be_right, FIXTURE) {
    struct fake_kernel claim = kernel;

    claim.levels = 5;
    fake_guest_note(&guest, NOTE_GPA, &claim);
    ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_UNPROVEN);
    ck_assert_int_eq(find_with(kernel.root.cr3), VMIBUS_GUEST_UNPROVEN);
}

/* --- a hostile guest, a hostile host process -------------------------------------------------- */

TEST(test_p09_flood_of_kernels_does_not_hide_the_live_one, FIXTURE) {
    uint64_t process;

    for (int i = 0; i < 40; i++) {
        struct fake_kernel another = {.levels = 4, .phys_base = PHYS_BASE};

        fake_guest_boot(&guest, &another);
        fake_guest_note(&guest, NOTE_GPA + (uint64_t)i * FAKE_PAGE, &another);
    }
    fake_guest_note(&guest, NOTE_GPA + 40 * FAKE_PAGE, &kernel);
    process = fake_guest_process(&guest, &kernel);
    ck_assert_int_eq(find_with(process), 0);
    assert_is_kernel(&kernel, NOTE_GPA + 40 * FAKE_PAGE);
    ck_assert_int_eq(find_without_hints(), VMIBUS_GUEST_UNPROVEN);
}

TEST(test_p09_truncated_ram_ends_the_search, FIXTURE) {
    struct vmibus_guest_search *search;
    int r;

    fake_guest_note(&guest, NOTE_GPA, &kernel);
    memset(guest.memory + (UINT64_C(2) << 20), 'x', UINT64_C(1) << 20);
    ck_assert_int_eq(vmibus_guest_search_new(&search, ram), 0);
    ck_assert_int_eq(vmibus_guest_search_step(search, NULL, UINT64_C(1) << 19, &found),
                     VMIBUS_GUEST_UNFINISHED);
    ck_assert_int_eq(ftruncate(memory_fd, UINT64_C(2) << 20), 0);
    while ((r = vmibus_guest_search_step(search, NULL, UINT64_C(1) << 20, &found)) ==
           VMIBUS_GUEST_UNFINISHED)
        ;
    ck_assert_int_eq(r, VMIBUS_GUEST_NOT_FOUND);
    vmibus_guest_search_free(search);
}

TEST(test_page_that_the_host_lost_is_passed_over, FIXTURE) {
    /* Memory of this process, with a gap: reading that gives EIO, as a poisoned page does. */
    struct vmibus_ram_range range = {.len = MEMORY_LEN, .offset = (uintptr_t)guest.memory};
    int fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);

    fake_guest_note(&guest, NOTE_GPA, &kernel);
    ck_assert_int_eq(munmap(guest.memory + NOTE_GPA - FAKE_PAGE, FAKE_PAGE), 0);
    ck_assert_int_eq(munmap(guest.memory + NOTE_GPA + FAKE_PAGE, FAKE_PAGE), 0);
    ck_assert_int_eq(munmap(guest.memory + MEMORY_LEN - FAKE_PAGE, FAKE_PAGE), 0);
    vmibus_guest_ram_free(ram);
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, &range, 1, &fd, 1), 0);
    ck_assert_int_eq(find_without_hints(), 0);
    assert_is_kernel(&kernel, NOTE_GPA);
    ck_assert_int_eq(find_with(NOTE_GPA + FAKE_PAGE), VMIBUS_GUEST_UNPROVEN);
    close(fd);
}

/* --- the short way: by what the image of a vCPU's kernel points to ---------------------------- */

#define DATA_GPA (UINT64_C(8) << 20) /* 2 MiB of data of the image */
#define DATA_LEN (UINT64_C(2) << 20)
#define DATA_GVA (FAKE_IMAGE + (UINT64_C(0x12) << 21))

/* Where the direct map begins: anywhere. */
static uint64_t direct_map(void) {
    return kernel.levels == 5 ? UINT64_C(0xff3e123440000000) : UINT64_C(0xffff9a5640000000);
}

static void store(uint64_t gpa, uint64_t value) {
    memcpy(guest.memory + gpa, &value, sizeof(value));
}

/* Gives the kernel a direct map, and data that hold the address of its note. */
static void make_image(uint8_t levels, bool large) {
    tear_down();
    set_up_levels(levels);
    for (uint64_t gpa = 0; gpa < MEMORY_LEN; gpa += DATA_LEN)
        fake_guest_map(&guest, kernel.root, direct_map() + gpa, gpa, 2, ENTRY_WRITABLE | ENTRY_NX);
    if (large)
        fake_guest_map(&guest, kernel.root, DATA_GVA, DATA_GPA, 2, ENTRY_WRITABLE | ENTRY_NX);
    for (uint64_t offset = 0; !large && offset < DATA_LEN; offset += FAKE_PAGE)
        fake_guest_map(&guest, kernel.root, DATA_GVA + offset, DATA_GPA + offset, 1,
                       ENTRY_WRITABLE | ENTRY_NX);
    store(DATA_GPA + 0x123458, direct_map() + NOTE_GPA);
    fake_guest_note(&guest, NOTE_GPA, &kernel);
}

static void assert_short_way(void) {
    assert_is_kernel(&kernel, NOTE_GPA);
    ck_assert_uint_eq(found.confidence, VMIBUS_CONFIDENCE_PROVEN);
    ck_assert_uint_eq(found.swept, 0);
    ck_assert_uint_lt(found.octets, UINT64_C(3) << 20);
}

TEST(test_image_leads_to_the_note, FIXTURE, .iterations = 4) {
    const uint8_t levels[] = {4, 5}, wrong[] = {9};
    struct vmibus_guest_hints hints = {.n_vcpu_cr3 = 1, .vcpu_levels = &levels[_i & 1]};
    uint64_t process;

    make_image(levels[_i & 1], _i & 2);
    process = fake_guest_process(&guest, &kernel);
    ck_assert_int_eq(find_with(process), 0); /* depth not known */
    assert_short_way();
    hints.vcpu_cr3 = &process;
    ck_assert_int_eq(vmibus_guest_find_linux(ram, &hints, &found), 0);
    assert_short_way();
    /* A depth that there is not: the long way. */
    hints.vcpu_levels = wrong;
    ck_assert_int_eq(vmibus_guest_find_linux(ram, &hints, &found), 0);
    ck_assert_uint_gt(found.swept, 0);
}

TEST(test_image_of_a_vcpu_in_user_mode_leads_to_the_note, FIXTURE) {
    uint64_t process;

    make_image(4, true);
    process = fake_guest_process(&guest, &kernel);
    ck_assert_int_eq(find_with((process + FAKE_PAGE) | 0x806), 0);
    assert_short_way();
}

TEST(test_image_of_all_vcpus_is_looked_at_once, FIXTURE) {
    uint64_t cr3[48], one;

    make_image(4, true);
    for (size_t i = 0; i < 48; i++)
        cr3[i] = fake_guest_process(&guest, &kernel);
    memset(guest.memory + NOTE_GPA, 0, FAKE_PAGE);
    fake_guest_note(&guest, NOTE_GPA + FAKE_PAGE, &kernel); /* to which nothing leads */
    ck_assert_int_eq(find(cr3, 1), 0);
    one = found.octets;
    ck_assert_int_eq(find(cr3, 48), 0);
    ck_assert_uint_le(found.octets, one + 48 * FAKE_PAGE);
}

TEST(test_p12_image_tells_the_live_note_from_stale_and_false_ones, FIXTURE) {
    struct fake_kernel old;

    make_image(4, true);
    old = boot_another();
    fake_guest_note(&guest, UINT64_C(4) << 20, &old);
    /* The image points to them too, and before the right one. */
    store(DATA_GPA + 8, direct_map() + (UINT64_C(4) << 20));
    store(DATA_GPA + 16, direct_map() + (UINT64_C(6) << 20));
    memcpy(guest.memory + (UINT64_C(6) << 20), "OSRELEASE=1.2\n", 15);
    ck_assert_int_eq(find_with(fake_guest_process(&guest, &kernel)), 0);
    assert_short_way();
    /* It points to the old one only. */
    store(DATA_GPA + 0x123458, 0);
    ck_assert_int_eq(find_with(fake_guest_process(&guest, &kernel)), 0);
    assert_is_kernel(&kernel, NOTE_GPA);
    ck_assert_uint_gt(found.swept, 0);
}

/* Data full of pointers to pages that look like notes, or to any pages: followed until the budget is used up. */
TEST(test_p09_image_full_of_pointers_costs_its_budget, FIXTURE, .iterations = 2) {
    uint64_t claims = UINT64_C(11) << 20, n = _i ? 0x8000 : 128;

    make_image(4, true);
    for (uint64_t i = 0; !_i && i < 128; i++)
        memcpy(guest.memory + claims + i * FAKE_PAGE, "OSRELEASE=6.1\n", 15);
    for (uint64_t i = 0; i < n; i++)
        store(DATA_GPA + DATA_LEN / 2 + 8 * i, direct_map() + claims + i % 128 * FAKE_PAGE);
    store(DATA_GPA + 0x123458, 0);
    store(DATA_GPA + DATA_LEN - 8, direct_map() + NOTE_GPA);
    ck_assert_int_eq(find_with(fake_guest_process(&guest, &kernel)), 0);
    assert_is_kernel(&kernel, NOTE_GPA);
    ck_assert_uint_gt(found.swept, 0);
}

/* The whole area of the image, mapped to the same octets again and again; tables that are their own. */
TEST(test_p09_image_without_an_end_costs_its_budget, FIXTURE, .iterations = 2) {
    uint64_t *directory;

    make_image(4, true);
    store(DATA_GPA + 0x123458, 0);
    directory = fake_guest_entry(&guest, kernel.root, FAKE_IMAGE, 2);
    for (size_t i = 0; i < 512; i++)
        if (!(directory[i] & ENTRY_PRESENT))
            directory[i] = _i ? ((uint64_t)((uint8_t *)directory - guest.memory) | ENTRY_TABLE)
                              : (DATA_GPA | ENTRY_WRITABLE | ENTRY_PRESENT | ENTRY_LARGE);
    /* What leads to the note comes last, and is looked at from the end. */
    store(DATA_GPA + DATA_LEN, direct_map() + NOTE_GPA);
    directory[0] = (DATA_GPA + DATA_LEN) | ENTRY_WRITABLE | ENTRY_PRESENT | ENTRY_LARGE;
    ck_assert_int_eq(find_with(fake_guest_process(&guest, &kernel)), 0);
    assert_is_kernel(&kernel, NOTE_GPA);
    ck_assert(_i || found.swept > 0);
    ck_assert_uint_le(found.octets - found.swept, UINT64_C(64) << 20);
}

TEST(test_p11_image_in_holes_does_not_fill_them, FIXTURE) {
    struct stat before, after;

    make_image(4, true);
    ck_assert_int_eq(fallocate(memory_fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, DATA_GPA,
                               DATA_LEN / 2),
                     0);
    ck_assert_int_eq(fstat(memory_fd, &before), 0);
    ck_assert_int_eq(find_with(kernel.root.cr3), 0);
    assert_short_way();
    ck_assert_int_eq(fstat(memory_fd, &after), 0);
    ck_assert_int_eq(before.st_blocks, after.st_blocks);
}

/* RAM above 4 GiB is swept first: that is where a kernel takes the page from. */
TEST(test_sweep_begins_above_4g, FIXTURE) {
    uint64_t half = MEMORY_LEN / 2, high = UINT64_C(4) << 30;
    const struct vmibus_ram_range ranges[] = {{.len = half}, {.gpa = high, .len = half, .offset = half}};

    memset(guest.memory + NOTE_GPA, 'x', UINT64_C(1) << 20);
    vmibus_guest_ram_free(ram);
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, ranges, 2, &memory_fd, 1), 0);
    fake_guest_note(&guest, half + FAKE_PAGE, &kernel);
    ck_assert_int_eq(find_with(kernel.root.cr3), 0);
    assert_is_kernel(&kernel, high + FAKE_PAGE);
    ck_assert_uint_lt(found.swept, UINT64_C(1) << 20);
}

/* --- portions --------------------------------------------------------------------------------- */

static int search_to_the_end(uint64_t octets, const struct vmibus_guest_hints *hints,
                             unsigned int *steps) {
    struct vmibus_guest_search *search;
    int r;

    *steps = 0;
    ck_assert_int_eq(vmibus_guest_search_new(&search, ram), 0);
    do {
        r = vmibus_guest_search_step(search, hints, octets, &found);
        ++*steps;
    } while (r == VMIBUS_GUEST_UNFINISHED);
    ck_assert_ptr_null(vmibus_guest_search_free(search));
    return r;
}

TEST(test_search_in_portions_comes_to_the_same, FIXTURE) {
    static const uint64_t octets[] = {1, 4096, 100000, 1 << 20, UINT64_MAX};
    struct fake_kernel live = boot_another();
    uint64_t process = fake_guest_process(&guest, &live);
    const struct vmibus_guest_hints hints = {.vcpu_cr3 = &process, .n_vcpu_cr3 = 1};

    memset(guest.memory + (UINT64_C(8) << 20), 'x', UINT64_C(4) << 20);
    fake_guest_note(&guest, NOTE_GPA, &kernel);
    fake_guest_note(&guest, UINT64_C(11) << 20, &live);
    for (size_t i = 0; i < sizeof(octets) / sizeof(octets[0]); i++) {
        unsigned int steps;

        ck_assert_int_eq(search_to_the_end(octets[i], &hints, &steps), 0);
        assert_is_kernel(&live, UINT64_C(11) << 20);
        ck_assert_uint_ge(steps, octets[i] > UINT64_C(3) << 20 ? 1 : 3);
        if (octets[i] == UINT64_MAX)
            ck_assert_uint_eq(steps, 1);
    }
}

TEST(test_p09_false_claims_use_up_the_portion, FIXTURE) {
    unsigned int steps;

    for (uint64_t i = 0; i < 32; i++)
        memcpy(guest.memory + NOTE_GPA + i * FAKE_PAGE, "OSRELEASE=6.1\n", 15);
    ck_assert_int_eq(search_to_the_end(UINT64_C(1) << 18, NULL, &steps), VMIBUS_GUEST_UNPROVEN);
    ck_assert_uint_ge(steps, 8);
}

TEST(test_search_goes_by_what_is_known_of_vcpus_at_its_end, FIXTURE) {
    uint64_t process = fake_guest_process(&guest, &kernel), elsewhere = 0x7000;
    const struct vmibus_guest_hints right = {.vcpu_cr3 = &process, .n_vcpu_cr3 = 1};
    const struct vmibus_guest_hints wrong = {.vcpu_cr3 = &elsewhere, .n_vcpu_cr3 = 1};
    struct vmibus_guest_search *search;

    fake_guest_note(&guest, NOTE_GPA, &kernel);
    memset(guest.memory + (UINT64_C(8) << 20), 'x', UINT64_C(4) << 20);
    ck_assert_int_eq(vmibus_guest_search_new(&search, ram), 0);
    ck_assert_int_eq(vmibus_guest_search_step(search, &wrong, UINT64_C(2) << 20, &found),
                     VMIBUS_GUEST_UNFINISHED);
    ck_assert_int_eq(vmibus_guest_search_step(search, &right, UINT64_MAX, &found), 0);
    assert_is_kernel(&kernel, NOTE_GPA);
    ck_assert_uint_eq(found.confidence, VMIBUS_CONFIDENCE_PROVEN);
    vmibus_guest_search_free(search);
}

TEST(test_p06_kernel_that_went_during_the_search_is_not_told, FIXTURE) {
    struct vmibus_guest_search *search;

    fake_guest_note(&guest, NOTE_GPA, &kernel);
    memset(guest.memory + (UINT64_C(8) << 20), 'x', UINT64_C(4) << 20);
    ck_assert_int_eq(vmibus_guest_search_new(&search, ram), 0);
    ck_assert_int_eq(vmibus_guest_search_step(search, NULL, UINT64_C(2) << 20, &found),
                     VMIBUS_GUEST_UNFINISHED);
    memset(guest.memory + kernel.root.cr3, 0, FAKE_PAGE);
    ck_assert_int_eq(vmibus_guest_search_step(search, NULL, UINT64_MAX, &found),
                     VMIBUS_GUEST_UNPROVEN);
    vmibus_guest_search_free(search);
}

TEST(test_search_may_be_given_up, FIXTURE) {
    struct vmibus_guest_search *search;

    ck_assert_int_eq(vmibus_guest_search_new(&search, ram), 0);
    vmibus_guest_search_free(search);
    ck_assert_ptr_null(vmibus_guest_search_free(NULL));
}

HARNESS_SUITE("linux_root", HARNESS_QUICK)
