/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/frame_check.h"

#include <stdbool.h>
#include <string.h>

#include <vmibus/names.h>

static enum frame_verdict fail(struct frame_fault *fault, enum frame_verdict verdict, enum vmibus_reason reason, uint64_t value,
                               uint64_t bound) {
    *fault = (struct frame_fault){.error = VMIBUS_ERROR_VALIDATION, .reason = reason, .value = value, .bound = bound};
    return verdict;
}

enum frame_verdict frame_check_framing(const struct vmibus_frame *frame, uint32_t tail_bound, struct frame_fault *fault) {
    const struct vmibus_header *header = &frame->header;

    /* Another version may frame otherwise. HELLO settles versions by itself. */
    if (header->kind != VMIBUS_KIND_HELLO && header->version != VMIBUS_PROTOCOL_VERSION)
        return fail(fault, FRAME_VIOLATION, VMIBUS_REASON_BAD_VERSION, header->version, VMIBUS_PROTOCOL_VERSION);
    if (header->tail_length > tail_bound)
        return fail(fault, FRAME_VIOLATION, VMIBUS_REASON_BAD_LENGTH, header->tail_length, tail_bound);
    /* A payload or a table was announced and none can follow: whatever comes next cannot be told from it. */
    if (header->kind == VMIBUS_KIND_CMD_MEMWRITE &&
        frame->cmd_memwrite.flags & (VMIBUS_MEMWRITE_SRC_PAYLOAD | VMIBUS_MEMWRITE_TABLE) &&
        (header->tail_length == 0 || (frame->cmd_memwrite.len == 0 && !(frame->cmd_memwrite.flags & VMIBUS_MEMWRITE_TABLE))))
        return fail(fault, FRAME_VIOLATION, VMIBUS_REASON_BAD_LENGTH, 0, tail_bound);
    return FRAME_OK;
}

/* A table is all in the tail; a source in a buffer leaves nothing else for the tail. */
static enum frame_verdict check_memwrite(const struct vmibus_frame *frame, struct frame_fault *fault) {
    const struct vmibus_cmd_memwrite *command = &frame->cmd_memwrite;
    uint32_t length = frame->header.tail_length, table = 0;
    struct vmibus_memwrite_source source;

    memcpy(&source, command->data, sizeof(source));
    if (command->flags & VMIBUS_MEMWRITE_TABLE) {
        if (source.extents == 0 || source.extents > VMIBUS_EXTENTS_BOUND)
            return fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_LENGTH, source.extents, VMIBUS_EXTENTS_BOUND);
        table = source.extents * (uint32_t)sizeof(struct vmibus_write_extent);
    }
    if (length < table || (command->flags & VMIBUS_MEMWRITE_SRC_BUFFER && length != table))
        return fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_LENGTH, length, table);
    return FRAME_OK;
}

static bool is_within(unsigned value, unsigned first, unsigned last) {
    return value >= first && value <= last;
}

/* The enumerations that the code behind indexes or switches by. */
static enum frame_verdict check_fields(const struct vmibus_frame *frame, struct frame_fault *fault) {
    const struct vmibus_cmd_lease *lease = &frame->cmd_lease;
    unsigned value = 0;
    bool good = true;

    switch (frame->header.kind) {
    case VMIBUS_KIND_CMD_MEMWRITE:
        return check_memwrite(frame, fault);
    case VMIBUS_KIND_CMD_LEASE:
        good = is_within(value = lease->operation, VMIBUS_LEASE_OPERATION_ACQUIRE, VMIBUS_LEASE_OPERATION_RELEASE) &&
               is_within(value = lease->lease_class, VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_CLASS_MEMWRITE) &&
               (lease->operation != VMIBUS_LEASE_OPERATION_ACQUIRE ||
                is_within(value = lease->mode, VMIBUS_LEASE_MODE_FAIL, VMIBUS_LEASE_MODE_PREEMPT));
        break;
    case VMIBUS_KIND_CMD_POWER:
        good = is_within(value = frame->cmd_power.operation, VMIBUS_POWER_OPERATION_RESET, VMIBUS_POWER_OPERATION_WAKEUP);
        break;
    case VMIBUS_KIND_CMD_VM:
        good = is_within(value = frame->cmd_vm.operation, VMIBUS_VM_OPERATION_PAUSE, VMIBUS_VM_OPERATION_LET_GO);
        break;
    case VMIBUS_KIND_WATCH:
        good = is_within(value = frame->watch.operation, VMIBUS_WATCH_OPERATION_ADD, VMIBUS_WATCH_OPERATION_REMOVE);
        break;
    case VMIBUS_KIND_SCREENSHOT:
        good = is_within(value = frame->screenshot.format, VMIBUS_IMAGE_FORMAT_PNG, VMIBUS_IMAGE_FORMAT_PPM);
        break;
    default:
        break;
    }
    return good ? FRAME_OK : fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_FIELD, value, 0);
}

/* An authority says again what the bus may know. */
static uint32_t flags_of(unsigned sender) {
    return (uint32_t)VMIBUS_FRAME_NO_ACK | (sender == VMIBUS_SENDER_MEMORY ? VMIBUS_FRAME_RETAINED : 0u);
}

enum frame_verdict frame_check_command(const struct vmibus_frame *frame, unsigned sender, struct frame_fault *fault) {
    const struct vmibus_header *header = &frame->header;
    const struct vmibus_frame_description *description = vmibus_frame_describe(header->kind);

    if (!description || !(description->senders & sender))
        return fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_KIND, header->kind, 0);
    if (header->direction != description->direction)
        return fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_DIRECTION, header->direction, description->direction);
    if (header->priority > VMIBUS_PRIORITY_URGENT)
        return fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_PRIORITY, header->priority, VMIBUS_PRIORITY_URGENT);
    if (header->flags & ~flags_of(sender))
        return fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_FLAGS, header->flags, flags_of(sender));
    if (header->fd_count && (sender == VMIBUS_SENDER_CONTROL || !description->fds_allowed))
        return fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_FDS, header->fd_count, 0);
    if (header->tail_length && !description->tail_allowed)
        return fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_LENGTH, header->tail_length, 0);
    if (header->tail_length < description->tail_min)
        return fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_LENGTH, header->tail_length, description->tail_min);
    if (description->tail_max && header->tail_length > description->tail_max)
        return fail(fault, FRAME_REFUSED, VMIBUS_REASON_BAD_LENGTH, header->tail_length, description->tail_max);
    return check_fields(frame, fault);
}

enum frame_verdict frame_check_hello(const struct vmibus_frame *frame, struct frame_fault *fault) {
    const struct vmibus_hello *hello = &frame->hello;

    if (frame->header.kind != VMIBUS_KIND_HELLO)
        return fail(fault, FRAME_VIOLATION, VMIBUS_REASON_NO_HELLO, frame->header.kind, 0);
    if (hello->magic != VMIBUS_MAGIC)
        return fail(fault, FRAME_VIOLATION, VMIBUS_REASON_BAD_MAGIC, hello->magic, VMIBUS_MAGIC);
    if (hello->version_min > VMIBUS_PROTOCOL_VERSION || hello->version_max < VMIBUS_PROTOCOL_VERSION)
        return fail(fault, FRAME_VIOLATION, VMIBUS_REASON_BAD_VERSION, hello->version_min, VMIBUS_PROTOCOL_VERSION);
    if (frame->header.tail_length || frame->header.fd_count)
        return fail(fault, FRAME_VIOLATION, VMIBUS_REASON_BAD_LENGTH, frame->header.tail_length, 0);
    if (!is_within(hello->role, VMIBUS_ROLE_CONTROL, VMIBUS_ROLE_BUS) ||
        !is_within(hello->channel, VMIBUS_CHANNEL_BUS, VMIBUS_CHANNEL_LINK))
        return fail(fault, FRAME_VIOLATION, VMIBUS_REASON_BAD_FIELD, hello->role, 0);
    return FRAME_OK;
}

void frame_refuse_role(const struct vmibus_frame *hello, struct frame_fault *fault) {
    *fault = (struct frame_fault){
        .error = VMIBUS_ERROR_UNSUPPORTED, .reason = VMIBUS_REASON_NOT_BUILT, .value = hello->hello.role};
}
