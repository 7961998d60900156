/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A soak with stub VMs. */
#include "harness.h"
#include "soak/soak.h"

TEST(test_p05_p07_p08_p09_soak, .timeout = 36000) {
    soak_run(&(struct soak_options){.seconds = 5, .n_vms = 8});
}

HARNESS_SUITE("soak", HARNESS_QUICK)
