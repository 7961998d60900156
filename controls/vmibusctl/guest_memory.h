/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A VM's RAM, attached for reading, and the address space that the options of a verb mean. */
#ifndef VMIBUSCTL_GUEST_MEMORY_H
#define VMIBUSCTL_GUEST_MEMORY_H

#include <vmibus/guest.h>

#include "roster.h"

struct guest_memory {
    const struct vm *vm;
    uint64_t epoch;
    bool attached;
    struct vmibus_guest_ram *ram;
    struct vmibus_guest_root root;  /**< cr3 0 with --physical */
};

/**
 * Attaches to a VM's RAM.
 * @param physical whether --physical is given: no address space is needed
 * @param cr3      what --cr3 says, or NULL: the kernel's
 * @return a status, after having said what was wrong
 */
int guest_memory_attach(struct vmibusctl *ctl, const struct vm *vm, bool physical, const char *cr3, struct guest_memory *memory);

/** Detaches; harmless if nothing is attached. */
void guest_memory_detach(struct vmibusctl *ctl, struct guest_memory *memory);

/**
 * Looks whether the epoch ended while it was read.
 * @return a status: what was read may be of another kernel, which has been said, or STATUS_OK
 */
int guest_memory_check_epoch(struct vmibusctl *ctl, const struct roster *roster, const struct guest_memory *memory);

/**
 * Says why a read or a translation failed.
 * @param fault how far the walk came, NULL if there was none
 * @return a status
 */
int guest_memory_report(const struct guest_memory *memory, int r, uint64_t address, const struct vmibus_guest_translation *fault);

#endif
