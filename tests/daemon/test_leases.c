/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Leases of a real daemon: tokens of others, and what is under way when a lease ends. */
#include <string.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

static struct vmibus_frame lease(const struct wire_endpoint *vm, enum vmibus_lease_class lease_class, enum vmibus_lease_mode mode) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, vm);

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.mode = (uint8_t)mode;
    return frame;
}

TEST(test_p05_token_of_another_session_is_stale) {
    struct vmibus_frame frame;
    struct wire_endpoint vm;
    uint64_t token;
    int holder, thief;

    daemon_start(d, NULL);
    holder = wire_open(d->path, NULL);
    thief = wire_open(d->path, NULL);
    vm = wire_find(holder, "stub-0");
    token = wire_acquire(holder, &vm, VMIBUS_LEASE_CLASS_POWER);
    frame = wire_command(VMIBUS_KIND_CMD_POWER, &vm);
    frame.cmd_power.operation = VMIBUS_POWER_OPERATION_QUIT;
    wire_expect(thief, &frame, NULL, 0, VMIBUS_ERROR_NO_LEASE, VMIBUS_REASON_HELD);
    frame.cmd_power.token = token;
    frame.header.correlation++;
    wire_expect(thief, &frame, NULL, 0, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_NOT_RIGHTS_HOLDER);
    for (int i = 1; i < 64; i++) {
        frame.cmd_power.token = token ^ UINT64_C(1) << i;
        frame.header.correlation += 1000;
        ck_assert_uint_eq(wire_ask(thief, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_TOKEN);
    }
    frame = lease(&vm, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_FAIL);
    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RELEASE;
    frame.cmd_lease.token = token;
    wire_expect(thief, &frame, NULL, 0, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_NOT_RIGHTS_HOLDER);
    close(thief);
    close(holder);
    daemon_stop(d);
}

/* Input that waits for a far time must not keep the class from the next holder. */
TEST(test_p05_p09_lease_ends_while_input_waits_for_its_time) {
    const struct daemon_options options = {.config = "[daemon]\nrevoke-timeout-ms = 600000\n"};
    struct vmibus_frame frame, late, answer;
    struct wire_endpoint vm;
    uint64_t token;
    int holder, next;

    daemon_start(d, &options);
    holder = wire_open(d->path, NULL);
    next = wire_open(d->path, NULL);
    vm = wire_find(holder, "stub-0");
    token = wire_acquire(holder, &vm, VMIBUS_LEASE_CLASS_INPUT);
    late = wire_command(VMIBUS_KIND_CMD_INPUT, &vm);
    late.cmd_input.token = token;
    late.cmd_input.count = 1;
    late.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = 1};
    late.cmd_input.not_before_us = 1;
    late.header.timestamp = UINT64_MAX / 2;
    ck_assert(wire_send(holder, &late, NULL, 0));
    frame = lease(&vm, VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_FAIL);
    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RELEASE;
    frame.cmd_lease.token = token;
    ck_assert(wire_send(holder, &frame, NULL, 0));
    ck_assert_uint_gt(wire_acquire(next, &vm, VMIBUS_LEASE_CLASS_INPUT), token);
    do {
        answer = wire_await(holder, VMIBUS_KIND_ACK);
    } while (answer.header.correlation != late.header.correlation);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_STALE_TOKEN);
    close(next);
    close(holder);
    daemon_stop(d);
}

HARNESS_SUITE("leases of a daemon", HARNESS_QUICK)
