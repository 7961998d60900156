/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Patterns; see pattern.h.  One octet of the pattern is compared at 64 places at a time, a second one where it stands, and
 * where both do, all of it.  A guest that fills its memory with what nearly matches makes each place cost: so what is compared
 * counts as work.
 */
#include "pattern.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LANE 16
#define LANES 4

typedef uint8_t lane __attribute__((vector_size(LANE)));
typedef uint64_t halves __attribute__((vector_size(LANE)));

/* --- which octets to look for ----------------------------------------------------------------- */

/* Roughly how seldom memory has an octet. */
static unsigned int rarity(uint8_t octet) {
    if (octet == 0)
        return 0;
    return octet == 0xff || octet == ' ' || octet == 'e' || octet == 't' || octet == 'a' ? 1 : 2;
}

static unsigned int worth(const struct pattern *pattern, size_t i) {
    unsigned int bits = (unsigned int)__builtin_popcount(pattern->mask[i]);

    return bits ? bits * 4 + rarity(pattern->octets[i]) : 0;
}

static void choose_anchors(struct pattern *pattern) {
    size_t first = 0, second = 0;

    for (size_t i = 1; i < pattern->len; i++)
        if (worth(pattern, i) > worth(pattern, first))
            first = i;
    for (size_t i = 0; i < pattern->len; i++)
        if (i != first && (second == first || worth(pattern, i) > worth(pattern, second)))
            second = i;
    pattern->anchors[0] = first;
    pattern->anchors[1] = second;
}

int pattern_init(struct pattern *pattern, const struct vmibus_guest_pattern *given) {
    uint8_t any = 0;

    *pattern = (struct pattern){.len = given->len, .align = given->align ? given->align : 1};
    if (given->len == 0 || given->len > VMIBUS_GUEST_PATTERN_MAX || pattern->align & (pattern->align - 1))
        return -EINVAL;
    pattern->octets = malloc(given->len);
    pattern->mask = malloc(given->len);
    if (!pattern->octets || !pattern->mask)
        return -ENOMEM;
    for (size_t i = 0; i < given->len; i++) {
        pattern->mask[i] = given->mask ? given->mask[i] : 0xff;
        pattern->octets[i] = given->octets[i] & pattern->mask[i];
        any |= pattern->mask[i];
    }
    choose_anchors(pattern);
    return any ? 0 : -EINVAL;
}

void pattern_deinit(struct pattern *pattern) {
    free(pattern->octets);
    free(pattern->mask);
    *pattern = (struct pattern){0};
}

/* --- looking ---------------------------------------------------------------------------------- */

static inline lane spread(uint8_t octet) {
    return (lane){0} + octet;
}

static inline lane load_lane(const uint8_t *octets) {
    lane value;

    memcpy(&value, octets, sizeof(value));
    return value;
}

/* Whether an anchor stands at any of the places of each lane. */
struct anchor {
    size_t offset;
    lane octet, mask;
};

static struct anchor make_anchor(const struct pattern *pattern, unsigned int which) {
    size_t offset = pattern->anchors[which];

    return (struct anchor){
        .offset = offset,
        .octet = spread(pattern->octets[offset]),
        .mask = spread(pattern->mask[offset]),
    };
}

static inline lane stands(const struct anchor *anchor, const uint8_t *octets) {
    return (lane)((load_lane(octets + anchor->offset) & anchor->mask) == anchor->octet);
}

static inline bool any(lane value) {
    halves both = (halves)value;

    return both[0] | both[1];
}

/* The first place from at on where both anchors may stand: up to LANE places early. n_starts: there is none. */
static size_t skip(const struct pattern *pattern, const uint8_t *octets, size_t n_starts, size_t at) {
    const struct anchor first = make_anchor(pattern, 0), second = make_anchor(pattern, 1);

    for (; n_starts - at >= (size_t)LANE * LANES; at += (size_t)LANE * LANES) {
        const uint8_t *here = octets + at;
        lane found[LANES], all = {0};

#pragma GCC unroll 4
        for (unsigned int i = 0; i < LANES; i++) {
            found[i] = stands(&first, here + (size_t)i * LANE);
            all |= found[i];
        }
        if (__builtin_expect(!any(all), 1))
            continue;
        for (unsigned int i = 0; i < LANES; i++)
            if (any(found[i] & stands(&second, here + (size_t)i * LANE)))
                return at + (size_t)i * LANE;
    }
    return at;
}

static bool matches(const struct pattern *pattern, const uint8_t *octets, uint64_t *work) {
    for (size_t i = 0; i < pattern->len; i++)
        if ((octets[i] & pattern->mask[i]) != pattern->octets[i]) {
            *work -= *work < i ? *work : i;
            return false;
        }
    return true;
}

static bool anchors_stand(const struct pattern *pattern, const uint8_t *octets) {
    size_t first = pattern->anchors[0], second = pattern->anchors[1];

    return (octets[first] & pattern->mask[first]) == pattern->octets[first] &&
           (octets[second] & pattern->mask[second]) == pattern->octets[second];
}

bool pattern_find(const struct pattern *pattern, const uint8_t *octets, size_t n_starts,
                  uint64_t address, size_t *at, uint64_t *work) {
    while (*at < n_starts && *work > 0) {
        size_t before = *at, next = skip(pattern, octets, n_starts, *at), end;

        end = n_starts - next < LANE ? n_starts : next + LANE;
        for (*at = next; *at < end && *work > 0; ++*at)
            if (anchors_stand(pattern, octets + *at) && (address + *at) % pattern->align == 0 &&
                matches(pattern, octets + *at, work))
                return true;
        *work -= *work < *at - before ? *work : *at - before;
    }
    return false;
}
