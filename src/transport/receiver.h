/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The two-phase receiver: octets from a stream socket become frames, and frames with a tail wait until
 * it is whole.
 *
 * What arrives is read into one area shared by all receivers of a thread; only half a frame is kept per
 * connection.  A tail that arrived with its frame is used where it lies; one that did not is gathered
 * into a buffer that the connection owns meanwhile, from a bounded pool.  Where no buffer is to be
 * had, the tail is skipped and the command answered with the limit: the stream stays in step, and
 * nobody waits for anybody else's buffer.  Whoever is handed a large tail may keep its buffer (util/tails.h), as
 * long as there are some for that; there are others, which only tails being gathered are in.
 *
 * Descriptors are received only where the owner says so (gives_fds): a sensor's, a control has none to give.  They
 * arrive with or before the first octet of their frame, in the order of the frames, because the kernel never
 * joins two messages that both carry some; so each frame takes as many as it announces from a short queue.
 */
#ifndef TRANSPORT_RECEIVER_H
#define TRANSPORT_RECEIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "transport/frame_check.h"
#include "util/ledger.h"
#include "util/pool.h"
#include "util/tails.h"

#define RECEIVER_AREA 65536
#define RECEIVER_SMALL_TAIL 4096

/** What receivers of one thread share. */
struct receiver_pool {
    struct pool small;  /**< tails up to RECEIVER_SMALL_TAIL */
    struct pool large;  /**< tails up to the bound */
    struct tails *keepable; /**< the same, of which whoever is handed one may keep it; used first */
    struct pool areas;  /**< of the one area */
    uint32_t tail_bound;
    uint8_t *area;
};

struct receiver {
    struct receiver_pool *pool;
    int fd;
    uint8_t partial[VMIBUS_FRAME_SIZE];
    size_t n_partial;           /**< octets of half a frame */
    uint64_t n_whole;           /**< frames that became whole, tail included */
    struct vmibus_frame frame;  /**< whose tail is being gathered */
    bool in_tail;
    size_t n_tail;              /**< octets of the tail that have arrived */
    uint8_t *tail;              /**< NULL while in_tail: the tail is skipped */
    bool tail_is_large;
    bool tail_is_keepable;
    struct charge charge;       /**< for a large tail */
    bool gives_fds;             /**< set by the owner: what it sends may bring descriptors */
    uint8_t n_fds;
    int fds[VMIBUS_FDS_PER_FRAME]; /**< received, and not yet claimed by a frame; owned */
    struct charge fds_charge;   /**< for these */
    int refusal;                /**< charge_result for which the tail is skipped */
    bool filled;                /**< the last read took all that it was allowed to: there is more, it seems */
};

struct receiver_events {
    /** A whole frame, its framing checked. Return false to stop: the receiver is not touched again. @a fds: borrowed. */
    bool (*frame)(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds, uint64_t received);
    /** A frame whose tail could not be gathered, once it is past. @a refusal: a charge_result. False: stop. */
    bool (*skipped)(void *context, const struct vmibus_frame *frame, int refusal, uint64_t received);
    /** A framing violation. The receiver is not touched again. */
    void (*violation)(void *context, const struct vmibus_frame *frame, const struct frame_fault *fault);
    /** Whom to charge a large tail; NULL: nobody yet, it is skipped. */
    struct account *(*account)(void *context);
};

/**
 * Carves what receivers share from an arena: room for @a n_small and @a n_large tails being gathered, and for as many
 * large ones that are kept. 0 or a negative errno.
 */
int receiver_pool_init(struct receiver_pool *pool, struct arena *arena, uint32_t tail_bound, size_t n_small, size_t n_large);

/** What receiver_pool_init() carves, octets. */
size_t receiver_pool_cost(uint32_t tail_bound, size_t n_small, size_t n_large);

/** Releases it; every receiver must be gone. Harmless on zeros. */
void receiver_pool_deinit(struct receiver_pool *pool);

/** Prepares a receiver on a non-blocking stream socket, borrowed. */
void receiver_init(struct receiver *receiver, struct receiver_pool *pool, int fd);

/** Gives a buffer back that was being filled, and closes what no frame claimed. */
void receiver_deinit(struct receiver *receiver);

/**
 * Reads once and hands on what has become whole.
 * @param n_frames frames to hand on at most
 * @param n_octets octets of a tail being gathered to take at most
 * @return 0, -EAGAIN nothing was there, -ECONNRESET the peer closed, or another negative errno.
 *         After a callback asked to stop, -ECANCELED.
 */
int receiver_read(struct receiver *receiver, size_t n_frames, size_t n_octets, const struct receiver_events *events, void *context);

/**
 * A frame whose tail was being gathered, as it was handed over; without a buffer for it, it is skipped from here on.
 * @param octets what there is of the tail, unless it was skipped
 */
void receiver_take_over_tail(struct receiver *receiver, const struct vmibus_frame *frame, const uint8_t *octets, size_t n_tail,
                             int refusal, struct account *account);

/** Whether a frame has begun and is not whole. */
bool receiver_is_halfway(const struct receiver *receiver);

#endif
