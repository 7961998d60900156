/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: `info registers -a` in full.  The text need not end with a NUL.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "machine/vcpu_registers.h"

#define ROOM 8

FUZZ_TARGET(vcpu_registers) {
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
