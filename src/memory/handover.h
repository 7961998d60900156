/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a memory authority hands over: the number of its epochs, of each endpoint identity, fence and memory context, and, client by
 * client, attachments and buffers.  A context goes with all that it holds of its process and its RAM, so the epoch goes on
 * and nobody who is attached notices; it is looked at once it has been taken over, because nobody looked meanwhile.
 *
 * A context of the authority's own process cannot go on: that process ends.
 *
 * Before: whoever owns it stops giving it commands, dispatches until authority_is_settled() or patience runs out, has
 * authority_settle() answer what is left, and writes.  After: it makes an authority with the same incarnation and without epoch
 * pages, reads the authority's record, then each client's, and calls authority_handover_go_on(); until then nobody
 * has been told anything.  Both sides need one struct authority_handover for all records.
 */
#ifndef MEMORY_HANDOVER_H
#define MEMORY_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>

#include "memory/authority.h"
#include "util/handover.h"

struct memctx;

struct authority_handover {
    struct authority *authority;    /**< borrowed */
    struct memctx **memctxs;        /**< in the order of their records; read: each referenced once */
    size_t n_memctxs, capacity;
};

/** No client is heard any more: nobody is overdue in releasing what it holds. */
void authority_settle_begin(struct authority *authority);

/** Whether no command is under way. */
bool authority_is_settled(const struct authority *authority);

/** Answers what is under way GONE, RESTARTED: the process ends before anybody could tell what became of it. */
void authority_settle(struct authority *authority);

/** Begins either side. */
void authority_handover_init(struct authority_handover *handover, struct authority *authority);

/** Ends it. */
void authority_handover_deinit(struct authority_handover *handover);

/** Writes the authority and its endpoints, into a record that the caller has begun. */
void authority_handover_save(struct authority_handover *handover, struct handover_writer *writer);

/** Writes what a client holds, into a record that the caller has begun. */
void authority_client_handover_save(struct authority_handover *handover, struct handover_writer *writer,
                                    const struct authority_client *client);

/** The incarnation that an authority's record tells. 0: none. */
uint32_t authority_handover_incarnation(struct handover_records records);

/** Reads what authority_handover_save() wrote into an authority whose endpoints are empty. False: something was wrong. */
bool authority_handover_restore(struct authority_handover *handover, struct handover_records records);

/** Reads a client, which has nothing yet. False: something was wrong. */
bool authority_client_handover_restore(struct authority_handover *handover, struct authority_client *client,
                                       struct handover_records records);

/**
 * It goes on: contexts are looked at, and the policy of now is applied.
 * @param pages     epoch pages that were kept; duplicated
 * @param is_linked the bus is heard as before; false: its link ended, so that it will tell all anew
 */
void authority_handover_go_on(struct authority *authority, const struct authority_page *pages, size_t n_pages, bool is_linked);

#endif
