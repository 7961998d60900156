/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The exchange of HELLO and WELCOME that opens a channel, and that makes a connection which somebody
 * lent the borrower's.
 */
#ifndef CLIENT_HELLO_H
#define CLIENT_HELLO_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/client.h>

/** How long an answer may take. */
#define HELLO_TIMEOUT_MS 5000

/** Room for the path of the memory socket and a NUL. */
#define HELLO_PATH_SIZE 108

/** What is told. */
struct hello {
    enum vmibus_role role;
    enum vmibus_channel channel;
    const uint8_t *session;     /**< 16 octets on a MEMORY channel, else NULL */
    const char *name;           /**< for people; what is too long is cut */
    uint64_t correlation;
    bool established;           /**< the connection has been in use: what arrives before the answer is discarded */
    int timeout_ms;
};

/** What frames of a channel must keep to. */
struct hello_bounds {
    uint32_t tail_bound;
    uint16_t version;
    uint8_t fds_per_frame;
};

/** What is answered. */
struct hello_answer {
    struct vmibus_welcome welcome;
    struct hello_bounds bounds;
    char memory_path[HELLO_PATH_SIZE];  /**< where memory is SOCKET */
    struct vmibus_error_body refusal;   /**< what was said instead, where an enum vmibus_error is returned */
};

/**
 * Exchanges HELLO over a link, which stays the caller's.
 * @return 0, an enum vmibus_error, or a negative errno: -ETIMEDOUT, -EPROTO, -EPROTONOSUPPORT
 */
int hello_exchange(const struct vmibus_link_ops *ops, void *context, const struct hello *hello, struct hello_answer *answer);

#endif
