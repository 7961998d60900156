/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: `info registers -a`.  The text need not end with a NUL.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz/target.h"
#include "machine/registers.h"

FUZZ_TARGET(registers) {
    struct registers registers, again;

    registers_parse((const char *)data, size, &registers);
    if (registers.n_cr3 > REGISTERS_VCPUS_BOUND || registers.n_cr3 > registers.n_vcpus + 1)
        abort();
    registers_parse((const char *)data, size, &again);
    if (memcmp(&registers, &again, sizeof(registers)) != 0)
        abort();
    if (!registers_fingerprint((const char *)data, size))
        abort();

    return 0;
}
