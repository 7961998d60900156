/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a fuzz target is: FUZZ_TARGET(name) { ... } in fuzz_name.c, a function of some octets.  It aborts where a rule is broken.
 *
 * tests/fuzz/run makes a program of each with libFuzzer; tests/fuzz/test_corpora has all of them in one, and shows
 * each what is committed in tests/fuzz/corpus.
 */
#ifndef TESTS_FUZZ_TARGET_H
#define TESTS_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>

#ifdef FUZZ_WITH_LIBFUZZER
#define FUZZ_FUNCTION(name) LLVMFuzzerTestOneInput
#else
#define FUZZ_FUNCTION(name) fuzz_##name
#endif

/** Defines a target: its body follows, which sees the octets as `data` and `size`. Returns 0, or -1: no input of this shape. */
#define FUZZ_TARGET(name)                                       \
    int FUZZ_FUNCTION(name)(const uint8_t *data, size_t size); \
    int FUZZ_FUNCTION(name)(const uint8_t *data, size_t size)

#endif
