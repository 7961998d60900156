/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A vmibusd of one's own, in a directory of its own; it ends with its owner, however that ends. */
#ifndef BENCH_INSTANCE_H
#define BENCH_INSTANCE_H

#include <stdint.h>
#include <sys/types.h>

#include <vmibus/client.h>

struct instance {
    pid_t pid;
    char directory[64];
    char socket[96];
};

/**
 * Starts a daemon where the caller runs (bench_place()) and waits until it serves.
 * @param build       the build directory
 * @param preload     library to preload, NULL: none
 * @param arguments   more arguments, NULL-terminated
 * @return 0 or a negative errno
 */
int instance_start(struct instance *instance, const char *build, const char *preload, const char *const *arguments);

/** Ends it and removes its directory. Harmless on one that was not started. */
void instance_stop(struct instance *instance);

/** Connects to it. As vmibus_connect(), but for a positive result, which becomes -EACCES. */
int instance_connect(const struct instance *instance, struct vmibus **busp);

/** Waits for an endpoint's ROSTER and, with @a epoch, for its MEMCTX in state READY. 0 or a negative errno. */
int instance_find(struct vmibus *bus, const char *name, struct vmibus_endpoint *endpoint, uint64_t *epoch);

#endif
