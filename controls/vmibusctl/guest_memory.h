/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VM's RAM, attached for reading, and the address space that the options of a verb mean.  It is read by descriptors
 * where these are given, through the memory authority otherwise.
 */
#ifndef VMIBUSCTL_GUEST_MEMORY_H
#define VMIBUSCTL_GUEST_MEMORY_H

#include <vmibus/client.h>
#include <vmibus/guest.h>

#include "roster.h"

struct guest_memory {
    const struct vm *vm;
    struct vmibus_attachment *attachment;
    struct vmibus_guest_ram *ram;       /**< NULL: there are no descriptors */
    struct vmibus_mediated *mediated;   /**< NULL: there are descriptors */
    struct vmibus_mapped_buffer *buffer; /**< beside mediated, for longer reads */
    struct vmibus_guest_reader reader;  /**< whichever there is */
    struct vmibus_guest_root root;  /**< cr3 0 with --physical */
};

/**
 * Attaches to a VM's RAM.
 * @param physical whether --physical is given: no address space is needed
 * @param cr3      what --cr3 says, or NULL: the kernel's
 * @param mediated whether --mediated is given: descriptors are not used
 * @return a status, after having said what was wrong
 */
int guest_memory_attach(struct vmibusctl *ctl, const struct vm *vm, bool physical, const char *cr3, bool mediated,
                        struct guest_memory *memory);

/** Detaches; harmless if nothing is attached. */
void guest_memory_detach(struct guest_memory *memory);

/**
 * Looks whether the epoch ended while it was read.
 * @return a status: what was read may be of another kernel, which has been said, or STATUS_OK
 */
int guest_memory_check_epoch(struct vmibusctl *ctl, const struct roster *roster, const struct guest_memory *memory);

/** Whether the epoch goes on, by its page: asked before and after each use of the RAM. */
static inline bool guest_memory_is_current(const struct guest_memory *memory) {
    return vmibus_epoch_is_current(memory->attachment);
}

/**
 * Reads octets at an address, of the kind that the options mean, as far as it goes; what ended it is said.
 * @param done receives how many octets are good
 * @return a status
 */
int guest_memory_read(struct vmibusctl *ctl, const struct guest_memory *memory, bool physical, uint64_t address, void *buffer,
                      size_t len, size_t *done);

/**
 * Says why a read or a translation failed.
 * @param r     what the reader, or a walk by it, returned
 * @param fault how far the walk came, NULL if there was none
 * @return a status
 */
int guest_memory_report(const struct guest_memory *memory, int r, uint64_t address, const struct vmibus_guest_translation *fault);

#endif
