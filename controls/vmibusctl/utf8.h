/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* UTF-8 (RFC 3629), strictly: no overlong forms, no surrogates, nothing past U+10FFFF. */
#ifndef VMIBUSCTL_UTF8_H
#define VMIBUSCTL_UTF8_H

#include <stddef.h>
#include <stdint.h>

/** Decodes the first character. Returns the octets it takes, 0 if it is malformed or cut. */
size_t utf8_decode(const char *text, size_t length, uint32_t *codepoint);

#endif
