/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * File descriptors and who owns them.  A function that takes a descriptor over is named _consume_fd,
 * one that duplicates it _dup_fd; all others borrow.  Every descriptor is close-on-exec.
 */
#ifndef UTIL_FDS_H
#define UTIL_FDS_H

#include <stddef.h>

#define _cleanup_fd_ __attribute__((cleanup(fd_closep)))

/** Closes a descriptor unless it is negative. Keeps errno. Returns -1. */
int fd_close(int fd);

/** For _cleanup_fd_. */
void fd_closep(int *fdp);

/** Gives a descriptor up: returns it and stores -1. */
static inline int fd_steal(int *fdp) {
    int fd = *fdp;

    *fdp = -1;
    return fd;
}

/** Duplicates a descriptor, close-on-exec. Returns it or a negative errno. */
int fd_dup(int fd);

/** Closes each of an array and stores -1. */
void fds_close(int *fds, size_t n_fds);

#endif
