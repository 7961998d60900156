/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The service of vmibus-opend(8): takes requests from who may ask, and has each done by a child, through the gate.
 *
 * A child for each request, because opening can block where no signal and no deadline reaches: in a process that is being ended, or
 * whose files are served by somebody who does not answer.  The child is killed when its time is up and the asker told so, whether
 * it dies or not; as the parent alone speaks to askers, one request has one answer.  A child that does not die keeps its place
 * among OPENER_CHILDREN_MAX, and when all are taken, requests are answered -EBUSY.
 *
 * An asker has one request at a time, and must have read the answer before the next: so what waits for it, descriptors included, is
 * one message.  One that says anything else than a good request is disconnected.
 */
#ifndef DAEMON_OPENER_SERVER_H
#define DAEMON_OPENER_SERVER_H

#include <sys/types.h>

#include "daemon/opener_config.h"
#include "memory/opener.h"
#include "util/loop.h"

#define OPENER_CHILDREN_MAX 16u
#define OPENER_ASKERS_MAX 8u

struct opener_server;

/**
 * Listens where the configuration says.
 * @return a socket or a negative errno, -EADDRINUSE if somebody listens there, -EEXIST if what is there is no socket
 */
int opener_server_bind(const char *path);

/**
 * Makes a server.
 * @param fd      a listening SOCK_SEQPACKET socket; taken whatever the outcome
 * @param inner   what does the work behind the gate; borrowed
 * @param config  complete; borrowed
 */
int opener_server_new_consume_fd(struct opener_server **serverp, struct loop *loop, int fd, const struct opener *inner,
                                 const struct opener_config *config);

/** Ends all children and connections. Takes and returns NULL. */
struct opener_server *opener_server_free(struct opener_server *server);

#endif
