/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * RAM of a synthetic VM: one or two sealed memfds, written by pwrite(2) only, so that nothing but
 * the pages that hold something exists.  Only the two pages of the input ring are mapped, because
 * recording an event must cost no system call.
 *
 * Counted references belong to the loop's thread; the rest may run on the worker, one call at a
 * time.
 */
#ifndef STUB_RAM_H
#define STUB_RAM_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "stub_map.h"

#define STUB_OBJECTS_MAXIMUM 2
#define STUB_RANGES_MAXIMUM 3

struct stub_ram {
    unsigned references;
    unsigned vm;
    uint64_t size; /**< octets of all objects */
    size_t n_fds;  /**< 0: not opened yet */
    int fds[STUB_OBJECTS_MAXIMUM];
    uint64_t sizes[STUB_OBJECTS_MAXIMUM];
    struct stub_input_header *ring; /**< STUB_INPUT_SIZE octets, NULL before stub_ram_open() */
};

/** An object of no file yet, with one reference. NULL: out of memory. */
struct stub_ram *stub_ram_new(unsigned vm, uint64_t size);

struct stub_ram *stub_ram_ref(struct stub_ram *ram);

/** Takes and returns NULL. The last reference closes and unmaps. */
struct stub_ram *stub_ram_unref(struct stub_ram *ram);

/**
 * Makes and seals the objects (memfd_create(2); GROW, SHRINK, SEAL), maps the ring. 0 or a
 * negative errno; then nothing is open.
 */
int stub_ram_open(struct stub_ram *ram);

/** Takes objects that were opened before, by duplicates. 0, -EINVAL (they are others), or a negative errno; then nothing is open. */
int stub_ram_reopen(struct stub_ram *ram, const int *fds, const uint64_t *sizes, size_t n);

/** Makes all of it zeros again, and gives its pages back. 0 or a negative errno. */
int stub_ram_clear(struct stub_ram *ram);

/** Writes. -ERANGE: not RAM, or not in one object. Otherwise 0 or a negative errno. */
int stub_ram_write(struct stub_ram *ram, uint64_t gpa, const void *data, size_t len);

/** Reads. The same results. */
int stub_ram_read(const struct stub_ram *ram, uint64_t gpa, void *data, size_t len);

/** Fills the true layout in; returns how many ranges. */
size_t stub_ram_ranges(const struct stub_ram *ram,
                       struct vmibus_layout_range ranges[STUB_RANGES_MAXIMUM]);

#endif
