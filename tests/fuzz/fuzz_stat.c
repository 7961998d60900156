/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: /proc/PID/stat, whose second field is a name that the process chose.
 */
#include <stdint.h>
#include <stdlib.h>

#include "fuzz/target.h"
#include "machine/process.h"

FUZZ_TARGET(stat) {
    uint64_t start_time = 0, again = 1;

    if (process_parse_stat((const char *)data, size, &start_time) &&
        (!process_parse_stat((const char *)data, size, &again) || start_time != again))
        abort();

    return 0;
}
