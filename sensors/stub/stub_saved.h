/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the synthetic VMs are while the daemon is started anew: their RAM, what runs in it, what is held.  A real VM would not
 * notice either.
 *
 * Octets: a header, then a record of the size that the header says for each VM.  An older or newer sensor takes of a record what it
 * knows; members are only ever appended.
 */
#ifndef STUB_SAVED_H
#define STUB_SAVED_H

#include <stdbool.h>

#include <vmibus/sensor.h>

#include "stub_vm.h"

#define STUB_SAVED_MAGIC UINT64_C(0x6465766173627473)

struct stub_saved_header {
    uint64_t magic;
    uint32_t n_vms;
    uint32_t record_size;
};

struct stub_saved_vm {
    uint32_t index;
    uint8_t state, held, goes_on, powering_down;
    uint8_t is_offered; /**< not between QUIT and the respawn */
    uint8_t kernel_up, n_fds, reserved;
    uint32_t boot, note_len;
    uint64_t epoch, ram_size, sizes[STUB_OBJECTS_MAXIMUM];
    uint64_t input_count, input_released;
    uint64_t keys[STUB_KEYS / 64];
    uint32_t keys_held, first_fd;
};

/** Fills what the next instance is to know, in memory of the stub's. 0 or -ENOMEM. */
int stub_saved_fill(struct stub *stub, struct vmibus_sensor_saved *saved);

/** Frees that. */
void stub_saved_free(struct stub *stub);

/** What the instance before said of a VM. False: nothing that makes sense. */
bool stub_saved_find(const struct vmibus_sensor_saved *saved, unsigned index, struct stub_saved_vm *vm);

/** Makes the RAM of a VM from what was saved. NULL: it is not what it has to be. */
struct stub_ram *stub_saved_ram(const struct vmibus_sensor_saved *saved, const struct stub_saved_vm *vm);

#endif
