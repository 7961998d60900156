/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* BUFFER: memory shared with clients, its charges, and what a client can do to it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "harness.h"
#include "memory/buffers.h"
#include "memory/fixture.h"
#include "util/fds.h"

#define FOREIGN 65534u

static struct fixture fx;

static void ready(void) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
}

static void teardown(void) {
    fixture_deinit(&fx);
}

#define READY .setup = ready, .teardown = teardown

static struct vmibus_ack *allocate(struct client *client, uint64_t size) {
    return buffer_allocate(&fx, client, size);
}

static struct vmibus_ack *give_back(struct client *client, uint32_t number) {
    return buffer_give_back(&fx, client, number);
}

static int last_fd(const struct client *client) {
    return client->journal.fds[0];
}

static uint64_t used(enum resource resource) {
    return fx.ledger.used[resource];
}

TEST(test_buffer_is_sealed_and_writable, READY) {
    const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    struct vmibus_ack *ack = allocate(&fx.control, PAGE + 1);
    int fd = last_fd(&fx.control);
    uint8_t *octets;

    assert_ok(ack);
    ck_assert_uint_eq(ack->value, 1);
    ck_assert_uint_eq(ack->count, 2 * PAGE);
    ck_assert_int_eq(fcntl(fd, F_GET_SEALS) & wanted, wanted);
    ck_assert_int_eq(ftruncate(fd, 0), -1);
    ck_assert_int_eq(ftruncate(fd, 3 * PAGE), -1);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    octets = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(octets, MAP_FAILED);
    memset(octets, 7, 2 * PAGE);
    munmap(octets, 2 * PAGE);
}

/* The client may do to its file description what it likes: the authority's is another one. */
TEST(test_p09_descriptions_are_not_shared, READY) {
    int fd;

    assert_ok(allocate(&fx.control, PAGE));
    fd = last_fd(&fx.control);
    ck_assert_int_eq(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK), 0);
    ck_assert_int_eq(lseek(fd, 100, SEEK_SET), 100);
    assert_ok(buffer_read(&fx, &fx.control, DATA_GVA, 8, 1, 0));
}

TEST(test_numbers_are_the_lowest_free, READY) {
    for (uint32_t i = 1; i <= 4; i++)
        ck_assert_uint_eq(allocate(&fx.control, PAGE)->value, i);
    assert_ok(give_back(&fx.control, 2));
    assert_ok(give_back(&fx.control, 1));
    ck_assert_uint_eq(allocate(&fx.control, PAGE)->value, 1);
    ck_assert_uint_eq(allocate(&fx.control, PAGE)->value, 2);
    ck_assert_uint_eq(allocate(&fx.control, PAGE)->value, 5);
}

TEST(test_numbers_are_of_a_session, READY) {
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 12);
    assert_ok(allocate(&fx.control, PAGE));
    assert_refused(buffer_read(&fx, &other, DATA_GVA, 8, 1, 0), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER);
    assert_refused(give_back(&other, 1), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER);
    ck_assert_uint_eq(allocate(&other, PAGE)->value, 1);
    client_deinit(&other);
}

TEST(test_hostile_fields_are_refused, READY) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_BUFFER);

    assert_refused(allocate(&fx.control, 0), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
    assert_refused(allocate(&fx.control, VMIBUS_BUFFER_BOUND + 1), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
    assert_refused(allocate(&fx.control, UINT64_MAX), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
    for (unsigned operation = 0; operation < 256; operation += 3) {
        if (operation == VMIBUS_BUFFER_OPERATION_ALLOCATE || operation == VMIBUS_BUFFER_OPERATION_FREE)
            continue;
        frame.buffer.operation = (uint8_t)operation;
        frame.header.correlation++;
        fx.control.journal.n = 0;
        assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    }
    frame.buffer.operation = VMIBUS_BUFFER_OPERATION_ALLOCATE;
    frame.buffer.size = PAGE;
    frame.header.fd_count = 1;
    assert_refused(submit(&fx.control, &frame, NULL, &fx.vm.fd), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS);
    ck_assert_uint_eq(give_back(&fx.control, 0)->reason, VMIBUS_REASON_NO_BUFFER);
    ck_assert_uint_eq(give_back(&fx.control, UINT32_MAX)->reason, VMIBUS_REASON_NO_BUFFER);
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 0);
}

TEST(test_late_allocation_is_not_made, READY) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_BUFFER);

    frame.buffer.operation = VMIBUS_BUFFER_OPERATION_ALLOCATE;
    frame.buffer.size = PAGE;
    frame.header.timestamp = 1;
    frame.header.deadline_us = 1;
    assert_refused(submit(&fx.control, &frame, NULL, NULL), VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 0);
}

/* The descriptor is the answer. */
TEST(test_allocation_is_answered_whatever_the_flags, READY) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_BUFFER);

    frame.buffer.operation = VMIBUS_BUFFER_OPERATION_ALLOCATE;
    frame.buffer.size = PAGE;
    frame.header.flags = VMIBUS_FRAME_NO_ACK;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
    ck_assert_uint_eq(fx.control.journal.frames[fx.control.journal.n - 1].header.flags, 0);
}

/* --- who ---------------------------------------------------------------------------------------- */

TEST(test_p01_who_may_neither_read_nor_write_has_none, READY) {
    struct client other;

    fixture_grant(&fx, geteuid(), CAPABILITIES_ALL);
    fixture_grant(&fx, FOREIGN, VMIBUS_CAP_OBSERVE | VMIBUS_CAP_RAM_FD);
    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, FOREIGN, 12);
    assert_refused(allocate(&other, PAGE), VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    fixture_grant(&fx, FOREIGN, VMIBUS_CAP_MEM_WRITE);
    assert_ok(allocate(&other, PAGE));
    client_deinit(&other);
}

TEST(test_p01_sensors_have_none, READY) {
    ck_assert_uint_eq(allocate(&fx.sensor, PAGE)->reason, VMIBUS_REASON_BAD_KIND);
    ck_assert_uint_eq(buffer_read(&fx, &fx.sensor, DATA_GVA, 8, 1, 0)->reason, VMIBUS_REASON_BAD_KIND);
}

TEST(test_p01_buffers_go_with_the_last_grant, READY) {
    struct policy_rule *rule;
    struct client other;

    fixture_grant(&fx, geteuid(), CAPABILITIES_ALL);
    fixture_grant(&fx, FOREIGN, VMIBUS_CAP_MEM_READ);
    rule = list_entry(fx.policy->rules.previous, struct policy_rule, link);
    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, FOREIGN, 12);
    assert_ok(allocate(&other, PAGE));
    assert_ok(allocate(&fx.control, PAGE));
    rule->capabilities = VMIBUS_CAP_MEM_WRITE;
    authority_set_policy(fx.authority, fx.policy);
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 2);
    rule->capabilities = VMIBUS_CAP_OBSERVE;
    authority_set_policy(fx.authority, fx.policy);
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 1);
    ck_assert_uint_eq(give_back(&other, 1)->reason, VMIBUS_REASON_NO_BUFFER);
    client_deinit(&other);
}

/* --- charges ------------------------------------------------------------------------------------ */

TEST(test_p08_each_charge_is_released_once, READY) {
    uint64_t fds = used(RESOURCE_FDS), bytes = used(RESOURCE_BYTES);
    struct authority_counters counters;

    assert_ok(allocate(&fx.control, 3 * PAGE));
    assert_ok(allocate(&fx.control, PAGE));
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 2);
    ck_assert_uint_eq(used(RESOURCE_BYTES) - bytes, 4 * PAGE);
    ck_assert_uint_eq(used(RESOURCE_FDS) - fds, 2);
    authority_get_counters(fx.authority, &counters);
    ck_assert_uint_eq(counters.buffers, 2);
    ck_assert_uint_eq(counters.buffer_bytes, 4 * PAGE);
    assert_ok(give_back(&fx.control, 1));
    assert_refused(give_back(&fx.control, 1), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_BUFFER);
    ck_assert_uint_eq(used(RESOURCE_BYTES) - bytes, PAGE);
    link_session_closed(&fx, &fx.control);
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 0);
    ck_assert_uint_eq(used(RESOURCE_BYTES), bytes);
    ck_assert_uint_eq(used(RESOURCE_FDS), fds);
    link_session_closed(&fx, &fx.control);
    assert_refused(allocate(&fx.control, PAGE), VMIBUS_ERROR_DENIED, VMIBUS_REASON_BAD_SESSION);
}

TEST(test_p08_a_disconnect_frees_all, READY) {
    struct client other;

    client_init(&other, &fx, VMIBUS_ROLE_CONTROL, geteuid(), 12);
    for (int i = 0; i < 5; i++)
        assert_ok(allocate(&other, PAGE));
    client_deinit(&other);
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 0);
}

/* Which limit, its bound, how much is in use, and by whom. */
static void assert_names(const struct vmibus_ack *ack, enum vmibus_error error, enum vmibus_reason reason, uint64_t bound,
                         uint64_t in_use, uint32_t uid) {
    ck_assert_uint_eq(ack->error, error);
    ck_assert_uint_eq(ack->reason, reason);
    ck_assert_uint_eq(ack->value, bound);
    ck_assert_uint_eq(ack->count, in_use);
    ck_assert_uint_eq(ack->token, uid);
}

TEST(test_p08_a_limit_hit_is_named, READY) {
    struct account *account = fx.control.account;
    uint64_t fds = account->used[RESOURCE_FDS];

    account->limit[RESOURCE_BUFFERS] = 1;
    assert_ok(allocate(&fx.control, PAGE));
    assert_names(allocate(&fx.control, PAGE), VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_BUFFERS, 1, 1, geteuid());
    account->limit[RESOURCE_BUFFERS] = 10;
    account->limit[RESOURCE_BYTES] = 2 * PAGE;
    assert_names(allocate(&fx.control, 2 * PAGE), VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_BYTES, 2 * PAGE, PAGE, geteuid());
    account->limit[RESOURCE_FDS] = fds + 1;
    assert_names(allocate(&fx.control, PAGE), VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_FDS, fds + 1, fds + 1, geteuid());
    account->limit[RESOURCE_FDS] = fds + 10;
    fx.ledger.limit[RESOURCE_BUFFERS] = 1;
    assert_names(allocate(&fx.control, PAGE), VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BUFFERS, 1, 1, geteuid());
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 1);
    ck_assert_uint_eq(used(RESOURCE_FDS), fds + 1);
}

TEST(test_p08_a_session_has_a_bound, READY) {
    fx.control.account->limit[RESOURCE_BUFFERS] = fx.ledger.limit[RESOURCE_BUFFERS] = 4 * VMIBUS_BUFFERS_BOUND;
    for (unsigned i = 0; i < VMIBUS_BUFFERS_BOUND; i++)
        assert_ok(allocate(&fx.control, PAGE));
    assert_names(allocate(&fx.control, PAGE), VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_BUFFERS, VMIBUS_BUFFERS_BOUND,
                 VMIBUS_BUFFERS_BOUND, geteuid());
}

/* A command in flight keeps its buffer, and the charges with it, until it has ended. */
TEST(test_p08_a_command_in_flight_keeps_its_buffer, READY) {
    struct vmibus_frame frame;
    int fd;

    assert_ok(allocate(&fx.control, MIB));
    fd = fd_dup(last_fd(&fx.control));
    fx.vm.ram[DATA_GPA + 100] = 42;
    pread_block();
    frame = read_frame(&fx, DATA_GVA, MIB, 1, 0);
    submit_only(&fx.control, &frame, NULL, NULL);
    pread_wait_blocked();
    assert_ok(give_back(&fx.control, 1));
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 1);
    ck_assert_uint_eq(allocate(&fx.control, PAGE)->value, 1);
    pread_release();
    wait_answers(&fx.control, fx.control.journal.n + 1);
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 1);
    ck_assert_uint_eq(octet_of(fd, 100), 42);
    fd_close(fd);
}

/* --- a hostile owner ----------------------------------------------------------------------------- */

TEST(test_p09_holes_hurt_nobody, READY) {
    int fd;

    assert_ok(allocate(&fx.control, MIB));
    fd = fd_dup(last_fd(&fx.control));
    memset(fx.vm.ram + DATA_GPA, 5, MIB);
    for (unsigned i = 0; i < 8; i++) {
        ck_assert_int_eq(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)MIB), 0);
        assert_ok(buffer_read(&fx, &fx.control, DATA_GVA, i % 2 ? MIB : PAGE, 1, 0));
        ck_assert_uint_eq(octet_of(fd, PAGE - 1), 5);
    }
    fd_close(fd);
}

/* Memory of this process whose first touch waits until somebody resolves it. */
static int make_trap(uint8_t **page) {
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {.range.len = PAGE, .mode = UFFDIO_REGISTER_MODE_MISSING};
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

    if (fd < 0)
        test_skip("userfaultfd(2) is not to be had");
    *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    range.range.start = (uintptr_t)*page;
    ck_assert_int_eq(ioctl(fd, UFFDIO_API, &api), 0);
    ck_assert_int_eq(ioctl(fd, UFFDIO_REGISTER, &range), 0);
    return fd;
}

static void spring_trap(int fd, uint8_t *page) {
    struct uffdio_zeropage zeros = {.range = {.start = (uintptr_t)page, .len = PAGE}};

    ck_assert_int_eq(ioctl(fd, UFFDIO_ZEROPAGE, &zeros), 0);
    fd_close(fd);
}

struct lock_holder {
    int fd;
    uint8_t *page;
};

/* Holds the inode's lock for as long as the source of its write waits. */
static void *hold_lock(void *data) {
    const struct lock_holder *holder = data;

    ck_assert_int_eq(pwrite_really(holder->fd, holder->page, PAGE, 0), PAGE);
    return NULL;
}

/* The buffer's owner holds it, or QEMU that of its RAM. */
TEST(test_p09_a_locked_file_stalls_no_reader, READY, .iterations = 2) {
    struct lock_holder holder;
    pthread_t thread;
    struct pollfd waits;
    int trap = make_trap(&holder.page);

    assert_ok(allocate(&fx.control, MIB));
    holder.fd = fd_dup(_i ? fx.vm.fd : last_fd(&fx.control));
    ck_assert_int_eq(pthread_create(&thread, NULL, hold_lock, &holder), 0);
    waits = (struct pollfd){.fd = trap, .events = POLLIN};
    ck_assert_int_eq(poll(&waits, 1, 20000), 1);
    assert_ok(buffer_read(&fx, &fx.control, SCATTER_GVA, PAGE, 1, 0));
    assert_ok(buffer_read(&fx, &fx.control, DATA_GVA, MIB, 1, 0));
    assert_ok(give_back(&fx.control, 1));
    ck_assert_uint_eq(used(RESOURCE_BUFFERS), 0);
    spring_trap(trap, holder.page);
    pthread_join(thread, NULL);
    munmap(holder.page, PAGE);
    fd_close(holder.fd);
}

HARNESS_SUITE("buffer", HARNESS_QUICK)
