/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The US layout by heart, for builds without libxkbcommon. */
#include "typing.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <string.h>

struct typing {
    char unused;
};

static struct typing us;

/* Rows of keys with consecutive codes, and what they give plain and with Shift. */
static const struct {
    uint16_t first;
    const char *plain;
    const char *shifted;
} rows[] = {
    {KEY_1, "1234567890-=", "!@#$%^&*()_+"},
    {KEY_Q, "qwertyuiop[]", "QWERTYUIOP{}"},
    {KEY_A, "asdfghjkl;'`", "ASDFGHJKL:\"~"},
    {KEY_BACKSLASH, "\\zxcvbnm,./", "|ZXCVBNM<>?"},
    {KEY_SPACE, " ", " "},
    {KEY_TAB, "\t", "\t"},
    {KEY_ENTER, "\n", "\n"},
};

int typing_new(struct typing **typingp, const char *layout) {
    if (strcmp(layout, "us") != 0)
        return -ENOENT;
    *typingp = &us;
    return 0;
}

struct typing *typing_free(struct typing *typing) {
    (void)typing;
    return NULL;
}

size_t typing_find(const struct typing *typing, uint32_t codepoint, struct typing_stroke *strokes) {
    (void)typing;
    if (codepoint == 0 || codepoint > 0x7e)
        return 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const char *plain = strchr(rows[i].plain, (int)codepoint), *shifted = strchr(rows[i].shifted, (int)codepoint);

        if (plain) {
            *strokes = (struct typing_stroke){{(uint16_t)(rows[i].first + (plain - rows[i].plain))}, 1};
            return 1;
        }
        if (shifted) {
            *strokes = (struct typing_stroke){{KEY_LEFTSHIFT, (uint16_t)(rows[i].first + (shifted - rows[i].shifted))}, 2};
            return 1;
        }
    }
    return 0;
}
