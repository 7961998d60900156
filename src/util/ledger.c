/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/ledger.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/protocol.h>

void ledger_init(struct ledger *ledger, const uint64_t *limits) {
    *ledger = (struct ledger){};
    memcpy(ledger->limit, limits, sizeof(ledger->limit));
    list_init(&ledger->accounts);
}

void ledger_bound(struct ledger *ledger, enum resource resource, uint64_t bound) {
    assert(ledger->used[resource] == 0);
    if (ledger->limit[resource] > bound)
        ledger->limit[resource] = bound;
}

void ledger_deinit(struct ledger *ledger) {
    assert(list_is_empty(&ledger->accounts));
    for (size_t i = 0; i < N_RESOURCES; i++)
        assert(ledger->used[i] == 0);
}

int ledger_ref_account(struct ledger *ledger, uid_t uid, const uint64_t *limits, struct account **accountp) {
    struct account *account;

    list_for_each(account, &ledger->accounts, link)
        if (account->uid == uid)
            goto found;
    account = calloc(1, sizeof(*account));
    if (!account)
        return -ENOMEM;
    account->ledger = ledger;
    account->uid = uid;
    list_append(&ledger->accounts, &account->link);
found:
    memcpy(account->limit, limits, sizeof(account->limit));
    *accountp = account_ref(account);
    return 0;
}

struct account *account_ref(struct account *account) {
    account->refs++;
    return account;
}

struct account *account_unref(struct account *account) {
    if (!account || --account->refs > 0)
        return NULL;
    for (size_t i = 0; i < N_RESOURCES; i++)
        assert(account->used[i] == 0);
    list_unlink(&account->link);
    free(account);
    return NULL;
}

int charge_take(struct charge *charge, struct account *account, enum resource resource, uint64_t amount) {
    assert(!charge->account);
    charge->account = account;
    charge->resource = resource;
    charge->amount = 0;
    charge->is_away = false;
    int r = charge_raise(charge, amount);
    if (r)
        charge->account = NULL;
    return r;
}

/* The share rule of the header: one account of n holders is to have @a own of what the others leave. */
static bool is_within_share(uint64_t own, uint64_t n, uint64_t left, enum resource resource) {
    uint64_t bound;

    if (own <= 1 || resource == RESOURCE_ENDPOINTS)
        return own <= left;
    return !__builtin_mul_overflow(own, n + 1, &bound) && bound <= left;
}

int charge_raise(struct charge *charge, uint64_t amount) {
    struct account *account = charge->account;
    struct ledger *ledger = account->ledger;
    enum resource resource = charge->resource;
    uint64_t had = account->used[resource], left = ledger->limit[resource] - (ledger->used[resource] - had), own;
    uint32_t n = ledger->n_holders[resource] + (had == 0);

    if (amount == 0)
        return 0;
    /* A lowered limit may be below what is had already: nothing more is had then, and what is had stays. */
    if (__builtin_add_overflow(had, amount, &own) || own > account->limit[resource])
        return CHARGE_QUOTA;
    if (!is_within_share(own, n, left, resource))
        return CHARGE_PRESSURE;
    ledger->n_holders[resource] = n;
    account->used[resource] = own;
    ledger->used[resource] += amount;
    charge->amount += amount;
    if (charge->is_away)
        ledger->fds_away += amount;
    return 0;
}

void charge_set_away(struct charge *charge) {
    assert(!charge->is_away);
    charge->is_away = true;
    charge->account->ledger->fds_away += charge->amount;
}

void charge_lower(struct charge *charge, uint64_t amount) {
    struct account *account = charge->account;
    struct ledger *ledger = account->ledger;

    assert(amount <= charge->amount);
    charge->amount -= amount;
    if (charge->is_away)
        ledger->fds_away -= amount;
    account->used[charge->resource] -= amount;
    ledger->used[charge->resource] -= amount;
    if (account->used[charge->resource] == 0 && amount > 0)
        ledger->n_holders[charge->resource]--;
}

void charge_release(struct charge *charge) {
    if (!charge->account)
        return;
    charge_lower(charge, charge->amount);
    charge->account = NULL;
}

const struct account *ledger_greatest_holder(const struct ledger *ledger, enum resource resource) {
    const struct account *account, *greatest = NULL;

    list_for_each(account, &ledger->accounts, link)
        if (account->used[resource] > (greatest ? greatest->used[resource] : 0))
            greatest = account;
    return greatest;
}

uint16_t resource_reason(enum resource resource) {
    static const uint16_t reasons[N_RESOURCES] = {
        [RESOURCE_CONNECTIONS] = VMIBUS_REASON_LIMIT_CONNECTIONS,
        [RESOURCE_COMMANDS] = VMIBUS_REASON_LIMIT_COMMANDS,
        [RESOURCE_EVENTS] = VMIBUS_REASON_LIMIT_QUEUE,
        [RESOURCE_BYTES] = VMIBUS_REASON_LIMIT_BYTES,
        [RESOURCE_FDS] = VMIBUS_REASON_LIMIT_FDS,
        [RESOURCE_LEASES] = VMIBUS_REASON_LIMIT_LEASES,
        [RESOURCE_WAITERS] = VMIBUS_REASON_LIMIT_WAITERS,
        [RESOURCE_SUBSCRIPTIONS] = VMIBUS_REASON_LIMIT_SUBSCRIPTIONS,
        [RESOURCE_TAILS] = VMIBUS_REASON_LIMIT_TAILS,
        [RESOURCE_ATTACHMENTS] = VMIBUS_REASON_LIMIT_ATTACHMENTS,
        [RESOURCE_BUFFERS] = VMIBUS_REASON_LIMIT_BUFFERS,
        [RESOURCE_ENDPOINTS] = VMIBUS_REASON_LIMIT_ENDPOINTS,
        [RESOURCE_HOLDS] = VMIBUS_REASON_LIMIT_HOLDS,
        [RESOURCE_ANSWERS] = VMIBUS_REASON_LIMIT_ANSWERS,
        [RESOURCE_WATCHES] = VMIBUS_REASON_LIMIT_WATCHES,
    };

    return reasons[resource];
}
