/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: `info registers -a` in full.  The text need not end with a NUL.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "qemu/vcpu_registers.h"

#define ROOM 8

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct vmibus_vcpu_registers registers[ROOM], again[ROOM];
    size_t n = vcpu_registers_parse((const char *)data, size, registers, ROOM);

    if (n > ROOM || vcpu_registers_parse((const char *)data, size, again, ROOM) != n ||
        memcmp(registers, again, n * sizeof(*again)) != 0)
        abort();
    for (size_t i = 0; i < n; i++)
        if (registers[i].vcpu != i || registers[i].reserved)
            abort();

    return 0;
}
