/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Each fuzz target is shown what is committed in its folder of tests/fuzz/corpus: what a fuzzer once found stays found, with any
 * compiler and sanitizer.
 */
#ifndef TESTS_FUZZ_CORPUS_H
#define TESTS_FUZZ_CORPUS_H

#include <stddef.h>
#include <stdint.h>

#include "harness.h"

typedef int (*fuzz_target_fn)(const uint8_t *data, size_t size);

/** Shows a target its corpus; the name of each file goes to stderr before. */
void corpus_show(const char *name, fuzz_target_fn target);

/* Some targets keep what they need as long as the process lives. */
#define CORPUS(name) CORPUS_OF(name)
#define CORPUS_OF(name)                                                               \
    int fuzz_##name(const uint8_t *data, size_t size);                                \
    TEST(test_p09_corpus_of_##name, .timeout = 120, .ignore_fds = true) {             \
        corpus_show(#name, fuzz_##name);                                              \
    }

#endif
