/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who uses how much of what.  A ledger bounds what all users hold together, an account what one user
 * (a uid) holds.  A charge is embedded in the object it pays for and is released exactly once, with
 * it; when everything has been torn down, every sum is zero, which ledger_deinit() asserts.
 *
 * One thread owns a ledger and its accounts.
 */
#ifndef UTIL_LEDGER_H
#define UTIL_LEDGER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/list.h"

/** What is counted. */
enum resource {
    RESOURCE_CONNECTIONS,
    RESOURCE_COMMANDS,      /**< commands in flight */
    RESOURCE_EVENTS,        /**< queued deliveries */
    RESOURCE_BYTES,         /**< octets held for peers */
    RESOURCE_FDS,           /**< descriptors held for peers, also in flight */
    RESOURCE_LEASES,
    RESOURCE_WAITERS,       /**< places in lease queues */
    RESOURCE_SUBSCRIPTIONS,
    RESOURCE_TAILS,         /**< large tails being gathered */
    RESOURCE_ATTACHMENTS,
    RESOURCE_ENDPOINTS,
    N_RESOURCES,
};

/** Expected outcomes of charging. */
enum charge_result {
    CHARGE_QUOTA = 1,    /**< the account's own limit */
    CHARGE_PRESSURE = 2, /**< the ledger's limit, shared by all */
};

struct ledger {
    uint64_t limit[N_RESOURCES];
    uint64_t used[N_RESOURCES];
    struct list accounts;
};

/** One user. Referenced by its charges' owners. */
struct account {
    struct ledger *ledger;
    struct list link;
    size_t refs;
    uid_t uid;
    uint64_t limit[N_RESOURCES];
    uint64_t used[N_RESOURCES];
};

/** Embedded in what it pays for. All zeros: pays for nothing. */
struct charge {
    struct account *account;
    enum resource resource;
    uint64_t amount;
};

/** Prepares a ledger. @a limits: N_RESOURCES bounds for all users together. */
void ledger_init(struct ledger *ledger, const uint64_t *limits);

/** Asserts that nothing is charged and no account is left. */
void ledger_deinit(struct ledger *ledger);

/**
 * The account of a uid, made on first use; give it back by account_unref().
 * @param limits N_RESOURCES bounds; they replace the account's earlier ones
 * @return 0 or -ENOMEM
 */
int ledger_ref_account(struct ledger *ledger, uid_t uid, const uint64_t *limits, struct account **accountp);

/** One more reference. */
struct account *account_ref(struct account *account);

/** Frees the account with the last reference; nothing may be charged then. Takes and returns NULL. */
struct account *account_unref(struct account *account);

/**
 * Charges an account. The charge must pay for nothing before.
 * @return 0, CHARGE_QUOTA or CHARGE_PRESSURE (then nothing is charged)
 */
int charge_take(struct charge *charge, struct account *account, enum resource resource, uint64_t amount);

/** Adds to a charge. Same results. */
int charge_raise(struct charge *charge, uint64_t amount);

/** Takes from a charge what it has. */
void charge_lower(struct charge *charge, uint64_t amount);

/** Releases a charge. Harmless on one that pays for nothing. */
void charge_release(struct charge *charge);

/** The wire's name of a resource's limit: an enum vmibus_reason. */
uint16_t resource_reason(enum resource resource);

#endif
