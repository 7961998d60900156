/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Where in a guest, how much at once and how much per second a principal may write.
 *
 * A rule of the policy that grants writing may bound it: to ranges of guest-virtual addresses, of
 * guest-physical ones, or both, and away from what it protects.  That is the place of the rule.  Rules
 * only add: a stretch may be written if the place of one of them takes it whole.  The allowance of a
 * principal on an endpoint is what all its rules come to; it is copied out of the policy, so that a
 * write under way keeps the one that it began with.
 */
#ifndef POLICY_WRITE_BOUNDS_H
#define POLICY_WRITE_BOUNDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/ledger.h"

/** What a rule protects: bits. */
enum write_protection {
    PROTECT_KERNEL_TEXT = 1u << 0,  /**< what the kernel's tables map as executable by the kernel */
    PROTECT_PAGE_TABLES = 1u << 1,  /**< the kernel's tables, and those of the cr3 that a command names */
};

/** Ranges in one rule, at most. */
#define WRITE_RANGES 32u

/** The expected outcome of write_allowance_permits(). */
#define WRITE_FORBIDDEN 1

/** Addresses from first to last, both included. */
struct write_range {
    uint64_t first;
    uint64_t last;
};

struct write_ranges {
    size_t n;                               /**< 0: everywhere */
    struct write_range at[WRITE_RANGES];
};

/** Where one rule lets write. All zeros: everywhere. */
struct write_place {
    struct write_ranges gva;
    struct write_ranges gpa;
    uint32_t protect;                       /**< PROTECT_ bits */
};

/** How one rule bounds writing. All zeros: not at all. */
struct write_bounds {
    struct write_place place;
    uint64_t size;                          /**< octets of one write, 0: no bound */
    uint64_t rate;                          /**< octets per second, 0: no bound */
};

/** What the rules of a principal on an endpoint come to. References are taken and given on one thread; any thread may read it. */
struct write_allowance {
    size_t refs;
    struct charge charge;                   /**< of whoever it is kept for; taken by the keeper */
    uint64_t size;                          /**< the largest of the bounds; 0: none */
    uint64_t rate;                          /**< the largest of the bounds; 0: none */
    bool protects;                          /**< some place protects something */
    size_t n_places;                        /**< 0: everywhere */
    struct write_place places[];
};

/** A stretch that is to be written. */
struct write_stretch {
    bool is_virtual;                        /**< it was named by a guest-virtual address of the kernel's */
    uint64_t gva;
    uint64_t gpa;
    uint64_t len;                           /**< at least 1 */
};

/** Takes "FIRST-LAST", numbers as strtoull(3) takes them, separated by blanks or commas. 0, -EINVAL or -E2BIG. */
int write_ranges_parse(struct write_ranges *ranges, const char *text);

/** Takes "kernel-text", "page-tables", separated by blanks or commas. 0 or -EINVAL. */
int write_protection_parse(uint32_t *protect, const char *text);

/**
 * Makes the sum of the bounds of several rules.
 * @param bounds     borrowed
 * @param allowancep receives it with one reference; NULL if nothing is bounded
 * @return 0 or -ENOMEM
 */
int write_allowance_new(struct write_allowance **allowancep, const struct write_bounds *const *bounds, size_t n_bounds);

/** Octets that it takes. */
size_t write_allowance_octets(const struct write_allowance *allowance);

/** One more reference. Takes and returns NULL. */
struct write_allowance *write_allowance_ref(struct write_allowance *allowance);

/** Frees it, and releases its charge, with the last reference. Takes and returns NULL. */
struct write_allowance *write_allowance_unref(struct write_allowance *allowance);

/**
 * Whether a stretch may be written. Any thread.
 * @param allowance NULL: no bounds
 * @param protect   bits of what has to be checked not to lie there are added to it
 * @return 0 or WRITE_FORBIDDEN
 */
int write_allowance_permits(const struct write_allowance *allowance, const struct write_stretch *stretch, uint32_t *protect);

#endif
