/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Buffers: memory that a client shares with the authority, as the source of its writes or the target of
 * its reads, so that octets need not travel through the socket.
 *
 * A buffer is a memfd whose size is sealed, mapped here as long as it lives.  The client can change its
 * octets at any time: whatever is decided by them is decided by a copy, and whatever is done with them
 * reads each octet once.
 *
 * The client can also punch holes into it, or keep its inode locked for as long as it likes (by a write(2)
 * whose source blocks).  Sealing keeps a load behind the end away, but one from a hole allocates, and
 * where the host is out of memory, or counts it strictly, that is a signal instead of an errno.  So:
 *   - octets are not loaded or stored here: they are given to system calls that copy, and these fail
 *     with EFAULT (pread(2) and pwrite(2) of the guest's memory), or taken by buffer_copy();
 *   - what takes the inode's lock is not called on it: write(2), fallocate(2), lseek(2) for holes.
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
struct authority_counters;

struct buffer {
    struct list link;           /**< among the client's; unlinked once freed by it */
    size_t refs;
    uint32_t number;
    int fd;                     /**< owned; the client's is another file description */
    uint8_t *octets;            /**< mapped, size of them: for system calls only */
    size_t size;                /**< whole pages */
    struct account *account;    /**< referenced */
    struct charge count, bytes, descriptor;
    struct authority_counters *counters; /**< borrowed; counted there */
};

/**
 * Makes a buffer of a client, all of it charged to the client's account, under the lowest number that is free.
 * @param size octets; whole pages come of them
 * @param fd   the client's descriptor, of another file description: the caller's to close
 * @return 0 or the error of the answer, which says why; no descriptor is left open then
 */
uint16_t buffer_new(struct buffer **bufferp, struct authority_client *client, uint64_t size, int *fd,
                    struct vmibus_ack *ack);

/**
 * A buffer that was handed over, charged to the client's account.
 * @param fd consumed, also on failure
 * @return 0, -EBADMSG (it is no buffer of ours), -ENOBUFS (the account cannot pay), or another negative errno
 */
int buffer_take_over_consume_fd(struct authority_client *client, uint32_t number, uint64_t size, int fd);

/** The client frees it: it has no number any more, and lives until the last command that uses it. Takes and returns NULL. */
struct buffer *buffer_free(struct buffer *buffer);

/** The client's buffer of this number, or NULL. */
struct buffer *buffer_find(const struct authority_client *client, uint32_t number);

/** len octets of a buffer from an offset, for a system call to copy; or NULL if they are not all in it. */
uint8_t *buffer_octets(const struct buffer *buffer, uint64_t offset, uint64_t len);

/**
 * Copies octets out of a buffer; each is read once. Any thread.
 * @return 0, -ERANGE (they are not all in it), or a negative errno
 */
int buffer_copy(const struct buffer *buffer, uint64_t offset, void *to, size_t len);

/** One more reference. */
struct buffer *buffer_ref(struct buffer *buffer);

/** Releases everything with the last reference. Takes and returns NULL. */
struct buffer *buffer_unref(struct buffer *buffer);

/** A command that uses it never ends: takes it off the books, and leaves its memory to the command. Its client is gone. */
void buffer_abandon(struct buffer *buffer);

/** The client is gone: all its buffers are freed, as soon as no command uses them. */
void client_free_buffers(struct authority_client *client);

#endif
