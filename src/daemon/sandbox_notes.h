/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The notes of <vmibus/syscalls.h> in this process: those of the program, its libraries and its modules. */
#ifndef DAEMON_SANDBOX_NOTES_H
#define DAEMON_SANDBOX_NOTES_H

#include <stddef.h>

/** Called for each name. Returns a negative errno to end it. */
typedef int (*sandbox_note_fn)(void *context, const char *name);

/** Calls a function for each system call that is declared, as often as it is. 0 or what it returned. */
int sandbox_notes_visit(sandbox_note_fn fn, void *context);

/** The same for the notes in a segment of a file. Exposed for its tests: malformed ones end it. */
int sandbox_notes_parse(const void *segment, size_t size, sandbox_note_fn fn, void *context);

#endif
