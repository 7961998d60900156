/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The process behind a machine: which one it is, and when it ends.
 *
 * A process id alone names nothing for long: the start time goes with it, and a pidfd is held, so
 * that the number cannot come to mean another process unseen.
 *
 * The socket tells who listened, not who is there now: the listener may have passed the socket on and executed a set-user-ID
 * program, or ended, and its number may be another's since.  Whoever answers the monitor would then have the memory authority open a
 * process that was never his.  So the process must be of the user who listened.
 */
#ifndef SENSORS_MACHINE_PROCESS_H
#define SENSORS_MACHINE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** A process. */
struct process {
    uint32_t pid;        /**< 0 if it cannot be told, as from another pid namespace */
    uint32_t uid;        /**< who called listen(2) */
    uint64_t start_time; /**< in clock ticks since boot: proc(5), stat field 22 */
    int fd;              /**< pidfd, readable once the process has ended; -1 if there is none */
};

#define PROCESS_NONE                                                                               \
    { .fd = -1 }

/**
 * Finds out who listens at the other end of a connected unix socket (unix(7), SO_PEERCRED: the
 * process that called listen(2)).
 * @return 0, also where it cannot be told, or is not the listener's own any more (pid 0), or a negative errno
 */
int process_of_socket(int fd, struct process *process);

/**
 * A process by its number, of which the caller knows that it is the right one or will find out: the number, the start time and
 * the pidfd are of one process.  Its user is the one that it has now.
 * @return 0, also where there is none or its user ids differ (pid 0), or a negative errno
 */
int process_of_pid(uint32_t pid, struct process *process);

/**
 * Whether the process is of the user who listened, by all its user ids.  What root opened, root gave to whom it would: that is
 * true then.  It holds for the moment: to be asked again where the process's memory is about to be opened, and after.
 */
bool process_is_own(const struct process *process);

/** Reads whether all four user ids in the text of /proc/PID/status are @a uid. */
bool process_parse_status(const char *text, size_t len, uint32_t uid);

/**
 * Reads the start time from the text of /proc/PID/stat.  The command in parentheses may hold any
 * octets, parentheses and spaces too: fields are counted from the last parenthesis.
 */
bool process_parse_stat(const char *text, size_t len, uint64_t *start_timep);

/** Whether two are the same process. */
bool process_equal(const struct process *a, const struct process *b);

/** Whether it has ended, by its pidfd. */
bool process_has_ended(const struct process *process);

/** Closes the pidfd. */
void process_deinit(struct process *process);

#endif
