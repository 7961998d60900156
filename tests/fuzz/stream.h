/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The target's end of a connection: octets go, frames come.  What is believed of the other end is that its frames are framed. */
#ifndef TESTS_FUZZ_STREAM_H
#define TESTS_FUZZ_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

struct stream {
    int fd;                     /**< -1: closed */
    bool ended;                 /**< the other end has closed it, or would not take more */
    size_t begin, end;
    uint8_t octets[1 << 16];
};

/** Opens one on a non-blocking socket. */
void stream_open_consume_fd(struct stream *stream, int fd);

/** Closes it. Harmless if it is. */
void stream_close(struct stream *stream);

/** Sends octets, with descriptors (borrowed) if there are any. What does not fit the socket ends the stream. */
void stream_put(struct stream *stream, const void *data, size_t size, const int *fds, size_t n_fds);

/** Sends a frame and its tail, whose length is set. */
void stream_say(struct stream *stream, struct vmibus_frame *frame, const void *tail, size_t tail_length);

/** Receives what there is; descriptors are closed. */
void stream_receive(struct stream *stream);

/** The next whole frame that was received. False: there is none. @param tail valid until the next stream_receive() */
bool stream_next(struct stream *stream, struct vmibus_frame *frame, const uint8_t **tail);

#endif
