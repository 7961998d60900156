/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Octets as such. */
#ifndef UTIL_OCTETS_H
#define UTIL_OCTETS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/** Whether all are zero. True if there are none. */
static inline bool octets_are_zero(const uint8_t *octets, size_t length) {
    return length == 0 || (octets[0] == 0 && memcmp(octets, octets + 1, length - 1) == 0);
}

#endif
