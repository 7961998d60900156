/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The input device of a synthetic VM: see stub_input.h. */
#include "stub_input.h"

#include <string.h>

#define RELATIVE_CODES 16 /* REL_CNT */
#define ABSOLUTE_MAXIMUM 32767

void stub_input_reset(struct stub_input *input) {
    memset(input, 0, sizeof(*input));
}

static void write_header(const struct stub_input *input) {
    struct stub_input_header *header = input->ring;

    header->released = input->released;
    header->held = input->held;
    __atomic_store_n(&header->count, input->count, __ATOMIC_RELEASE);
}

void stub_input_attach(struct stub_input *input, struct stub_input_header *ring) {
    input->ring = ring;
    ring->magic = STUB_INPUT_MAGIC;
    write_header(input);
}

static void record(struct stub_input *input, const struct vmibus_input_event *event, bool by_bus) {
    uint64_t number = input->count++;
    struct stub_input_entry *entries;

    input->released += by_bus;
    if (!input->ring)
        return;
    entries = (struct stub_input_entry *)(void *)((char *)input->ring + STUB_PAGE);
    entries[number % STUB_INPUT_ENTRIES] = (struct stub_input_entry){
        .type = event->type,
        .code = event->code,
        .value = event->value,
        .number = (uint32_t)number,
        .by_bus = by_bus,
    };
    write_header(input);
}

static void track(struct stub_input *input, uint16_t code, bool pressed) {
    uint64_t bit = UINT64_C(1) << code % 64, *word = &input->keys[code / 64];

    if (pressed && !(*word & bit))
        input->held++;
    else if (!pressed && (*word & bit))
        input->held--;
    *word = pressed ? *word | bit : *word & ~bit;
}

static bool is_valid(const struct vmibus_input_event *event) {
    switch (event->type) {
    case VMIBUS_INPUT_TYPE_KEY:
        return event->code < STUB_KEYS && (event->value == 0 || event->value == 1);
    case VMIBUS_INPUT_TYPE_RELATIVE:
        return event->code < RELATIVE_CODES;
    case VMIBUS_INPUT_TYPE_ABSOLUTE:
        return event->code <= 1 && event->value >= 0 && event->value <= ABSOLUTE_MAXIMUM;
    default:
        return false;
    }
}

bool stub_input_apply(struct stub_input *input, const struct vmibus_input_event *event) {
    if (!is_valid(event))
        return false;
    if (event->type == VMIBUS_INPUT_TYPE_KEY)
        track(input, event->code, event->value == 1);
    record(input, event, false);
    return true;
}

uint32_t stub_input_release(struct stub_input *input) {
    struct vmibus_input_event event = {.type = VMIBUS_INPUT_TYPE_KEY, .value = 0};
    uint32_t count = 0;
    uint16_t code;

    for (code = 0; code < STUB_KEYS && input->held > 0; code++)
        if (input->keys[code / 64] >> code % 64 & 1) {
            event.code = code;
            track(input, code, false);
            record(input, &event, true);
            count++;
        }
    return count;
}
