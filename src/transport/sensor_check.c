/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/sensor_check.h"

#include <string.h>

#include <vmibus/names.h>

static enum frame_verdict fail(struct frame_fault *fault, enum vmibus_reason reason, uint64_t value, uint64_t bound) {
    *fault = (struct frame_fault){.error = VMIBUS_ERROR_VALIDATION, .reason = reason, .value = value, .bound = bound};
    return FRAME_REFUSED;
}

/* Every enumeration holds a number that is known, or 0; every bit set known bits only. */
static enum frame_verdict check_tables(const struct vmibus_frame *frame, struct frame_fault *fault) {
    const struct vmibus_frame_description *description = vmibus_frame_describe(frame->header.kind);

    for (size_t i = 0; i < description->n_fields; i++) {
        const struct vmibus_field_description *field = &description->fields[i];
        uint64_t value;

        if (!field->table || field->is_reserved)
            continue;
        value = vmibus_field_get(field, frame->body);
        if (field->table->is_flags ? value & ~(uint64_t)field->table->all
                                   : value != 0 && !vmibus_table_find(field->table, value))
            return fail(fault, VMIBUS_REASON_BAD_FIELD, value, 0);
    }
    return FRAME_OK;
}

static enum frame_verdict check_announce(const struct vmibus_frame *frame, struct frame_fault *fault) {
    const struct vmibus_sensor_announce *announce = &frame->sensor_announce;

    if (announce->state == 0 || announce->state == VMIBUS_SENSOR_STATE_GONE)
        return fail(fault, VMIBUS_REASON_BAD_FIELD, announce->state, 0);
    if (announce->name[0] == '\0' || !memchr(announce->name, '\0', sizeof(announce->name)))
        return fail(fault, VMIBUS_REASON_BAD_FIELD, announce->name[0], sizeof(announce->name) - 1);
    if (announce->fallback & ~announce->groups)
        return fail(fault, VMIBUS_REASON_BAD_FIELD, announce->fallback, announce->groups);
    if (frame->header.tail_length > SENSOR_SENTENCE_BOUND)
        return fail(fault, VMIBUS_REASON_BAD_LENGTH, frame->header.tail_length, SENSOR_SENTENCE_BOUND);
    return FRAME_OK;
}

enum frame_verdict sensor_check_frame(const struct vmibus_frame *frame, const void *tail, struct frame_fault *fault) {
    const struct vmibus_header *header = &frame->header;
    const struct vmibus_frame_description *description = vmibus_frame_describe(header->kind);

    if (frame_check_command(frame, VMIBUS_SENDER_SENSOR, fault) != FRAME_OK)
        return FRAME_REFUSED;
    if (header->kind == VMIBUS_KIND_HELLO)
        return fail(fault, VMIBUS_REASON_BAD_KIND, header->kind, 0);
    if (description->tail_is_text && tail && memchr(tail, '\0', header->tail_length))
        return fail(fault, VMIBUS_REASON_BAD_FIELD, 0, 0);
    if (check_tables(frame, fault) != FRAME_OK)
        return FRAME_REFUSED;
    switch (header->kind) {
    case VMIBUS_KIND_SENSOR_ANNOUNCE:
        return check_announce(frame, fault);
    case VMIBUS_KIND_SUBSCRIBE:
        return frame->subscribe.kinds & ~SENSOR_MAY_OBSERVE
                   ? fail(fault, VMIBUS_REASON_BAD_FIELD, frame->subscribe.kinds, SENSOR_MAY_OBSERVE)
                   : FRAME_OK;
    default:
        return FRAME_OK;
    }
}
