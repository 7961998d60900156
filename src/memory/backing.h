/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whether what lies behind a planned write can fail it in the middle.
 *
 * A write into guest memory stops half-way where the host has no page to put an octet into, or to take it
 * from: a hole has to be filled, a page comes back from swap, or is to become the process's own.  Memory, swap
 * or the file system's room can be used up by then.  Where every page is there already nothing has to be found,
 * and what is overwritten need not be kept.  That is looked at right before the write, as a whole: one piece that
 * can fail makes all the others worth keeping.
 *
 *   shared RAM   a file of tmpfs that is sealed against shrinking and not against writing, that we write through a
 *                descriptor of our own, every page of which is in the page cache: cachestat(2), Linux 6.5 and later.  mincore(2)
 *                takes twice as long and says "there" of everything to whom may not know (Linux mm/mincore.c).
 *   private RAM  every page is present, anonymous, mapped once and not watched: bits 63, 61, 56 and 57 of
 *                /proc/PID/pagemap.  The page of zeros, a page shared since a fork and one of a file are copied
 *                when they are written to, so they do not count.
 *   the source   memory that is ours alone, or a buffer whose pages are in the page cache.
 *
 * Everything else can fail: huge pages, files that can be cut off, kernels that cannot say.  And nobody asks for writes
 * of which a copy takes no longer than the answer: up to WRITE_SMALL octets, and those that fall into many short pieces.
 *
 * What is left: pages that go between the look and the last octet (swap, a balloon, a hole punched into a buffer), a
 * poisoned page, a process that ends or unmaps some, a seal that its owner adds.  A write that comes upon one of them with no copy
 * kept is told as PARTIAL, extent by extent.
 *
 * Nothing here touches a page, allocates, or takes the lock of a file.  Any thread.
 */
#ifndef MEMORY_BACKING_H
#define MEMORY_BACKING_H

#include <stdbool.h>

#include "memory/write.h"

/**
 * Whether a write cannot fail in the middle.
 * @param write planned
 * @return false also where it is not known, or where asking takes as long as keeping a copy
 */
bool backing_cannot_fail(const struct write *write);

#endif
