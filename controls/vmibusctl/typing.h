/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which keys type a character on a keyboard layout.
 *
 * With libxkbcommon, every layout that the host has; a character that no key gives is composed with a
 * dead key where the layout has one.  Without it, the US layout only.
 */
#ifndef VMIBUSCTL_TYPING_H
#define VMIBUSCTL_TYPING_H

#include <stddef.h>
#include <stdint.h>

struct typing;

/** Presses in a row that one character takes at most, each a key with Shift and AltGr. */
#define TYPING_STROKES 2
#define TYPING_CODES 3

/** One press: modifiers, then the key. */
struct typing_stroke {
    uint16_t codes[TYPING_CODES];
    size_t n_codes;
};

/**
 * Makes a table for a layout such as "us", "de", "fr" or, with its variant, "de(nodeadkeys)".
 * @return 0, -ENOENT (no such layout, as far as this build knows) or -ENOMEM
 */
int typing_new(struct typing **typingp, const char *layout);

/** Frees a table. Takes and returns NULL. */
struct typing *typing_free(struct typing *typing);

/** How a character is typed. Returns how many strokes were written, 0 if the layout cannot type it. */
size_t typing_find(const struct typing *typing, uint32_t codepoint, struct typing_stroke *strokes);

#endif
