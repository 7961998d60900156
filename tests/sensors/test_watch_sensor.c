/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The watch sensor on a host of the test's own, with RAM that the test makes. */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sensors/mock_host.h"
#include "watch/watch.h"

#define NS_PER_MS UINT64_C(1000000)
#define RAM_LEN (UINT64_C(4) << 20)
#define EPOCH 7u
#define TOP UINT64_C(0x1000)        /* the tables: one for each level, then the page */
#define PAGE_GPA UINT64_C(0x10000)
#define PAGE_GVA UINT64_C(0x400000)

static struct mock_host *host;
static struct vmibus_sensor_endpoint *endpoint;
static int fd;

static void poke(uint64_t gpa, uint64_t value) {
    ck_assert_int_eq(pwrite(fd, &value, sizeof(value), (off_t)gpa), sizeof(value));
}

static void make_ram(void) {
    fd = memfd_create("ram", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(fd, (off_t)RAM_LEN), 0);
    poke(TOP, (TOP + 0x1000) | 7);
    poke(TOP + 0x1000, (TOP + 0x2000) | 7);
    poke(TOP + 0x2000 + 2 * 8, (TOP + 0x3000) | 7);
    for (unsigned int i = 0; i < 32; i++)
        poke(TOP + 0x3000 + i * 8, (PAGE_GPA + i * 0x1000) | 7);
}

static void change_memctx(uint64_t epoch, enum vmibus_memctx_state state) {
    const struct vmibus_memctx memctx = {.epoch = epoch, .cr3 = TOP, .levels = 4, .state = (uint8_t)state};

    mock_host_change_memctx(host, endpoint, &memctx);
}

static void start(const char *const *options) {
    const struct vmibus_sensor_offer offer = {.name = "vm"};

    make_ram();
    host = mock_host_new(&vmibus_watch_sensor);
    mock_host_own_time(host);
    ck_assert_int_eq(mock_host_start(host, options), 0);
    endpoint = mock_host_appear(host, &offer);
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_READY);
}

static void begin(void) {
    start(NULL);
}

static void end(void) {
    mock_host_free(host);
    close(fd);
}

#define WITH_HOST .setup = begin, .teardown = end

static struct vmibus_watch watch_of(uint32_t number, uint64_t address, uint32_t len) {
    return (struct vmibus_watch){
        .watch = number, .address = address, .len = len, .operation = VMIBUS_WATCH_OPERATION_ADD, .flags = VMIBUS_WATCH_PHYSICAL};
}

static uint64_t execute(struct vmibus_watch watch) {
    const struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_WATCH}, .watch = watch};

    return mock_host_execute(host, endpoint, &frame, NULL, 0);
}

static void hand_out(uint64_t epoch) {
    const struct vmibus_ram_range range = {.len = RAM_LEN};
    const struct vmibus_sensor_ram ram = {
        .epoch = epoch, .ranges = &range, .n_ranges = 1, .fds = &fd, .n_fds = 1, .pagemap_fd = -1};

    mock_host_answer_attach(host, endpoint, &ram, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
}

static const struct vmibus_ack *answer(uint64_t id) {
    const struct vmibus_ack *ack;

    mock_host_settle(host);
    ack = mock_host_ack(host, id);
    ck_assert_ptr_nonnull(ack);
    return ack;
}

static void expect(uint64_t id, enum vmibus_error error, enum vmibus_reason reason) {
    const struct vmibus_ack *ack = answer(id);

    ck_assert_uint_eq(ack->error, error);
    ck_assert_uint_eq(ack->reason, reason);
}

/* The first watch: RAM is attached for it. */
static void add_first(struct vmibus_watch watch) {
    uint64_t id = execute(watch);

    ck_assert_uint_eq(mock_host_count(host, MOCK_ATTACH), 1);
    ck_assert_uint_eq(mock_host_last(host, MOCK_ATTACH)->epoch, EPOCH);
    hand_out(EPOCH);
    expect(id, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(mock_host_ack(host, id)->epoch, EPOCH);
}

static void pass(uint64_t ms) {
    mock_host_advance(host, ms * NS_PER_MS);
    mock_host_settle(host);
}

static void go_on(uint32_t number) {
    (void)execute((struct vmibus_watch){.watch = number, .operation = VMIBUS_WATCH_OPERATION_GO_ON});
}

static size_t n_told(void) {
    return mock_host_count(host, MOCK_PUBLISH);
}

static const struct vmibus_watch_changed *told(void) {
    return &mock_host_last(host, MOCK_PUBLISH)->frame.watch_changed;
}

static const uint8_t *tail(size_t length) {
    const struct mock_record *record = mock_host_last(host, MOCK_PUBLISH);

    ck_assert_uint_eq(record->tail_length, length);
    return record->tail;
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

TEST(test_it_provides_watches_of_others, WITH_HOST) {
    ck_assert_uint_eq(mock_host_count(host, MOCK_PROVIDE), 1);
    ck_assert_uint_eq(mock_host_last(host, MOCK_PROVIDE)->groups, VMIBUS_GROUP_WATCH);
}

TEST(test_p02_nothing_is_held_and_nothing_waits_unasked, WITH_HOST) {
    pass(100000);
    ck_assert_uint_eq(mock_host_timers(host), 0);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ATTACH), 0);
    add_first(watch_of(1, PAGE_GPA, 8));
    expect(execute((struct vmibus_watch){.watch = 1, .operation = VMIBUS_WATCH_OPERATION_REMOVE}), VMIBUS_ERROR_OK,
           VMIBUS_REASON_NONE);
    ck_assert_uint_eq(mock_host_count(host, MOCK_DETACH), 1);
    poke(PAGE_GPA, 5);
    pass(100000);
    ck_assert_uint_eq(n_told(), 0);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ATTACH), 1);
}

TEST(test_a_change_is_told_with_what_was_and_what_is, WITH_HOST) {
    const uint8_t *octets;

    poke(PAGE_GPA + 8, UINT64_C(0x1111111111111111));
    add_first(watch_of(3, PAGE_GPA, 64));
    pass(50);
    ck_assert_uint_eq(n_told(), 0);
    poke(PAGE_GPA + 8, UINT64_C(0x1111112222111111));
    pass(10);
    ck_assert_uint_eq(n_told(), 1);
    ck_assert_uint_eq(told()->watch, 3);
    ck_assert_uint_eq(told()->epoch, EPOCH);
    ck_assert_uint_eq(told()->address, PAGE_GPA + 11);
    ck_assert_uint_eq(told()->len, 2);
    ck_assert_uint_eq(told()->looks, 1);
    ck_assert_uint_eq(told()->flags, 0);
    octets = tail(4);
    ck_assert_mem_eq(octets, "\x11\x11\x22\x22", 4);
    pass(100);
    ck_assert_uint_eq(n_told(), 1);
}

TEST(test_p09_what_changes_before_it_is_taken_is_one_event, WITH_HOST) {
    add_first(watch_of(3, PAGE_GPA, 8));
    for (uint64_t i = 1; i <= 5; i++) {
        poke(PAGE_GPA, i);
        pass(10);
    }
    ck_assert_uint_eq(n_told(), 1);
    ck_assert_uint_eq(tail(2)[1], 1);
    go_on(3);
    pass(10);
    ck_assert_uint_eq(n_told(), 2);
    ck_assert_uint_eq(told()->looks, 4);
    ck_assert_uint_eq(tail(2)[0], 1);
    ck_assert_uint_eq(tail(2)[1], 5);
    /* What came back to what was told is nothing to tell. */
    poke(PAGE_GPA, 6);
    pass(10);
    poke(PAGE_GPA, 5);
    pass(10);
    go_on(3);
    pass(10);
    ck_assert_uint_eq(n_told(), 2);
}

TEST(test_long_changes_are_cut, WITH_HOST) {
    add_first(watch_of(3, PAGE_GPA, 65536));
    poke(PAGE_GPA, 1);
    poke(PAGE_GPA + 65528, UINT64_MAX);
    pass(10);
    ck_assert_uint_eq(told()->flags, VMIBUS_WATCH_CHANGE_CUT);
    ck_assert_uint_eq(told()->len, 65536);
    ck_assert_uint_eq(tail(8192)[4096], 1);
    ck_assert_uint_eq(mock_host_work(host), 0);
}

TEST(test_a_tail_bound_below_that_cuts_shorter, WITH_HOST) {
    add_first(watch_of(3, PAGE_GPA, 65536));
    mock_host_behaviour(host)->results[MOCK_PUBLISH] = -E2BIG;
    poke(PAGE_GPA, 1);
    poke(PAGE_GPA + 65528, UINT64_MAX);
    pass(10);
    ck_assert_uint_eq(n_told(), 2);
    ck_assert_uint_eq(tail(4096)[2048], 1);
    /* What could not be told is not taken for told. */
    mock_host_behaviour(host)->results[MOCK_PUBLISH] = 0;
    pass(10);
    ck_assert_uint_eq(tail(8192)[4096], 1);
}

TEST(test_each_look_translates_anew, WITH_HOST) {
    struct vmibus_watch watch = watch_of(1, PAGE_GVA, 8);

    watch.flags = 0;
    add_first(watch);
    poke(PAGE_GPA + 0x8000, 77);
    poke(TOP + 0x3000, (PAGE_GPA + 0x8000) | 7);
    pass(10);
    ck_assert_uint_eq(n_told(), 1);
    ck_assert_uint_eq(told()->address, PAGE_GVA);
    ck_assert_uint_eq(tail(2)[1], 77);
}

TEST(test_same_intervals_share_wake_ups, WITH_HOST) {
    add_first(watch_of(1, PAGE_GPA, 8));
    mock_host_advance(host, 3 * NS_PER_MS);
    expect(execute(watch_of(2, PAGE_GPA + 64, 8)), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    poke(PAGE_GPA, 1);
    poke(PAGE_GPA + 64, 1);
    pass(10);
    ck_assert_uint_eq(n_told(), 2);
    ck_assert_uint_eq(mock_host_record(host, MOCK_PUBLISH, 0)->at, mock_host_record(host, MOCK_PUBLISH, 1)->at);
    ck_assert_uint_eq(mock_host_timers(host), 1);
}

/* --- what is refused ---------------------------------------------------------------------------------------------- */

TEST(test_what_cannot_be_read_is_refused, WITH_HOST) {
    struct vmibus_watch watch = watch_of(1, RAM_LEN - 4, 8);
    uint64_t id = execute(watch);

    hand_out(EPOCH);
    expect(id, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM);
    ck_assert_uint_eq(mock_host_count(host, MOCK_DETACH), 1);
    watch = watch_of(2, PAGE_GVA + 31 * 4096 + 4090, 16);
    watch.flags = 0;
    id = execute(watch);
    hand_out(EPOCH);
    expect(id, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT);
    ck_assert_uint_eq(mock_host_ack(host, id)->value, PAGE_GVA + UINT64_C(32) * 4096);
    ck_assert_uint_eq(mock_host_ack(host, id)->level, 1);
    watch.epoch = EPOCH + 1;
    expect(execute(watch), VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE);
    expect(execute((struct vmibus_watch){.watch = 9, .operation = VMIBUS_WATCH_OPERATION_REMOVE}), VMIBUS_ERROR_VALIDATION,
           VMIBUS_REASON_NO_WATCH);
}

TEST(test_without_a_root_only_physical_ranges_are_watched, WITH_HOST) {
    struct vmibus_watch watch = watch_of(1, PAGE_GVA, 8);

    change_memctx(EPOCH + 1, VMIBUS_MEMCTX_STATE_PENDING);
    watch.flags = 0;
    expect(execute(watch), VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NO_ROOT);
    (void)execute(watch_of(1, PAGE_GPA, 8));
    ck_assert_uint_eq(mock_host_last(host, MOCK_ATTACH)->epoch, EPOCH + 1);
}

TEST(test_no_ram_no_watch, WITH_HOST) {
    uint64_t id = execute(watch_of(1, PAGE_GPA, 8));

    mock_host_answer_attach(host, endpoint, NULL, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_ATTACHMENTS);
    expect(id, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_ATTACHMENTS);
    id = execute(watch_of(2, PAGE_GPA, 8));
    mock_host_answer_attach(host, endpoint, NULL, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    expect(id, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_PRIVATE_RAM);
}

static void begin_bounded(void) {
    static const char *const options[] = {"octets=100", "pages-per-second=150", "interval-ms=20", NULL};

    start(options);
}

TEST(test_p09_bounds_of_a_vm, .setup = begin_bounded, .teardown = end) {
    struct vmibus_watch watch = watch_of(2, PAGE_GPA + 4090, 8);

    add_first(watch_of(1, PAGE_GPA, 60));
    expect(execute(watch_of(2, PAGE_GPA, 41)), VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES);
    expect(execute(watch_of(2, PAGE_GPA, 40)), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    expect(execute((struct vmibus_watch){.watch = 2, .operation = VMIBUS_WATCH_OPERATION_REMOVE}), VMIBUS_ERROR_OK,
           VMIBUS_REASON_NONE);
    /* One page each 20 ms is 50 of them; two pages are 100, which is one too many if they are looked at more often. */
    expect(execute(watch), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    watch = watch_of(3, PAGE_GPA, 8);
    expect(execute(watch), VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_WATCHES);
    expect(execute((struct vmibus_watch){.watch = 1, .operation = VMIBUS_WATCH_OPERATION_REMOVE}), VMIBUS_ERROR_OK,
           VMIBUS_REASON_NONE);
    expect(execute(watch), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
}

TEST(test_options) {
    static const char *const wrong[] = {"interval-ms=0", "octets=x", "pages-per-second=", "interval-ms=1s", "shape=round"};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(*wrong); i++) {
        const char *options[] = {wrong[i], NULL};

        host = mock_host_new(&vmibus_watch_sensor);
        ck_assert_int_eq(mock_host_start(host, options), -EINVAL);
        ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_FAILED);
        mock_host_free(host);
    }
}

/* --- what ends and what is hostile -------------------------------------------------------------------------------- */

TEST(test_p06_a_watch_ends_with_its_epoch, WITH_HOST) {
    uint64_t waiting;

    add_first(watch_of(1, PAGE_GPA, 8));
    change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_NONE);
    ck_assert_uint_eq(told()->flags, VMIBUS_WATCH_CHANGE_ENDED);
    ck_assert_uint_eq(told()->epoch, EPOCH);
    ck_assert_uint_eq(mock_host_count(host, MOCK_DETACH), 1);
    poke(PAGE_GPA, 1);
    pass(100);
    ck_assert_uint_eq(n_told(), 1);
    /* One that waits for RAM of an epoch that ends meanwhile. */
    change_memctx(EPOCH + 1, VMIBUS_MEMCTX_STATE_READY);
    waiting = execute(watch_of(2, PAGE_GPA, 8));
    change_memctx(EPOCH + 2, VMIBUS_MEMCTX_STATE_READY);
    expect(waiting, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE);
    hand_out(EPOCH + 1);
    ck_assert_uint_eq(mock_host_count(host, MOCK_DETACH), 2);
    ck_assert_uint_eq(mock_host_last(host, MOCK_DETACH)->epoch, EPOCH + 1);
}

TEST(test_one_of_the_next_epoch_is_not_answered_by_the_last, WITH_HOST) {
    uint64_t id;

    (void)execute(watch_of(1, PAGE_GPA, 8));
    change_memctx(EPOCH + 1, VMIBUS_MEMCTX_STATE_READY);
    id = execute(watch_of(2, PAGE_GPA, 8));
    mock_host_answer_attach(host, endpoint, NULL, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(mock_host_last(host, MOCK_ATTACH)->epoch, EPOCH + 1);
    hand_out(EPOCH + 1);
    expect(id, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
}

TEST(test_one_that_is_cancelled, WITH_HOST) {
    uint64_t id = execute(watch_of(1, PAGE_GPA, 8));

    mock_host_cancel(host, endpoint, id);
    expect(id, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED);
    hand_out(EPOCH);
    ck_assert_uint_eq(mock_host_count(host, MOCK_DETACH), 1);
    pass(1000);
}

/* More than the loop looks at: the worker owns it when the rest of the world ends. */
static void begin_long_look(void) {
    add_first(watch_of(1, PAGE_GPA, 65536));
    expect(execute(watch_of(2, PAGE_GPA + 65536, 65536)), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
}

TEST(test_p09_everything_may_end_during_a_look, WITH_HOST) {
    struct vmibus_watch more = watch_of(3, PAGE_GPA, 65536);

    begin_long_look();
    for (unsigned int round = 0; round < 3; round++) {
        mock_host_iterate(host, 0);
        poke(PAGE_GPA, round + 1);
        (void)execute(more);
        if (round == 0)
            (void)execute((struct vmibus_watch){.watch = 3, .operation = VMIBUS_WATCH_OPERATION_REMOVE});
        else if (round == 1)
            change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_NONE);
        else
            mock_host_vanish(host, endpoint);
        if (round < 2)
            pass(100);
        if (round == 1) {
            change_memctx(EPOCH, VMIBUS_MEMCTX_STATE_READY);
            (void)execute(more);
            hand_out(EPOCH);
        }
    }
    mock_host_settle(host);
    ck_assert_uint_eq(mock_host_timers(host), 0);
}

TEST(test_the_sensor_may_stop_during_a_look, WITH_HOST) {
    begin_long_look();
    (void)execute(watch_of(3, PAGE_GPA, 65536));
    mock_host_stop(host);
}

TEST(test_p09_tables_that_vanish_and_come_back, WITH_HOST) {
    struct vmibus_watch watch = watch_of(1, PAGE_GVA, 8);

    poke(PAGE_GPA, UINT64_C(0x0102030405060708));
    watch.flags = 0;
    add_first(watch);
    poke(TOP + 0x3000, 0);
    pass(10);
    ck_assert_uint_eq(told()->flags, VMIBUS_WATCH_CHANGE_UNREADABLE);
    ck_assert_mem_eq(tail(8), "\x08\x07\x06\x05\x04\x03\x02\x01", 8);
    go_on(1);
    /* A table that is its own, reserved bits, a table outside RAM. */
    poke(TOP + 0x1000, TOP | 7);
    pass(10);
    poke(TOP + 0x1000, UINT64_C(0x000fffffffff0000) | 0x87);
    pass(10);
    poke(TOP + 0x1000, (RAM_LEN + 0x5000) | 7);
    pass(10);
    ck_assert_uint_eq(n_told(), 1);
    poke(TOP + 0x1000, (TOP + 0x2000) | 7);
    poke(TOP + 0x3000, PAGE_GPA | 7);
    poke(PAGE_GPA, UINT64_C(0x0102030405060700));
    pass(10);
    ck_assert_uint_eq(told()->flags, VMIBUS_WATCH_CHANGE_READABLE);
    ck_assert_uint_eq(told()->len, 1);
    ck_assert_mem_eq(tail(2), "\x08\x00", 2);
}

TEST(test_p09_a_memory_file_that_is_cut, WITH_HOST) {
    add_first(watch_of(1, PAGE_GPA, 8));
    ck_assert_int_eq(ftruncate(fd, 0x2000), 0);
    pass(10);
    ck_assert_uint_eq(told()->flags, VMIBUS_WATCH_CHANGE_UNREADABLE);
    ck_assert_int_eq(ftruncate(fd, (off_t)RAM_LEN), 0);
    go_on(1);
    pass(10);
    ck_assert_uint_eq(told()->flags, VMIBUS_WATCH_CHANGE_READABLE);
}

TEST(test_p11_holes_stay_holes, WITH_HOST) {
    struct stat before, after;

    ck_assert_int_eq(fstat(fd, &before), 0);
    add_first(watch_of(1, 0x200000, 65536));
    pass(100);
    ck_assert_int_eq(fstat(fd, &after), 0);
    ck_assert_int_eq(before.st_blocks, after.st_blocks);
    ck_assert_uint_eq(n_told(), 0);
}

/* What a process keeps to itself is read by its memory file, on the worker. */
TEST(test_p11_private_ram, WITH_HOST) {
    uint8_t *memory = mmap(NULL, RAM_LEN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    const struct vmibus_ram_range range = {.len = RAM_LEN, .offset = (uintptr_t)memory};
    int mem = open("/proc/self/mem", O_RDONLY | O_CLOEXEC), pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    const struct vmibus_sensor_ram ram = {
        .epoch = EPOCH, .ranges = &range, .n_ranges = 1, .fds = &mem, .n_fds = 1, .pagemap_fd = pagemap};
    unsigned char resident[RAM_LEN / 4096];
    uint64_t id = execute(watch_of(1, PAGE_GPA, 65536));

    ck_assert_ptr_ne(memory, MAP_FAILED);
    mock_host_answer_attach(host, endpoint, &ram, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    ck_assert_ptr_null(mock_host_ack(host, id));
    expect(id, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    memory[PAGE_GPA + 5000] = 9;
    pass(10);
    ck_assert_uint_eq(told()->address, PAGE_GPA + 5000);
    ck_assert_uint_eq(tail(2)[1], 9);
    ck_assert_int_eq(mincore(memory, RAM_LEN, resident), 0);
    for (size_t i = 0; i < sizeof(resident); i++)
        ck_assert_int_eq(resident[i] & 1, i == PAGE_GPA / 4096 + 1);
    close(mem);
    close(pagemap);
    munmap(memory, RAM_LEN);
}

HARNESS_SUITE("watch sensor", HARNESS_QUICK)
