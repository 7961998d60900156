/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Who holds memory contexts of a VM: what the memory authority lets the caller see. */
#ifndef VMIBUSCTL_HOLDERS_H
#define VMIBUSCTL_HOLDERS_H

#include <json.h>

#include "roster.h"

struct holders {
    struct vmibus_message reply;
    const struct vmibus_memory_holder *rows;
    size_t n;
};

/** Asks; there are none where the caller may not ask. holders_deinit() it. */
void holders_fetch(struct vmibusctl *ctl, const struct vm *vm, struct holders *holders);

/** Frees the answer. */
void holders_deinit(struct holders *holders);

/** Prints them as a section; nothing if there are none. */
void holders_print(const struct holders *holders);

/** An array of the record's fields. The array is the caller's. */
struct json_object *holders_json(const struct holders *holders);

#endif
