/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/protect.h"

#include <stdbool.h>
#include <stdlib.h>

#include "policy/write_bounds.h"

/* Paging entries: Intel SDM volume 3, 4.5. */
#define ENTRIES 512u
#define ENTRY_PRESENT (UINT64_C(1) << 0)
#define ENTRY_USER (UINT64_C(1) << 2)
#define ENTRY_LARGE (UINT64_C(1) << 7)
#define ENTRY_NO_EXECUTE (UINT64_C(1) << 63)
#define ENTRY_ADDRESS UINT64_C(0x000ffffffffff000)
#define TABLE_SIZE UINT64_C(4096)
#define LARGE_LEVEL_MAX 3u

struct search {
    const struct vmibus_guest_reader *reader;
    const struct protect_span *spans;   /* ascending, disjoint */
    size_t n_spans;
    size_t tables;                      /* visited */
    uint32_t protect;
    uint64_t *gpa;
};

/* What the entries that lead to a table, or to a page, say together. */
struct rights {
    bool user;
    bool no_execute;
};

/* --- spans ------------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b) {
    const struct protect_span *left = a, *right = b;

    return (left->gpa > right->gpa) - (left->gpa < right->gpa);
}

/* Puts them in order and joins those that meet; returns how many are left. */
static size_t spans_sort(struct protect_span *spans, size_t n_spans) {
    size_t n = 0;

    qsort(spans, n_spans, sizeof(*spans), compare);
    for (size_t i = 1; i < n_spans; i++) {
        uint64_t end = spans[n].gpa + spans[n].len;

        if (spans[i].gpa > end)
            spans[++n] = spans[i];
        else if (spans[i].gpa + spans[i].len > end)
            spans[n].len = spans[i].gpa + spans[i].len - spans[n].gpa;
    }
    return n + 1;
}

/* Whether a span has an octet in [gpa, gpa + len): only the last one that begins before the end can. */
static int look_for(const struct search *search, uint64_t gpa, uint64_t len) {
    size_t low = 0, high = search->n_spans;
    const struct protect_span *span;

    while (low < high) {
        size_t middle = low + (high - low) / 2;

        if (search->spans[middle].gpa < gpa + len)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == 0)
        return 0;
    span = &search->spans[low - 1];
    if (span->gpa + span->len <= gpa)
        return 0;
    *search->gpa = span->gpa > gpa ? span->gpa : gpa;
    return PROTECT_HIT;
}

/* --- the walk ---------------------------------------------------------------------------------- */

static int visit_table(struct search *search, uint64_t table, unsigned int level, struct rights above);

static bool is_leaf(uint64_t entry, unsigned int level) {
    return level == 1 || (level <= LARGE_LEVEL_MAX && entry & ENTRY_LARGE);
}

static int visit_entry(struct search *search, uint64_t entry, unsigned int level, struct rights above) {
    struct rights rights = {
        .user = above.user && entry & ENTRY_USER,
        .no_execute = above.no_execute || entry & ENTRY_NO_EXECUTE,
    };
    uint64_t size = UINT64_C(1) << (3 + 9 * level);

    if (!(entry & ENTRY_PRESENT))
        return 0;
    if (!is_leaf(entry, level))
        return visit_table(search, entry & ENTRY_ADDRESS, level - 1, rights);
    if (!(search->protect & PROTECT_KERNEL_TEXT) || rights.user || rights.no_execute)
        return 0;
    return look_for(search, entry & ENTRY_ADDRESS & ~(size - 1), size);
}

/* A table that is not in RAM maps nothing, and cannot be written. */
static int visit_table(struct search *search, uint64_t table, unsigned int level, struct rights above) {
    uint64_t entries[ENTRIES];
    int r;

    if (++search->tables > PROTECT_TABLES) {
        *search->gpa = search->spans[0].gpa;
        return PROTECT_HIT;
    }
    if (search->protect & PROTECT_PAGE_TABLES) {
        r = look_for(search, table, TABLE_SIZE);
        if (r)
            return r;
    }
    /* Below page tables only pages can be protected. */
    if (level == 1 && (!(search->protect & PROTECT_KERNEL_TEXT) || above.no_execute))
        return 0;
    r = search->reader->read(search->reader->context, table, entries, sizeof(entries));
    if (r)
        return r == VMIBUS_GUEST_OUTSIDE_RAM ? 0 : r;
    for (size_t i = 0; r == 0 && i < ENTRIES; i++)
        r = visit_entry(search, entries[i], level, above);
    return r;
}

static int visit_root(struct search *search, const struct vmibus_guest_root *root) {
    return visit_table(search, root->cr3 & ENTRY_ADDRESS, root->levels, (struct rights){.user = true});
}

int protect_check(const struct vmibus_guest_reader *reader, const struct vmibus_guest_root *kernel,
                  const struct vmibus_guest_root *named, uint32_t protect, struct protect_span *spans, size_t n_spans,
                  uint64_t *gpa) {
    struct search search = {.reader = reader, .spans = spans, .protect = protect, .gpa = gpa};
    int r;

    if (n_spans == 0 || protect == 0)
        return 0;
    search.n_spans = spans_sort(spans, n_spans);
    r = visit_root(&search, kernel);
    if (r || (named->cr3 & ENTRY_ADDRESS) == (kernel->cr3 & ENTRY_ADDRESS))
        return r;
    /* What another process may execute as a user is no kernel text; its upper half is the kernel's. */
    search.protect &= PROTECT_PAGE_TABLES;
    return search.protect ? visit_root(&search, named) : 0;
}
