/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The root canary: octets of guest RAM that a kernel does not change while it lives, noted when its
 * root was proven.  If they differ later, the guest is another one (loadvm, kexec, a reset unheard of)
 * and its epoch has ended.
 *
 * Noted are the beginning of the VMCOREINFO note, the entries in the kernel's half of its top page
 * table that were present, and the entry that maps the probe, which may lie in the other half where the
 * guest is no Linux.  A glance, before every write, looks at the note and at the entry of the probe; a
 * full look, from time to time, at everything.
 */
#ifndef MEMORY_CANARY_H
#define MEMORY_CANARY_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/guest.h>

#define CANARY_NOTE 64u        /* octets of the note */
#define CANARY_ENTRIES 256u    /* entries of the kernel's half */
#define CANARY_FIRST 256u      /* index of the first of them */

/** Expected outcome of a look. */
#define CANARY_CHANGED 1

/** Not changed any more once armed. */
struct canary {
    uint64_t table;                     /**< guest-physical address of the top page table */
    uint64_t note;                      /**< of the note, 0 if none */
    uint32_t note_len;
    uint32_t glance;                    /**< index of the entry that a glance looks at */
    uint64_t glance_entry;
    uint8_t octets[CANARY_NOTE];
    uint64_t entries[CANARY_ENTRIES];   /**< 0: was not present, may come */
};

/**
 * Notes the octets.
 * @param root     the proven root
 * @param probe    virtual address that the root maps: its entry is the one glanced at
 * @param note     guest-physical address of the note, 0 if there is none
 * @param note_len its octets
 * @return 0, an enum vmibus_guest_result, or a negative errno
 */
int canary_arm(struct canary *canary, const struct vmibus_guest_reader *reader,
               const struct vmibus_guest_root *root, uint64_t probe, uint64_t note, uint32_t note_len);

/**
 * Looks at what matters most.
 * @return 0 unchanged, CANARY_CHANGED (also: not RAM any more), or a negative errno
 */
int canary_glance(const struct canary *canary, const struct vmibus_guest_reader *reader);

/** Looks at everything. Same results. */
int canary_look(const struct canary *canary, const struct vmibus_guest_reader *reader);

#endif
