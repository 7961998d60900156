/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Key names as people type them, and what pressing keys means in input events. */
#ifndef VMIBUSCTL_KEYS_H
#define VMIBUSCTL_KEYS_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

/** Keys that can be held together. */
#define KEYS_BOUND 8

/** A key's evdev code by its name, in any case; "key:N" names any code. 0: there is none. */
uint16_t keys_find(const char *name, size_t length);

/** A mouse button's evdev code by its name; 0: there is none. */
uint16_t keys_find_button(const char *name);

/**
 * Reads a combination: names with - or + between.
 * @param codes receives at most KEYS_BOUND codes
 * @return how many, 0 if a name is unknown or there are too many
 */
size_t keys_parse(const char *text, uint16_t *codes);

/** Presses keys in order and releases them in reverse. Returns how many events were written: 2 * n. */
size_t keys_press(const uint16_t *codes, size_t n, struct vmibus_input_event *events);

#endif
