/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "utf8.h"

#include <string.h>

bool utf8_is_control(uint32_t codepoint) {
    return codepoint < 0x20 || (codepoint >= 0x7f && codepoint < 0xa0) || (codepoint >= 0x2028 && codepoint <= 0x202e) ||
           (codepoint >= 0x2066 && codepoint <= 0x2069) || codepoint == 0x200e || codepoint == 0x200f;
}

size_t utf8_decode(const char *text, size_t length, uint32_t *codepoint) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *octets = (const unsigned char *)text;
    size_t n;

    if (length == 0)
        return 0;
    if (octets[0] < 0x80) {
        *codepoint = octets[0];
        return 1;
    }
    if ((octets[0] & 0xe0) == 0xc0)
        n = 2;
    else if ((octets[0] & 0xf0) == 0xe0)
        n = 3;
    else if ((octets[0] & 0xf8) == 0xf0)
        n = 4;
    else
        return 0;
    if (n > length)
        return 0;
    *codepoint = octets[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((octets[i] & 0xc0) != 0x80)
            return 0;
        *codepoint = *codepoint << 6 | (octets[i] & 0x3f);
    }
    if (*codepoint < least[n] || *codepoint > 0x10ffff || (*codepoint >= 0xd800 && *codepoint < 0xe000))
        return 0;
    return n;
}

size_t utf8_copy_printable(const char *text, size_t length, char *out) {
    size_t used = 0;

    for (size_t at = 0, n; at < length; at += n ? n : 1) {
        uint32_t codepoint;

        n = utf8_decode(text + at, length - at, &codepoint);
        if (n == 0 || utf8_is_control(codepoint)) {
            out[used++] = '?';
            continue;
        }
        memmove(out + used, text + at, n);
        used += n;
    }
    return used;
}
