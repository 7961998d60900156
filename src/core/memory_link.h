/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bus's end of the link to a memory authority that has a process of its own: connects, says HELLO, tells all there is, and
 * from then on carries frames between the two, as core.c does within one process.
 *
 * An authority that is not there, or goes, is connected to again and again, at growing intervals; nothing waits for it
 * meanwhile.  By its incarnation it is known whether it is the same one (bus/resync.h).
 */
#ifndef CORE_MEMORY_LINK_H
#define CORE_MEMORY_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "transport/link.h"
#include "util/handover.h"
#include "util/loop.h"

struct bus;
struct memory_link;

/** What has become of the link; for people. */
enum memory_link_news {
    MEMORY_LINK_UP,
    MEMORY_LINK_DOWN,
    MEMORY_LINK_REFUSED,    /**< the authority does not want this bus; an ERROR tells why */
};

/** @a refusal: with MEMORY_LINK_REFUSED; NULL otherwise */
typedef void (*memory_link_news_fn)(void *context, enum memory_link_news news, const struct vmibus_error_body *refusal);

/**
 * Numbers of incarnations up to @a taken are used, by a bus whose state is lost: begins another incarnation, for good.
 * @param own         of the bus
 * @param incarnation receives one that is higher than both
 * @return 0 or a negative errno: the bus goes on with its own, and its tokens are refused
 */
typedef int (*memory_link_rise_fn)(void *context, uint32_t own, uint32_t taken, uint32_t *incarnation);

struct memory_link_options {
    struct loop *loop;      /**< borrowed */
    struct arena *arena;    /**< borrowed: link_memory_needed() octets are carved from it */
    struct bus *bus;        /**< borrowed; memory_link_tell() is its link */
    const char *path;       /**< where the authority listens; borrowed */
    uint32_t hello_ms;      /**< how long WELCOME may take, half a frame, and an unread queue */
};

struct memory_link {
    struct memory_link_options options;
    memory_link_news_fn news;       /**< NULL: nobody wants them */
    memory_link_rise_fn rise;       /**< NULL: it cannot */
    void *news_context;             /**< of both */
    struct link link;
    struct loop_timer retry;        /**< of the next attempt, or of WELCOME */
    uint64_t pause_ns;              /**< before the next attempt */
    uint32_t incarnation;           /**< of the authority that was told all last; 0: none was */
    uint32_t taken;                 /**< incarnations of a bus up to this one, as the authority says before its WELCOME */
    bool welcomed;
    bool refused;
};

/** Prepares it, and connects from the loop. 0 or a negative errno. */
int memory_link_init(struct memory_link *link, const struct memory_link_options *options);

/** Ends it. Harmless on zeros. */
void memory_link_deinit(struct memory_link *link);

/** Writes it, into a record that the caller has begun: nothing can be said on it from then on. */
void memory_link_handover_save(struct memory_link *link, struct handover_writer *writer);

/**
 * Reads it into one that has not connected yet.  Where there was no link it is connected as at any start, to an authority that
 * may be the same.  False: something was wrong.
 */
bool memory_link_handover_restore(struct memory_link *link, struct handover_records records);

/** Tells the authority, if there is one: a bus_link_fn's work. */
void memory_link_tell(struct memory_link *link, const struct vmibus_frame *frame, const void *tail);

#endif
