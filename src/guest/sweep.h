/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sweep: looks for pages of guest RAM that begin as a VMCOREINFO note does, where the files
 * hold data.  Takes its time in portions, so that a large guest does not hold up an event loop.
 *
 * It begins above 4 GiB and goes on with what lies below: a kernel takes the page of its note from
 * the zone Normal, which lies there wherever there is RAM (Linux include/linux/mmzone.h).
 */
#ifndef VMIBUS_GUEST_SWEEP_H
#define VMIBUS_GUEST_SWEEP_H

#include <vmibus/guest.h>

/* Measured over 512 MiB of memfd: 37 ms in pieces of 256 KiB, 44 in 16 KiB, 40 in 4 MiB; 54 with a
 * pread of 16 octets a page, 80 through a mapping. */
#define SWEEP_CHUNK_SIZE (256u * 1024)

#define SWEEP_BEGIN (UINT64_C(4) << 30)

struct sweep {
    struct vmibus_guest_ram *ram; /* borrowed */
    uint64_t at, end;             /* what is left of the stretch of data that is being read */
    bool low;                     /* it lies below SWEEP_BEGIN, and so does all that is left */
    uint64_t chunk_gpa;           /* the piece in memory: where it lies, */
    size_t chunk_len;             /* its length, */
    size_t chunk_done;            /* and how much of it was looked at; page-aligned */
    uint8_t *chunk;
};

/** Prepares a sweep of RAM, which is borrowed. Returns 0 or -ENOMEM. */
int sweep_init(struct sweep *sweep, struct vmibus_guest_ram *ram);

/** Frees what a sweep holds. One that was never initialised must be all zeros. */
void sweep_deinit(struct sweep *sweep);

/**
 * Finds the next page that begins with `OSRELEASE=`.
 * @param octets  how much may be read; what was read is taken off
 * @param gpa     receives where the page lies
 * @return 0, VMIBUS_GUEST_UNFINISHED when the octets are used up, VMIBUS_GUEST_NOT_FOUND after the
 *         last page, or a negative errno.
 */
int sweep_next(struct sweep *sweep, uint64_t *octets, uint64_t *gpa);

#endif
