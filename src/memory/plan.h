/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Translating a write: every page of every extent, before the first octet moves. */
#ifndef MEMORY_PLAN_H
#define MEMORY_PLAN_H

#include <stdint.h>

#include <vmibus/guest.h>

#include "memory/write.h"

/**
 * Fills the pieces of a write, in order, and its results: where each extent begins, and what is wrong with it. All extents
 * are looked at, also after one is wrong.
 * @return 0; or the error of the first extent that is wrong, with its reason, level and value in @a ack:
 *         TRANSLATION, READ_ONLY_PAGE, VALIDATION (no such address; it begins elsewhere), DENIED (policy does
 *         not let it be written there), STALE_EPOCH (the backing is not what it was), IO
 */
uint16_t plan_make(struct write *write, const struct vmibus_guest_reader *reader,
                   struct vmibus_ack *ack);

#endif
