/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading the RAM layout of a VM from its monitor.
 *
 * What counts as RAM is what QEMU's memory backends (query-memdev) show in the flat view of
 * guest-physical memory, with priority 0.  Memory of devices is not RAM, even where the guest can
 * load and store there: video memory, option ROMs, the firmware's flash, backends shown through
 * a PCI BAR (ivshmem), which the guest moves at will and without an event, and backends of devices
 * that are something else (backends.h).
 *
 * Steps: refuse confidential guests, list the backends and the memory devices, read the flat view,
 * ask where the first and the last octet of each range lie in QEMU's address space, read the flat
 * view once more.  Only if every backend lies in one piece, nothing changed meanwhile, and all names
 * agree is there a layout: refuse rather than guess.  The memory authority then checks it against
 * the process's mappings.
 */
#ifndef SENSORS_MACHINE_LAYOUT_H
#define SENSORS_MACHINE_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>

#include <vmibus/protocol.h>

#include "backends.h"
#include "mtree.h"
#include "monitor.h"

/** RAM ranges of one VM. */
#define LAYOUT_RANGES_BOUND 1024
/** Value of object in a range whose location is a host-virtual address. */
#define LAYOUT_OBJECT_NONE 0xffff

/** What came of a reading. */
enum layout_outcome {
    LAYOUT_READ = 0,         /**< ranges hold it */
    LAYOUT_CONFIDENTIAL = 1, /**< a confidential guest */
    LAYOUT_UNPROVEN = 2,     /**< the monitor's answers do not prove a layout; message tells why */
    LAYOUT_CHANGED = 3,      /**< it changed while it was read: read again */
    LAYOUT_LOST = 4,         /**< the monitor was lost */
};

/** What a flat view shows, beside a layout. */
enum layout_sight {
    LAYOUT_SIGHT_SAME,      /**< all that was there, and nothing else */
    LAYOUT_SIGHT_OTHER,     /**< memory that was not there, which may be RAM; or it is not understood */
    LAYOUT_SIGHT_OTHER_RAM, /**< not the RAM that was there: the layout does not hold any more */
};

/** A list of ranges. */
struct layout_ranges {
    struct vmibus_layout_range *ranges;
    size_t n_ranges;
};

/** @a message is a sentence for people, NULL after LAYOUT_READ; valid until the next reading. */
typedef void (*layout_done_fn)(void *userdata, enum layout_outcome outcome, const char *message);

/** A reader; it has one reading in progress at most. */
struct layout {
    struct monitor *monitor;
    bool reading;
    layout_done_fn done;
    void *userdata;
    struct backends backends;
    struct mtree tree; /* the flat view's RAM */
    struct mtree view; /* all that it showed in the end, RAM or not */
    size_t position;   /* range being located */
    bool last;         /* its last octet, not its first, is being located */
    bool confidential_known;
    char message[512]; /* why it is refused */
    struct layout_ranges result; /**< after LAYOUT_READ, until the next reading */
};

/**
 * Starts a reading. @a done is called once, later, unless layout_deinit() comes first.
 * @param monitor  one that is ready, and outlives the reading or tells LOST
 * @return 0, -EALREADY, or what monitor_execute() returns
 */
int layout_read(struct layout *layout, struct monitor *monitor, layout_done_fn done, void *userdata);

/** Frees everything. The monitor must have been freed before if a reading is in progress. */
void layout_deinit(struct layout *layout);

/** Compares the text of a flat view with what the last reading saw, which ended with LAYOUT_READ. */
enum layout_sight layout_compare(const struct layout *layout, const char *text, size_t len);

/** Whether two layouts are the same. */
bool layout_ranges_equal(const struct layout_ranges *a, const struct layout_ranges *b);

/** Moves a list; what @a to held is freed. */
void layout_ranges_move(struct layout_ranges *to, struct layout_ranges *from);

/** Frees a list's ranges. */
void layout_ranges_deinit(struct layout_ranges *ranges);

/**
 * Reads the answer of gpa2hva: "Host virtual address for 0x%lx (%s) is %p" (QEMU,
 * monitor/hmp-cmds.c).
 * @param gpa   the address that was asked for
 * @param name  memory region that must be there
 * @param hvap  receives the host-virtual address
 */
bool layout_parse_location(const char *text, uint64_t gpa, const char *name, uint64_t *hvap);

/**
 * Turns located ranges into what is proposed: joins neighbours, marks octets shown a second time as
 * aliases, refuses what wraps or overlaps in guest-physical memory. Sorts nothing: ranges rise.
 */
bool layout_finish(struct layout_ranges *ranges);

#endif
