/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers, octets and UUIDs as people write and read them. */
#ifndef VMIBUSCTL_UNITS_H
#define VMIBUSCTL_UNITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UNITS_UUID_SIZE 37
#define UNITS_SIZE_SIZE 32

/** Reads a number, decimal or hexadecimal after 0x, nothing else around it. False: it is none, or over the bound. */
bool units_parse_number(const char *text, uint64_t bound, uint64_t *value);

/** Reads a length: a number, with K, M or G (of 1024) if one likes. False: it is none, or 0, or does not fit. */
bool units_parse_length(const char *text, uint64_t *value);

/** Reads a signed decimal number within -bound to bound. */
bool units_parse_signed(const char *text, int32_t bound, int32_t *value);

/**
 * Reads octets in hexadecimal, of which pairs may be set apart by white space, colons or commas; 0x may come first.
 * @param octetsp receives them, malloc'ed
 * @return 0, -EINVAL or -ENOMEM
 */
int units_parse_hex(const char *text, uint8_t **octetsp, size_t *lengthp);

/** Reads 32 hexadecimal digits, with hyphens wherever. */
bool units_parse_uuid(const char *text, uint8_t *uuid);

/** Writes octets in hexadecimal and a NUL into text, which has room for 2 * length + 1. Returns text. */
char *units_hex(const uint8_t *octets, size_t length, char *text);

/** Writes a UUID. Returns text, which has room for UNITS_UUID_SIZE. */
char *units_uuid(const uint8_t *uuid, char *text);

/** Writes a number of octets with a fitting unit. Returns text, which has room for UNITS_SIZE_SIZE. */
char *units_size(uint64_t octets, char *text);

#endif
