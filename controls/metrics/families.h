/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The metrics that the bus's counters become: names and types, by what they count. */
#ifndef METRICS_FAMILIES_H
#define METRICS_FAMILIES_H

#include <stddef.h>

#include <vmibus/protocol.h>

enum family_type {
    FAMILY_COUNTER, /**< only ever rises while the process lives */
    FAMILY_GAUGE,
};

struct family {
    enum vmibus_counter counter;
    enum family_type type;
    const char *name;   /**< without the _total that counters get */
    const char *unit;   /**< which the name ends with; NULL: it counts things */
};

/** The metrics one after the other, from 0; NULL: there are no more. */
const struct family *family_at(size_t i);

#endif
