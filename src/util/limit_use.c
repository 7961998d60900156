/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/limit_use.h"

#include "util/ledger.h"

size_t limit_use_count(const struct ledger *ledger, const struct account *own, bool everybody) {
    const struct account *account;
    size_t n = 2;

    list_for_each(account, &ledger->accounts, link)
        n += everybody && account != own;
    return n * N_RESOURCES;
}

static struct vmibus_limit_use *put_account(struct vmibus_limit_use *use, const struct account *account) {
    for (int i = 0; i < N_RESOURCES; i++)
        *use++ = (struct vmibus_limit_use){.limit = resource_reason((enum resource)i),
                                           .uid = account->uid,
                                           .used = account->used[i],
                                           .bound = account->limit[i]};
    return use;
}

void limit_use_fill(const struct ledger *ledger, const struct account *own, bool everybody, struct vmibus_limit_use *use) {
    const struct account *account;

    for (int i = 0; i < N_RESOURCES; i++)
        *use++ = (struct vmibus_limit_use){
            .limit = resource_reason((enum resource)i), .total = 1, .used = ledger->used[i], .bound = ledger->limit[i]};
    use = put_account(use, own);
    if (!everybody)
        return;
    list_for_each(account, &ledger->accounts, link)
        if (account != own)
            use = put_account(use, account);
}
