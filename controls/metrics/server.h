/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A unix socket at which a page can be read: by HTTP, as monitoring does and curl --unix-socket; or by connecting and closing
 * one's own side.  One client is served at a time, and each within a deadline: whoever is slow makes the others wait that
 * long at most.
 */
#ifndef METRICS_SERVER_H
#define METRICS_SERVER_H

#include <stddef.h>
#include <sys/types.h>

/** Makes the page of the moment. @param pagep receives it, from malloc(3) @return 0 or a negative errno */
typedef int (*server_page_fn)(void *context, char **pagep, size_t *lengthp);

/**
 * Listens at a path; what is left there of a server that died is replaced.
 * @return a descriptor or a negative errno; -EADDRINUSE: somebody listens there
 */
int server_listen(const char *path, mode_t mode);

/** Serves one client after the other, until accepting fails. @return a negative errno; -EINTR: a signal was caught */
int server_run(int fd, const char *content_type, server_page_fn page, void *context);

#endif
