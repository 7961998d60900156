/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands at what they must not reach, too late, or for somebody who is gone. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"
#include "stub/stub_map.h"

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

static uint64_t now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* A lawful write of eight octets into the buffer of process 0 of a VM in its first boot. */
static struct vmibus_frame lawful_write(const struct wire_endpoint *vm, uint64_t token) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_MEMWRITE, vm);

    frame.cmd_memwrite.cr3 = stub_process_cr3(0, 0);
    frame.cmd_memwrite.gva = STUB_BUFFER_GVA;
    frame.cmd_memwrite.len = 8;
    frame.cmd_memwrite.token = token;
    frame.cmd_memwrite.epoch = vm->epoch;
    memcpy(frame.cmd_memwrite.data, "hostile!", 8);
    return frame;
}

TEST(test_p04_addresses_that_must_not_be_written) {
    static const struct {
        uint64_t cr3, gva;
        uint32_t len, flags;
        enum vmibus_error error;
        enum vmibus_reason reason;
    } cases[] = {
        {0, STUB_NOT_PRESENT_GVA, 8, 0, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT},
        {0x600000, STUB_NOT_PRESENT_GVA, 8, 0, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT},
        {0x600000, STUB_NOT_PRESENT_GVA - 4, 8, 0, VMIBUS_ERROR_READ_ONLY_PAGE, VMIBUS_REASON_NONE},
        {0x600000, STUB_BUFFER_GVA + STUB_BUFFER_SIZE - 4, 8, 0, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT},
        {0x600000, STUB_READ_ONLY_GVA, 8, 0, VMIBUS_ERROR_READ_ONLY_PAGE, VMIBUS_REASON_NONE},
        {0x600000, STUB_PAGE_OUTSIDE_GVA, 8, 0, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM},
        {0x600000, STUB_TABLE_OUTSIDE_GVA, 8, 0, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM},
        {0x600000, STUB_RESERVED_GVA, 8, 0, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_RESERVED_BITS},
        {0x600000, STUB_NON_CANONICAL_GVA, 8, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS},
        {0x600000, UINT64_MAX - 3, 8, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS},
        {0x600000, UINT64_C(0x00007ffffffffffc), 8, 0, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NOT_PRESENT},
        {STUB_OUTSIDE_GPA, STUB_BUFFER_GVA, 8, 0, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM},
        {UINT64_MAX, STUB_BUFFER_GVA, 8, 0, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM},
        {0, STUB_OUTSIDE_GPA, 8, VMIBUS_MEMWRITE_PHYSICAL, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM},
        {0, UINT64_MAX - 3, 8, VMIBUS_MEMWRITE_PHYSICAL, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS},
        {0, STUB_RAM_DEFAULT - 4, 8, VMIBUS_MEMWRITE_PHYSICAL, VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_OUTSIDE_RAM},
        {0x600000, STUB_FREE_GPA, 8, VMIBUS_MEMWRITE_PHYSICAL, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD},
        {0x600000, STUB_BUFFER_GVA, 0, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH},
        {0x600000, STUB_BUFFER_GVA, 25, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH},
        {0x600000, STUB_BUFFER_GVA, UINT32_MAX, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH},
        {0x600000, STUB_BUFFER_GVA, 13, VMIBUS_MEMWRITE_EXPECT, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH},
        {0x600000, STUB_BUFFER_GVA, 0x80000004u, VMIBUS_MEMWRITE_EXPECT, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH},
        {0x600000, STUB_BUFFER_GVA, 8, 1u << 31, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FLAGS},
        {0x600000, STUB_BUFFER_GVA, 8, VMIBUS_MEMWRITE_EXPECT_GPA, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FLAGS},
        {0x600000, STUB_BUFFER_GVA, 8, VMIBUS_MEMWRITE_SRC_BUFFER, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD},
    };
    struct vmibus_frame frame, answer;
    struct wire_endpoint vm;
    uint64_t token, writes;
    int fd;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE);
    writes = wire_counter(d->bystander, VMIBUS_COUNTER_MEMWRITES);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        frame = lawful_write(&vm, token);
        frame.cmd_memwrite.cr3 = cases[i].cr3;
        frame.cmd_memwrite.gva = cases[i].gva;
        frame.cmd_memwrite.len = cases[i].len;
        frame.cmd_memwrite.flags = cases[i].flags;
        answer = wire_ask(fd, &frame, NULL, 0);
        ck_assert_msg(answer.ack.error == cases[i].error && answer.ack.reason == cases[i].reason,
                      "case %zu: error %u, reason %u", i, answer.ack.error, answer.ack.reason);
        ck_assert_uint_eq(answer.ack.count, 0);
    }
    ck_assert_uint_eq(wire_counter(d->bystander, VMIBUS_COUNTER_MEMWRITES), writes);
    frame = lawful_write(&vm, token);
    answer = wire_ask(fd, &frame, NULL, 0);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(answer.ack.count, 8);
    /* Nothing but this was written. */
    frame = lawful_write(&vm, token);
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_EXPECT;
    memcpy(frame.cmd_memwrite.data + 8, "hostile!", 8);
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    close(fd);
    daemon_stop(d);
}

TEST(test_p05_stale_tokens_never_execute) {
    struct vmibus_frame frame;
    struct wire_endpoint vm;
    uint64_t token, other;
    int fd, thief;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    thief = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-1");
    frame = lawful_write(&vm, 0);
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_NO_LEASE, VMIBUS_REASON_NONE);
    frame = lawful_write(&vm, UINT64_MAX);
    ck_assert_uint_ne(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE);
    other = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_POWER);
    frame = lawful_write(&vm, other);
    ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_TOKEN);
    frame = lawful_write(&vm, token);
    wire_expect(thief, &frame, NULL, 0, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_NOT_RIGHTS_HOLDER);
    frame = lawful_write(&vm, token);
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    /* Released and written in one go: the write comes too late. Over two channels there is no such order, until it is told. */
    frame = wire_command(VMIBUS_KIND_CMD_LEASE, &vm);
    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RELEASE;
    frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_MEMWRITE;
    frame.cmd_lease.token = token;
    ck_assert(wire_send(fd, &frame, NULL, 0));
    if (channels_are_two(fd))
        ck_assert_uint_eq(wire_answer(fd, frame.header.correlation, NULL).ack.error, VMIBUS_ERROR_OK);
    frame = lawful_write(&vm, token);
    ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_TOKEN);
    close(thief);
    close(fd);
    daemon_stop(d);
}

TEST(test_p05_lease_that_expired) {
    struct vmibus_frame frame, answer;
    struct wire_endpoint vm;
    uint64_t token;
    int fd;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    frame = wire_command(VMIBUS_KIND_CMD_LEASE, &vm);
    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_MEMWRITE;
    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
    frame.cmd_lease.ttl_ms = 1;
    token = wire_ask(fd, &frame, NULL, 0).ack.token;
    ck_assert_uint_ne(token, 0);
    /* The last holder is told without asking, and does not get another write in. */
    do {
        answer = wire_await(fd, VMIBUS_KIND_LEASE);
    } while (answer.lease.state == VMIBUS_LEASE_STATE_HELD);
    ck_assert_uint_eq(answer.lease.token, token);
    frame = lawful_write(&vm, token);
    ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_TOKEN);
    ck_assert_uint_gt(wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE), token);
    close(fd);
    daemon_stop(d);
}

TEST(test_p06_stale_epoch_after_reset) {
    struct vmibus_frame frame, event;
    struct wire_endpoint vm, again;
    uint64_t token, power, kinds = VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED);
    int fd;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-1");
    token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE);
    power = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_POWER);
    wire_subscribe(fd, "stub-?", kinds);
    frame = wire_command(VMIBUS_KIND_CMD_POWER, &vm);
    frame.cmd_power.operation = VMIBUS_POWER_OPERATION_RESET;
    frame.cmd_power.token = power;
    ck_assert(wire_send(fd, &frame, NULL, 0));
    event = wire_await(fd, VMIBUS_KIND_MEMCTX_INVALIDATED);
    ck_assert_uint_eq(event.memctx_invalidated.epoch, vm.epoch);
    ck_assert_uint_eq(event.memctx_invalidated.reason, VMIBUS_REASON_RESET);
    frame = lawful_write(&vm, token);
    ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_EPOCH);
    frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &vm);
    frame.mem_attach.epoch = vm.epoch;
    ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_EPOCH);
    frame = wire_command(VMIBUS_KIND_MEM_RELEASE, &vm);
    frame.mem_release.epoch = vm.epoch;
    ck_assert_uint_ne(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    again = wire_find(fd, "stub-1");
    ck_assert_uint_eq(again.generation, vm.generation);
    ck_assert_uint_gt(again.epoch, vm.epoch);
    frame = lawful_write(&vm, token);
    ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_EPOCH);
    close(fd);
    daemon_stop(d);
}

TEST(test_p05_p06_nothing_reaches_the_next_occupant) {
    const struct daemon_options options = {.arguments = {"--sensor", "stub:respawn_ms=1"}};
    struct vmibus_frame frame;
    struct wire_endpoint vm, next;
    uint64_t token, power;
    int fd;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    for (unsigned i = 0; i < 5; i++) {
        vm = wire_find(fd, "stub-0");
        token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE);
        power = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_POWER);
        frame = wire_command(VMIBUS_KIND_CMD_POWER, &vm);
        frame.cmd_power.operation = VMIBUS_POWER_OPERATION_QUIT;
        frame.cmd_power.token = power;
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
        next = wire_find(fd, "stub-0");
        ck_assert_uint_gt(next.generation, vm.generation);
        ck_assert_uint_gt(next.epoch, vm.epoch);
        frame = lawful_write(&vm, token);
        frame.header.slot = next.slot; /* the slot may be the same, the generation is not */
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
        frame = lawful_write(&next, token);
        ck_assert_uint_ne(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
        frame = wire_command(VMIBUS_KIND_CMD_POWER, &next);
        frame.cmd_power.operation = VMIBUS_POWER_OPERATION_QUIT;
        frame.cmd_power.token = power;
        ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_TOKEN);
    }
    close(fd);
    /* Other RAM, the same number of descriptors. */
    daemon_stop(d);
}

TEST(test_deadlines_that_have_passed) {
    struct vmibus_frame frame;
    struct wire_endpoint vm;
    uint64_t token;
    int fd;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE);
    frame = lawful_write(&vm, token);
    frame.header.deadline_us = 1;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE);
    frame = lawful_write(&vm, token);
    frame.header.deadline_us = UINT32_MAX;
    wire_expect(fd, &frame, NULL, 0, now() > UINT32_MAX * UINT64_C(1000) ? VMIBUS_ERROR_EXPIRED : VMIBUS_ERROR_OK,
                VMIBUS_REASON_NONE);
    frame = lawful_write(&vm, token);
    frame.header.deadline_us = UINT32_MAX;
    frame.header.timestamp = now();
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    frame = wire_frame(VMIBUS_KIND_QUERY);
    frame.query.query = VMIBUS_QUERY_SENSORS;
    frame.header.deadline_us = 1;
    frame.header.timestamp = now() - 1000000;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE);
    /* A sum beyond the end of time is answered, one way or the other. */
    frame = lawful_write(&vm, token);
    frame.header.deadline_us = UINT32_MAX;
    frame.header.timestamp = UINT64_MAX;
    (void)wire_ask(fd, &frame, NULL, 0);
    frame = wire_frame(VMIBUS_KIND_QUERY);
    frame.query.query = VMIBUS_QUERY_SENSORS;
    frame.header.deadline_us = UINT32_MAX;
    frame.header.timestamp = UINT64_MAX;
    (void)wire_ask(fd, &frame, NULL, 0);
    close(fd);
    daemon_stop(d);
}

/* Commands whose success nobody wants to hear of must not use up what a connection may have open. */
TEST(test_p08_writes_without_ack) {
    struct vmibus_frame frame, answer;
    struct wire_endpoint vm;
    uint64_t token;
    int fd;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE);
    for (unsigned i = 0; i < 1000; i++) {
        frame = lawful_write(&vm, token);
        frame.header.flags = VMIBUS_FRAME_NO_ACK;
        ck_assert(wire_send(fd, &frame, NULL, 0));
    }
    frame = lawful_write(&vm, token);
    ck_assert(wire_send(fd, &frame, NULL, 0));
    answer = wire_await(fd, VMIBUS_KIND_ACK);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(answer.header.correlation, frame.header.correlation);
    ck_assert_uint_ge(wire_counter(fd, VMIBUS_COUNTER_MEMWRITES), 1001);
    /* A refusal is told all the same. */
    frame = lawful_write(&vm, token + 1);
    frame.header.flags = VMIBUS_FRAME_NO_ACK;
    ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_STALE_TOKEN);
    close(fd);
    daemon_stop(d);
}

/* --- commands that are answered with data ------------------------------------------------------- */

TEST(test_a_picture_comes_by_a_sealed_descriptor) {
    int fds[VMIBUS_FDS_PER_FRAME], fd;
    struct vmibus_frame frame, answer;
    struct wire_endpoint vm;
    struct stat status;
    uint8_t head[24];
    size_t n_fds;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    frame = wire_command(VMIBUS_KIND_SCREENSHOT, &vm);
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    frame = wire_command(VMIBUS_KIND_SCREENSHOT, &vm);
    frame.screenshot.format = VMIBUS_IMAGE_FORMAT_PNG;
    frame.screenshot.head = 1;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    wire_keep_fds(fds, &n_fds);
    frame = wire_command(VMIBUS_KIND_SCREENSHOT, &vm);
    frame.screenshot.format = VMIBUS_IMAGE_FORMAT_PNG;
    answer = wire_ask(fd, &frame, NULL, 0);
    wire_keep_fds(NULL, NULL);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(answer.header.fd_count, 1);
    ck_assert_uint_eq(n_fds, 1);
    ck_assert_int_eq(fstat(fds[0], &status), 0);
    ck_assert_uint_eq((uint64_t)status.st_size, answer.ack.count);
    ck_assert_int_eq(pread(fds[0], head, sizeof(head), 0), (ssize_t)sizeof(head));
    ck_assert_mem_eq(head, "\x89PNG\r\n\x1a\n", 8);
    ck_assert_uint_eq(head[19], 64);
    ck_assert_uint_eq(head[23], 48);
    ck_assert_int_eq(fcntl(fds[0], F_GET_SEALS) & (F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW),
                     F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW);
    close(fds[0]);
    close(fd);
    daemon_stop(d);
}

TEST(test_registers_come_in_the_tail) {
    struct vmibus_vcpu_registers registers;
    struct vmibus_frame frame, answer;
    struct wire_endpoint vm;
    char tail[WIRE_TAIL];
    int fd;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    frame = wire_command(VMIBUS_KIND_REGISTERS, &vm);
    frame.registers.vcpu = 1;
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    frame = wire_command(VMIBUS_KIND_REGISTERS, &vm);
    frame.registers.vcpu = UINT32_MAX;
    ck_assert(wire_send(fd, &frame, NULL, 0));
    answer = wire_answer(fd, frame.header.correlation, tail);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(answer.ack.count, 1);
    ck_assert_uint_eq(answer.header.tail_length, sizeof(registers));
    memcpy(&registers, tail, sizeof(registers));
    ck_assert_uint_eq(registers.cr3, stub_process_cr3(0, 0));
    close(fd);
    daemon_stop(d);
}

TEST(test_who_watches_is_told_of_a_write) {
    struct vmibus_frame frame, told;
    struct wire_endpoint vm;
    char tail[WIRE_TAIL];
    uint32_t watch;
    int fd, other;

    daemon_start(d, NULL);
    fd = wire_open(d->path, NULL);
    other = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    frame = wire_command(VMIBUS_KIND_WATCH, &vm);
    wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    frame = wire_command(VMIBUS_KIND_WATCH, &vm);
    frame.watch = (struct vmibus_watch){.operation = VMIBUS_WATCH_OPERATION_ADD,
                                        .flags = VMIBUS_WATCH_PHYSICAL,
                                        .address = STUB_FREE_GPA,
                                        .len = 64};
    frame = wire_ask(fd, &frame, NULL, 0);
    ck_assert_uint_eq(frame.ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(frame.ack.epoch, vm.epoch);
    watch = (uint32_t)frame.ack.value;
    {
        struct wire_endpoint same = wire_find(other, "stub-0");
        uint64_t token = wire_acquire(other, &same, VMIBUS_LEASE_CLASS_MEMWRITE);

        frame = lawful_write(&same, token);
        frame.cmd_memwrite.cr3 = 0;
        frame.cmd_memwrite.gva = STUB_FREE_GPA + 16;
        frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_PHYSICAL;
        ck_assert_uint_eq(wire_ask(other, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    }
    do
        ck_assert(wire_receive(fd, &told, tail));
    while (told.header.kind != VMIBUS_KIND_WATCH_CHANGED);
    ck_assert_uint_eq(told.watch_changed.watch, watch);
    ck_assert_uint_eq(told.watch_changed.address, STUB_FREE_GPA + 16);
    ck_assert_uint_eq(told.watch_changed.len, 8);
    ck_assert_uint_eq(told.header.tail_length, 16);
    ck_assert_mem_eq(tail, "\0\0\0\0\0\0\0\0hostile!", 16);
    frame = wire_command(VMIBUS_KIND_WATCH, &vm);
    frame.watch = (struct vmibus_watch){.operation = VMIBUS_WATCH_OPERATION_REMOVE, .watch = watch};
    wire_expect(other, &frame, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_WATCH);
    frame = wire_command(VMIBUS_KIND_WATCH, &vm);
    frame.watch = (struct vmibus_watch){.operation = VMIBUS_WATCH_OPERATION_REMOVE, .watch = watch};
    ck_assert_uint_eq(wire_ask(fd, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    close(fd);
    close(other);
    daemon_stop(d);
}

HARNESS_SUITE("commands", HARNESS_QUICK)
