/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/frame_check.h"

#include <string.h>

#include <vmibus/names.h>

#include "harness.h"

#define BOUND 1000u

static struct vmibus_frame frame_of(enum vmibus_kind kind) {
    struct vmibus_frame frame = {
        .header = {.kind = (uint16_t)kind,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .priority = VMIBUS_PRIORITY_NORMAL,
                   .version = VMIBUS_PROTOCOL_VERSION},
    };
    const struct vmibus_frame_description *description = vmibus_frame_describe((uint16_t)kind);

    /* The lawful least of what is looked at. */
    if (description)
        frame.header.tail_length = description->tail_min;
    if (kind == VMIBUS_KIND_CMD_LEASE) {
        frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
        frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_INPUT;
        frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
    } else if (kind == VMIBUS_KIND_CMD_POWER) {
        frame.cmd_power.operation = VMIBUS_POWER_OPERATION_RESET;
    } else if (kind == VMIBUS_KIND_CMD_VM) {
        frame.cmd_vm.operation = VMIBUS_VM_OPERATION_PAUSE;
    } else if (kind == VMIBUS_KIND_WATCH) {
        frame.watch.operation = VMIBUS_WATCH_OPERATION_ADD;
    } else if (kind == VMIBUS_KIND_SCREENSHOT) {
        frame.screenshot.format = VMIBUS_IMAGE_FORMAT_PNG;
    } else if (kind == VMIBUS_KIND_HELLO) {
        frame.hello.magic = VMIBUS_MAGIC;
        frame.hello.version_min = frame.hello.version_max = VMIBUS_PROTOCOL_VERSION;
        frame.hello.role = VMIBUS_ROLE_CONTROL;
        frame.hello.channel = VMIBUS_CHANNEL_BUS;
    }
    return frame;
}

static void expect_command(const struct vmibus_frame *frame, enum vmibus_reason reason) {
    struct frame_fault fault = {};
    enum frame_verdict verdict = frame_check_command(frame, VMIBUS_SENDER_CONTROL, &fault);

    ck_assert_int_eq(verdict, reason ? FRAME_REFUSED : FRAME_OK);
    ck_assert_msg(fault.reason == reason, "kind %#x: reason %u, not %u", frame->header.kind, fault.reason, reason);
    if (reason)
        ck_assert_uint_eq(fault.error, VMIBUS_ERROR_VALIDATION);
}

static void expect_framing(const struct vmibus_frame *frame, enum vmibus_reason reason) {
    struct frame_fault fault = {};
    enum frame_verdict verdict = frame_check_framing(frame, BOUND, &fault);

    ck_assert_int_eq(verdict, reason ? FRAME_VIOLATION : FRAME_OK);
    ck_assert_uint_eq(fault.reason, reason);
}

/* What they name is checked where it is looked up; here: nothing travels along. */
TEST(test_reads_and_buffers_carry_nothing) {
    static const enum vmibus_kind kinds[] = {VMIBUS_KIND_MEM_READ, VMIBUS_KIND_BUFFER};

    for (size_t i = 0; i < 2; i++) {
        struct vmibus_frame frame = frame_of(kinds[i]);

        expect_command(&frame, VMIBUS_REASON_NONE);
        frame.header.tail_length = 1;
        expect_command(&frame, VMIBUS_REASON_BAD_LENGTH);
        frame.header.tail_length = 0;
        frame.header.fd_count = 1;
        expect_command(&frame, VMIBUS_REASON_BAD_FDS);
        frame.header.fd_count = 0;
        frame.header.direction = VMIBUS_DIRECTION_UP;
        expect_command(&frame, VMIBUS_REASON_BAD_DIRECTION);
    }
}

/* Every number a kind can be: what the definition says of it, and nothing else, passes. */
TEST(test_every_kind) {
    unsigned passed = 0;

    for (unsigned kind = 0; kind <= UINT16_MAX; kind++) {
        const struct vmibus_frame_description *description = vmibus_frame_describe((uint16_t)kind);
        struct vmibus_frame frame = frame_of((enum vmibus_kind)kind);

        if (!description || !(description->senders & VMIBUS_SENDER_CONTROL)) {
            expect_command(&frame, VMIBUS_REASON_BAD_KIND);
            continue;
        }
        passed++;
        expect_command(&frame, VMIBUS_REASON_NONE);
        frame.header.direction = VMIBUS_DIRECTION_UP;
        expect_command(&frame, VMIBUS_REASON_BAD_DIRECTION);
        frame.header.direction = VMIBUS_DIRECTION_DOWN;
        frame.header.fd_count = 1;
        expect_command(&frame, VMIBUS_REASON_BAD_FDS);
        frame.header.fd_count = 0;
        for (unsigned priority = 0; priority < 256; priority++) {
            frame.header.priority = (uint8_t)priority;
            expect_command(&frame, priority > VMIBUS_PRIORITY_URGENT ? VMIBUS_REASON_BAD_PRIORITY : VMIBUS_REASON_NONE);
        }
        frame.header.priority = 0;
        for (unsigned bit = 0; bit < 32; bit++) {
            frame.header.flags = 1u << bit;
            expect_command(&frame, 1u << bit == VMIBUS_FRAME_NO_ACK ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_FLAGS);
        }
        frame.header.flags = 0;
        if (description->tail_min) {
            frame.header.tail_length = description->tail_min - 1;
            expect_command(&frame, VMIBUS_REASON_BAD_LENGTH);
        }
        frame.header.tail_length = description->tail_allowed ? description->tail_max : 1;
        expect_command(&frame, description->tail_allowed ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_LENGTH);
        if (description->tail_max) {
            frame.header.tail_length = description->tail_max + 1;
            expect_command(&frame, VMIBUS_REASON_BAD_LENGTH);
        }
    }
    ck_assert_uint_gt(passed, 8);
}

TEST(test_every_enumerator) {
    for (unsigned value = 0; value < 256; value++) {
        struct vmibus_frame frame = frame_of(VMIBUS_KIND_CMD_LEASE);

        frame.cmd_lease.operation = (uint8_t)value;
        expect_command(&frame, value >= 1 && value <= 3 ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_FIELD);
        frame = frame_of(VMIBUS_KIND_CMD_LEASE);
        frame.cmd_lease.lease_class = (uint8_t)value;
        expect_command(&frame, value >= 1 && value <= 3 ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_FIELD);
        frame = frame_of(VMIBUS_KIND_CMD_LEASE);
        frame.cmd_lease.mode = (uint8_t)value;
        expect_command(&frame, value >= 1 && value <= 3 ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_FIELD);
        frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RELEASE; /* has no mode */
        expect_command(&frame, VMIBUS_REASON_NONE);
        frame = frame_of(VMIBUS_KIND_CMD_POWER);
        frame.cmd_power.operation = (uint8_t)value;
        expect_command(&frame, value >= 1 && value <= 4 ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_FIELD);
        frame = frame_of(VMIBUS_KIND_CMD_VM);
        frame.cmd_vm.operation = (uint8_t)value;
        expect_command(&frame, value >= 1 && value <= 4 ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_FIELD);
    }
}

TEST(test_framing) {
    struct vmibus_frame frame;

    for (unsigned version = 0; version < 256; version++) {
        frame = frame_of(VMIBUS_KIND_QUERY);
        frame.header.version = (uint8_t)version;
        expect_framing(&frame, version == VMIBUS_PROTOCOL_VERSION ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_VERSION);
        frame = frame_of(VMIBUS_KIND_HELLO);
        frame.header.version = (uint8_t)version;
        expect_framing(&frame, VMIBUS_REASON_NONE);
    }
    frame = frame_of(VMIBUS_KIND_QUERY);
    frame.header.tail_length = BOUND;
    expect_framing(&frame, VMIBUS_REASON_NONE);
    frame.header.tail_length = BOUND + 1;
    expect_framing(&frame, VMIBUS_REASON_BAD_LENGTH);
    frame.header.tail_length = UINT32_MAX;
    expect_framing(&frame, VMIBUS_REASON_BAD_LENGTH);
    /* A payload that is announced must come. */
    frame = frame_of(VMIBUS_KIND_CMD_MEMWRITE);
    expect_framing(&frame, VMIBUS_REASON_NONE);
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_PAYLOAD;
    frame.cmd_memwrite.len = 8;
    expect_framing(&frame, VMIBUS_REASON_BAD_LENGTH);
    frame.header.tail_length = 8;
    expect_framing(&frame, VMIBUS_REASON_NONE);
    frame.cmd_memwrite.len = 0;
    expect_framing(&frame, VMIBUS_REASON_BAD_LENGTH);
    frame.cmd_memwrite.flags |= VMIBUS_MEMWRITE_TABLE; /* a table's length is the header's */
    expect_framing(&frame, VMIBUS_REASON_NONE);
    frame.header.tail_length = 0;
    expect_framing(&frame, VMIBUS_REASON_BAD_LENGTH);
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_TABLE | VMIBUS_MEMWRITE_SRC_BUFFER; /* is in the tail too */
    frame.cmd_memwrite.len = 8;
    expect_framing(&frame, VMIBUS_REASON_BAD_LENGTH);
    frame.header.tail_length = sizeof(struct vmibus_write_extent);
    expect_framing(&frame, VMIBUS_REASON_NONE);
    frame.header.tail_length = BOUND + 1;
    expect_framing(&frame, VMIBUS_REASON_BAD_LENGTH);
    frame = frame_of(VMIBUS_KIND_CMD_MEMWRITE);
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_BUFFER;
    expect_framing(&frame, VMIBUS_REASON_NONE);
}

/* What a table and a buffer leave for the tail. */
TEST(test_memwrite_tails) {
    static const uint32_t extent = sizeof(struct vmibus_write_extent);
    const uint32_t counts[] = {0, 1, 2, VMIBUS_EXTENTS_BOUND, VMIBUS_EXTENTS_BOUND + 1, UINT32_MAX / 24 + 2, UINT32_MAX};
    struct vmibus_frame frame = frame_of(VMIBUS_KIND_CMD_MEMWRITE);
    struct vmibus_memwrite_source source = {};

    frame.cmd_memwrite.len = 8;
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_BUFFER;
    expect_command(&frame, VMIBUS_REASON_NONE);
    frame.header.tail_length = 1;
    expect_command(&frame, VMIBUS_REASON_BAD_LENGTH);
    for (unsigned i = 0; i < sizeof(counts) / sizeof(*counts); i++) {
        bool good = counts[i] > 0 && counts[i] <= VMIBUS_EXTENTS_BOUND;
        uint32_t table = counts[i] * extent;

        source.extents = counts[i];
        memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
        frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_TABLE | VMIBUS_MEMWRITE_SRC_BUFFER;
        frame.header.tail_length = table;
        expect_command(&frame, good ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_LENGTH);
        frame.header.tail_length = table + 1;
        expect_command(&frame, VMIBUS_REASON_BAD_LENGTH);
        frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_TABLE | VMIBUS_MEMWRITE_SRC_PAYLOAD;
        expect_command(&frame, good ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_LENGTH);
        frame.header.tail_length = good ? table - 1 : 0;
        expect_command(&frame, VMIBUS_REASON_BAD_LENGTH);
    }
}

static void expect_hello(const struct vmibus_frame *frame, enum vmibus_error error, enum vmibus_reason reason) {
    struct frame_fault fault = {};

    ck_assert_int_eq(frame_check_hello(frame, &fault), error ? FRAME_VIOLATION : FRAME_OK);
    if (error) {
        ck_assert_uint_eq(fault.error, error);
        ck_assert_uint_eq(fault.reason, reason);
    }
}

TEST(test_hello) {
    struct vmibus_frame frame = frame_of(VMIBUS_KIND_HELLO);

    expect_hello(&frame, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    for (unsigned bit = 0; bit < 64; bit++) {
        frame = frame_of(VMIBUS_KIND_HELLO);
        frame.hello.magic ^= UINT64_C(1) << bit;
        expect_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_MAGIC);
    }
    for (unsigned role = 0; role < 256; role++)
        for (unsigned channel = 0; channel < 256; channel++) {
            bool known = role >= VMIBUS_ROLE_CONTROL && role <= VMIBUS_ROLE_BUS && channel >= VMIBUS_CHANNEL_BUS &&
                         channel <= VMIBUS_CHANNEL_LINK;

            frame = frame_of(VMIBUS_KIND_HELLO);
            frame.hello.role = (uint8_t)role;
            frame.hello.channel = (uint8_t)channel;
            expect_hello(&frame, known ? VMIBUS_ERROR_OK : VMIBUS_ERROR_VALIDATION,
                         known ? VMIBUS_REASON_NONE : VMIBUS_REASON_BAD_FIELD);
        }
    frame = frame_of(VMIBUS_KIND_HELLO);
    frame.hello.version_min = 2;
    frame.hello.version_max = 9;
    expect_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_VERSION);
    frame.hello.version_min = 9;
    frame.hello.version_max = 1; /* an empty range */
    expect_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_VERSION);
    frame = frame_of(VMIBUS_KIND_HELLO);
    frame.header.tail_length = 1;
    expect_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH);
    frame = frame_of(VMIBUS_KIND_QUERY);
    expect_hello(&frame, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_HELLO);
}

HARNESS_SUITE("frame_check", HARNESS_QUICK)
