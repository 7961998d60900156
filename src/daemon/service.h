/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the service manager gives, keeps and is told (sd_listen_fds(3), sd_notify(3)); without systemd, nothing.
 *
 * It gives the listening socket, and the epoch pages that an earlier daemon had it keep in its fd store
 * (systemd.service(5), FileDescriptorStoreMax=), each by the name epoch-SLOT.
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
};

/**
 * Takes what the manager passed.
 * @param fds filled, also with nothing; service_fds_deinit() it whatever the outcome
 * @return 0, -EINVAL (something that is neither one listening unix stream socket, made non-blocking, nor named as a page), or
 *         another negative errno
 */
int service_take_fds(struct service_fds *fds);

/** Closes the pages, which somebody else has duplicates of. Harmless if repeated. */
void service_forget_pages(struct service_fds *fds);

/** Closes what is left. */
void service_fds_deinit(struct service_fds *fds);

/** Whether there is a manager to tell something. */
bool service_is_there(void);

/** Has the manager keep an epoch page for the next daemon, should this one die. @param fd borrowed; -1: not any more */
void service_keep_page(uint32_t slot, int fd);

/** The daemon serves. */
void service_ready(const char *status);

/** The daemon reads its configuration anew; service_ready() ends it. */
void service_reloading(void);

/** The daemon ends. */
void service_stopping(void);

#endif
