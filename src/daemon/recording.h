/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The recorder (src/audit) as the configuration wants it, and what it says to people. */
#ifndef DAEMON_RECORDING_H
#define DAEMON_RECORDING_H

#include "audit/recorder.h"
#include "daemon/config.h"

struct loop;

/**
 * Begins to record what an intents log gets.  That it cannot is said, and no reason to end.
 * @param writer          whose chain it is; see recorder_options
 * @param state_directory descriptor; borrowed
 */
void recording_begin(struct recorder *recorder, struct loop *loop, struct audit *intents, const char *writer,
                     const struct config *config, int state_directory);

#endif
