/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Parser of `info mtree -f` (QEMU, softmmu/memory.c: mtree_print_flatview).  The form, as QEMU 7.2
 * to 9 print it:
 *
 *   FlatView #1
 *    AS "memory", root: system
 *    Root memory region: system
 *     0000000000000000-000000000009ffff (prio 0, ram): ram0
 *     00000000000c0000-00000000000dffff (prio 0, rom): ram0 @00000000000c0000
 *
 * An empty line ends a view.  "No rendered FlatView" stands for ranges where there are none.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mtree.h"

/* What is left of a line, or of the text. */
struct cursor {
    const char *at;
    const char *end;
};

static bool take(struct cursor *cursor, const char *word) {
    size_t len = strlen(word);

    if ((size_t)(cursor->end - cursor->at) < len || memcmp(cursor->at, word, len) != 0)
        return false;
    cursor->at += len;

    return true;
}

static bool next_line(struct cursor *text, struct cursor *line) {
    const char *newline;

    if (text->at == text->end)
        return false;
    newline = memchr(text->at, '\n', (size_t)(text->end - text->at));
    line->at = text->at;
    line->end = newline ? newline : text->end;
    text->at = newline ? newline + 1 : text->end;
    if (line->end > line->at && line->end[-1] == '\r')
        line->end--;

    return true;
}

static int digit(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;

    return -1;
}

/* QEMU prints an address with exactly sixteen digits: so it cannot overflow. */
static bool take_address(struct cursor *cursor, uint64_t *valuep) {
    uint64_t value = 0;

    if (cursor->end - cursor->at < 16)
        return false;
    for (int i = 0; i < 16; i++) {
        int d = digit(cursor->at[i]);

        if (d < 0)
            return false;
        value = value << 4 | (uint64_t)d;
    }
    cursor->at += 16;
    *valuep = value;

    return true;
}

static bool take_priority(struct cursor *cursor, int32_t *valuep) {
    bool negative = take(cursor, "-");
    int64_t value = 0;
    int digits = 0;

    for (; cursor->at < cursor->end && *cursor->at >= '0' && *cursor->at <= '9'; cursor->at++) {
        if (++digits > 10)
            return false;
        value = value * 10 + (*cursor->at - '0');
    }
    if (!digits || value > (int64_t)INT32_MAX + negative)
        return false;
    *valuep = (int32_t)(negative ? -value : value);

    return true;
}

/*
 * Kinds that are the VM's own memory; all others (i/o, romd, ramd of a passed-through device) are
 * not.
 */
static bool take_kind(struct cursor *cursor, bool *memory, struct mtree_range *range) {
    const char *parenthesis = memchr(cursor->at, ')', (size_t)(cursor->end - cursor->at));
    struct cursor kind = {cursor->at, parenthesis};

    if (!parenthesis || parenthesis == cursor->at)
        return false;
    cursor->at = parenthesis;
    range->persistent = take(&kind, "nv-");
    range->read_only = kind.end - kind.at == 3 && memcmp(kind.at, "rom", 3) == 0;
    *memory = range->read_only || (kind.end - kind.at == 3 && memcmp(kind.at, "ram", 3) == 0);

    return true;
}

/* The name reaches to the end of the line, or to the offset that may stand there. */
static void take_name(struct cursor line, struct mtree_range *range) {
    size_t len;

    if (line.end - line.at > 18) {
        struct cursor tail = {line.end - 18, line.end};
        uint64_t offset;

        if (take(&tail, " @") && take_address(&tail, &offset)) {
            range->offset = offset;
            line.end -= 18;
        }
    }
    len = (size_t)(line.end - line.at);
    if (len > MTREE_NAME_BOUND || memchr(line.at, 0, len))
        len = 0;
    memcpy(range->name, line.at, len);
}

static int parse_range(struct cursor line, struct mtree_range *range, uint64_t *lastp,
                       bool *memory) {
    uint64_t wrapped;

    *range = (struct mtree_range){0};
    if (!take(&line, "  ") || !take_address(&line, &range->gpa) || !take(&line, "-") ||
        !take_address(&line, lastp) || !take(&line, " (prio ") ||
        !take_priority(&line, &range->priority) || !take(&line, ", ") ||
        !take_kind(&line, memory, range) || !take(&line, "): "))
        return MTREE_MALFORMED;
    if (*lastp < range->gpa)
        return MTREE_MALFORMED;

    take_name(line, range);
    if (__builtin_add_overflow(*lastp - range->gpa, 1, &range->len))
        return *memory ? MTREE_MALFORMED : 0;
    if (*memory && __builtin_add_overflow(range->offset, range->len - 1, &wrapped))
        return MTREE_MALFORMED;

    return 0;
}

static int append(struct mtree *tree, size_t *sizep, const struct mtree_range *range) {
    if (tree->n_ranges == *sizep) {
        size_t size = *sizep ? 2 * *sizep : 32;
        struct mtree_range *ranges = realloc(tree->ranges, size * sizeof(*ranges));

        if (!ranges)
            return -ENOMEM;
        tree->ranges = ranges;
        *sizep = size;
    }
    tree->ranges[tree->n_ranges++] = *range;

    return 0;
}

/* Takes the ranges of one view, from below its head to the empty line. */
static int parse_ranges(struct cursor *text, struct mtree *tree) {
    uint64_t last = 0, previous = 0;
    struct mtree_range range;
    struct cursor line;
    size_t seen = 0, size = 0;
    bool memory;
    int r;

    while (next_line(text, &line) && line.at != line.end) {
        if (seen >= MTREE_RANGES_BOUND)
            return MTREE_TOO_MANY;
        r = parse_range(line, &range, &last, &memory);
        if (r)
            return r;
        if (seen++ && range.gpa <= previous)
            return MTREE_MALFORMED;
        previous = last;
        if (memory) {
            r = append(tree, &size, &range);
            if (r)
                return r;
        }
    }

    return seen ? 0 : MTREE_MALFORMED;
}

/* Reads the head of a view: the names of its address spaces, up to the root region. */
static int parse_head(struct cursor *text, bool *wanted) {
    struct cursor line;

    *wanted = false;
    while (next_line(text, &line)) {
        if (take(&line, " AS \"memory\", root: "))
            *wanted = true;
        else if (take(&line, " Root memory region: "))
            return 0;
        else if (!take(&line, " AS \""))
            return MTREE_MALFORMED;
    }

    return MTREE_MALFORMED;
}

static int parse_views(struct cursor text, struct mtree *tree) {
    struct cursor line;
    bool found = false, wanted;
    int r;

    while (next_line(&text, &line)) {
        if (!take(&line, "FlatView #"))
            continue;
        r = parse_head(&text, &wanted);
        if (r)
            return r;
        if (!wanted)
            continue;
        if (found)
            return MTREE_NO_VIEW;
        found = true;
        r = parse_ranges(&text, tree);
        if (r)
            return r;
    }

    return found ? 0 : MTREE_NO_VIEW;
}

int mtree_parse(const char *text, size_t len, struct mtree *tree) {
    int r;

    *tree = (struct mtree){0};
    if (!len)
        return MTREE_NO_VIEW;
    r = parse_views((struct cursor){text, text + len}, tree);
    if (r)
        mtree_deinit(tree);

    return r;
}

void mtree_deinit(struct mtree *tree) {
    free(tree->ranges);
    *tree = (struct mtree){0};
}

bool mtree_range_equal(const struct mtree_range *a, const struct mtree_range *b) {
    return a->gpa == b->gpa && a->len == b->len && a->offset == b->offset &&
           a->priority == b->priority && a->read_only == b->read_only &&
           a->persistent == b->persistent && strcmp(a->name, b->name) == 0;
}

bool mtree_equal(const struct mtree *a, const struct mtree *b) {
    if (a->n_ranges != b->n_ranges)
        return false;
    for (size_t i = 0; i < a->n_ranges; i++)
        if (!mtree_range_equal(&a->ranges[i], &b->ranges[i]))
            return false;

    return true;
}
