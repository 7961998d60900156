/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/recorder.h"

#include "harness.h"

uint64_t recorder_sum(const uint8_t *octets, size_t length) {
    uint64_t sum = 0xcbf29ce484222325;

    for (size_t i = 0; i < length; i++)
        sum = (sum ^ octets[i]) * 0x100000001b3;
    return sum;
}

void recorder_handle(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct recorder *recorder = userdata;
    const struct vmibus_header *header = &message->frame.header;

    ck_assert_ptr_nonnull(bus);
    ck_assert_uint_lt(recorder->n, RECORDER_BOUND);
    recorder->deliveries[recorder->n] = header->delivery;
    recorder->kinds[recorder->n] = header->kind;
    recorder->tail_lengths[recorder->n] = header->tail_length;
    recorder->tail_sums[recorder->n] = recorder_sum(message->tail, header->tail_length);
    recorder->n++;
    for (size_t i = header->fd_count; i < VMIBUS_FDS_PER_FRAME; i++)
        ck_assert_int_eq(message->fds[i], -1);
    if (!recorder->take_fds || header->fd_count == 0)
        return;
    for (size_t i = 0; i < header->fd_count; i++) {
        ck_assert_uint_lt(recorder->n_fds, RECORDER_FDS);
        recorder->fds[recorder->n_fds++] = message->fds[i];
        message->fds[i] = -1;
    }
}

int recorder_await(struct vmibus *bus, struct recorder *recorder, size_t n) {
    int r = 0;

    while (r == 0 && recorder->n < n)
        r = vmibus_wait(bus, -1);
    return r;
}
