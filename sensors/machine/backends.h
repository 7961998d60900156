/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The memory backends of a VM, and which of them are RAM, by the word of its monitor: query-memdev and
 * query-memory-devices (QEMU, qapi/machine.json).
 *
 * A backend is RAM unless a memory device shows it that is something else.  Storage (nvdimm,
 * virtio-pmem) is none: what is written there is written to a disk.  Nor is a virtio-mem device of
 * which nothing is plugged, nor enclaves (sgx-epc), nor a kind of device that is not known here.
 * Backends behind a PCI BAR are told by their priority in the flat view, see layout.h.
 *
 * Pure functions over JSON that nobody vouches for.
 */
#ifndef SENSORS_MACHINE_BACKENDS_H
#define SENSORS_MACHINE_BACKENDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "mtree.h"

/** Memory backends of one VM, and memory devices. */
#define BACKENDS_BOUND 1024

/** What is wrong with a list. */
enum backends_outcome {
    BACKENDS_NONE = 1,      /**< no backend that has a name */
    BACKENDS_TOO_MANY = 2,  /**< more than BACKENDS_BOUND */
    BACKENDS_MALFORMED = 3, /**< not what QEMU says */
};

/** A memory backend. */
struct backend {
    char name[MTREE_NAME_BOUND + 1];
    uint64_t size;
    bool is_ram;
    bool is_located;
    uint64_t location; /**< where its first octet lies, or would lie, in QEMU's address space, if located */
};

/** All of a VM; zeros: none. */
struct backends {
    struct backend *list;
    size_t n_backends;
};

/**
 * Takes the answer of query-memdev.  A backend without a name cannot be told from a device's memory:
 * it is not taken, so not RAM.
 * @param backends  empty; on success filled, to be ended with backends_deinit()
 * @return 0, enum backends_outcome, or -ENOMEM
 */
int backends_take(struct backends *backends, json_object *memdevs);

/**
 * Takes the answer of query-memory-devices: notes which backends are no RAM.
 * @return 0, BACKENDS_TOO_MANY or BACKENDS_MALFORMED
 */
int backends_take_devices(struct backends *backends, json_object *devices);

/** Frees what the list holds. */
void backends_deinit(struct backends *backends);

/**
 * The backend that a memory region of the flat view belongs to by its name, NULL if none: the
 * backend's, or its path below /objects/, as machine types before 4.0 show it.
 */
struct backend *backends_find(const struct backends *backends, const char *region);

/**
 * Whether octets of a backend may lie where the monitor says, beside all that it said before: within
 * its size, and in one piece with the rest.  Of two memory regions with one name this finds out.
 * @param offset    in the backend
 * @param len       octets, at least 1
 * @param location  in QEMU's address space
 */
bool backend_locate(struct backend *backend, uint64_t offset, uint64_t len, uint64_t location);

#endif
