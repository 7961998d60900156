/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What was received of a frame that is not whole, as peers and links hand it over. */
#ifndef TRANSPORT_HANDOVER_STREAM_H
#define TRANSPORT_HANDOVER_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "util/handover.h"

struct account;
struct receiver;

/** Writes it, and descriptors that came before their frame was whole, into a record of its own. */
void receiver_handover_save(struct handover_writer *writer, uint16_t tag, const struct receiver *receiver);

/**
 * Reads it into a receiver that has received nothing.
 * @param may_have_tail false: nothing with a tail could come yet
 * @param account pays for a large tail and for descriptors
 */
void receiver_handover_restore(struct receiver *receiver, const struct handover_record *record, bool may_have_tail,
                               struct account *account);

#endif
