/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The floor: a process of its own that waits in epoll, reads 128 octets from an AF_UNIX stream socket
 * and writes 128 back, and nothing else; or, before it writes back, puts 8 octets into a file, or takes
 * octets from one into shared memory.
 */
#ifndef BENCH_PINGPONG_H
#define BENCH_PINGPONG_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define PINGPONG_SIZE 128

struct pingpong {
    pid_t pid;
    int fd;
};

/**
 * Starts the peer where the caller runs.
 * @param file   where 8 octets go in each round, -1: nowhere
 * @param offset where in it; what lies there is written back
 */
int pingpong_start(struct pingpong *pingpong, int file, off_t offset);

/** Starts a peer that reads @a len octets of a file in each round. */
int pingpong_start_reading(struct pingpong *pingpong, int file, off_t offset, size_t len);

void pingpong_stop(struct pingpong *pingpong);

/** Rounds; a bench_sample_fn whose context is the struct pingpong. */
int pingpong_sample(void *context, uint64_t *samples, size_t n);

/** Writes @a length octets whole. 0 or a negative errno. */
int write_whole(int fd, const void *data, size_t length);

/** Reads @a length octets whole. 0 or a negative errno; -ECONNRESET: the end. */
int read_whole(int fd, void *data, size_t length);

#endif
