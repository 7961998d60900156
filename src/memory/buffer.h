/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buffers: memory that a client shares with the authority, as the source of its writes or the target of
 * its reads, so that octets need not travel through the socket.
 *
 * A buffer is a memfd whose size is sealed, mapped here as long as it lives.  The client can change its
 * octets at any time: whatever is decided by them is decided by a copy, and whatever is done with them
 * reads each octet once.  Its number is the lowest that is free in the session, from 1.
 *
 * It lives until the client frees it, or is gone, and the last command that uses it has ended; its
 * charges (LIMIT_BUFFERS, LIMIT_BYTES, LIMIT_FDS) are released then, once.  References are taken and given on
 * the loop's thread; a worker may use the octets of a buffer that its job holds.
 */
#ifndef MEMORY_BUFFER_H
#define MEMORY_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/ledger.h"
#include "util/list.h"

struct authority_client;

struct buffer {
    struct list link;           /**< among the client's; unlinked once freed by it */
    size_t refs;
    uint32_t number;
    int fd;                     /**< owned */
    uint8_t *octets;            /**< mapped, size of them */
    size_t size;                /**< whole pages */
    struct account *account;    /**< referenced */
    struct charge count, bytes, descriptor;
};

/** BUFFER. */
void command_buffer(struct authority_client *client, const struct vmibus_frame *frame, uint64_t received);

/** The client's buffer of this number, or NULL. */
struct buffer *buffer_find(const struct authority_client *client, uint32_t number);

/** len octets of a buffer from an offset, or NULL if they are not all in it. */
uint8_t *buffer_octets(const struct buffer *buffer, uint64_t offset, uint64_t len);

/** One more reference. */
struct buffer *buffer_ref(struct buffer *buffer);

/** Releases everything with the last reference. Takes and returns NULL. */
struct buffer *buffer_unref(struct buffer *buffer);

/** The client is gone: all its buffers are freed, as soon as no command uses them. */
void client_free_buffers(struct authority_client *client);

#endif
