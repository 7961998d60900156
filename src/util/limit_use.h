/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a process that keeps a ledger tells of it on the wire: records limit_use, the totals, then the asker's own, then,
 * where it may know, everybody else's.  The loop's thread only.
 */
#ifndef UTIL_LIMIT_USE_H
#define UTIL_LIMIT_USE_H

#include <stdbool.h>
#include <stddef.h>

#include <vmibus/protocol.h>

struct account;
struct ledger;

/** How many records there are. */
size_t limit_use_count(const struct ledger *ledger, const struct account *own, bool everybody);

/** Fills as many records as limit_use_count() said. */
void limit_use_fill(const struct ledger *ledger, const struct account *own, bool everybody, struct vmibus_limit_use *use);

#endif
