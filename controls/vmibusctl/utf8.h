/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* UTF-8 (RFC 3629), strictly: no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef VMIBUSCTL_UTF8_H
#define VMIBUSCTL_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** Decodes the first character. Returns the octets it takes, 0 if it is malformed or cut. */
size_t utf8_decode(const char *text, size_t length, uint32_t *codepoint);

/** Whether a terminal may act on it (ECMA-48) or show what follows in another order or on another line (Unicode, UAX 9). */
bool utf8_is_control(uint32_t codepoint);

/**
 * Copies a text, made fit for a terminal: each control character and each octet that is not UTF-8 becomes '?'.
 * @param out room for @a length octets; may be @a text itself
 * @return how many there are
 */
size_t utf8_copy_printable(const char *text, size_t length, char *out);

#endif
