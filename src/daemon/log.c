/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

VMIBUS_SYSCALLS("pwritev2 sendto")

/* A pipe that is ready takes as much at once (PIPE_BUF, pipe(7)). */
#define LINE_SIZE 2048

static uint64_t lost;

/*
 * Standard error is shared with whoever gave it to us, so it is not made non-blocking: that would be so for all of them.  A pipe or
 * terminal takes RWF_NOWAIT, or (pipes below Linux 6.4, terminals) is asked first; between asking and writing another process could
 * still fill it.  A file never waits for a reader.
 */
static bool put(const char *text, size_t length) {
    const struct iovec piece = {.iov_base = (void *)text, .iov_len = length};
    struct pollfd ready = {.fd = STDERR_FILENO, .events = POLLOUT};
    struct stat st;
    ssize_t n;

    if (fstat(STDERR_FILENO, &st) < 0)
        return false;
    if (S_ISSOCK(st.st_mode))
        return send(STDERR_FILENO, text, length, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)length;
    if (S_ISREG(st.st_mode))
        return write(STDERR_FILENO, text, length) == (ssize_t)length;
    n = pwritev2(STDERR_FILENO, &piece, 1, -1, RWF_NOWAIT);
    if (n < 0 && errno == EOPNOTSUPP && poll(&ready, 1, 0) == 1 && ready.revents & POLLOUT)
        n = write(STDERR_FILENO, text, length);
    return n == (ssize_t)length;
}

static bool put_line(enum log_level level, const char *line) {
    char text[LINE_SIZE];
    int n;

    /* sd-daemon(3): the journal takes the level from the prefix. */
    if (getenv("JOURNAL_STREAM"))
        n = snprintf(text, sizeof(text), "<%d>%s\n", level, line);
    else
        n = snprintf(text, sizeof(text), "%s: %s\n", program_invocation_short_name, line);
    return put(text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

static void tell_lost(void) {
    char line[128];

    snprintf(line, sizeof(line), "%ju lines before this one were lost: nobody read them", (uintmax_t)lost);
    if (put_line(LOG_LEVEL_WARNING, line))
        lost = 0;
}

void log_line(enum log_level level, const char *format, ...) {
    char line[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (lost)
        tell_lost();
    if (lost || !put_line(level, line))
        lost++;
}
