/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a control asked to hear: patterns of endpoint names and kinds of events, covering VMs that come later too. */
#ifndef BUS_SUBSCRIPTION_H
#define BUS_SUBSCRIPTION_H

#include <stddef.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/ledger.h"
#include "util/list.h"

struct control;
struct endpoint;

struct subscription {
    struct list link; /**< control->subscriptions */
    struct charge charge;
    uint64_t kinds;
    char *pattern;      /**< behind the matches */
    uint64_t matches[]; /**< a bit for each slot: whether the pattern names the endpoint there */
};

/**
 * Sets the kinds of a pattern; 0 ends it. Retained state of what is new is replayed.
 * @param pattern not terminated
 * @param refusal says which limit was hit, if one was
 * @return VMIBUS_ERROR_OK, QUOTA or PRESSURE
 */
uint16_t subscription_set(struct control *control, const char *pattern, size_t length, uint64_t kinds, struct vmibus_ack *refusal);

/** An endpoint comes to where the control may know of it: compares it with every pattern, once. */
void subscription_match(struct control *control, const struct endpoint *endpoint);

/** The kinds that a control's subscriptions ask for of an endpoint that was matched. */
uint64_t subscription_kinds(const struct control *control, const struct endpoint *endpoint);

/** Ends all of a control's subscriptions. */
void subscription_drop_control(struct control *control);

#endif
