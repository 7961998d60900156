/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is this frame what the definition of the wire allows?  Checked once, at the edge, before anything
 * looks at a body: what is behind may rely on it.
 *
 * Two kinds of wrong: a violation leaves it unclear where the next frame begins, or comes from a peer
 * that speaks something else, and ends the connection; anything else is answered and forgotten.
 */
#ifndef TRANSPORT_FRAME_CHECK_H
#define TRANSPORT_FRAME_CHECK_H

#include <stdint.h>

#include <vmibus/protocol.h>

enum frame_verdict {
    FRAME_OK = 0,
    FRAME_REFUSED,   /**< answer it with the error */
    FRAME_VIOLATION, /**< say why and close */
};

struct frame_fault {
    enum vmibus_error error;
    enum vmibus_reason reason;
    uint64_t value; /**< the offending value */
    uint64_t bound; /**< what it broke, if anything */
};

/** Checks the framing: version and tail length. Before the tail is gathered. Fills @a fault unless FRAME_OK. */
enum frame_verdict frame_check_framing(const struct vmibus_frame *frame, uint32_t tail_bound, struct frame_fault *fault);

/**
 * Checks a whole frame that a peer sent; its framing has been checked. FRAME_OK or FRAME_REFUSED.
 * @param sender what the peer is, one VMIBUS_SENDER_ bit (vmibus/names.h)
 */
enum frame_verdict frame_check_command(const struct vmibus_frame *frame, unsigned sender, struct frame_fault *fault);

/** Checks HELLO; which role may say it where is its home's to decide. FRAME_OK or FRAME_VIOLATION. */
enum frame_verdict frame_check_hello(const struct vmibus_frame *frame, struct frame_fault *fault);

/** Why a HELLO that frame_check_hello() passed is refused where its role or channel is not served: UNSUPPORTED. */
void frame_refuse_role(const struct vmibus_frame *hello, struct frame_fault *fault);

#endif
