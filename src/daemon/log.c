/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void log_line(enum log_level level, const char *format, ...) {
    char line[1024];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    /* sd-daemon(3): the journal takes the level from the prefix. */
    if (getenv("JOURNAL_STREAM"))
        fprintf(stderr, "<%d>%s\n", level, line);
    else
        fprintf(stderr, "vmibusd: %s\n", line);
}
