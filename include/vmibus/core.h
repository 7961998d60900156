/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libvmibus-core: a whole bus inside another program.
 *
 * For sensor tools and virtual machine monitors that bring their own event loop: a descriptor to poll,
 * a dispatch call, and the same connections that a daemon gives, without a socket.  Several buses can
 * live in one process; each is owned by one thread, with every connection made to it.
 *
 * Nothing here logs or exits.  Functions return 0, a negative errno, or a positive enum vmibus_error.
 */
#ifndef VMIBUS_CORE_H
#define VMIBUS_CORE_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/client.h>
#include <vmibus/sensor.h>
#include <vmibus/visibility.h>

#ifdef __cplusplus
extern "C" {
#endif

struct vmibus_core;

struct vmibus_core_options {
    uint32_t struct_size;       /**< sizeof(struct vmibus_core_options) */
    uint32_t incarnation;       /**< rises with every start on this host: keeps tokens and epochs of different starts apart */
    uint32_t n_endpoints;       /**< VMs at most; 0: 64 */
    uint32_t n_connections;     /**< connections at most; 0: 64 */
    uint32_t queue_depth;       /**< events that wait per connection at most; 0: 4096 */
    int audit_fd;               /**< regular file or memfd for the intents log, borrowed; -1: none */
    uint64_t audit_records;     /**< its capacity; 0: 16384 */
    uint64_t memory_cap;        /**< octets that are held for controls at most; 0: as many as the above ask for, and 64 MiB */
    uint32_t hold_ms;           /**< how long one hold may keep a guest still, milliseconds; 0: 10000 */
};

/**
 * Makes a bus with its memory authority, under a policy that lets this process do everything and nobody else anything.
 * @return 0 or a negative errno; -ENOSPC: memory_cap is less than what the other options ask for
 */
VMIBUS_PUBLIC int vmibus_core_new(struct vmibus_core **corep, const struct vmibus_core_options *options);

/** Ends it: every connection must have been freed. Takes and returns NULL. */
VMIBUS_PUBLIC struct vmibus_core *vmibus_core_free(struct vmibus_core *core);

/** Readable while vmibus_core_dispatch() has something to do. */
VMIBUS_PUBLIC int vmibus_core_get_fd(const struct vmibus_core *core);

/**
 * Does what there is to do, waiting for it up to @a timeout_ms (as poll(2)).
 * @return how much was done, or a negative errno
 */
VMIBUS_PUBLIC int vmibus_core_dispatch(struct vmibus_core *core, int timeout_ms);

/** Starts a sensor that is part of the program. */
VMIBUS_PUBLIC int vmibus_core_add_sensor(struct vmibus_core *core, const struct vmibus_sensor_module *module,
                                         const struct vmibus_sensor_option *options, size_t n_options);

/**
 * Loads a sensor from a file.
 * @param path the shared object
 * @return as vmibus_core_add_sensor(); -ELIBACC: cannot be loaded, -ELIBBAD: not a sensor, or of another ABI
 */
VMIBUS_PUBLIC int vmibus_core_load_sensor(struct vmibus_core *core, const char *path, const struct vmibus_sensor_option *options,
                                          size_t n_options);

/** Connects a control of this process. vmibus_free() it before the bus. Waiting calls on it dispatch the bus. */
VMIBUS_PUBLIC int vmibus_core_connect(struct vmibus_core *core, struct vmibus **busp, const char *name);

#ifdef __cplusplus
}
#endif

#endif
