/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Signals, taken by the loop as anything else is. */
#ifndef DAEMON_SIGNALS_H
#define DAEMON_SIGNALS_H

#include "util/loop.h"

/** Keeps SIGHUP, SIGINT and SIGTERM for signals_watch(): from the first moment on, so that one while the daemon starts counts. */
void signals_hold(void);

/** Has the loop call @a came, which takes them by signals_take(). 0 or a negative errno. */
int signals_watch(struct loop_source *source, struct loop *loop, loop_source_fn came);

/** The number of the next signal; 0: there is none. */
int signals_take(struct loop_source *source);

/** Ends it. Harmless if it was not begun. */
void signals_forget(struct loop_source *source);

#endif
