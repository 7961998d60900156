/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* RAM that is loaded from: what is read stays what it would be by system calls, and the host does not grow. */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake_guest.h"
#include "guest/mapping.h"

#define SIZE (32 << 20) /* more than may be loaded from between two looks at the file */
#define LOW UINT64_C(0x00007f1234560000)

static int fd;
static uint8_t *memory; /* the file, as the guest has it */
static struct vmibus_guest_ram *ram;
static struct vmibus_guest_reader reader;
static struct fake_guest guest;
static struct vmibus_guest_root root;

static void set_up_with(int seals) {
    const struct vmibus_ram_range range = {.len = SIZE};

    fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(fd, SIZE), 0);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(memory, MAP_FAILED);
    guest = (struct fake_guest){.memory = memory, .len = SIZE, .next_table = FAKE_PAGE};
    root = (struct vmibus_guest_root){.cr3 = fake_guest_page(&guest), .levels = 4};
    ck_assert_int_eq(vmibus_guest_ram_new(&ram, &range, 1, &fd, 1), 0);
    reader = vmibus_guest_ram_reader(ram);
}

static void set_up(void) {
    set_up_with(F_SEAL_SHRINK);
}

static void tear_down(void) {
    vmibus_guest_ram_free(ram);
    munmap(memory, SIZE);
    close(fd);
}

static blkcnt_t blocks(void) {
    struct stat status;

    ck_assert_int_eq(fstat(fd, &status), 0);
    return status.st_blocks;
}

static uint64_t read_physical(uint64_t gpa) {
    uint64_t value = 77;

    ck_assert_int_eq(vmibus_guest_ram_read(ram, gpa, &value, sizeof(value)), 0);
    return value;
}

static uint64_t read_virtual(uint64_t gva) {
    uint64_t value = 77;

    ck_assert_int_eq(vmibus_guest_read(&reader, &root, gva, &value, sizeof(value), NULL, NULL), 0);
    return value;
}

static uint64_t *word(uint64_t gpa) {
    return (uint64_t *)(void *)(memory + gpa);
}

static void punch(uint64_t gpa, uint64_t len) {
    ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)gpa, (off_t)len), 0);
}

TEST(test_p11_reading_everything_leaves_the_file_as_it_is, .setup = set_up, .teardown = tear_down) {
    static uint8_t buffer[SIZE];
    uint64_t gpa = 0, len;
    blkcnt_t before;

    for (uint64_t at = 0; at < SIZE / 2; at += 7 * FAKE_PAGE)
        *word(at + 8) = at + 1;
    before = blocks();
    for (unsigned int round = 0; round < 3; round++) {
        for (uint64_t at = 0; at < SIZE; at += FAKE_PAGE)
            ck_assert_uint_eq(read_physical(at + 8), at < SIZE / 2 && at % (7 * FAKE_PAGE) == 0 ? at + 1 : 0);
        ck_assert_int_eq(vmibus_guest_ram_read(ram, 0, buffer, SIZE), 0);
        ck_assert_mem_eq(buffer + 7 * FAKE_PAGE + 8, memory + 7 * FAKE_PAGE + 8, 8);
        for (gpa = 0; vmibus_guest_ram_next_data(ram, &gpa, &len) == 0;)
            gpa += len;
    }
    ck_assert_int_eq(blocks(), before);
}

TEST(test_p11_walking_in_holes_leaves_the_file_as_it_is, .setup = set_up, .teardown = tear_down) {
    struct vmibus_guest_translation found;
    uint64_t hole = 8 << 20, value;
    blkcnt_t before;

    fake_guest_map(&guest, root, LOW, hole, 1, 0);
    fake_guest_map(&guest, root, LOW + FAKE_PAGE, 0x100000, 1, 0);
    fake_guest_map(&guest, root, LOW + (1 << 30), 10 << 20, 2, 0);
    *fake_guest_entry(&guest, root, LOW + (2 << 20), 2) = (hole + FAKE_PAGE) | ENTRY_TABLE;
    *word(0x100000 + 8) = 7;
    before = blocks();
    for (unsigned int i = 0; i < 3; i++) {
        ck_assert_uint_eq(read_virtual(LOW), 0);
        ck_assert_uint_eq(read_virtual(LOW + FAKE_PAGE + 8), 7);
        ck_assert_uint_eq(read_virtual(LOW + (1 << 30) + 0x5000), 0);
        ck_assert_int_eq(vmibus_guest_translate(&reader, &root, LOW + (2 << 20), &found), VMIBUS_GUEST_NOT_PRESENT);
        ck_assert_int_eq(vmibus_guest_read(&reader, &root, LOW + (2 << 20), &value, 8, NULL, NULL),
                         VMIBUS_GUEST_NOT_PRESENT);
    }
    root.cr3 = hole + 4 * FAKE_PAGE;
    ck_assert_int_eq(vmibus_guest_translate(&reader, &root, LOW, &found), VMIBUS_GUEST_NOT_PRESENT);
    ck_assert_int_eq(blocks(), before);
}

TEST(test_page_that_gets_data_later_is_seen, .setup = set_up, .teardown = tear_down) {
    uint64_t gpa = 8 << 20;

    for (unsigned int i = 0; i < 3; i++)
        ck_assert_uint_eq(read_physical(gpa), 0);
    *word(gpa) = 5;
    ck_assert_uint_eq(read_physical(gpa), 5);
    *word(gpa) = 6;
    ck_assert_uint_eq(read_physical(gpa), 6);
}

/* At most so many pages come back as may be loaded from between two looks. */
/* What a sensor in the bus's process has: no load, so no page comes back, and none can raise a signal. */
TEST(test_p11_view_that_maps_nothing_brings_no_page_back, .setup = set_up, .teardown = tear_down) {
    const struct vmibus_ram_range range = {.len = SIZE};
    struct vmibus_guest_ram *unmapped;
    uint64_t value;
    blkcnt_t punched;

    memset(memory, 1, SIZE);
    ck_assert_int_eq(vmibus_guest_ram_new_unmapped(&unmapped, &range, 1, &fd, 1, -1), 0);
    for (uint64_t gpa = 0; gpa < SIZE; gpa += FAKE_PAGE) {
        ck_assert_int_eq(vmibus_guest_ram_read(unmapped, gpa, &value, sizeof(value)), 0);
        ck_assert_uint_eq(value, UINT64_C(0x0101010101010101));
    }
    punch(0, SIZE);
    punched = blocks();
    for (uint64_t gpa = 0; gpa < SIZE; gpa += FAKE_PAGE) {
        ck_assert_int_eq(vmibus_guest_ram_read(unmapped, gpa, &value, sizeof(value)), 0);
        ck_assert_uint_eq(value, 0);
    }
    ck_assert_int_eq(blocks(), punched);
    vmibus_guest_ram_free(unmapped);
}

TEST(test_p11_punched_pages_come_back_by_a_bounded_number, .setup = set_up, .teardown = tear_down) {
    blkcnt_t punched;

    memset(memory, 1, SIZE);
    for (uint64_t gpa = 0; gpa < SIZE; gpa += FAKE_PAGE)
        ck_assert_uint_ne(read_physical(gpa), 0);
    punch(0, SIZE);
    punched = blocks();
    for (unsigned int round = 0; round < 2; round++)
        for (uint64_t gpa = 0; gpa < SIZE; gpa += FAKE_PAGE)
            ck_assert_uint_eq(read_physical(gpa), 0);
    ck_assert_int_le(blocks() - punched, MAPPING_LOADS * (blkcnt_t)(FAKE_PAGE / 512));
}

TEST(test_p11_locked_memory_does_not_fill_the_file) {
    struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    const struct vmibus_ram_range range = {.len = SIZE};
    struct vmibus_guest_ram *second;

    set_up();
    (void)setrlimit(RLIMIT_MEMLOCK, &unlimited);
    if (mlockall(MCL_FUTURE) < 0) {
        tear_down();
        test_skip("memory cannot be locked");
    }
    *word(0) = 1;
    blkcnt_t before = blocks();
    ck_assert_int_eq(vmibus_guest_ram_new(&second, &range, 1, &fd, 1), 0);
    ck_assert_int_eq(blocks(), before);
    vmibus_guest_ram_free(second);
    munlockall();
    tear_down();
}

TEST(test_p09_truncated_file_without_seal_raises_no_signal) {
    static uint8_t buffer[SIZE];

    set_up_with(F_SEAL_GROW);
    memset(memory, 1, SIZE);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, 0, buffer, SIZE), 0);
    for (uint64_t gpa = 0; gpa < SIZE; gpa += FAKE_PAGE)
        ck_assert_uint_ne(read_physical(gpa), 0);
    ck_assert_int_eq(ftruncate(fd, SIZE / 2), 0);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, 0, buffer, SIZE), VMIBUS_GUEST_TRUNCATED);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, SIZE / 2, buffer, 8), VMIBUS_GUEST_TRUNCATED);
    ck_assert_int_eq(vmibus_guest_ram_read(ram, SIZE / 2 - 8, buffer, 8), 0);
    tear_down();
}

/* A layout may promise more than the file has. */
TEST(test_p09_sealed_file_shorter_than_its_range_raises_no_signal) {
    const struct vmibus_ram_range ranges[] = {{.len = 2 * SIZE}, {.gpa = 2 * SIZE, .len = SIZE, .offset = SIZE}};
    struct vmibus_guest_ram *longer;
    uint64_t value;

    set_up();
    memset(memory, 1, SIZE);
    ck_assert_int_eq(vmibus_guest_ram_new(&longer, ranges, 2, &fd, 1), 0);
    for (unsigned int i = 0; i < 3; i++) {
        ck_assert_int_eq(vmibus_guest_ram_read(longer, SIZE - 8, &value, 8), 0);
        ck_assert_int_eq(vmibus_guest_ram_read(longer, SIZE - 4, &value, 8), VMIBUS_GUEST_TRUNCATED);
        ck_assert_int_eq(vmibus_guest_ram_read(longer, SIZE, &value, 8), VMIBUS_GUEST_TRUNCATED);
        ck_assert_int_eq(vmibus_guest_ram_read(longer, 2 * SIZE, &value, 8), VMIBUS_GUEST_TRUNCATED);
    }
    vmibus_guest_ram_free(longer);
    tear_down();
}

/* --- walks: by loads and by calls, the same --------------------------------------------------- */

static int by_calls(void *context, uint64_t gpa, void *buffer, size_t len) {
    return vmibus_guest_ram_read(context, gpa, buffer, len);
}

static void compare(uint64_t gva, size_t len) {
    const struct vmibus_guest_reader calls = {.read = by_calls, .context = ram};
    struct vmibus_guest_translation left, right;
    uint8_t left_buffer[8192], right_buffer[8192];
    size_t left_done = 1, right_done = 2;
    int r;

    memset(&left, 0xa5, sizeof(left));
    memset(&right, 0x5a, sizeof(right));
    r = vmibus_guest_translate(&reader, &root, gva, &left);
    ck_assert_int_eq(vmibus_guest_translate(&calls, &root, gva, &right), r);
    ck_assert_mem_eq(&left, &right, offsetof(struct vmibus_guest_translation, level));
    ck_assert_mem_eq(left.entries, right.entries, sizeof(left.entries));
    ck_assert_uint_eq(left.level, right.level);
    r = vmibus_guest_read(&reader, &root, gva, left_buffer, len, &left_done, &left);
    ck_assert_int_eq(vmibus_guest_read(&calls, &root, gva, right_buffer, len, &right_done, &right), r);
    ck_assert_uint_eq(left_done, right_done);
    ck_assert_mem_eq(left_buffer, right_buffer, left_done);
    if (r) {
        ck_assert_uint_eq(left.gpa, right.gpa);
        ck_assert_uint_eq(left.level, right.level);
        ck_assert_mem_eq(left.entries, right.entries, sizeof(left.entries));
    }
}

TEST(test_loads_and_calls_agree_on_random_tables, .iterations = 10) {
    uint64_t state = 88172645463325252u + (uint64_t)_i;

    set_up();
    root.levels = 4 + (uint8_t)(_i % 2);
    for (uint64_t i = 0; i < SIZE / 8; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        /* Tables within RAM mostly; ones that are but marked absent, large and reserved ones, and ones outside, now and then. */
        *word(i * 8) = state % 64 == 0 ? state
                                       : (state % SIZE & ~UINT64_C(0xfff)) | (state >> 40 & 0x6) | (state >> 57 & 0x1f ? 1 : 0) |
                                             (state >> 50 & 0x3f ? 0 : ENTRY_LARGE);
    }
    for (unsigned int i = 0; i < 20000; i++) {
        static const size_t lens[] = {8, 1, 0, 4096, 8, 8192, 13, 8};

        state = state * 6364136223846793005u + 1442695040888963407u;
        if (i % 1000 == 0)
            root.cr3 = state >> 20;
        else if (i % 1000 == 1)
            root.cr3 = state % SIZE;
        compare(i % 16 ? (uint64_t)((int64_t)(state << 7) >> (root.levels == 5 ? 7 : 16)) : state, lens[i % 8]);
    }
    tear_down();
}

/* --- tables that change underfoot --------------------------------------------------------------- */

static atomic_bool is_enough;

static void *spoil(void *unused) {
    uint64_t state = 88172645463325252u;

    while (!atomic_load(&is_enough)) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        __atomic_store_n(word(state % SIZE & ~UINT64_C(7)), state >> 8, __ATOMIC_RELAXED);
        __atomic_store_n(word(FAKE_PAGE + (state >> 20) % (8 * FAKE_PAGE) / 8 * 8),
                         ((state >> 4) % SIZE & ~UINT64_C(0xfff)) | ENTRY_TABLE, __ATOMIC_RELAXED);
    }
    return unused;
}

TEST(test_p09_tables_that_a_thread_rewrites_are_survived, .setup = set_up, .teardown = tear_down) {
    struct vmibus_guest_pattern pattern = {.octets = (const uint8_t *)"\x01\x02\x03", .len = 3};
    struct vmibus_guest_translation found;
    struct vmibus_guest_scan *scan;
    uint64_t matches[8];
    uint8_t buffer[5000];
    pthread_t thread;
    size_t done;

    ck_assert_int_eq(pthread_create(&thread, NULL, spoil, NULL), 0);
    ck_assert_int_eq(vmibus_guest_scan_new(&scan, &reader, &root, &pattern, 0, UINT64_MAX), 0);
    for (uint64_t i = 0, gva = 0; i < 50000; i++, gva = gva * 6364136223846793005u + 1442695040888963407u) {
        int r = vmibus_guest_read(&reader, &root, gva >> 17, buffer, 1 + i % sizeof(buffer), &done, &found);

        ck_assert_int_ge(r, 0);
        ck_assert_uint_le(done, 1 + i % sizeof(buffer));
        if (r == 0)
            ck_assert_uint_eq(done, 1 + i % sizeof(buffer));
        else
            ck_assert_uint_le(found.depth, 4);
        if (i % 1000 == 0)
            ck_assert_int_ge(vmibus_guest_scan_step(scan, 1 << 20, matches, 8, &done), 0);
    }
    vmibus_guest_scan_free(scan);
    atomic_store(&is_enough, true);
    pthread_join(thread, NULL);
}

TEST(test_read_follows_tables_that_changed, .setup = set_up, .teardown = tear_down) {
    fake_guest_map(&guest, root, LOW, 0x100000, 1, 0);
    *word(0x100000) = 1;
    *word(0x200000) = 2;
    for (unsigned int i = 0; i < 3; i++)
        ck_assert_uint_eq(read_virtual(LOW), 1);
    fake_guest_map(&guest, root, LOW, 0x200000, 1, 0);
    ck_assert_uint_eq(read_virtual(LOW), 2);
    *fake_guest_entry(&guest, root, LOW, 3) = 0;
    ck_assert_int_eq(vmibus_guest_read(&reader, &root, LOW, &(uint64_t){0}, 8, NULL, NULL), VMIBUS_GUEST_NOT_PRESENT);
}

HARNESS_SUITE("mapping", HARNESS_QUICK)
