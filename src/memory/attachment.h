/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An attachment: a client holds a memory context, with descriptors of its objects or without, until it releases it. */
#ifndef MEMORY_ATTACHMENT_H
#define MEMORY_ATTACHMENT_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/ledger.h"
#include "util/list.h"

struct authority_client;
struct memctx;

struct attachment {
    struct list link;           /**< among the client's */
    struct memctx *memctx;      /**< referenced */
    uint32_t n_objects_given;   /**< descriptors of RAM objects that the client got */
    struct charge attachment;
    struct charge descriptors;
};

/**
 * Makes an attachment, charged to the client.
 * @param n_given descriptors of RAM objects that the client gets
 * @param n_fds   all that it gets
 * @return 0, or the error that @a ack tells of
 */
uint16_t attachment_new(struct authority_client *client, struct memctx *memctx, size_t n_given, size_t n_fds,
                        struct vmibus_ack *ack);

/** Ends it. */
void attachment_free(struct authority_client *client, struct attachment *attachment);

/** A client's attachment to an epoch, or NULL. */
struct attachment *attachment_find(const struct authority_client *client, uint64_t epoch);

/** Ends all attachments of a client. */
void client_detach(struct authority_client *client);

#endif
