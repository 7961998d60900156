/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Intents: what is left of a stop of ours if we are killed.
 *
 * One file pause-PID-START per VM's process in the state directory, holding the fingerprint of the vCPUs'
 * registers in hexadecimal; 0 means that the stop was about to be sent.  Without a state directory
 * there are none.
 */
#ifndef SENSORS_MACHINE_INTENT_H
#define SENSORS_MACHINE_INTENT_H

#include <stdbool.h>
#include <stdint.h>

struct machine;

/** Stores an intent whole or not at all. The host's kernel keeps it; a crash of the host ends the guest too. */
void intent_store(const struct machine *machine, uint64_t fingerprint);

/** Whether there is one, and its fingerprint. */
bool intent_load(const struct machine *machine, uint64_t *fingerprintp);

/** Removes it. */
void intent_remove(const struct machine *machine);

#endif
