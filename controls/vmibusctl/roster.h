/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The VMs and what the bus retains of them, as subscriptions brought it. */
#ifndef VMIBUSCTL_ROSTER_H
#define VMIBUSCTL_ROSTER_H

#include <json.h>

#include "vmibusctl.h"

#define ROSTER_CLASSES 4    /* lease classes, by number */

/** One VM; frames whose kind is 0 did not come. */
struct vm {
    struct vm *next;
    struct vmibus_endpoint endpoint;
    char name[VMIBUS_NAME_BOUND + 1];
    struct vmibus_frame roster;
    struct vmibus_frame lifecycle;
    struct vmibus_frame memctx;
    struct vmibus_ram_range *ranges;        /**< memctx.range_count of them */
    struct vmibus_frame invalidated;        /**< the last epoch that ended */
    struct vmibus_frame leases[ROSTER_CLASSES];
};

struct roster {
    struct vm *vms;     /**< by slot */
    struct vm *unnamed; /**< what came before its roster entry, which is published anew when a provider joins */
};

/** Everything that the roster knows how to keep. */
#define ROSTER_KINDS                                                                                                   \
    (VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) | \
     VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED) | VMIBUS_KIND_BIT(VMIBUS_KIND_LEASE))

/** Takes notice of a message: a handler may call it. Others than the roster's kinds are ignored. */
void roster_learn(struct roster *roster, const struct vmibus_message *message);

/** Asks the bus for everything that is retained. Returns a status, after having said what was wrong. */
int roster_fetch(struct vmibusctl *ctl, struct roster *roster);

/** Ends the subscription, so that whoever uses the connection next begins anew. */
void roster_unsubscribe(struct vmibusctl *ctl);

/** Forgets everything. */
void roster_deinit(struct roster *roster);

/** The VM of an endpoint; NULL: unknown, or not named yet. */
struct vm *roster_find(const struct roster *roster, uint32_t slot, uint64_t generation);

/** Finds a VM by name, UUID or slot, in this order. Returns a status, after having said what was wrong. */
int roster_lookup(const struct roster *roster, const char *word, struct vm **vmp);

/** A VM as JSON; with its RAM ranges if so asked. */
struct json_object *roster_json(const struct vm *vm, bool with_ranges);

#endif
