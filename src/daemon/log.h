/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the daemon tells the administrator: lines on standard error, with syslog levels where the journal reads them.  A line that
 * nobody takes is lost rather than waited for, and the next one that is taken says how many were.
 */
#ifndef DAEMON_LOG_H
#define DAEMON_LOG_H

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_INFO = 6,
};

/** Prints one line; never waits. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)

#endif
