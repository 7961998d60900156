/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Proving layouts: what is malformed, what does not agree with the process, and what comes out exact. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"
#include "util/fds.h"

#define GIB (UINT64_C(1) << 30)

static struct fixture fx;

static void setup(void) {
    fixture_init(&fx, VM_UNSEALED);
}

static void teardown(void) {
    fixture_deinit(&fx);
}

#define PLAIN .setup = setup, .teardown = teardown

/* Proposes ranges of this process's address space. */
static struct vmibus_ack *propose(struct vmibus_layout_range *ranges, size_t n) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);

    for (size_t i = 0; i < n; i++)
        ranges[i].object = 0xffff;
    frame.header.tail_length = (uint32_t)(n * sizeof(*ranges));
    frame.mem_layout.range_count = (uint16_t)n;
    frame.mem_layout.pid = (uint32_t)getpid();
    frame.mem_layout.start_time = start_time_of(getpid());
    return submit(&fx.sensor, &frame, ranges, NULL);
}

static struct vmibus_ack *propose_one(uint64_t gpa, uint64_t len, uint64_t location) {
    struct vmibus_layout_range range = {.gpa = gpa, .len = len, .location = location};

    return propose(&range, 1);
}

static const struct vmibus_ram_range *published(size_t *n) {
    const struct vmibus_frame *frame = last_of(&fx.link, VMIBUS_KIND_MEMCTX);

    ck_assert_ptr_nonnull(frame);
    *n = frame->memctx.range_count;
    ck_assert_uint_eq(frame->header.tail_length, *n * sizeof(struct vmibus_ram_range));
    return fx.link.tails[frame - fx.link.frames];
}

static void *map_anonymous(size_t len, int protection, int flags) {
    void *map = mmap(NULL, len, protection, flags | MAP_ANONYMOUS, -1, 0);

    ck_assert_ptr_ne(map, MAP_FAILED);
    return map;
}

static uint64_t address(const void *pointer) {
    return (uintptr_t)pointer;
}

static void assert_unproven(struct vmibus_ack *ack) {
    assert_refused(ack, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_LAYOUT_UNPROVEN);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.state,
                      VMIBUS_MEMCTX_STATE_NONE);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.reason,
                      VMIBUS_REASON_LAYOUT_UNPROVEN);
}

/* --- malformed --------------------------------------------------------------------------------- */

TEST(test_p12_malformed_ranges, PLAIN) {
    uint64_t ram = address(fx.vm.ram);
    static const struct {
        uint64_t gpa, len, location;
    } wrong[] = {
        {0, 0, 0},
        {1, PAGE, 0},
        {0, PAGE + 1, 0},
        {0, PAGE, 8},
        {UINT64_C(0) - PAGE, PAGE, 0},
        {UINT64_C(0) - PAGE, 2 * PAGE, 0},
        {UINT64_C(1) << 52, PAGE, 0},
        {0, UINT64_C(0) - PAGE, 0},
        {0, PAGE, UINT64_C(0) - PAGE},
    };

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_refused(propose_one(wrong[i].gpa, wrong[i].len,
                                   i < 8 ? ram + wrong[i].location : wrong[i].location),
                       VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    ck_assert_uint_eq(fx.link.n, 0);
}

TEST(test_p12_overlapping_and_unsorted_ranges, PLAIN) {
    uint64_t ram = address(fx.vm.ram);
    struct vmibus_layout_range ranges[2] = {
        {.gpa = 0, .len = 2 * PAGE, .location = ram},
        {.gpa = PAGE, .len = PAGE, .location = ram + 4 * PAGE},
    };

    assert_refused(propose(ranges, 2), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    ranges[0].gpa = 16 * PAGE;
    assert_refused(propose(ranges, 2), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    ranges[1].gpa = 32 * PAGE;
    ranges[1].flags = 0x8000;
    assert_refused(propose(ranges, 2), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
}

TEST(test_p12_malformed_frames, PLAIN) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    static struct vmibus_layout_range ranges[4097];

    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_LENGTH);
    frame.mem_layout.range_count = 2;
    frame.header.tail_length = sizeof(ranges[0]);
    assert_refused(submit(&fx.sensor, &frame, ranges, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_LENGTH);
    frame.mem_layout.range_count = 1;
    assert_refused(submit(&fx.sensor, &frame, ranges, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FDS);
    frame.header.fd_count = 1;
    ranges[0] = (struct vmibus_layout_range){.len = PAGE, .object = 1};
    assert_refused(submit(&fx.sensor, &frame, ranges, &fx.vm.fd), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FIELD);
    frame.mem_layout.pid = (uint32_t)getpid();
    ranges[0].object = 0xffff;
    assert_refused(submit(&fx.sensor, &frame, ranges, &fx.vm.fd), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FDS);
    frame.mem_layout.range_count = 4097;
    frame.header.tail_length = sizeof(ranges);
    assert_refused(submit(&fx.sensor, &frame, ranges, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_LENGTH);
    ck_assert_uint_eq(fx.link.n, 0);
}

/* --- against the process ----------------------------------------------------------------------- */

TEST(test_p12_where_nothing_is_mapped, PLAIN) {
    uint8_t *map = map_anonymous(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);

    munmap(map + 2 * PAGE, PAGE);
    assert_unproven(propose_one(0, 4 * PAGE, address(map)));
    assert_unproven(propose_one(0, PAGE, address(map) + 2 * PAGE));
    assert_unproven(propose_one(0, PAGE, PAGE));
    assert_ok(propose_one(0, 2 * PAGE, address(map)));
    munmap(map, 4 * PAGE);
}

TEST(test_p12_what_cannot_be_read_is_no_ram, PLAIN) {
    uint8_t *map = map_anonymous(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);

    mprotect(map + PAGE, PAGE, PROT_NONE);
    assert_unproven(propose_one(0, 4 * PAGE, address(map)));
    munmap(map, 4 * PAGE);
}

TEST(test_p12_stack_and_heap_are_no_ram, PLAIN) {
    uint64_t here = address(__builtin_frame_address(0)) & ~(PAGE - 1);
    uint64_t heap = address(sbrk(0)) - PAGE;

    assert_unproven(propose_one(0, PAGE, here));
    assert_unproven(propose_one(0, PAGE, heap & ~(PAGE - 1)));
}

TEST(test_p12_mapping_beyond_its_file, PLAIN) {
    void *map = mmap(NULL, RAM_SIZE + ROM_SIZE + 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
                     fx.vm.fd, 0);

    assert_unproven(propose_one(0, RAM_SIZE + ROM_SIZE + PAGE, address(map)));
    assert_ok(propose_one(0, RAM_SIZE + ROM_SIZE, address(map)));
    munmap(map, RAM_SIZE + ROM_SIZE + 4 * PAGE);
}

TEST(test_p12_own_process_from_outside, PLAIN) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    struct vmibus_layout_range range = {
        .len = PAGE,
        .location = address(fx.vm.ram),
        .object = 0xffff,
    };
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_SENSOR, geteuid(), 4711);
    frame.header.tail_length = sizeof(range);
    frame.mem_layout.range_count = 1;
    frame.mem_layout.pid = (uint32_t)getpid();
    frame.mem_layout.start_time = start_time_of(getpid());
    assert_refused(submit(&other, &frame, &range, NULL), VMIBUS_ERROR_DENIED,
                   VMIBUS_REASON_BAD_FIELD);
    client_deinit(&other);
}

/* A layout that does not hold any more ends the one that did. */
TEST(test_p12_unproven_layout_ends_the_epoch, PLAIN) {
    assert_ok(propose_layout(&fx, true));
    assert_unproven(propose_one(0, PAGE, PAGE));
    ck_assert_uint_eq(
        last_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED)->memctx_invalidated.reason,
        VMIBUS_REASON_LAYOUT_UNPROVEN);
}

static int wrong_file(const struct opener *opener, const struct opener_process *process,
                      const struct opener_file *file, int flags) {
    (void)opener;
    (void)process;
    (void)file;
    (void)flags;
    int fd = memfd_create("wrong", MFD_CLOEXEC);

    ck_assert_int_eq(ftruncate(fd, RAM_SIZE + ROM_SIZE), 0);
    return fd;
}

static int no_file(const struct opener *opener, const struct opener_process *process,
                   const struct opener_file *file, int flags) {
    (void)opener;
    (void)process;
    (void)file;
    (void)flags;
    return -EACCES;
}

static int no_memory(const struct opener *opener, const struct opener_process *process) {
    (void)opener;
    (void)process;
    return -EACCES;
}

TEST(test_p12_opener_brings_another_file, PLAIN) {
    fx.opener.open_file = wrong_file;
    assert_unproven(propose_layout(&fx, true));
    fx.opener.open_file = no_file;
    struct vmibus_ack *ack = propose_layout(&fx, true);
    assert_refused(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_LAYOUT_UNPROVEN);
    ck_assert_uint_eq(ack->value, EACCES);
    fx.opener.open_file = opener_local()->open_file;
    fx.opener.open_memory = no_memory; /* not needed for files */
    assert_ok(propose_layout(&fx, true));
    void *map = map_anonymous(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    assert_refused(propose_one(0, PAGE, address(map)), VMIBUS_ERROR_IO,
                   VMIBUS_REASON_LAYOUT_UNPROVEN);
    munmap(map, PAGE);
}

static int read_only_file(const struct opener *opener, const struct opener_process *process,
                          const struct opener_file *file, int flags) {
    if (flags == O_RDWR)
        return -EACCES;
    return opener_local()->open_file(opener, process, file, flags);
}

/* A file that may only be read is written through the process, or not at all. */
TEST(test_layout_file_that_may_only_be_read, PLAIN) {
    uint8_t source[8] = {9, 9};

    fx.opener.open_file = read_only_file;
    fx.opener.open_memory = no_memory;
    assert_ok(propose_layout(&fx, true));
    ck_assert(!(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.access & VMIBUS_ACCESS_WRITE));
    link_issue(&fx, &fx.control, 1, 0);
    struct vmibus_ack *ack = do_write(&fx, DATA_GPA, source, 8, VMIBUS_MEMWRITE_PHYSICAL);
    assert_refused(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(ack->value, EACCES);
    fx.opener.open_memory = opener_local()->open_memory;
    struct vmibus_frame end = frame_make(&fx, VMIBUS_KIND_MEM_END);
    assert_ok(submit(&fx.sensor, &end, NULL, NULL));
    assert_ok(propose_layout(&fx, true));
    assert_ok(do_write(&fx, DATA_GPA, source, 8, VMIBUS_MEMWRITE_PHYSICAL));
    ck_assert_mem_eq(fx.vm.ram + DATA_GPA, source, 8);
}

#define GIVEN_LEN (UINT64_C(16) << 12)
#define OTHER_UID 54321

/* Proposes a file of another user's that only that user may open for writing, by a descriptor opened with these flags. */
static uint64_t access_by_given(int flags, int seals) {
    struct vmibus_layout_range range = {.gpa = 0, .len = GIVEN_LEN, .object = 0};
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    int fd = memfd_create("given", MFD_CLOEXEC | MFD_ALLOW_SEALING), given;
    char path[64];

    ck_assert_int_eq(ftruncate(fd, (off_t)GIVEN_LEN), 0);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
    ck_assert_int_eq(fchmod(fd, 0644), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    given = open(path, flags | O_CLOEXEC);
    ck_assert_int_ge(given, 0);
    close(fd);
    frame.header.tail_length = sizeof(range);
    frame.header.fd_count = 1;
    frame.mem_layout.range_count = 1;
    ck_assert_int_eq(seteuid(OTHER_UID), 0);
    assert_ok(submit(&fx.sensor, &frame, &range, &given));
    ck_assert_int_eq(seteuid(0), 0);
    close(given);
    return last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.access & VMIBUS_ACCESS_WRITE;
}

/* As it is when a sensor apart proposes anew what was tightened before. */
TEST(test_layout_is_written_by_the_sensors_own_descriptor, PLAIN) {
    uint8_t source[8] = {9, 9};

    if (geteuid() != 0)
        test_skip("only root can become another uid");
    ck_assert(access_by_given(O_RDWR, F_SEAL_GROW | F_SEAL_SHRINK));
    link_issue(&fx, &fx.control, 1, 0);
    assert_ok(do_write(&fx, 0x1000, source, 8, VMIBUS_MEMWRITE_PHYSICAL));
    ck_assert(!access_by_given(O_RDONLY, F_SEAL_GROW | F_SEAL_SHRINK));
    /* By O_APPEND, set later, writes would go elsewhere. */
    ck_assert(!access_by_given(O_RDWR, F_SEAL_SHRINK));
}

/* A tail lies where it was received: behind one of odd length, at an odd address. */
TEST(test_layout_at_an_odd_address, PLAIN) {
    const struct vmibus_layout_range range = {.gpa = 0, .len = GIVEN_LEN, .object = 0};
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    uint8_t octets[sizeof(range) + 1];
    int fd = memfd_create("given", MFD_CLOEXEC);

    ck_assert_int_eq(ftruncate(fd, (off_t)GIVEN_LEN), 0);
    memcpy(octets + 1, &range, sizeof(range));
    frame.header.tail_length = sizeof(range);
    frame.header.fd_count = 1;
    frame.mem_layout.range_count = 1;
    assert_ok(submit(&fx.sensor, &frame, octets + 1, &fd));
    close(fd);
}

/* --- exact ------------------------------------------------------------------------------------- */

/* Two files, private memory, a hole, a split at 3 GiB as q35 has it. */
TEST(test_layout_of_several_objects, PLAIN) {
    int second = memfd_create("dimm", MFD_CLOEXEC);
    uint8_t *dimm, *private = map_anonymous(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
    const struct vmibus_ram_range *ranges;
    uint64_t ram = address(fx.vm.ram);
    size_t n;

    ck_assert_int_eq(ftruncate(second, 64 * PAGE), 0);
    dimm = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, second, 0);
    struct vmibus_layout_range proposal[] = {
        {.gpa = 0, .len = 4 * MIB, .location = ram},
        {.gpa = 3 * GIB, .len = 4 * PAGE, .location = address(private) + 4 * PAGE,
         .flags = VMIBUS_RANGE_READ_ONLY},
        {.gpa = 4 * GIB, .len = 4 * MIB, .location = ram + 4 * MIB},
        {.gpa = 5 * GIB, .len = 64 * PAGE, .location = address(dimm)},
        {.gpa = 6 * GIB, .len = 2 * PAGE, .location = address(private)},
    };
    assert_ok(propose(proposal, 5));
    ranges = published(&n);
    ck_assert_uint_eq(n, 5);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.object_count, 3);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.ram_size,
                      8 * MIB + 64 * PAGE + 6 * PAGE);
    ck_assert_uint_eq(ranges[0].object, 0);
    ck_assert_uint_eq(ranges[1].object, 1);
    ck_assert_uint_eq(ranges[1].flags, VMIBUS_RANGE_READ_ONLY);
    ck_assert_uint_eq(ranges[2].object, 0);
    ck_assert_uint_eq(ranges[2].offset, 4 * MIB);
    ck_assert_uint_eq(ranges[3].object, 2);
    ck_assert_uint_eq(ranges[3].offset, 0);
    /* Offsets in private memory are relative: they tell no address. */
    ck_assert_uint_eq(ranges[4].offset, 0);
    ck_assert_uint_eq(ranges[1].offset, 4 * PAGE);
    /* Adjacent in the guest, apart in the host: a write across falls into two objects. */
    munmap(dimm, 64 * PAGE);
    munmap(private, 8 * PAGE);
    fd_close(second);
}

TEST(test_layout_write_across_objects, PLAIN) {
    uint8_t *private = map_anonymous(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE), source[64];
    struct vmibus_layout_range proposal[] = {
        {.gpa = 0, .len = 4 * PAGE, .location = address(fx.vm.ram) + DATA_GPA},
        {.gpa = 4 * PAGE, .len = PAGE, .location = address(private)},
    };

    memset(source, 0x3c, sizeof(source));
    assert_ok(propose(proposal, 2));
    link_issue(&fx, &fx.control, 1, 0);
    assert_ok(do_write(&fx, 4 * PAGE - 10, source, sizeof(source), VMIBUS_MEMWRITE_PHYSICAL));
    ck_assert_mem_eq(fx.vm.ram + DATA_GPA + 4 * PAGE - 10, source, 10);
    ck_assert_mem_eq(private, source, 54);
    ck_assert_uint_eq(private[54], 0);
    munmap(private, PAGE);
}

/* What the process has split and its file has not is one range again. */
TEST(test_layout_of_split_mappings, PLAIN) {
    const struct vmibus_ram_range *ranges;
    size_t n;

    ck_assert_int_eq(madvise(fx.vm.ram + MIB, MIB, MADV_DONTFORK), 0);
    assert_ok(propose_one(0, RAM_SIZE, address(fx.vm.ram)));
    ranges = published(&n);
    ck_assert_uint_eq(n, 1);
    ck_assert_uint_eq(ranges[0].len, RAM_SIZE);
    /* One that shows another place of the file in the middle is not. */
    mmap(fx.vm.ram + MIB, MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fx.vm.fd, 0);
    assert_ok(propose_one(0, RAM_SIZE, address(fx.vm.ram)));
    ranges = published(&n);
    ck_assert_uint_eq(n, 3);
    ck_assert_uint_eq(ranges[1].gpa, MIB);
    ck_assert_uint_eq(ranges[1].offset, 0);
    ck_assert_uint_eq(ranges[1].flags, VMIBUS_RANGE_ALIAS);
    ck_assert_uint_eq(ranges[2].offset, 2 * MIB);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.ram_size, RAM_SIZE - MIB);
}

TEST(test_layout_aliases_are_marked, PLAIN) {
    uint64_t ram = address(fx.vm.ram);
    const struct vmibus_ram_range *ranges;
    size_t n;
    struct vmibus_layout_range proposal[] = {
        {.gpa = 0xe0000, .len = 32 * PAGE, .location = ram + RAM_SIZE - 32 * PAGE},
        {.gpa = MIB, .len = MIB, .location = ram, .flags = VMIBUS_RANGE_ALIAS}, /* it is none */
        {.gpa = 4 * GIB - 64 * PAGE, .len = 64 * PAGE, .location = ram + RAM_SIZE - 64 * PAGE},
    };

    assert_ok(propose(proposal, 3));
    ranges = published(&n);
    ck_assert_uint_eq(n, 3);
    ck_assert_uint_eq(ranges[0].flags, 0);
    ck_assert_uint_eq(ranges[1].flags, 0);
    ck_assert_uint_eq(ranges[2].flags, VMIBUS_RANGE_ALIAS);
}

TEST(test_layout_read_only_mapping_is_rom, PLAIN) {
    const struct vmibus_ram_range *ranges;
    size_t n;

    mprotect(fx.vm.rom, ROM_SIZE, PROT_READ);
    assert_ok(propose_one(0, RAM_SIZE + ROM_SIZE, address(fx.vm.ram)));
    ranges = published(&n);
    ck_assert_uint_eq(n, 2);
    ck_assert_uint_eq(ranges[1].flags, VMIBUS_RANGE_READ_ONLY);
    ck_assert_uint_eq(ranges[1].gpa, RAM_SIZE);
}

/* Shared anonymous memory is a file without a name that only the mapping leads to. */
TEST(test_layout_shared_anonymous_memory, PLAIN) {
    uint8_t *map = map_anonymous(4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED), source[8] = {5};
    struct vmibus_ack *ack = propose_one(0, 4 * PAGE, address(map));

    if (ack->error == VMIBUS_ERROR_IO)
        test_skip("no right to open /proc/self/map_files");
    assert_ok(ack);
    link_issue(&fx, &fx.control, 1, 0);
    assert_ok(do_write(&fx, PAGE, source, 8, VMIBUS_MEMWRITE_PHYSICAL));
    ck_assert_mem_eq(map + PAGE, source, 8);
    munmap(map, 4 * PAGE);
}

/* Huge pages: read through the file, written through the process, because pwrite(2) says EINVAL. */
TEST(test_layout_huge_pages, PLAIN) {
    int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
    uint8_t *map, source[8] = {1, 2, 3};

    if (fd < 0)
        test_skip("no hugetlbfs: %s", strerror(errno));
    ck_assert_int_eq(ftruncate(fd, 2 * MIB), 0);
    map = mmap(NULL, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        test_skip("no huge pages: echo 1 > /proc/sys/vm/nr_hugepages");
    assert_ok(propose_one(0, 2 * MIB, address(map)));
    ck_assert(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.access & VMIBUS_ACCESS_WRITE);
    link_issue(&fx, &fx.control, 1, 0);
    assert_ok(do_write(&fx, PAGE, source, 8, VMIBUS_MEMWRITE_PHYSICAL));
    ck_assert_mem_eq(map + PAGE, source, 8);
    munmap(map, 2 * MIB);
    fd_close(fd);
}

TEST(test_p08_layout_descriptors_are_charged, PLAIN) {
    struct vmibus_frame end = frame_make(&fx, VMIBUS_KIND_MEM_END);
    const struct vmibus_ack *refusal;

    assert_ok(propose_layout(&fx, true));
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_FDS], 2); /* the file and the process */
    fx.sensor.account->limit[RESOURCE_FDS] = 3;
    refusal = propose_layout(&fx, true);
    ck_assert_uint_eq(refusal->error, VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(refusal->reason, VMIBUS_REASON_LIMIT_FDS);
    ck_assert_uint_eq(refusal->value, 3);
    ck_assert_uint_eq(refusal->count, 2);
    ck_assert_uint_eq(refusal->token, fx.sensor.account->uid);
    fx.sensor.account->limit[RESOURCE_FDS] = 100;
    fx.ledger.limit[RESOURCE_FDS] = 3;
    refusal = propose_layout(&fx, true);
    ck_assert_uint_eq(refusal->error, VMIBUS_ERROR_PRESSURE);
    ck_assert_uint_eq(refusal->reason, VMIBUS_REASON_LIMIT_FDS);
    ck_assert_uint_eq(refusal->value, 3);
    ck_assert_uint_eq(refusal->count, 2);
    assert_ok(submit(&fx.sensor, &end, NULL, NULL));
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_FDS], 0);
}

HARNESS_SUITE("memory: layouts", HARNESS_QUICK)
