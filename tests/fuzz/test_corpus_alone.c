/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The corpus of a target that puts something of its own in the place of what the product has (the reader of a Linux kernel,
 * tests/guest_lib; what a sensor follows), so that each is a program of its own: TARGET_ALONE names it.
 */
#include "fuzz/corpus.h"

CORPUS(TARGET_ALONE)

HARNESS_SUITE("corpus of one target", HARNESS_QUICK)
