/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a sensor behind a socket may say. Whoever says anything else is no sensor of ours: its connection ends. */
#ifndef TRANSPORT_SENSOR_CHECK_H
#define TRANSPORT_SENSOR_CHECK_H

#include <vmibus/protocol.h>

#include "transport/frame_check.h"

/** Octets of the sentence of a SENSOR_ANNOUNCE at most. */
#define SENSOR_SENTENCE_BOUND 4096u

/** The kinds that a sensor may subscribe to: it sees which VMs there are, and their memory contexts. */
#define SENSOR_MAY_OBSERVE                                                                                        \
    (VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) |                                  \
     VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED))

/**
 * Checks a whole frame that a sensor sent; its framing has been checked.
 * @param tail header.tail_length octets; NULL: they could not be gathered, and are not looked at
 * @return FRAME_OK or FRAME_REFUSED, with @a fault filled
 */
enum frame_verdict sensor_check_frame(const struct vmibus_frame *frame, const void *tail, struct frame_fault *fault);

#endif
