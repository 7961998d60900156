/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "units.h"

#define WIDTH 30
#define QUIET_NS UINT64_C(300000000)    /* what is done sooner needs no bar */
#define REDRAW_NS UINT64_C(100000000)

static uint64_t now_ns(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

void progress_begin(struct progress *progress, const char *what, uint64_t total) {
    *progress = (struct progress){.what = what, .total = total, .begun_ns = now_ns(), .is_terminal = isatty(STDERR_FILENO) == 1};
}

static void draw(const struct progress *progress, uint64_t done) {
    double part = (double)done / (double)(progress->total ? progress->total : 10000);
    char bar[WIDTH + 1], at[UNITS_SIZE_SIZE], total[UNITS_SIZE_SIZE];

    if (part > 1)
        part = 1;
    for (int i = 0; i < WIDTH; i++)
        bar[i] = i < (int)(part * WIDTH) ? '#' : '.';
    bar[WIDTH] = '\0';
    if (progress->total == 0)
        fprintf(stderr, "\r[%s] %3d%%  %s\033[K", bar, (int)(part * 100), progress->what);
    else
        fprintf(stderr, "\r[%s] %3d%%  %s of %s %s\033[K", bar, (int)(part * 100), units_size(done, at),
            units_size(progress->total, total), progress->what);
    fflush(stderr);
}

void progress_update(struct progress *progress, uint64_t done) {
    uint64_t now;

    if (!progress->is_terminal)
        return;
    now = now_ns();
    if (now - progress->begun_ns < QUIET_NS || now - progress->shown_ns < REDRAW_NS)
        return;
    progress->shown_ns = now;
    progress->is_shown = true;
    draw(progress, done);
}

void progress_clear(struct progress *progress) {
    if (progress->is_shown)
        fputs("\r\033[K", stderr);
    progress->is_shown = false;
}
