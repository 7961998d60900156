/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A handler that notes what it is given. */
#ifndef TESTS_CLIENT_RECORDER_H
#define TESTS_CLIENT_RECORDER_H

#include <stdint.h>

#include <vmibus/client.h>

#define RECORDER_BOUND 8192
#define RECORDER_FDS 64

/** What came, by delivery number, in order. */
struct recorder {
    size_t n;
    uint64_t deliveries[RECORDER_BOUND];
    uint16_t kinds[RECORDER_BOUND];
    uint32_t tail_lengths[RECORDER_BOUND];
    uint64_t tail_sums[RECORDER_BOUND];
    int fds[RECORDER_FDS];          /**< taken, in order; the test closes them */
    size_t n_fds;
    bool take_fds;
};

/** The handler; its userdata is the recorder. */
void recorder_handle(struct vmibus *bus, struct vmibus_message *message, void *userdata);

/** A sum by which tails are told apart. */
uint64_t recorder_sum(const uint8_t *octets, size_t length);

/** Waits until n messages have come; returns 0 or what ended it. */
int recorder_await(struct vmibus *bus, struct recorder *recorder, size_t n);

#endif
