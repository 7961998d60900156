/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvmibus: a control's connection to a bus.
 *
 * The same functions serve two homes: a bus behind a socket (vmibus_connect) and a bus in this very
 * process (vmibus_core_connect in <vmibus/core.h>); a control need not know which.
 *
 * A connection is used by one thread at a time.  Nothing here logs or exits.  Functions return 0, a
 * negative errno where the connection or the operation is broken, or a positive enum vmibus_error
 * where the bus answered so.
 *
 * Everything that arrives is either the ACK that a vmibus_call() waits for, or is given to the handler
 * by vmibus_dispatch(), in the order of delivery.
 *
 * Where the bus says that the memory authority listens on a socket of its own, the first memory command
 * connects to it, which may take a moment; everything else is as with one socket.
 *
 * A connection can be lent to a child process (vmibus_dup_fd): the child finds its descriptor's number in
 * $VMIBUS_LENT_FD, connects, and has the same session, thus its leases.
 */
#ifndef VMIBUS_CLIENT_H
#define VMIBUS_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>
#include <vmibus/visibility.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Where the daemon listens if nobody says otherwise. */
#define VMIBUS_SOCKET_DEFAULT "/run/vmibus/control.sock"

struct vmibus;

/** One frame received, with what came along. */
struct vmibus_message {
    struct vmibus_frame frame;
    const void *tail; /**< header.tail_length octets, NULL if none; valid until the handler returns, or until deinit */
    int fds[VMIBUS_FDS_PER_FRAME];      /**< header.fd_count descriptors, then -1; whoever takes one sets it to -1 */
};

/** An endpoint as commands name it. */
struct vmibus_endpoint {
    uint32_t slot;
    uint64_t generation;
};

/** Handles a message. May call anything but vmibus_dispatch() and vmibus_free(). */
typedef void (*vmibus_handler)(struct vmibus *bus, struct vmibus_message *message, void *userdata);

/* --- connection -------------------------------------------------------------------------------- */

/**
 * Connects to a daemon and exchanges HELLO; waits for the answer at most five seconds.
 * @param busp receives the connection
 * @param path the socket; NULL: the connection lent in $VMIBUS_LENT_FD (to the first call of the process),
 *             else $VMIBUS_SOCKET, else VMIBUS_SOCKET_DEFAULT
 * @param name what the control calls itself, for people; at most 23 octets are told
 * @return 0, VMIBUS_ERROR_DENIED, VMIBUS_ERROR_QUOTA or PRESSURE (too many connections), or a negative errno:
 *         -ETIMEDOUT no answer, -EPROTO not a bus, -EPROTONOSUPPORT no common version, -EBADF: $VMIBUS_LENT_FD
 *         names no open descriptor
 */
VMIBUS_PUBLIC int vmibus_connect(struct vmibus **busp, const char *path, const char *name);

/**
 * Like vmibus_connect().
 * @param refusal filled with what the bus said where an enum vmibus_error is returned: for QUOTA and PRESSURE which limit was
 *                hit (reason), how much of it is in use (value), and its bound; else with zeros. May be NULL
 */
VMIBUS_PUBLIC int vmibus_connect_explained(struct vmibus **busp, const char *path, const char *name,
                                           struct vmibus_error_body *refusal);

/** Like vmibus_connect(), over a connected stream socket, which is taken whatever the outcome. */
VMIBUS_PUBLIC int vmibus_connect_consume_fd(struct vmibus **busp, int fd, const char *name);

/** Closes the connection: leases and attachments end, unless it is lent to, or by, another process. Takes and returns NULL. */
VMIBUS_PUBLIC struct vmibus *vmibus_free(struct vmibus *bus);

/** What the bus agreed to and its bounds. */
VMIBUS_PUBLIC const struct vmibus_welcome *vmibus_get_welcome(const struct vmibus *bus);

/** The descriptor to poll, the same as long as the connection lives. */
VMIBUS_PUBLIC int vmibus_get_fd(const struct vmibus *bus);

/**
 * The poll(2) events to wait for: POLLIN, and POLLOUT while something is to be sent, or is at hand that the descriptor
 * does not tell of (what arrived during a vmibus_call()). Ask anew before each poll.
 */
VMIBUS_PUBLIC short vmibus_get_poll_events(const struct vmibus *bus);

/** Who gets what arrives. */
VMIBUS_PUBLIC void vmibus_set_handler(struct vmibus *bus, vmibus_handler handler, void *userdata);

/**
 * Receives and sends whatever is possible without waiting, and calls the handler for what has arrived. After some
 * thousand messages it returns although there may be more; the descriptor tells.
 * @return 0, or a negative errno, from then on always the same: -ECONNRESET the bus closed, -EPROTO it broke the protocol,
 *         -EMFILE a descriptor that it passed found no place in this process; -EDEADLK: called by a handler
 */
VMIBUS_PUBLIC int vmibus_dispatch(struct vmibus *bus);

/**
 * Waits up to @a timeout_ms (-1: for ever) until there is something to dispatch, then does it.
 * @return 0, -ETIMEDOUT, -EINTR a signal was caught, or as dispatch
 */
VMIBUS_PUBLIC int vmibus_wait(struct vmibus *bus, int timeout_ms);

/* --- commands ---------------------------------------------------------------------------------- */

/** Begins a command: zeroes @a frame, sets kind, direction, endpoint and priority NORMAL. */
VMIBUS_PUBLIC void vmibus_command_init(struct vmibus_frame *frame, enum vmibus_kind kind, const struct vmibus_endpoint *endpoint);

/**
 * Sends a command and returns at once; its ACK goes to the handler. The library sets correlation, timestamp and lengths.
 * @param correlation if not NULL, receives the command's correlation id
 * @return 0; -EMSGSIZE: tail over the bound; -ENOBUFS: too much unsent (dispatch first); -ECONNRESET: the bus closed,
 *         dispatch gives what it said before; for the first memory command also what vmibus_connect() returns
 */
VMIBUS_PUBLIC int vmibus_send(struct vmibus *bus, struct vmibus_frame *frame, const void *tail, size_t tail_length,
                              uint64_t *correlation);

/**
 * Sends a command and waits for its ACK.  What else arrives meanwhile is kept for vmibus_dispatch().
 * Signals that are caught meanwhile do not end the wait.
 * @param reply if not NULL, filled with the ACK, its tail and descriptors, or with zeros where none came;
 *              vmibus_message_deinit() it whatever the outcome
 * @return the ACK's error (0: executed), or a negative errno; -EINVAL: the frame's flags want no ACK
 */
VMIBUS_PUBLIC int vmibus_call(struct vmibus *bus, struct vmibus_frame *frame, const void *tail, size_t tail_length,
                              struct vmibus_message *reply);

/** Frees the tail of a reply and closes the descriptors that were not taken. Harmless if repeated, and on zeros. */
VMIBUS_PUBLIC void vmibus_message_deinit(struct vmibus_message *message);

/* --- the usual commands ------------------------------------------------------------------------ */

/** Subscribes to kinds (VMIBUS_KIND_BIT) of all endpoints whose name matches; what is retained comes first. */
VMIBUS_PUBLIC int vmibus_subscribe(struct vmibus *bus, const char *pattern, uint64_t kinds);

/** Takes a lease. @a reply (may be NULL) explains a refusal. ttl_ms 0: until released. */
VMIBUS_PUBLIC int vmibus_lease_acquire(struct vmibus *bus, const struct vmibus_endpoint *endpoint,
                                       enum vmibus_lease_class lease_class, enum vmibus_lease_mode mode, uint32_t ttl_ms,
                                       uint64_t *token, struct vmibus_message *reply);

/** Extends a lease. */
VMIBUS_PUBLIC int vmibus_lease_renew(struct vmibus *bus, const struct vmibus_endpoint *endpoint,
                                     enum vmibus_lease_class lease_class, uint64_t token, uint32_t ttl_ms);

/** Gives a lease back. */
VMIBUS_PUBLIC int vmibus_lease_release(struct vmibus *bus, const struct vmibus_endpoint *endpoint,
                                       enum vmibus_lease_class lease_class, uint64_t token);

struct vmibus_mapped_buffer;

/**
 * A write into guest memory. With VMIBUS_MEMWRITE_EXPECT the octets to compare with come first, as many as are to be written.
 * What a running guest may see of a write, and what it must not rely on, says vmibus-memory(7).
 */
struct vmibus_write {
    uint64_t cr3;       /**< 0: the kernel root of the epoch */
    uint64_t gva;       /**< guest-virtual address; guest-physical with VMIBUS_MEMWRITE_PHYSICAL */
    const void *data;   /**< the octets; not looked at with a buffer */
    uint32_t len;       /**< octets to write */
    uint32_t flags;     /**< VMIBUS_MEMWRITE_ modes; the library sets how the source comes */
    uint64_t token;     /**< of the MEMWRITE lease */
    uint64_t epoch;     /**< of the memctx that the address was found in */
    const struct vmibus_mapped_buffer *buffer; /**< the octets are in it; NULL: in data */
    uint64_t offset;    /**< where in the buffer they begin */
};

/**
 * Writes guest memory, whole or not at all: inline up to VMIBUS_MEMWRITE_INLINE octets, else as a payload, or from a buffer,
 * whose octets must not change before the ACK. @a reply may be NULL.
 */
VMIBUS_PUBLIC int vmibus_memwrite(struct vmibus *bus, const struct vmibus_endpoint *endpoint, const struct vmibus_write *write,
                                  struct vmibus_message *reply);

/**
 * Writes several extents by one command: all of them or none. Where they overlap, the later one wins.
 * @param write     gva and len are not looked at; data, or the buffer from offset on, holds the octets of the extents one after
 *                  the other, with VMIBUS_MEMWRITE_EXPECT those to expect, of all extents, before
 * @param extents   n_extents of them, 1 to VMIBUS_EXTENTS_BOUND; gpa counts with VMIBUS_MEMWRITE_EXPECT_GPA only
 * @param results   NULL, or room for n_extents: how each fared, also where the command was refused; zeros if there was no ACK
 * @param reply     may be NULL
 * @return as vmibus_call(); -EINVAL: no extents; -EMSGSIZE: too many, or too long for one command; -ENOMEM
 */
VMIBUS_PUBLIC int vmibus_memwrite_table(struct vmibus *bus, const struct vmibus_endpoint *endpoint,
                                        const struct vmibus_write *write, const struct vmibus_write_extent *extents,
                                        size_t n_extents, struct vmibus_extent_result *results, struct vmibus_message *reply);

/**
 * The RAM of an endpoint in one epoch, held for reading.  The members are for looking only.
 *
 * Descriptors are read-only and belong to the attachment.  Where there are none, @a reason tells why, and reads go through
 * the memory authority.
 */
struct vmibus_attachment {
    uint64_t epoch;                         /**< never 0 */
    enum vmibus_reason reason;              /**< why n_fds is 0; NONE if it is not */
    const struct vmibus_ram_range *ranges;
    size_t n_ranges;
    const int *fds;                         /**< of the RAM objects, by the ranges' object */
    size_t n_fds;
    const uint64_t *current;                /**< what vmibus_epoch_is_current() looks at */
};

/**
 * Attaches to an epoch (0: the current one).
 * @param attachmentp receives the attachment on success; vmibus_release() it, before or after vmibus_free()
 * @param reply       receives the ACK, to explain a refusal; may be NULL; vmibus_message_deinit() it
 * @return as vmibus_call(); -EPROTO: the answer holds not what it says
 */
VMIBUS_PUBLIC int vmibus_attach(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t epoch,
                                struct vmibus_attachment **attachmentp, struct vmibus_message *reply);

/**
 * Ends an attachment and frees it, with its descriptors, whatever the outcome. Takes NULL.
 * @return as vmibus_call(); -ECONNRESET: the connection was freed before
 */
VMIBUS_PUBLIC int vmibus_release(struct vmibus_attachment *attachment);

/**
 * Whether the epoch goes on: to be asked before and after a use of what was read, which counts only if both answers are yes.
 * Costs two loads and no system call, and no message need have arrived.  From any thread, while the attachment lives.
 *
 * It answers no from the moment on that the memory authority ends the epoch, and once this library has noticed that the
 * connection has ended (a call or dispatch noticed).  Where the daemon died and nothing keeps its pages for the next one, the
 * connection's end is all that tells: a reader that goes on for long dispatches between its reads.  A bus without the feature
 * EPOCH_PAGE tells by the connection's end only.
 */
static inline bool vmibus_epoch_is_current(const struct vmibus_attachment *attachment) {
    const uint64_t *current;

    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* what was read before is read before */
    current = __atomic_load_n(&attachment->current, __ATOMIC_ACQUIRE);
    return __atomic_load_n(current, __ATOMIC_ACQUIRE) == attachment->epoch;
}

/* --- buffers, and reads through the memory authority --------------------------------------------- */

/**
 * Memory shared with the memory authority: the source of writes, or the target of reads.  The members are for looking only;
 * the octets may be read and written, but not while a command that uses them is under way: what they are then is undefined.
 */
struct vmibus_mapped_buffer {
    uint32_t number;    /**< as commands name it */
    size_t size;        /**< whole pages */
    uint8_t *octets;
};

/**
 * Makes a buffer of this session.
 * @param size    octets; rounded up to whole pages, at most VMIBUS_BUFFER_BOUND
 * @param bufferp receives the buffer on success; vmibus_buffer_free() it, before or after vmibus_free()
 * @param reply   receives the ACK, to explain a refusal; may be NULL; vmibus_message_deinit() it
 * @return as vmibus_call(); -EPROTO: the answer holds not what it says
 */
VMIBUS_PUBLIC int vmibus_buffer_new(struct vmibus *bus, size_t size, struct vmibus_mapped_buffer **bufferp,
                                    struct vmibus_message *reply);

/** Unmaps a buffer and gives it back to the bus, whatever the outcome; commands under way keep it there. Takes and returns NULL. */
VMIBUS_PUBLIC struct vmibus_mapped_buffer *vmibus_buffer_free(struct vmibus_mapped_buffer *buffer);

/** A read of guest memory through the memory authority. */
struct vmibus_read {
    uint64_t cr3;       /**< 0: the kernel root of the epoch */
    uint64_t gva;       /**< guest-virtual address; guest-physical with VMIBUS_MEMREAD_PHYSICAL */
    uint64_t epoch;     /**< of the memctx that the address was found in */
    const struct vmibus_mapped_buffer *buffer; /**< where the octets go */
    uint64_t offset;    /**< where in the buffer */
    uint32_t len;
    uint32_t flags;     /**< VMIBUS_MEMREAD_ */
};

/**
 * Reads guest memory into a buffer. In @a reply (may be NULL) ack.count tells how many octets are good, also where an address
 * that does not translate ended it early; then the other fields tell which.
 */
VMIBUS_PUBLIC int vmibus_read(struct vmibus *bus, const struct vmibus_endpoint *endpoint, const struct vmibus_read *read,
                              struct vmibus_message *reply);

/** Guest-physical memory of one epoch, read through the memory authority: for page walks without RAM descriptors. */
struct vmibus_mediated;

/**
 * Makes a view, with a buffer of its own.
 * @param epoch      of the memctx; not 0
 * @param mediatedp  receives the view on success; vmibus_mediated_free() it before vmibus_free()
 * @param reply      as in vmibus_buffer_new()
 */
VMIBUS_PUBLIC int vmibus_mediated_new(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t epoch,
                                      struct vmibus_mediated **mediatedp, struct vmibus_message *reply);

/** Frees it. Takes and returns NULL. */
VMIBUS_PUBLIC struct vmibus_mediated *vmibus_mediated_free(struct vmibus_mediated *mediated);

/**
 * Reads guest-physical memory; waits for the answer, as vmibus_call() does.  A vmibus_guest_read_fn of <vmibus/guest.h>: a
 * reader is made of it with the view as its context.
 * @return 0, VMIBUS_GUEST_OUTSIDE_RAM, VMIBUS_GUEST_TRUNCATED, or a negative errno: -ESTALE the epoch has ended, -EACCES the
 *         grant does not allow it, -EIO any other refusal; vmibus_mediated_get_ack() tells it in full
 */
VMIBUS_PUBLIC int vmibus_mediated_read(void *mediated, uint64_t gpa, void *buffer, size_t len);

/** The last answer that the view got; all zeros before the first. */
VMIBUS_PUBLIC const struct vmibus_ack *vmibus_mediated_get_ack(const struct vmibus_mediated *mediated);

/** Sends input events. In @a reply (may be NULL) ack.count tells how many the VM's host took, also where it refused the rest. */
VMIBUS_PUBLIC int vmibus_input(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t token,
                               const struct vmibus_input_event *events, size_t n_events, struct vmibus_message *reply);

/** Executes a power operation under the POWER lease. @a reply may be NULL. */
VMIBUS_PUBLIC int vmibus_power(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t token,
                               enum vmibus_power_operation operation, struct vmibus_message *reply);

/**
 * Pauses or resumes a VM under the POWER lease; holds it still or lets it go, which needs no lease (@a token is not looked at).
 * HOLD returns when the guest stands still. Holds nest, and end with LET_GO, with the connection, or after the bus's bound: LET_GO
 * is then answered EXPIRED, QUIESCE_FAILED, so that its success says that the guest stood still all the time.
 * @a reply may be NULL.
 */
VMIBUS_PUBLIC int vmibus_control_vm(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t token,
                                    enum vmibus_vm_operation operation, struct vmibus_message *reply);

/** Asks the bus about itself; @a endpoint is NULL but for GRANT. @a reply receives the answer; vmibus_message_deinit() it. */
VMIBUS_PUBLIC int vmibus_query(struct vmibus *bus, const struct vmibus_endpoint *endpoint, enum vmibus_query query,
                               struct vmibus_message *reply);

/** Asks the memory authority about itself. HOLDERS: of an endpoint, or with NULL of all. @a reply as above. */
VMIBUS_PUBLIC int vmibus_memory_query(struct vmibus *bus, const struct vmibus_endpoint *endpoint, enum vmibus_memory_query query,
                                      struct vmibus_message *reply);

/* --- lending ------------------------------------------------------------------------------------ */

/** Whether the connection was lent by the parent process. */
VMIBUS_PUBLIC bool vmibus_is_lent(const struct vmibus *bus);

/**
 * Duplicates the connection's socket, to be lent to a child process: the child clears FD_CLOEXEC and names it in
 * $VMIBUS_LENT_FD. Until the child has ended, the lender must not send, receive or dispatch.
 * @return the descriptor, close-on-exec, or a negative errno: -EOPNOTSUPP: the bus is in this process
 */
VMIBUS_PUBLIC int vmibus_dup_fd(const struct vmibus *bus);

/**
 * Takes the connection back after the borrower has ended: exchanges HELLO again and discards what arrived before the answer.
 * @return 0, or as vmibus_connect(); after an error, the connection can only be freed
 */
VMIBUS_PUBLIC int vmibus_reclaim(struct vmibus *bus, int timeout_ms);

/* --- a link of one's own ----------------------------------------------------------------------- */

/** How a connection reaches its bus; the in-process bus and tests bring their own. */
struct vmibus_link_ops {
    /**
     * Sends a frame whole. 0, -ENOBUFS: later, or another negative errno (-ECONNRESET does not end receiving).
     * Descriptors are duplicated.
     */
    int (*send)(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds);
    /**
     * Receives a frame. 1: @a message is filled, its tail malloc'ed and owned by the caller, unused fds -1; 0: nothing there;
     * negative errno.  May return 0 once although something is there, where wait() or a poll will tell of it.
     */
    int (*receive)(void *context, struct vmibus_message *message);
    /**
     * Waits up to timeout_ms (-1: for ever) until receive() may have something, or a send after -ENOBUFS may succeed, making the
     * other side progress where it must. 0, -ETIMEDOUT, -EINTR, negative errno.
     */
    int (*wait)(void *context, int timeout_ms);
    int (*get_fd)(void *context);
    short (*get_poll_events)(void *context);
    void (*close)(void *context);
};

/** Exchanges HELLO over a link, which is taken (closed) whatever the outcome. */
VMIBUS_PUBLIC int vmibus_connect_link(struct vmibus **busp, const struct vmibus_link_ops *ops, void *context, const char *name);

#ifdef __cplusplus
}
#endif

#endif
