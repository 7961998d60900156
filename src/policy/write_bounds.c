/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "policy/write_bounds.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SEPARATORS " \t,"

/* --- from words -------------------------------------------------------------------------------- */

static int range_parse(struct write_range *range, const char **textp) {
    const char *text = *textp;
    char *end;

    errno = 0;
    range->first = strtoull(text, &end, 0);
    if (errno || end == text || *text == '-' || *end != '-')
        return -EINVAL;
    text = end + 1;
    range->last = strtoull(text, &end, 0);
    if (errno || end == text || *text == '-' || range->last < range->first)
        return -EINVAL;
    if (*end && !strchr(SEPARATORS, *end))
        return -EINVAL;
    *textp = end;
    return 0;
}

int write_ranges_parse(struct write_ranges *ranges, const char *text) {
    int r;

    ranges->n = 0;
    for (text += strspn(text, SEPARATORS); *text; text += strspn(text, SEPARATORS)) {
        if (ranges->n == WRITE_RANGES)
            return -E2BIG;
        r = range_parse(&ranges->at[ranges->n], &text);
        if (r < 0)
            return r;
        ranges->n++;
    }
    return ranges->n ? 0 : -EINVAL;
}

int write_protection_parse(uint32_t *protect, const char *text) {
    static const struct {
        const char *word;
        uint32_t bit;
    } words[] = {{"kernel-text", PROTECT_KERNEL_TEXT}, {"page-tables", PROTECT_PAGE_TABLES}};
    size_t length, i;

    *protect = 0;
    for (text += strspn(text, SEPARATORS); *text; text += length, text += strspn(text, SEPARATORS)) {
        length = strcspn(text, SEPARATORS);
        for (i = 0; i < sizeof(words) / sizeof(*words); i++)
            if (strlen(words[i].word) == length && strncmp(words[i].word, text, length) == 0)
                break;
        if (i == sizeof(words) / sizeof(*words))
            return -EINVAL;
        *protect |= words[i].bit;
    }
    return *protect ? 0 : -EINVAL;
}

/* --- the sum of rules -------------------------------------------------------------------------- */

static bool is_everywhere(const struct write_place *place) {
    return place->gva.n == 0 && place->gpa.n == 0 && place->protect == 0;
}

/* No bound is the largest bound. */
static uint64_t larger_bound(uint64_t a, uint64_t b) {
    if (a == 0 || b == 0)
        return 0;
    return a > b ? a : b;
}

int write_allowance_new(struct write_allowance **allowancep, const struct write_bounds *const *bounds, size_t n_bounds) {
    struct write_allowance *allowance;
    bool everywhere = n_bounds == 0;
    uint64_t size = n_bounds ? bounds[0]->size : 0, rate = n_bounds ? bounds[0]->rate : 0;

    for (size_t i = 0; i < n_bounds; i++) {
        everywhere = everywhere || is_everywhere(&bounds[i]->place);
        size = larger_bound(size, bounds[i]->size);
        rate = larger_bound(rate, bounds[i]->rate);
    }
    *allowancep = NULL;
    if (everywhere && size == 0 && rate == 0)
        return 0;
    if (everywhere)
        n_bounds = 0;
    allowance = malloc(sizeof(*allowance) + n_bounds * sizeof(allowance->places[0]));
    if (!allowance)
        return -ENOMEM;
    *allowance = (struct write_allowance){.refs = 1, .size = size, .rate = rate, .n_places = n_bounds};
    for (size_t i = 0; i < n_bounds; i++) {
        allowance->places[i] = bounds[i]->place;
        allowance->protects = allowance->protects || bounds[i]->place.protect;
    }
    *allowancep = allowance;
    return 0;
}

size_t write_allowance_octets(const struct write_allowance *allowance) {
    return sizeof(*allowance) + allowance->n_places * sizeof(allowance->places[0]);
}

struct write_allowance *write_allowance_ref(struct write_allowance *allowance) {
    if (allowance)
        allowance->refs++;
    return allowance;
}

struct write_allowance *write_allowance_unref(struct write_allowance *allowance) {
    if (!allowance || --allowance->refs > 0)
        return NULL;
    charge_release(&allowance->charge);
    free(allowance);
    return NULL;
}

/* --- asking ------------------------------------------------------------------------------------ */

static bool ranges_contain(const struct write_ranges *ranges, uint64_t first, uint64_t last) {
    for (size_t i = 0; i < ranges->n; i++)
        if (first >= ranges->at[i].first && last <= ranges->at[i].last)
            return true;
    return ranges->n == 0;
}

static bool place_permits(const struct write_place *place, const struct write_stretch *stretch) {
    uint64_t more = stretch->len - 1;

    /* Any other address is none that a bound on virtual ones could let pass. */
    if (place->gva.n && !stretch->is_virtual)
        return false;
    return ranges_contain(&place->gva, stretch->gva, stretch->gva + more) &&
           ranges_contain(&place->gpa, stretch->gpa, stretch->gpa + more);
}

int write_allowance_permits(const struct write_allowance *allowance, const struct write_stretch *stretch, uint32_t *protect) {
    const struct write_place *least = NULL;

    if (!allowance || allowance->n_places == 0)
        return 0;
    for (size_t i = 0; i < allowance->n_places; i++) {
        const struct write_place *place = &allowance->places[i];

        if (!place_permits(place, stretch))
            continue;
        if (!least || __builtin_popcount(place->protect) < __builtin_popcount(least->protect))
            least = place;
    }
    if (!least)
        return WRITE_FORBIDDEN;
    *protect |= least->protect;
    return 0;
}
