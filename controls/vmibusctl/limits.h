/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Limits, for people: what was hit and what helps; how much of each is in use. */
#ifndef VMIBUSCTL_LIMITS_H
#define VMIBUSCTL_LIMITS_H

#include <stddef.h>

#include <vmibus/protocol.h>

/** Says on stderr how much of the limit that an ACK names is in use, whose that is, and what helps. QUOTA or PRESSURE. */
void limits_explain(const struct vmibus_ack *ack);

/** The same where the connection itself was refused: the bus then tells of a limit by ERROR, and not who uses most. */
void limits_explain_connection(const struct vmibus_error_body *refusal);

/** Prints the answer to QUERY LIMITS: a table of those that say anything. */
void limits_print(const struct vmibus_limit_use *uses, size_t n);

#endif
