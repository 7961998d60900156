/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Which rules of the policy decide, told to whoever asks.  Of the policy a control sees what names it; all of it only with the
 * capability STATS.  Whether there is a VM of the name plays no part, so that nobody learns of one this way.
 */
#ifndef BUS_EXPLAIN_H
#define BUS_EXPLAIN_H

#include <vmibus/protocol.h>

#include "bus/query.h"

struct control;

/** Answers EXPLAIN; fills @a answer, whose tail the caller frees. @param tail header.tail_length octets, borrowed */
void explain_execute(const struct control *control, const struct vmibus_frame *frame, const void *tail,
                     struct query_answer *answer);

#endif
