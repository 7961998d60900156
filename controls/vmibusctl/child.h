/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A command that is run under something that lasts as long: a lease, a hold.  Signals that ask for an
 * end are passed on to it; those that the terminal sends to both are its alone.
 */
#ifndef VMIBUSCTL_CHILD_H
#define VMIBUSCTL_CHILD_H

/**
 * Runs a command and waits for its end.
 * @param command a NULL-terminated array of words
 * @param prepare called in the child before the command is executed; NULL: nothing is to be prepared
 * @return its exit status as a shell would give it, or a status after having said what was wrong
 */
int child_run(char **command, void (*prepare)(void *context), void *context);

#endif
