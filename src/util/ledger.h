/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Who uses how much of what.  A ledger bounds what all users hold together, an account what one user
 * (a uid) holds.  A charge is embedded in the object it pays for and is released exactly once, with
 * it; when everything has been torn down, every sum is zero, which ledger_deinit() asserts.
 *
 * The share rule.  Of what the others have left of a resource, an account may hold one part in n + 1,
 * where n counts the accounts that hold any of it, itself among them:
 *
 *      own * (n + 1) <= T - others             T: the ledger's limit; own: the account's sum after the charge
 *
 * or it may hold one, if one is left.  So a user alone has half, and whoever comes finds something:
 *
 *      For every m with m * (m + 1) <= T, any m holders leave at least T / (m + 1) of T to the others.
 *
 * Proof.  By induction over charges.  Nobody holds anything: true.  A release, or a holder's leaving, takes
 * from sums only.  A charge of a changes only the sets that a is in: let S be one, of m <= n holders, and
 * L what S without a leaves of T; by the claim for m - 1 holders, L >= T / m.  If the charge was allowed
 * as a share, then own <= (T - others) / (n + 1) <= L / (m + 1), so S leaves L - own >= L * m / (m + 1)
 * >= T / (m + 1).  If it was allowed as the one, then own = 1 <= T / (m * (m + 1)) <= L / (m + 1): the same.
 *
 * It follows that among n holders each may have T / (n * (n + 1)), whatever the others took before it came
 * and however many of them are in league.  No rule that takes nothing back can give the n-th to come T / n:
 * these would add up to more than T.  Connected users that hold nothing of a resource cost the others nothing.
 * Endpoints come from the host's own sensors, not from users: they are not shared.
 * (A ledger's limit never changes while anything is charged: T is T throughout.)
 *
 * One thread owns a ledger and its accounts.
 */
#ifndef UTIL_LEDGER_H
#define UTIL_LEDGER_H

#include <stdbool.h>
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
    RESOURCE_BUFFERS,       /**< buffers shared with peers */
    RESOURCE_ENDPOINTS,
    RESOURCE_HOLDS,         /**< on guests, by controls */
    RESOURCE_ANSWERS,       /**< octets of tails of answers that have not been read */
    RESOURCE_WATCHES,       /**< at sensors, by controls */
    N_RESOURCES,
};

/** Expected outcomes of charging. */
enum charge_result {
    CHARGE_QUOTA = 1,    /**< the account's own limit */
    CHARGE_PRESSURE = 2, /**< the ledger's limit, or this account's share of what the others have left of it */
};

struct ledger {
    uint64_t limit[N_RESOURCES];
    uint64_t used[N_RESOURCES];
    uint64_t fds_away;               /**< of RESOURCE_FDS: open at peers or on their way, not in this process */
    uint32_t n_holders[N_RESOURCES]; /**< accounts that hold any of it */
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
    bool is_away;       /**< its descriptors are not open in this process */
};

/** Prepares a ledger. @a limits: N_RESOURCES bounds for all users together. */
void ledger_init(struct ledger *ledger, const uint64_t *limits);

/** Lowers a limit of all users together to what there is room for; one that is lower stays. Before anything is charged. */
void ledger_bound(struct ledger *ledger, enum resource resource, uint64_t bound);

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

/** Says that what a charge pays for, now and later, are descriptors that are not open in this process. */
void charge_set_away(struct charge *charge);

/** Adds to a charge. Same results. */
int charge_raise(struct charge *charge, uint64_t amount);

/** Takes from a charge what it has. */
void charge_lower(struct charge *charge, uint64_t amount);

/** Releases a charge. Harmless on one that pays for nothing. */
void charge_release(struct charge *charge);

/** Who holds most of a resource; NULL: nobody holds any. Takes a step for each account. */
const struct account *ledger_greatest_holder(const struct ledger *ledger, enum resource resource);

/** The wire's name of a resource's limit: an enum vmibus_reason. */
uint16_t resource_reason(enum resource resource);

#endif
