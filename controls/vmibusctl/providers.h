/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which sensor is active for what of a VM, by name where the bus may tell the caller. */
#ifndef VMIBUSCTL_PROVIDERS_H
#define VMIBUSCTL_PROVIDERS_H

#include "roster.h"

/** The bus's sensors. */
struct providers {
    struct vmibus_message reply;    /**< its tail: records sensor_info */
};

/** Asks for the sensors. Without the capability STATS there are none, and ids have to do. */
void providers_fetch(struct vmibusctl *ctl, struct providers *providers);

/** Forgets them. */
void providers_deinit(struct providers *providers);

/** Prints the active provider of each group that there is one of. */
void providers_print(const struct providers *providers, const struct vm *vm);

/** The same as an object: names by group. */
struct json_object *providers_json(const struct providers *providers, const struct vm *vm);

#endif
