/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A soak with real guests beside stub VMs: a Linux that is reset, firmware that quits and comes again. */
#include "harness.h"
#include "soak/guests.h"

TEST(test_p05_p07_p08_p09_p11_soak_of_guests, .timeout = 36000, .full = true) {
    soak_run(&(struct soak_options){.seconds = 60, .n_vms = 4, .others = guests_start(GUESTS_MAX)});
    guests_stop();
}

HARNESS_SUITE("soak_guests", HARNESS_QUICK)
