/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An opener that asks vmibus-opend(8).  Each call waits for the answer, and no longer than OPENER_REMOTE_MS: opend gives up on
 * what blocks before that.  A connection that was lost is made anew, once for each call; each request may be made twice, as none
 * does harm by it.
 *
 * One thread.
 */
#ifndef MEMORY_OPENER_REMOTE_H
#define MEMORY_OPENER_REMOTE_H

#include "memory/opener.h"

/** The longest that one call takes. */
#define OPENER_REMOTE_MS 10000u

/**
 * Makes an opener. It connects when it is needed first, so opend may come later.
 * Beside what struct opener says, its calls fail with -ETIMEDOUT (opend did not answer, or what it opened blocked),
 * -EACCES (its policy does not let it), -ECONNREFUSED (nobody listens there, or it does not take us), -EPROTO (it answered
 * nonsense).
 * @param path  of the socket; copied
 * @return 0, -ENAMETOOLONG or -ENOMEM
 */
int opener_remote_new(const struct opener **openerp, const char *path);

/** Frees it. Takes and returns NULL. */
const struct opener *opener_remote_free(const struct opener *opener);

#endif
