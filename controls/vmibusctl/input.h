/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the verbs key, type and mouse share: the VM, the INPUT lease, and events that all arrive. */
#ifndef VMIBUSCTL_INPUT_H
#define VMIBUSCTL_INPUT_H

#include "authority.h"

struct input {
    struct vmibusctl *ctl;
    struct roster roster;
    struct authority authority;
    uint64_t sent;
};

/** Finds the VM and takes the lease. Returns a status, after having said what was wrong. */
int input_begin(struct vmibusctl *ctl, const char *vm, const char *token, struct input *input);

/** Sends events. Returns a status, after having said what was wrong. */
int input_send(struct input *input, const struct vmibus_input_event *events, size_t n);

/** Gives the lease back, and with --json says what was done. Returns the status given. */
int input_end(struct input *input, int status);

#endif
