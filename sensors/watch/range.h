/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A range that is watched: what its owner was told that it holds, what the last look saw, and the event that tells the
 * difference.
 *
 * Two pictures are kept, so that several changes become one event while the owner has not taken the last one: what it is told
 * are octets that it knows, and octets that were there at one look.  A look fills the second picture and nothing else, so it may
 * run on another thread; everything else is the loop's.
 */
#ifndef SENSORS_WATCH_RANGE_H
#define SENSORS_WATCH_RANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <vmibus/guest.h>
#include <vmibus/protocol.h>

/** Octets of a range at most; the bus has the same bound. */
#define RANGE_LEN_MAX 65536u

/** Octets of a change that its event shows at most: half of the tail that WATCH_CHANGED may have. */
#define RANGE_SHOWN_MAX 4096u

/** The same where the bus's tail bound is the smallest that it can be. */
#define RANGE_SHOWN_LEAST 2048u

struct range {
    TAILQ_ENTRY(range) link;        /**< all of a guest */
    TAILQ_ENTRY(range) look_link;   /**< those that are being looked at */
    bool looking;                   /**< ... whether it is one: the look owns what it fills */
    bool removed;                   /**< gone, but for the look that owns it */
    uint32_t number;                /**< by which the bus knows it */
    uint32_t len;
    uint64_t address;
    bool physical;
    uint64_t cr3;                   /**< 0: the kernel's */
    uint64_t interval;              /**< nanoseconds */
    uint64_t due;
    uint64_t command;               /**< that begins it and is not answered yet; 0: it was */
    uint64_t received;
    struct vmibus_guest_root root;  /**< to translate by at this look */
    int result;                     /**< of the last look: as vmibus_guest_read() */
    uint64_t fault;                 /**< where it failed */
    uint8_t level;                  /**< ... at this level of the tables */
    bool told_unreadable;           /**< the owner's last word is that it cannot be read */
    bool untaken;                   /**< the owner has not taken the last event yet */
    uint32_t looks;                 /**< that saw something else than the one before, since the last event */
    uint8_t *told, *seen;           /**< len octets each */
    uint8_t octets[];
};

/** Makes one of what WATCH ADD asks for. NULL: no memory. */
struct range *range_new(const struct vmibus_watch *watch, uint64_t interval);

/** Frees it. Takes and returns NULL. */
struct range *range_free(struct range *range);

/** Looks: fills result, and if it is 0, seen. @param scratch RANGE_LEN_MAX octets; thread: any, one at a time */
void range_look(struct range *range, struct vmibus_guest_ram *ram, uint8_t *scratch);

/** What a look that failed is answered with. */
void range_refuse(const struct range *range, struct vmibus_ack *ack);

/** The first picture is what the owner begins with. */
void range_begin(struct range *range);

/**
 * Makes the event that tells what the owner does not know yet.
 * @param shown octets of it to show at most
 * @param tail  room for 2 * @a shown octets
 * @param tail_length receives how many they are
 * @return false: there is nothing to tell
 */
bool range_compose(const struct range *range, uint32_t shown, struct vmibus_frame *frame, uint8_t *tail, size_t *tail_length);

/** The owner was told. */
void range_told(struct range *range);

#endif
