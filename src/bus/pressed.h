/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The keys and buttons of an endpoint that may be down: each that was pressed since all were last released.  A release does not
 * take a key out, since nobody vouches for it until the provider has answered; releasing one that is up does no harm.
 */
#ifndef BUS_PRESSED_H
#define BUS_PRESSED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#define PRESSED_CODES 768 /* evdev's KEY_CNT */

struct pressed {
    uint64_t codes[PRESSED_CODES / 64];
};

static inline bool pressed_is_empty(const struct pressed *pressed) {
    uint64_t any = 0;

    for (size_t i = 0; i < PRESSED_CODES / 64; i++)
        any |= pressed->codes[i];
    return !any;
}

/** Notes an event that is about to be sent to the guest. */
static inline void pressed_note(struct pressed *pressed, const struct vmibus_input_event *event) {
    if (event->type == VMIBUS_INPUT_TYPE_KEY && event->value && event->code < PRESSED_CODES)
        pressed->codes[event->code / 64] |= UINT64_C(1) << event->code % 64;
}

/** Adds what may be down elsewhere. */
static inline void pressed_add(struct pressed *pressed, const struct pressed *more) {
    for (size_t i = 0; i < PRESSED_CODES / 64; i++)
        pressed->codes[i] |= more->codes[i];
}

/** Writes the releases of all, in room for PRESSED_CODES. Returns how many. */
static inline size_t pressed_releases(const struct pressed *pressed, struct vmibus_input_event *events) {
    size_t n = 0;

    for (uint16_t code = 0; code < PRESSED_CODES; code++)
        if (pressed->codes[code / 64] >> code % 64 & 1)
            events[n++] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = code};
    return n;
}

#endif
