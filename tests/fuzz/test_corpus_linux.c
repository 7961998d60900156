/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The corpus of a target that puts a Linux kernel of its own in the place of the real one's reader (tests/guest_lib), so that each is
 * a program of its own: LINUX_CORPUS names it.
 */
#include "fuzz/corpus.h"

CORPUS(LINUX_CORPUS)

HARNESS_SUITE("corpus of a Linux kernel", HARNESS_QUICK)
