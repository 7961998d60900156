/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A pattern of octets with a mask, and where it stands in memory that may change while it is looked at. */
#ifndef VMIBUS_GUEST_PATTERN_H
#define VMIBUS_GUEST_PATTERN_H

#include <vmibus/guest.h>

#include <stdbool.h>

struct pattern {
    uint8_t *octets;   /* without what the mask leaves out */
    uint8_t *mask;
    size_t len;
    uint64_t align;    /* a power of two */
    size_t anchors[2]; /* the octets of it that memory is least likely to have */
};

/** Copies a pattern. 0, -EINVAL (as vmibus_guest_scan_new()) or -ENOMEM; pattern_deinit() either way. */
int pattern_init(struct pattern *pattern, const struct vmibus_guest_pattern *given);

/** Frees it. Harmless for all zeros. */
void pattern_deinit(struct pattern *pattern);

/**
 * Finds the pattern.
 * @param octets  where to look: n_starts + len - 1 of them
 * @param address of the first one, for the alignment
 * @param at      where to begin; receives where it was found, or where looking ended: n_starts, or less if the work is done
 * @param work    how many octets may be looked at, roughly; what was is taken off
 */
bool pattern_find(const struct pattern *pattern, const uint8_t *octets, size_t n_starts,
                  uint64_t address, size_t *at, uint64_t *work);

#endif
