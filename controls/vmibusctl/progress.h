/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A progress bar on stderr for what takes long: shown only if stderr is a terminal, and only once it has taken a while.
 */
#ifndef VMIBUSCTL_PROGRESS_H
#define VMIBUSCTL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    const char *what;   /**< borrowed */
    uint64_t total;     /**< octets in all; 0: not known, and what is done is told in hundredths of a percent */
    uint64_t begun_ns;
    uint64_t shown_ns;
    bool is_terminal;
    bool is_shown;
};

/** Begins. @a what is a word or two, such as "searched". */
void progress_begin(struct progress *progress, const char *what, uint64_t total);

/** Shows how far it came; cheap enough for each step of some milliseconds. */
void progress_update(struct progress *progress, uint64_t done);

/** Takes the bar away: before anything else is printed. */
void progress_clear(struct progress *progress);

#endif
