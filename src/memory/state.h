/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The authority and its clients, as their parts share them. The loop's thread only. */
#ifndef MEMORY_STATE_H
#define MEMORY_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memory/authority.h"
#include "memory/endpoint.h"
#include "memory/meter.h"
#include "memory/retire.h"
#include "memory/sessions.h"
#include "memory/worker.h"
#include "policy/principal.h"
#include "util/latency.h"
#include "util/region.h"
#include "util/slot_table.h"
#include "util/list.h"

/** While somebody relies on a context, it is looked at so often: the bound on noticing kexec or loadvm. */
#define AUTHORITY_LOOK_NS UINT64_C(1000000000)

/** Whoever frees an authority waits so long for what workers execute; see worker.h. */
#define AUTHORITY_PATIENCE_NS UINT64_C(5000000000)

struct authority {
    struct authority_options options;
    const struct policy *policy;
    uint64_t policy_version;            /**< rises with each policy */
    uint32_t epochs;                    /**< given out */
    struct memory_endpoint *endpoints;  /**< n_endpoints + 1, by slot */
    struct list clients;
    struct completions completions;
    struct meters meters;
    struct loop_timer look;
    struct retirement retirement;
    struct known_sessions sessions;     /**< apart */
    bool again;                         /**< what is published now may be known already */
    bool suspended;                     /**< apart: the bus has not told all; no fence is in force */
    bool stopping;                      /**< being freed: no epoch begins or ends any more */
    struct authority_counters counters;
    struct latencies latencies;
};

/** What a client may do on an endpoint, remembered. */
struct client_grant {
    uint64_t policy_version;    /**< 0: not looked up */
    uint64_t generation;        /**< of the endpoint */
    struct grant grant;
    struct write_allowance *allowance;  /**< referenced; NULL: writing is not bounded */
};

struct authority_client {
    struct authority *authority;
    struct list link;
    uint8_t session[16];
    uint64_t session_number;            /**< by which the audit log calls it */
    bool closed;                        /**< the bus said that the session has ended */
    struct principal principal;
    struct account *account;            /**< referenced */
    enum vmibus_role role;
    const struct authority_client_ops *ops;
    void *context;
    struct list attachments;
    struct list jobs;                   /**< commands of its on workers */
    struct list buffers;                /**< ascending by number */
    struct region *region;              /**< borrowed */
    struct slot_table grants;           /**< of struct client_grant */
    struct client_grant unkept;         /**< where there is no room for one: looked up each time */
};

/** Ends a page that nobody continues: whoever mapped it must not take a dead authority's epoch for a current one. */
void authority_end_page(const struct authority *authority, const struct authority_page *page);

/** The endpoint of a slot, or NULL if there is no such slot. */
static inline struct memory_endpoint *authority_slot(struct authority *authority, uint32_t slot) {
    if (slot == 0 || slot > authority->options.n_endpoints)
        return NULL;
    return &authority->endpoints[slot];
}

/** What a client may do on an occupied endpoint: VMIBUS_CAP_ bits. */
uint32_t client_capabilities(struct authority_client *client,
                             const struct memory_endpoint *endpoint);

/**
 * Whether it may write there, and how that is bounded.
 * @param allowancep NULL: not at all. Valid until the client is looked up again.
 */
bool client_write_allowance(struct authority_client *client, const struct memory_endpoint *endpoint,
                            struct write_allowance **allowancep);

/** Sees to it that contexts which somebody relies on are looked at from time to time. */
void authority_rely(struct authority *authority);

/**
 * Records a client's command before it is executed.
 * @param record what is special to its kind; the rest is filled here
 * @return as audit_begin()
 */
uint64_t client_audit(struct authority_client *client, const struct vmibus_frame *frame, uint64_t received,
                      struct vmibus_audit_record *record);

/** Gives a client an answer; the client may be gone afterwards. */
void client_answer(struct authority_client *client, struct vmibus_frame *answer,
                   uint32_t command_flags, const void *tail, const int *fds);

#endif
