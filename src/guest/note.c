/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The text of a VMCOREINFO note: lines of KEY=VALUE, as Linux writes them (kernel/crash_core.c,
 * arch/x86/kernel/machine_kexec_64.c).
 *
 * The text comes from a guest, and may be any octets at all, or a note whose kernel is still
 * writing it.  Only lines that are ended count; a line that is needed and stands there twice, or
 * whose value is not one, makes the whole unbelievable.  Nothing is read behind the length given.
 */
#include <vmibus/guest.h>

#include <string.h>

/* A piece of the text. */
struct span {
    const char *at;
    size_t len;
};

/* The lines that are read, as bits of what was seen. */
enum note_line {
    LINE_RELEASE = 1u << 0,
    LINE_SWAPPER = 1u << 1,
    LINE_PHYS_BASE = 1u << 2,
    LINE_OFFSET = 1u << 3,
    LINE_FIVE_LEVELS = 1u << 4,

    LINES_NEEDED = LINE_RELEASE | LINE_SWAPPER | LINE_PHYS_BASE,
};

static bool parse_hexadecimal(struct span value, uint64_t *number) {
    *number = 0;
    if (value.len == 0 || value.len > 16)
        return false;
    for (size_t i = 0; i < value.len; i++) {
        char c = value.at[i];
        unsigned int digit;

        if (c >= '0' && c <= '9')
            digit = (unsigned int)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned int)(c - 'a') + 10;
        else
            return false;
        *number = *number << 4 | digit;
    }
    return true;
}

/* Linux prints unsigned longs with %ld: a number above 2^63 stands there as a negative one. */
static bool parse_signed(struct span value, uint64_t *number) {
    bool negative = value.len > 0 && value.at[0] == '-';
    int64_t sum = 0;

    if (value.len <= (size_t)negative)
        return false;
    for (size_t i = negative; i < value.len; i++) {
        int digit = value.at[i] - '0';

        if (digit < 0 || digit > 9 || __builtin_mul_overflow(sum, 10, &sum) ||
            __builtin_add_overflow(sum, negative ? -digit : digit, &sum))
            return false;
    }
    *number = (uint64_t)sum;
    return true;
}

static bool parse_flag(struct span value, bool *flag) {
    if (value.len != 1 || (value.at[0] != '0' && value.at[0] != '1'))
        return false;
    *flag = value.at[0] == '1';
    return true;
}

/* A release begins with its version ("6.1.0-..."); people will see it: no blanks, no controls. */
static bool parse_release(struct span value, char release[65]) {
    if (value.len == 0 || value.len > 64 || value.at[0] < '0' || value.at[0] > '9' ||
        !memchr(value.at, '.', value.len))
        return false;
    for (size_t i = 0; i < value.len; i++)
        if (value.at[i] <= ' ' || value.at[i] > '~')
            return false;
    memcpy(release, value.at, value.len);
    release[value.len] = '\0';
    return true;
}

/* If the line has this key, makes what follows it the value. */
static bool has_key(struct span line, const char *key, struct span *value) {
    size_t len = strlen(key);

    if (line.len < len || memcmp(line.at, key, len) != 0)
        return false;
    *value = (struct span){.at = line.at + len, .len = line.len - len};
    return true;
}

/* Reads one line. Says which it is, 0 if it is none of ours, and whether its value is one. */
static enum note_line parse_line(struct span line, struct vmibus_guest_note *note, bool *valid) {
    struct span value;

    if (has_key(line, "OSRELEASE=", &value)) {
        *valid = parse_release(value, note->release);
        return LINE_RELEASE;
    }
    if (has_key(line, "SYMBOL(swapper_pg_dir)=", &value)) {
        *valid = parse_hexadecimal(value, &note->swapper_pg_dir);
        return LINE_SWAPPER;
    }
    if (has_key(line, "NUMBER(phys_base)=", &value)) {
        *valid = parse_signed(value, &note->phys_base);
        return LINE_PHYS_BASE;
    }
    if (has_key(line, "KERNELOFFSET=", &value)) {
        *valid = parse_hexadecimal(value, &note->kernel_offset);
        return LINE_OFFSET;
    }
    if (has_key(line, "NUMBER(pgtable_l5_enabled)=", &value)) {
        *valid = parse_flag(value, &note->five_levels);
        return LINE_FIVE_LEVELS;
    }
    *valid = true;
    return 0;
}

int vmibus_guest_note_parse(const char *text, size_t len, struct vmibus_guest_note *note) {
    struct span rest = {.at = text, .len = strnlen(text, len)};
    unsigned int seen = 0;

    *note = (struct vmibus_guest_note){0};
    if (rest.len > VMIBUS_GUEST_NOTE_MAX)
        rest.len = VMIBUS_GUEST_NOTE_MAX;
    note->len = (uint32_t)rest.len;
    while (rest.len > 0) {
        const char *end = memchr(rest.at, '\n', rest.len);
        struct span line = {.at = rest.at};
        enum note_line which;
        bool valid;

        if (!end)
            break;
        line.len = (size_t)(end - rest.at);
        which = parse_line(line, note, &valid);
        if (!valid || (seen & which))
            return VMIBUS_GUEST_UNPROVEN;
        seen |= which;
        rest.at += line.len + 1;
        rest.len -= line.len + 1;
    }
    return (seen & LINES_NEEDED) == LINES_NEEDED ? 0 : VMIBUS_GUEST_UNPROVEN;
}
