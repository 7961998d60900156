/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a synthetic VM shows when it is looked at from outside: a picture, and one vCPU. */
#ifndef STUB_SHOW_H
#define STUB_SHOW_H

#include <stdint.h>

#include <vmibus/protocol.h>

#include "stub_vm.h"

/** The picture: red tells the column, green the row (times 4 and 5), blue the number of the VM. */
#define STUB_SCREEN_WIDTH 64
#define STUB_SCREEN_HEIGHT 48

/**
 * Makes the picture in sealed memory.
 * @param format enum vmibus_image_format
 * @param octets receives its length
 * @return a descriptor of the caller's, or a negative errno
 */
int stub_show_screen(const struct stub_vm *vm, uint8_t format, uint64_t *octets);

/** What vCPU 0 holds: the first process runs, in user mode. */
void stub_show_registers(const struct stub_vm *vm, struct vmibus_vcpu_registers *registers);

#endif
