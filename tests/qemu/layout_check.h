/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Compares a published RAM layout with what QEMU's own monitor says, address by address and octet by octet.
 *
 * The guest must stand still: its firmware turns RAM into ROM and back, and what is written here would
 * bring it down.
 */
#ifndef TESTS_QEMU_LAYOUT_CHECK_H
#define TESTS_QEMU_LAYOUT_CHECK_H

#include <stdint.h>

#include <vmibus/client.h>

#include "scene.h"

/** What a layout shows, in octets. */
struct layout_sum {
    uint64_t ram;       /**< all of it */
    uint64_t read_only; /**< of that, read-only to the guest */
    uint64_t low_end;   /**< where RAM below 4 GiB ends */
    uint64_t high;      /**< octets from 4 GiB on */
    size_t n_ranges;
    size_t n_objects;
    bool handed;        /**< descriptors were given, and read through */
};

/**
 * Checks the layout of the current epoch:
 *  - first, last and some other pages of each range lie where gpa2hva says, in the file and at the offset that the mappings of
 *    QEMU have there;
 *  - what lies before and behind a range is no RAM of these backends, or another range;
 *  - a range is read-only if the flat view says ROM;
 *  - what a control writes into a page of each range QEMU reads there, and so do a mediated read and, where descriptors are given,
 *    a read through them; read-only ranges are refused, and read as QEMU reads them.
 *
 * @param backends  names of the backends that are RAM, NULL-terminated
 */
struct layout_sum layout_check(struct scene *scene, const char *const *backends);

/** Octets of RAM by QEMU's word: base and plugged memory (query-memory-size-summary). */
uint64_t layout_of_qemu(struct bed *bed);

/** Waits until the firmware has made its own copy read-only, where there is such, and stops the guest. */
void layout_settle(struct bed *bed, bool has_shadow);

/** Waits for an epoch, with a kernel root or without. */
void layout_wait(struct scene *scene);

#endif
