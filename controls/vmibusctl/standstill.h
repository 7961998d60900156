/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A guest held still by this connection (CMD_VM HOLD): it goes on when that is ended, or the connection does. */
#ifndef VMIBUSCTL_STANDSTILL_H
#define VMIBUSCTL_STANDSTILL_H

#include <stdbool.h>

#include "roster.h"

struct standstill {
    struct vmibusctl *ctl;
    struct vmibus_endpoint endpoint;
    char name[VMIBUS_NAME_BOUND + 1];
    bool held;
};

/** Holds a guest still. Returns a status, after having said what was wrong. */
int standstill_begin(struct vmibusctl *ctl, const struct vm *vm, struct standstill *standstill);

/** Lets it go on. Harmless on zeros and if repeated. Returns a status, after having said what was wrong. */
int standstill_end(struct standstill *standstill);

#endif
