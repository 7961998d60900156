/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the service manager gives, keeps and is told (sd_listen_fds(3), sd_notify(3)); without systemd, nothing.
 *
 * It gives the listening socket, and the epoch pages that an earlier daemon had it keep in its fd store
 * (systemd.service(5), FileDescriptorStoreMax=), each by the name epoch-SLOT; and what such a daemon handed over when it was
 * asked to end: its state by the name handover, and beside it each descriptor by the name handover-PLACE.
 */
#ifndef DAEMON_SERVICE_H
#define DAEMON_SERVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/authority.h"

/** What the manager gave. */
struct service_fds {
    int socket;                     /**< owned; -1: none */
    struct authority_page *pages;   /**< with their descriptors, owned */
    size_t n_pages;
    int state;                      /**< what an earlier daemon handed over (util/handover.h), owned; -1: nothing */
    int *handed;                    /**< the descriptors beside it, by their places, owned; -1: missing */
    size_t n_handed;
};

/**
 * Takes what the manager passed.
 * @param fds filled, also with nothing; service_fds_deinit() it whatever the outcome
 * @return 0, -EINVAL (something that is neither one listening unix stream socket, made non-blocking, nor named as a page or as
 *         handed over), or another negative errno
 */
int service_take_fds(struct service_fds *fds);

/** The same; what is wrong with it is said. */
int service_take_fds_or_tell(struct service_fds *fds);

/**
 * Takes what the manager passed to a program that listens at one unix socket of type seqpacket and gets nothing else.
 * @return the socket, made non-blocking, -ENOENT (nothing was passed), -EINVAL (something else was), or another negative errno
 */
int service_take_seqpacket(void);

/** Closes the pages, which somebody else has duplicates of. Harmless if repeated. */
void service_forget_pages(struct service_fds *fds);

/** Closes what is left. */
void service_fds_deinit(struct service_fds *fds);

/** Whether there is a manager to tell something. */
bool service_is_there(void);

/** Has the manager keep an epoch page for the next daemon, should this one die. @param fd borrowed; -1: not any more */
void service_keep_page(uint32_t slot, int fd);

/**
 * Has the manager keep what is handed over, the state last, and waits until it has it.
 * @param state, fds borrowed
 * @return 0, or a negative errno: then it may have some of it
 */
int service_keep_handover(int state, const int *fds, size_t n_fds, uint32_t timeout_ms);

/** It need not be kept any more. @param n_fds beside the state */
void service_forget_handover(size_t n_fds);

/** The daemon serves. */
void service_ready(const char *status);

/** Says how the daemon is, in words; service_ready() has said that it serves. */
void service_status(const char *status);

/** How often the service manager wants to hear that the daemon is alive, in nanoseconds; 0: it does not. */
uint64_t service_watchdog(void);

/** The daemon is alive. */
void service_alive(void);

/** The daemon reads its configuration anew; service_ready() ends it. */
void service_reloading(void);

/** The daemon ends. */
void service_stopping(void);

#endif
