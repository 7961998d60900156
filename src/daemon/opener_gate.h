/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What stands between who asks vmibus-opend(8) and the opener that does it: an opener that passes on only what the configuration
 * permits, and looks at the process before and after.  Nothing that the asker says counts, except which process and file it means.
 *
 *   A process   runs an executable that is named, which is root's, and has one user for all its ids, who is named.  It is neither
 *               pid 1, nor vmibus-opend, nor who asks, nor another program of vmibus.
 *   A file      is one that the process has mapped: shared and writable, if it is to be opened for writing.  It is memory, and a
 *               named user's.
 *   A mode      is changed of such a file only if it has no name, and only to fewer bits, of which the owner's to read and write
 *               stay.
 *
 * What is not permitted is -EACCES.
 */
#ifndef DAEMON_OPENER_GATE_H
#define DAEMON_OPENER_GATE_H

#include "daemon/opener_config.h"
#include "memory/opener.h"

struct opener_gate {
    struct opener opener;               /**< what is let in */
    const struct opener *inner;         /**< does it; borrowed */
    const struct opener_config *rules;  /**< borrowed */
    pid_t own;                          /**< of vmibus-opend */
    pid_t asker;
    const char *refused;                /**< the rule by which the last thing was; NULL: none was */
};

/** Prepares a gate. */
void opener_gate_init(struct opener_gate *gate, const struct opener *inner, const struct opener_config *rules, pid_t own,
                      pid_t asker);

#endif
