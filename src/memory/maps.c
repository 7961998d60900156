/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/maps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What is left of a line. */
struct cursor {
    const char *at;
    const char *end;
};

static int digit_value(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* Takes a number that `stop` ends; the end of the line ends it too if `stop` is a blank. */
static bool take_number(struct cursor *cursor, unsigned base, char stop, uint64_t bound,
                        uint64_t *value) {
    const char *first = cursor->at;
    uint64_t sum = 0;
    int digit;

    for (; cursor->at < cursor->end && *cursor->at != stop; cursor->at++) {
        digit = digit_value(*cursor->at);
        if (digit < 0 || (unsigned)digit >= base)
            return false;
        if (__builtin_mul_overflow(sum, (uint64_t)base, &sum) ||
            __builtin_add_overflow(sum, (uint64_t)digit, &sum) || sum > bound)
            return false;
    }
    if (cursor->at == first)
        return false;
    if (cursor->at == cursor->end) {
        *value = sum;
        return stop == ' ';
    }
    cursor->at++;
    *value = sum;
    return true;
}

static bool take_flag(struct cursor *cursor, char yes, char no, bool *value) {
    if (cursor->at == cursor->end || (*cursor->at != yes && *cursor->at != no))
        return false;
    *value = *cursor->at++ == yes;
    return true;
}

static bool take_permissions(struct cursor *cursor, struct maps_entry *entry) {
    bool executable;

    if (!take_flag(cursor, 'r', '-', &entry->readable) ||
        !take_flag(cursor, 'w', '-', &entry->writable) ||
        !take_flag(cursor, 'x', '-', &executable) || !take_flag(cursor, 's', 'p', &entry->shared))
        return false;
    return cursor->at < cursor->end && *cursor->at++ == ' ';
}

/* A name in brackets is the kernel's own word; [anon:...] is what the process calls plain memory. */
static bool is_special(struct cursor cursor) {
    static const char plain[] = "[anon:";

    while (cursor.at < cursor.end && *cursor.at == ' ')
        cursor.at++;
    if (cursor.at == cursor.end || *cursor.at != '[')
        return false;
    return (size_t)(cursor.end - cursor.at) < sizeof(plain) - 1 ||
           memcmp(cursor.at, plain, sizeof(plain) - 1) != 0;
}

int maps_parse_line(const char *line, size_t len, struct maps_entry *entry) {
    struct cursor cursor = {line, line + len};
    uint64_t major, minor;

    *entry = (struct maps_entry){};
    if (!take_number(&cursor, 16, '-', UINT64_MAX, &entry->start) ||
        !take_number(&cursor, 16, ' ', UINT64_MAX, &entry->end) ||
        !take_permissions(&cursor, entry) ||
        !take_number(&cursor, 16, ' ', UINT64_MAX, &entry->offset) ||
        !take_number(&cursor, 16, ':', UINT32_MAX, &major) ||
        !take_number(&cursor, 16, ' ', UINT32_MAX, &minor) ||
        !take_number(&cursor, 10, ' ', UINT64_MAX, &entry->inode))
        return -EBADMSG;
    if (entry->start >= entry->end)
        return -EBADMSG;
    entry->device_major = (uint32_t)major;
    entry->device_minor = (uint32_t)minor;
    entry->special = entry->inode == 0 && is_special(cursor);
    return 0;
}

static int maps_append(struct maps *maps, const struct maps_entry *entry) {
    struct maps_entry *entries;
    size_t capacity;

    if (maps->n_entries && entry->start < maps->entries[maps->n_entries - 1].end)
        return -EBADMSG;
    if (maps->n_entries == MAPS_ENTRIES_MAX)
        return -EFBIG;
    if (maps->n_entries == maps->capacity) {
        capacity = maps->capacity ? maps->capacity * 2 : 64;
        entries = reallocarray(maps->entries, capacity, sizeof(*entries));
        if (!entries)
            return -ENOMEM;
        maps->entries = entries;
        maps->capacity = capacity;
    }
    maps->entries[maps->n_entries++] = *entry;
    return 0;
}

int maps_parse(struct maps *maps, const char *text, size_t len) {
    const char *at = text, *end = text + len, *newline;
    struct maps_entry entry;
    int r;

    for (; at < end; at = newline + 1) {
        newline = memchr(at, '\n', (size_t)(end - at));
        if (!newline)
            return -EBADMSG;
        r = maps_parse_line(at, (size_t)(newline - at), &entry);
        if (r < 0)
            return r;
        r = maps_append(maps, &entry);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Reads all of it, up to the bound. */
static int text_read(int fd, char **textp, size_t *lenp) {
    size_t len = 0, capacity = 16384;
    char *text = NULL, *larger;
    ssize_t n;
    int r;

    for (;;) {
        larger = realloc(text, capacity);
        if (!larger) {
            r = -ENOMEM;
            break;
        }
        text = larger;
        while (len < capacity && (n = read(fd, text + len, capacity - len)) != 0) {
            if (n > 0)
                len += (size_t)n;
            else if (errno != EINTR) {
                r = -errno;
                goto fail;
            }
        }
        if (len < capacity) {
            *textp = text;
            *lenp = len;
            return 0;
        }
        if (capacity >= MAPS_TEXT_MAX) {
            r = -EFBIG;
            break;
        }
        capacity *= 2;
    }
fail:
    free(text);
    return r;
}

int maps_read(struct maps *maps, int fd) {
    char *text = NULL;
    size_t len = 0;
    int r;

    r = text_read(fd, &text, &len);
    if (r < 0)
        return r;
    r = maps_parse(maps, text, len);
    free(text);
    return r;
}

void maps_deinit(struct maps *maps) {
    free(maps->entries);
    *maps = (struct maps){};
}

const struct maps_entry *maps_find(const struct maps *maps, uint64_t address) {
    size_t low = 0, high = maps->n_entries;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct maps_entry *entry = &maps->entries[middle];

        if (address < entry->start)
            high = middle;
        else if (address >= entry->end)
            low = middle + 1;
        else
            return entry;
    }
    return NULL;
}
