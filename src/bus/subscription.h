/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a control asked to hear: patterns of endpoint names and kinds of events, covering VMs that come later too. */
#ifndef BUS_SUBSCRIPTION_H
#define BUS_SUBSCRIPTION_H

#include <stddef.h>
#include <stdint.h>

#include "util/ledger.h"
#include "util/list.h"

struct control;
struct endpoint;

struct subscription {
    struct list link; /**< control->subscriptions */
    struct charge charge;
    uint64_t kinds;
    char pattern[];
};

/**
 * Sets the kinds of a pattern; 0 ends it. Retained state of what is new is replayed.
 * @param pattern not terminated
 * @return 0, VMIBUS_ERROR_QUOTA, VMIBUS_ERROR_PRESSURE or -ENOMEM
 */
int subscription_set(struct control *control, const char *pattern, size_t length, uint64_t kinds);

/** The kinds that a control's subscriptions ask for of an endpoint. */
uint64_t subscription_kinds(const struct control *control, const struct endpoint *endpoint);

/** Ends all of a control's subscriptions. */
void subscription_drop_control(struct control *control);

#endif
