/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Translating a write: every page of it, before the first octet moves. */
#ifndef MEMORY_PLAN_H
#define MEMORY_PLAN_H

#include <stdint.h>

#include <vmibus/guest.h>

#include "memory/write.h"

/**
 * Fills the pieces of a write.
 * @return 0; or an enum vmibus_error with reason, level and value in @a ack: TRANSLATION,
 *         READ_ONLY_PAGE, VALIDATION (no such address), STALE_EPOCH (the backing is not what it was),
 *         IO
 */
uint16_t plan_make(struct write *write, const struct vmibus_guest_reader *reader,
                   struct vmibus_ack *ack);

#endif
