/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "units.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* strtoull takes signs, spaces and octal numbers, none of which is meant here. */
static bool parse_prefix(const char *text, uint64_t *value, const char **end) {
    bool is_hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    char *rest;

    if (is_hex)
        text += 2;
    if (is_hex ? !isxdigit((unsigned char)*text) : !isdigit((unsigned char)*text))
        return false;
    errno = 0;
    *value = strtoull(text, &rest, is_hex ? 16 : 10);
    *end = rest;
    return errno == 0;
}

bool units_parse_number(const char *text, uint64_t bound, uint64_t *value) {
    const char *end;

    return parse_prefix(text, value, &end) && *end == '\0' && *value <= bound;
}

bool units_parse_length(const char *text, uint64_t *value) {
    static const char letters[] = "KMG";
    const char *end, *letter;

    if (!parse_prefix(text, value, &end) || *value == 0)
        return false;
    if (*end == '\0')
        return true;
    letter = strchr(letters, toupper((unsigned char)*end));
    if (!letter || end[1])
        return false;
    return !__builtin_mul_overflow(*value, UINT64_C(1) << (10 * (letter - letters + 1)), value);
}

bool units_parse_signed(const char *text, int32_t bound, int32_t *value) {
    bool negative = *text == '-';
    uint64_t magnitude;

    if (negative || *text == '+')
        text++;
    if (!units_parse_number(text, (uint64_t)bound, &magnitude))
        return false;
    *value = negative ? -(int32_t)magnitude : (int32_t)magnitude;
    return true;
}

static int digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int units_parse_hex(const char *text, uint8_t **octetsp, size_t *lengthp) {
    uint8_t *octets = malloc(strlen(text) / 2 + 1);
    size_t length = 0;

    if (!octets)
        return -ENOMEM;
    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
        text += 2;
    while (*text) {
        int high, low;

        if (isspace((unsigned char)*text) || *text == ':' || *text == ',') {
            text++;
            continue;
        }
        high = digit(text[0]);
        low = high < 0 ? -1 : digit(text[1]);
        if (low < 0) {
            free(octets);
            return -EINVAL;
        }
        octets[length++] = (uint8_t)(high << 4 | low);
        text += 2;
    }
    if (length == 0) {
        free(octets);
        return -EINVAL;
    }
    *octetsp = octets;
    *lengthp = length;
    return 0;
}

bool units_parse_uuid(const char *text, uint8_t *uuid) {
    size_t n = 0;

    for (; *text; text++) {
        int value = digit(*text);

        if (*text == '-')
            continue;
        if (value < 0 || n == 32)
            return false;
        uuid[n / 2] = (uint8_t)(n % 2 ? uuid[n / 2] | value : value << 4);
        n++;
    }
    return n == 32;
}

char *units_hex(const uint8_t *octets, size_t length, char *text) {
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < length; i++) {
        text[2 * i] = digits[octets[i] >> 4];
        text[2 * i + 1] = digits[octets[i] & 15];
    }
    text[2 * length] = '\0';
    return text;
}

char *units_uuid(const uint8_t *uuid, char *text) {
    static const uint8_t groups[] = {4, 2, 2, 2, 6};
    char *at = text;

    for (size_t i = 0; i < sizeof(groups); i++) {
        if (i)
            *at++ = '-';
        units_hex(uuid, groups[i], at);
        uuid += groups[i];
        at += 2 * groups[i];
    }
    return text;
}

char *units_size(uint64_t octets, char *text) {
    static const char *const names[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    uint64_t whole = octets, tenths = 0;
    size_t i = 0;

    while (whole >= 1024 && i + 1 < sizeof(names) / sizeof(names[0])) {
        tenths = whole % 1024 * 10 / 1024;
        whole /= 1024;
        i++;
    }
    if (tenths)
        snprintf(text, UNITS_SIZE_SIZE, "%" PRIu64 ".%" PRIu64 " %s", whole, tenths, names[i]);
    else
        snprintf(text, UNITS_SIZE_SIZE, "%" PRIu64 " %s", whole, names[i]);
    return text;
}
