/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The epoch page of an endpoint slot: where its readers see, without a message, that an epoch has ended.
 *
 * One page of a memfd, mapped writable here alone, that begins with struct vmibus_epoch_page.  Its size
 * is sealed, so that no reader can be made to fault; its mode is 0400; readers get descriptors that
 * were opened read-only for them.  It is made with an occupant's first attachment and given up when the occupant
 * goes: what a reader has mapped stays, without an epoch, so one that comes late to look still sees the end.  One that is found
 * after its authority has died is ended, and given up too: nobody reads by it any more, and nobody would pay for it.
 *
 * Written as atomics, in this order: epoch 0, then the rest, then the next epoch.  So epoch is 0 from the moment
 * on that an epoch ends, before anybody is told, and never names an epoch that is not the current one.
 *
 * Who can write it.  F_SEAL_FUTURE_WRITE (Linux 5.1) makes it unwritable for everybody but the mapping that is
 * there: the owner's uid and root too.  But a page has to outlive the daemon where somebody keeps it
 * for the next one (a service manager's fd store), and that one has to end the epoch that a dead daemon
 * left in it: with that seal it could not.  A page that nobody can write is worth less than one that never
 * shows a dead epoch as current.  So a page is sealed so only where nobody keeps it.  One that is
 * kept could be written by its owner's uid, which can change the mode back, and by root; no other uid can.
 * Neither gains by it what it had not: it is no guest memory, and misleads readers only.
 */
#ifndef MEMORY_EPOCH_PAGE_H
#define MEMORY_EPOCH_PAGE_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/ledger.h"

/** Octets of the file: one page. */
#define EPOCH_PAGE_SIZE 4096u

struct epoch_page {
    int fd;                             /**< owned; -1: none */
    struct vmibus_epoch_page *shown;    /**< mapped; NULL: none */
    struct account *account;            /**< referenced; NULL: nobody pays */
    struct charge descriptor;
};

/** Prepares a slot that has none. */
void epoch_page_init(struct epoch_page *page);

/** Ends what it shows and forgets it; what readers have mapped stays as it is. */
void epoch_page_deinit(struct epoch_page *page);

/**
 * Makes it; it shows no epoch.
 * @param kept    somebody keeps its descriptor for the next authority: see above
 * @param account who pays; referenced
 * @return 0, CHARGE_QUOTA or CHARGE_PRESSURE (descriptors), or a negative errno
 */
int epoch_page_make(struct epoch_page *page, bool kept, struct account *account);

/**
 * Ends for good whatever a page shows that an earlier authority had made, after looking at what it is.
 * @param fd borrowed
 * @return 0, -EBADF (no page of ours: nothing was written), or another negative errno
 */
int epoch_page_end_fd(int fd);

/**
 * Takes a page that was handed over with its epoch: it goes on showing that, or ends what else it shows.
 * @param page  prepared; its account, if it has one, pays
 * @param fd    duplicated
 * @param epoch the current one; 0: none
 * @return as epoch_page_end_fd()
 */
int epoch_page_resume_dup_fd(struct epoch_page *page, int fd, uint64_t epoch, uint64_t generation);

/** An epoch has begun. Harmless if there is no page. */
void epoch_page_begin(struct epoch_page *page, uint64_t epoch, uint64_t generation);

/** It has ended. Harmless if there is no page, and if repeated. */
void epoch_page_end(struct epoch_page *page);

/** Opens it for a reader: read-only, a file description of its own. A descriptor or a negative errno. */
int epoch_page_open(const struct epoch_page *page);

static inline bool epoch_page_is_there(const struct epoch_page *page) {
    return page->shown != NULL;
}

#endif
