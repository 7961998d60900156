/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Questions: what the bus and the memory authority tell, of whom, and to whom. */
#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

#define FIRST_UID 60001

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

static void become(uid_t uid) {
    ck_assert_int_eq(seteuid(0), 0);
    ck_assert_int_eq(seteuid(uid), 0);
}

/* --- QUERY LIMITS ------------------------------------------------------------------------------ */

TEST(test_p01_p08_limits_tell_who_uses_what) {
    static const struct daemon_options watched_by_few = {
        .config = "[limits]\nleases = 7\n[limits-total]\nleases = 40\n"
                  "[rule root]\nuser = 0\ncapabilities = all\n"
                  "[rule user]\nuser = 60001\ncapabilities = OBSERVE POWER INPUT\n",
    };
    struct vmibus_frame frame;
    struct vmibus_limit_use use;
    struct wire_endpoint vm;
    int fd, watcher;

    if (geteuid() != 0)
        test_skip("needs root, to be another user");
    daemon_start(d, &watched_by_few);
    become(FIRST_UID);
    fd = wire_open(d->path, NULL);
    become(0);
    watcher = wire_open(d->path, NULL);
    vm = wire_find(watcher, "stub-0");
    close(watcher);
    (void)wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_POWER);
    (void)wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_INPUT);
    ck_assert(wire_limit(fd, VMIBUS_REASON_LIMIT_LEASES, -1, &use));
    ck_assert_uint_eq(use.used, 2);
    ck_assert_uint_eq(use.bound, 40);
    ck_assert(wire_limit(fd, VMIBUS_REASON_LIMIT_LEASES, FIRST_UID, &use));
    ck_assert_uint_eq(use.used, 2);
    ck_assert_uint_eq(use.bound, 7);
    /* Of others only whoever may see STATS is told. */
    ck_assert(!wire_limit(fd, VMIBUS_REASON_LIMIT_CONNECTIONS, 0, &use));
    ck_assert(wire_limit(d->bystander, VMIBUS_REASON_LIMIT_LEASES, FIRST_UID, &use));
    ck_assert_uint_eq(use.used, 2);
    ck_assert(wire_limit(d->bystander, VMIBUS_REASON_LIMIT_CONNECTIONS, 0, &use));
    frame = wire_frame(VMIBUS_KIND_QUERY);
    frame.query.query = VMIBUS_QUERY_STATS;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    close(fd);
    daemon_stop(d);
}

/* --- MEM_QUERY HOLDERS ------------------------------------------------------------------------- */

static void attach(int fd, const struct wire_endpoint *vm) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_MEM_ATTACH, vm);

    frame.mem_attach.epoch = vm->epoch;
    ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
}

/* How many holders are told of, and how many of them are of a user. NULL: of all endpoints. */
static size_t count_holders(int fd, const struct wire_endpoint *vm, uid_t uid, size_t *of_user) {
    static uint8_t tail[WIRE_TAIL];
    struct vmibus_frame frame = vm ? wire_command(VMIBUS_KIND_MEM_QUERY, vm) : wire_frame(VMIBUS_KIND_MEM_QUERY), answer;
    struct vmibus_memory_holder holder;

    frame.mem_query.query = VMIBUS_MEMORY_QUERY_HOLDERS;
    ck_assert(wire_send(fd, &frame, NULL, 0));
    answer = wire_answer(fd, frame.header.correlation, tail);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(answer.ack.count * sizeof(holder), answer.header.tail_length);
    *of_user = 0;
    for (uint32_t at = 0; at < answer.header.tail_length; at += sizeof(holder)) {
        memcpy(&holder, tail + at, sizeof(holder));
        *of_user += holder.uid == uid;
    }
    return answer.ack.count;
}

/* Root sees everybody; 60001 may know of stub-0 only, but of everybody there; 60002 is one user among others. */
TEST(test_p01_holders_are_told_to_whom_it_concerns) {
    static const struct daemon_options options = {
        .config = "[rule root]\nuser = 0\ncapabilities = all\n"
                  "[rule watcher]\nuser = 60001\nendpoints = stub-0\ncapabilities = OBSERVE STATS\n"
                  "[rule user]\nuser = 60002\ncapabilities = OBSERVE RAM_FD\n"
                  "[rule blind]\nuser = 60003\ncapabilities = INPUT\n",
    };
    struct wire_endpoint vms[2], gone;
    struct vmibus_frame frame;
    int fds[4];
    size_t own;

    if (geteuid() != 0)
        test_skip("needs root, to be several users");
    daemon_start(d, &options);
    for (uid_t i = 0; i < 4; i++) {
        become(i ? FIRST_UID + i - 1 : 0);
        fds[i] = wire_open(d->path, NULL);
    }
    become(0);
    vms[0] = wire_find(fds[0], "stub-0");
    vms[1] = wire_find(fds[0], "stub-1");
    for (size_t i = 0; i < 2; i++) {
        attach(fds[0], &vms[i]);
        attach(fds[2], &vms[i]);
    }
    ck_assert_uint_ge(count_holders(fds[0], NULL, 60002, &own), 4);
    ck_assert_uint_eq(own, 2);
    ck_assert_uint_eq(count_holders(fds[2], NULL, 60002, &own), 2);
    ck_assert_uint_eq(own, 2);
    ck_assert_uint_eq(count_holders(fds[2], &vms[1], 60002, &own), 1);
    ck_assert_uint_eq(own, 1);
    ck_assert_uint_eq(count_holders(fds[1], &vms[0], 60002, &own), count_holders(fds[0], &vms[0], 60002, &own));
    ck_assert_uint_eq(own, 1);
    (void)count_holders(fds[1], NULL, 60002, &own);
    ck_assert_uint_eq(own, 1);
    /* Who may not know of an endpoint is not told whether it is there. */
    gone = vms[1];
    gone.generation++;
    for (size_t i = 0; i < 2; i++) {
        frame = wire_command(VMIBUS_KIND_MEM_QUERY, i ? &gone : &vms[1]);
        frame.mem_query.query = VMIBUS_MEMORY_QUERY_HOLDERS;
        ck_assert_uint_ne(wire_ask(fds[1], &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
        frame.header.correlation++;
        wire_expect(fds[3], &frame, NULL, 0, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    }
    /* Without any right to observe there is nothing of one's own either. */
    ck_assert_uint_eq(count_holders(fds[3], NULL, 60003, &own), 0);
    for (size_t i = 0; i < 4; i++)
        close(fds[i]);
    daemon_stop(d);
}

/* --- questions that make no sense -------------------------------------------------------------- */

TEST(test_p09_questions_that_there_are_not) {
    static const uint16_t numbers[] = {0, 99, UINT16_MAX};
    struct vmibus_frame frame;
    struct wire_endpoint vm;
    int fd;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    for (size_t i = 0; i < 3; i++) {
        frame = wire_frame(VMIBUS_KIND_QUERY);
        frame.query.query = numbers[i];
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
        frame = wire_command(VMIBUS_KIND_MEM_QUERY, &vm);
        frame.mem_query.query = numbers[i];
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    }
    frame = wire_command(VMIBUS_KIND_MEM_QUERY, &vm);
    frame.mem_query.query = VMIBUS_MEMORY_QUERY_HOLDERS;
    frame.header.generation++;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
    frame.header.slot = UINT32_MAX;
    frame.header.correlation++;
    ck_assert_uint_ne(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    close(fd);
    daemon_stop(d);
}

HARNESS_SUITE("queries", HARNESS_QUICK)
