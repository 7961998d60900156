/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Scanning an address space, or RAM, for a pattern.
 *
 * All that is kept between steps is the address from which matches are still to be looked for: pages are found anew
 * (tables.h), and looked at where they are if they are mapped and adjoin for long, else gathered into a buffer across
 * whatever pages adjoin in the address space.  Either way all places but the last ones, where the pattern would pass the
 * end of what is at hand, are done, and what follows begins with these.
 */
#include <vmibus/guest.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "direct.h"
#include "pattern.h"
#include "tables.h"

#include "paging.h"

#define GATHER_SIZE (64u * 1024)
#define IN_PLACE_MIN PAGING_PAGE_SIZE /* shorter ones are gathered */
#define STEP_MIN (2u * GATHER_SIZE)    /* work of less could be spent before anything is looked at */
#define HOLE_MIN (UINT64_C(2) << 20) /* of places less long, holes are read: zeros are cheaper than asking */

struct vmibus_guest_scan {
    struct vmibus_guest_reader reader;
    struct pattern pattern;
    struct tables *tables;            /* NULL: guest-physical memory */
    struct vmibus_ram_range *ranges;  /* of RAM, by gpa; NULL: the reader knows */
    size_t n_ranges;
    uint64_t from, last;
    uint64_t at;         /* where the next match may begin */
    bool is_over;
    uint64_t bridge_end; /* up to here holes are read: a match may begin in the end of one */
    uint64_t data_gpa, data_end; /* the stretch of data that was learnt of last, */
    uint64_t hole_gpa;           /* and where the hole before it begins, as far as is known */
    unsigned int progress;
    uint8_t *buffer;     /* GATHER_SIZE, and of a pattern what may come before */
};

/* --- making ----------------------------------------------------------------------------------- */

static int compare_ranges(const void *a, const void *b) {
    const struct vmibus_ram_range *left = a, *right = b;

    return (left->gpa > right->gpa) - (left->gpa < right->gpa);
}

static int scan_new(struct vmibus_guest_scan **scanp, const struct vmibus_guest_reader *reader,
                    const struct vmibus_guest_pattern *pattern, uint64_t from, uint64_t last) {
    struct vmibus_guest_scan *scan;
    int r;

    *scanp = NULL;
    if (last < from)
        return -EINVAL;
    scan = calloc(1, sizeof(*scan));
    if (!scan)
        return -ENOMEM;
    scan->reader = *reader;
    scan->from = scan->at = from;
    scan->last = last;
    scan->buffer = malloc(GATHER_SIZE);
    r = pattern_init(&scan->pattern, pattern);
    if (r == 0 && !scan->buffer)
        r = -ENOMEM;
    if (r < 0)
        scan = vmibus_guest_scan_free(scan);
    *scanp = scan;
    return r;
}

int vmibus_guest_scan_new(struct vmibus_guest_scan **scanp, const struct vmibus_guest_reader *reader,
                          const struct vmibus_guest_root *root,
                          const struct vmibus_guest_pattern *pattern, uint64_t from, uint64_t last) {
    int r;

    *scanp = NULL;
    if (root->levels < PAGING_LEVELS_MIN || root->levels > PAGING_LEVELS_MAX)
        return -EINVAL;
    r = scan_new(scanp, reader, pattern, from, last);
    if (r < 0)
        return r;
    (*scanp)->tables = calloc(1, sizeof(*(*scanp)->tables));
    if (!(*scanp)->tables) {
        *scanp = vmibus_guest_scan_free(*scanp);
        return -ENOMEM;
    }
    (*scanp)->tables->reader = *reader;
    (*scanp)->tables->root = *root;
    return 0;
}

static int copy_ranges(struct vmibus_guest_scan *scan, const struct vmibus_ram_range *ranges, size_t n_ranges) {
    scan->ranges = calloc(n_ranges, sizeof(*ranges));
    if (!scan->ranges)
        return -ENOMEM;
    memcpy(scan->ranges, ranges, n_ranges * sizeof(*ranges));
    scan->n_ranges = n_ranges;
    qsort(scan->ranges, n_ranges, sizeof(*ranges), compare_ranges);
    for (size_t i = 0; i < n_ranges; i++) {
        uint64_t end;

        if (ranges[i].len == 0 || __builtin_add_overflow(ranges[i].gpa, ranges[i].len, &end) ||
            (i > 0 && scan->ranges[i - 1].gpa + scan->ranges[i - 1].len > scan->ranges[i].gpa))
            return -EINVAL;
    }
    return 0;
}

int vmibus_guest_scan_new_physical(struct vmibus_guest_scan **scanp,
                                   const struct vmibus_guest_reader *reader,
                                   const struct vmibus_ram_range *ranges, size_t n_ranges,
                                   const struct vmibus_guest_pattern *pattern, uint64_t from,
                                   uint64_t last) {
    int r;

    *scanp = NULL;
    if (!reader->direct && (!ranges || n_ranges == 0))
        return -EINVAL;
    r = scan_new(scanp, reader, pattern, from, last);
    if (r == 0 && !reader->direct)
        r = copy_ranges(*scanp, ranges, n_ranges);
    if (r < 0)
        *scanp = vmibus_guest_scan_free(*scanp);
    return r;
}

struct vmibus_guest_scan *vmibus_guest_scan_free(struct vmibus_guest_scan *scan) {
    if (!scan)
        return NULL;
    pattern_deinit(&scan->pattern);
    free(scan->tables);
    free(scan->ranges);
    free(scan->buffer);
    free(scan);
    return NULL;
}

/* --- what there is to scan -------------------------------------------------------------------- */

static int next_range(struct vmibus_guest_scan *scan, uint64_t *gpa, uint64_t *len) {
    if (!scan->ranges)
        return scan->reader.direct->next_range(scan->reader.context, gpa, len);
    for (size_t i = 0; i < scan->n_ranges; i++) {
        const struct vmibus_ram_range *range = &scan->ranges[i];

        if (*gpa >= range->gpa + range->len)
            continue;
        *gpa = *gpa > range->gpa ? *gpa : range->gpa;
        *len = range->len - (*gpa - range->gpa);
        return 0;
    }
    return VMIBUS_GUEST_NOT_FOUND;
}

/* What is there at or after an address, holes included. As tables_next(). */
static int next_place(struct vmibus_guest_scan *scan, uint64_t *address, struct place *place,
                      uint64_t *work) {
    int r;

    if (scan->tables)
        return tables_next(scan->tables, address, scan->last, place, work);
    r = next_range(scan, address, &place->len);
    if (r != 0)
        return r;
    if (*address > scan->last)
        return VMIBUS_GUEST_NOT_FOUND;
    place->address = place->gpa = *address;
    if (place->len - 1 > scan->last - *address)
        place->len = scan->last - *address + 1;
    return 0;
}

/* How many octets from gpa on, at most max, are a hole or no RAM; 0 where that is not known. */
static int hole_at(struct vmibus_guest_scan *scan, uint64_t gpa, uint64_t max, uint64_t *hole) {
    uint64_t data = gpa, len = 0;
    int r = 0;

    if (gpa < scan->hole_gpa || gpa >= scan->data_end) {
        r = scan->reader.direct->next_data(scan->reader.context, &data, &len);
        if (r < 0)
            return r;
        scan->hole_gpa = gpa;
        scan->data_gpa = r == 0 ? data : UINT64_MAX;
        scan->data_end = r == 0 ? data + len : UINT64_MAX;
    }
    *hole = gpa < scan->data_gpa ? scan->data_gpa - gpa : 0;
    if (*hole > max)
        *hole = max;
    return 0;
}

/* Skips the hole that a place begins with, but for what a match could begin in. 0, or UNFINISHED: it was skipped. */
static int skip_hole(struct vmibus_guest_scan *scan, const struct place *place) {
    uint64_t before = scan->pattern.len - 1, hole, one = 1;
    int r;

    scan->at = place->address;
    if (!scan->reader.direct || place->len < HOLE_MIN || place->address < scan->bridge_end ||
        scan->reader.direct->look(scan->reader.context, place->gpa, &one))
        return 0;
    r = hole_at(scan, place->gpa, place->len, &hole);
    if (r < 0 || hole <= before)
        return r;
    if (hole == place->len && place->address + (hole - 1) == scan->last) {
        scan->is_over = true;
        return VMIBUS_GUEST_UNFINISHED;
    }
    scan->bridge_end = place->address + hole;
    scan->at = scan->bridge_end - before;
    return VMIBUS_GUEST_UNFINISHED;
}

/* --- looking ---------------------------------------------------------------------------------- */

struct matches {
    uint64_t *addresses;
    size_t n, found;
};

/* Looks at places where the pattern may begin, from scan->at on; goes on there behind the last one that was looked at. */
static void look(struct vmibus_guest_scan *scan, const uint8_t *octets, size_t n_starts,
                 struct matches *matches, uint64_t *work) {
    const uint64_t address = scan->at;
    size_t at = 0;

    while (at < n_starts && *work > 0 && matches->found < matches->n)
        if (pattern_find(&scan->pattern, octets, n_starts, address, &at, work))
            matches->addresses[matches->found++] = address + at++;
    scan->at = address + at;
    scan->is_over = scan->at < address;
}

/* False: it is not mapped, or too little adjoins. */
static bool look_in_place(struct vmibus_guest_scan *scan, const struct place *place, struct matches *matches,
                          uint64_t *work) {
    const struct vmibus_guest_direct *direct = scan->reader.direct;
    uint64_t len = place->len;
    const uint8_t *octets;

    if (!direct || len < IN_PLACE_MIN)
        return false;
    octets = direct->look(scan->reader.context, place->gpa, &len);
    if (!octets || len < IN_PLACE_MIN || len < scan->pattern.len)
        return false;
    look(scan, octets, (size_t)len - (scan->pattern.len - 1), matches, work);
    return true;
}

/* Reads what it can of a place; a page that cannot be read ends it. */
static int read_place(struct vmibus_guest_scan *scan, const struct place *place, uint8_t *buffer, size_t *len) {
    uint64_t wanted = place->len < *len ? place->len : *len;
    int r = scan->reader.read(scan->reader.context, place->gpa, buffer, (size_t)wanted);

    *len = (size_t)wanted;
    if (r == 0 || (r < 0 && r != -EIO))
        return r;
    for (*len = 0; *len < wanted;) {
        uint64_t step = PAGING_PAGE_SIZE - (place->gpa + *len) % PAGING_PAGE_SIZE;

        step = step < wanted - *len ? step : wanted - *len;
        r = scan->reader.read(scan->reader.context, place->gpa + *len, buffer + *len, (size_t)step);
        if (r != 0)
            return r == -EIO ? VMIBUS_GUEST_TRUNCATED : r;
        *len += (size_t)step;
    }
    return 0;
}

/*
 * Fills the buffer from scan->at on, where a place is at hand, with what adjoins.  len is how much that is, ended whether
 * nothing adjoins it that can be read.  Where the next place may be looked at where it is, no more is read of it than
 * what begins in this one needs.
 */
static int gather(struct vmibus_guest_scan *scan, struct place place, size_t *len, bool *ended) {
    uint64_t needed = place.len + scan->pattern.len - 1;
    size_t limit = scan->reader.direct && needed < GATHER_SIZE ? (size_t)needed : GATHER_SIZE;
    int r = 0;

    *ended = false;
    for (*len = 0; *len < limit;) {
        size_t part = limit - *len;
        uint64_t next;

        r = read_place(scan, &place, scan->buffer + *len, &part);
        *len += part;
        next = scan->at + *len;
        if (r != 0 || next == 0 || next - 1 == scan->last)
            break;
        if (*len < limit) {
            uint64_t address = next, once = 1; /* what lies further on is not looked for */

            r = next_place(scan, &address, &place, &once);
            if (r != 0 || address != next)
                break;
        }
    }
    *ended = *len < limit;
    return r < 0 ? r : 0;
}

static void go_on_at(struct vmibus_guest_scan *scan, uint64_t address) {
    scan->is_over = address < scan->at || address > scan->last;
    scan->at = address;
}

static int look_in_buffer(struct vmibus_guest_scan *scan, const struct place *place, struct matches *matches,
                          uint64_t *work) {
    const uint64_t address = scan->at, before = scan->pattern.len - 1;
    uint64_t n_starts;
    size_t len;
    bool ended;
    int r = gather(scan, *place, &len, &ended);

    if (r < 0)
        return r;
    n_starts = len > before ? len - before : 0;
    if (n_starts > 0)
        look(scan, scan->buffer, (size_t)n_starts, matches, work);
    if (ended && !scan->is_over && scan->at == address + n_starts) {
        /* Nothing that begins in the rest can end. Where nothing could be read, the page is left out. */
        uint64_t end = address + len;

        go_on_at(scan, len > 0 ? end : (end | (PAGING_PAGE_SIZE - 1)) + 1);
    }
    *work -= *work < len / 8 ? *work : len / 8;
    return 0;
}

/* --- steps ------------------------------------------------------------------------------------ */

static void note_progress(struct vmibus_guest_scan *scan) {
    double part = 0;
    unsigned int progress;

    if (scan->is_over)
        part = 1;
    else if (scan->tables)
        part = tables_progress(scan->tables, scan->from, scan->last, scan->at);
    else {
        uint64_t all = 0, done = 0, gpa = scan->from, len;

        while (next_range(scan, &gpa, &len) == 0 && gpa <= scan->last) {
            len = len - 1 > scan->last - gpa ? scan->last - gpa + 1 : len;
            all += len;
            done += scan->at <= gpa ? 0 : scan->at - gpa < len ? scan->at - gpa : len;
            gpa += len;
        }
        part = all ? (double)done / (double)all : 0;
    }
    progress = (unsigned int)(part * 10000);
    if (progress > scan->progress)
        scan->progress = progress;
}

static int scan_once(struct vmibus_guest_scan *scan, struct matches *matches, uint64_t *work) {
    struct place place;
    int r = next_place(scan, &scan->at, &place, work);

    if (r == VMIBUS_GUEST_NOT_FOUND)
        scan->is_over = true;
    if (r != 0)
        return r < 0 ? r : 0;
    r = skip_hole(scan, &place);
    if (r != 0)
        return r < 0 ? r : 0;
    if (look_in_place(scan, &place, matches, work))
        return 0;
    return look_in_buffer(scan, &place, matches, work);
}

int vmibus_guest_scan_step(struct vmibus_guest_scan *scan, uint64_t octets, uint64_t *addresses,
                           size_t n, size_t *found) {
    struct matches matches = {.addresses = addresses, .n = n};
    uint64_t work = octets > STEP_MIN ? octets : STEP_MIN;
    int r = 0;

    if (scan->tables)
        tables_forget(scan->tables);
    while (r == 0 && !scan->is_over && work > 0 && matches.found < n)
        r = scan_once(scan, &matches, &work);
    *found = matches.found;
    note_progress(scan);
    return r < 0 ? r : scan->is_over ? 0 : VMIBUS_GUEST_UNFINISHED;
}

unsigned int vmibus_guest_scan_get_progress(const struct vmibus_guest_scan *scan) {
    return scan->progress;
}

uint64_t vmibus_guest_scan_get_position(const struct vmibus_guest_scan *scan) {
    return scan->at;
}
