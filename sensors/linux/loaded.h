/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The kernel's modules that the owner of this was told of, and what a look finds different. */
#ifndef SENSORS_LINUX_LOADED_H
#define SENSORS_LINUX_LOADED_H

#include <stdbool.h>
#include <stddef.h>

#include <vmibus/guest_linux.h>

#include "events.h"

/** Modules that are known at most; libvmibus-guest visits no more. */
#define LOADED_MAX 4096

/** Modules, by where they lie. */
struct loaded {
    struct vmibus_linux_module *known;  /**< room for LOADED_MAX; NULL at first */
    size_t n;
    bool told_present;      /**< all that were there at first have been told */
    struct vmibus_linux_module *fresh;  /**< of the picture being taken, as known */
    size_t n_fresh;
};

/** Looks for differences, and adds them to the events. 0; or why there is no picture: nothing is told then. */
int loaded_look(struct loaded *loaded, struct vmibus_linux *kernel, struct events *events);

/** Forgets all. */
void loaded_clear(struct loaded *loaded);

#endif
