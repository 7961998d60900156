/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A handover's state that lies: one octet of it at a time is another one, and its sum agrees, so that lengths, tags, numbers and
 * references are wrong in every way that one octet can make them.
 */
#ifndef TESTS_UTIL_LIES_H
#define TESTS_UTIL_LIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "util/handover.h"

/** Whether a state is taken; whatever it says, nothing is left of it afterwards. */
typedef bool (*lies_fn)(const uint8_t *octets, size_t size);

struct lies {
    size_t n_taken, n_refused;
};

/** The octets of a state, which is closed. To be freed. */
static inline uint8_t *lies_read_consume_fd(int state, size_t *size) {
    uint8_t *octets;
    struct stat st;

    ck_assert_int_eq(fstat(state, &st), 0);
    *size = (size_t)st.st_size;
    octets = malloc(*size);
    ck_assert_int_eq(pread(state, octets, *size, 0), *size);
    close(state);
    return octets;
}

/** Makes the sum agree. */
static inline void lies_agree(uint8_t *octets, size_t size) {
    struct handover_header *header = (struct handover_header *)(void *)octets;
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    for (size_t i = sizeof(*header); i < size; i++)
        sum = (sum ^ octets[i]) * UINT64_C(0x100000001b3);
    header->sum = sum;
}

/** Tells them all, or those of each @a step-th octet. The truth is taken, before and after. */
static inline struct lies lies_tell(uint8_t *octets, size_t size, unsigned step, lies_fn is_taken) {
    struct lies lies = {};

    ck_assert(is_taken(octets, size));
    for (size_t i = sizeof(struct handover_header); i < size; i += step)
        for (unsigned how = 0; how < 4; how++) {
            uint8_t was = octets[i];

            octets[i] = how == 0 ? 0xff : how == 1 ? was ^ 1 : how == 2 ? 0 : (uint8_t)(was + 1);
            if (octets[i] == was)
                continue;
            lies_agree(octets, size);
            if (is_taken(octets, size))
                lies.n_taken++;
            else
                lies.n_refused++;
            octets[i] = was;
        }
    lies_agree(octets, size);
    ck_assert(is_taken(octets, size));
    return lies;
}

#endif
