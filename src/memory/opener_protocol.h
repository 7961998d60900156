/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the memory authority and vmibus-opend(8) say to each other: over a SOCK_SEQPACKET socket, one request of fixed size,
 * one answer of fixed size, in turns.  The descriptor that a request is about, and the one that an answer brings, travel beside
 * them (SCM_RIGHTS).  Both ends are of one build and one host: it is no part of the public wire, and has no older versions.
 */
#ifndef MEMORY_OPENER_PROTOCOL_H
#define MEMORY_OPENER_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#include "memory/opener.h"

#define OPENER_MAGIC UINT32_C(0x4e504f56) /* "VOPN" */
#define OPENER_VERSION 1u
#define OPENER_SOCKET_DEFAULT "/run/vmibus/opener.sock"

/** The functions of struct opener. */
enum opener_verb {
    OPENER_MAPS = 1,
    OPENER_PROCESS,
    OPENER_MEMORY,
    OPENER_PAGEMAP,
    OPENER_FILE,
    OPENER_TIGHTEN,
    OPENER_MEMORY_TO_READ,
};

/** A request. What a verb does not use is zero. */
struct opener_request {
    uint32_t magic;
    uint16_t version;
    uint16_t verb;
    uint64_t id;            /**< not 0; the answer has the same */
    uint64_t start_time;    /**< all but TIGHTEN */
    uint32_t pid;
    uint32_t flags;         /**< FILE: O_RDONLY or O_RDWR */
    uint32_t device_major;  /**< FILE */
    uint32_t device_minor;
    uint64_t inode;
    uint32_t mode;          /**< TIGHTEN */
    uint32_t reserved;
};

/** An answer. A result of 0 brings a descriptor, except to TIGHTEN; nothing else does. */
struct opener_answer {
    uint32_t magic;
    uint16_t version;
    uint16_t verb;
    uint64_t id;
    int32_t result;         /**< 0 or a negative errno */
    uint32_t reserved[3];
};

_Static_assert(sizeof(struct opener_request) == 56, "the request is 56 octets");
_Static_assert(sizeof(struct opener_answer) == 32, "the answer is 32 octets");

/**
 * Looks at every field of what came.
 * @param octets   at no alignment
 * @param n_fds    how many descriptors came with it
 * @param request  filled if it is good
 * @return 0 or -EBADMSG
 */
int opener_request_parse(const void *octets, size_t len, size_t n_fds, struct opener_request *request);

/** The same for an answer to @a request. */
int opener_answer_parse(const void *octets, size_t len, size_t n_fds, const struct opener_request *request,
                        struct opener_answer *answer);

/** An answer to a request, without descriptor. */
struct opener_answer opener_answer_to(const struct opener_request *request, int result);

/**
 * Has an opener do what a request says that opener_request_parse() took.
 * @param given  TIGHTEN: the descriptor that came; borrowed
 * @return a descriptor, 0 for TIGHTEN, or what the opener said
 */
int opener_execute(const struct opener *opener, const struct opener_request *request, int given);

/**
 * Sends octets, and a descriptor beside them unless it is negative; never waits.
 * @return 0 or a negative errno, -EAGAIN if the other end does not read
 */
int opener_send(int socket, const void *octets, size_t len, int fd);

/**
 * Takes one message, without waiting.
 * @param size  of @a octets; one longer is cut to it, and *len is greater
 * @param fds   two are room enough to see that there was more than one; all that came are the caller's
 * @return 0, or a negative errno: -EAGAIN there is none, -EPIPE the other end has gone, -EMFILE descriptors were lost
 */
int opener_receive(int socket, void *octets, size_t size, size_t *len, int fds[2], size_t *n_fds);

#endif
