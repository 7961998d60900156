/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A view of guest RAM, as ram.c keeps it and ram_walk.c walks in it. */
#ifndef VMIBUS_GUEST_RAM_H
#define VMIBUS_GUEST_RAM_H

#include <vmibus/guest.h>

#include <stdbool.h>

#include "direct.h"
#include "mapping.h"

struct vmibus_guest_ram {
    struct mapping mapping;
    int *fds;
    size_t n_fds;
    int pagemap_fd; /* -1: no object is the memory of a process */
    bool *is_private; /* by object: its descriptor is /proc/PID/mem */
    size_t recent; /* the range that was read last: a walk reads several times from one */
    size_t n_ranges;
    struct vmibus_ram_range ranges[]; /* by gpa, disjoint, none empty, none wrapping */
};

/** vmibus_guest_ram_read() as a reader's function. */
int ram_read(void *context, uint64_t gpa, void *buffer, size_t len);

/** The next stretch of RAM at or after *gpa. 0 or VMIBUS_GUEST_NOT_FOUND. */
int ram_next_range(void *context, uint64_t *gpa, uint64_t *len);

/** vmibus_guest_ram_next_data() as a reader's function, for whoever is about to look at all of the stretch. */
int ram_next_data(void *context, uint64_t *gpa, uint64_t *len);

/** The walk that loads entries where it can. */
extern const struct vmibus_guest_direct ram_direct;

#endif
