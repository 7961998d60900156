/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What policy protects in a guest: the kernel's text and its page tables.
 *
 * Neither has a fixed place, and a physical page has more than one virtual address: so the tables
 * themselves are walked, as they are at that moment, and every page of a write is looked for in what
 * they map and in what they are.  Kernel text is what the kernel's root maps as executable and not for
 * users.  Page tables are those that the kernel's root reaches and, where a write names another cr3,
 * those that it reaches; other processes' tables are not known.
 *
 * The walk costs a read for each table of the guest's kernel: such writes belong on a worker.
 */
#ifndef MEMORY_PROTECT_H
#define MEMORY_PROTECT_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/guest.h>

/** Tables that one walk visits, at most: a guest with more is not proven to be safe to write. */
#define PROTECT_TABLES 65536u

/** Expected outcome of protect_check(). */
#define PROTECT_HIT 1

/** Guest-physical octets that are to be written. */
struct protect_span {
    uint64_t gpa;
    uint64_t len;   /**< at least 1 */
};

/**
 * Looks for spans in what is protected. Any thread that may use the reader.
 * @param kernel  the kernel's root
 * @param named   the root that the write names; may be the same
 * @param protect PROTECT_ bits (policy/write_bounds.h)
 * @param spans   sorted here by gpa
 * @param gpa     receives, on PROTECT_HIT, an address of a span that is protected, or of the first span where the guest
 *                has too many tables to tell
 * @return 0, PROTECT_HIT, VMIBUS_GUEST_TRUNCATED, or a negative errno
 */
int protect_check(const struct vmibus_guest_reader *reader, const struct vmibus_guest_root *kernel,
                  const struct vmibus_guest_root *named, uint32_t protect, struct protect_span *spans, size_t n_spans,
                  uint64_t *gpa);

#endif
