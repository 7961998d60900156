/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/refusal.h"

uint16_t refusal_of_bound(struct vmibus_ack *ack, enum vmibus_error error, enum vmibus_reason reason, uint64_t bound,
                          uint64_t used, uint32_t uid) {
    ack->error = (uint16_t)error;
    ack->reason = (uint16_t)reason;
    ack->value = bound;
    ack->count = used;
    ack->token = uid;
    return ack->error;
}

uint16_t refusal_of_charge(struct vmibus_ack *ack, int result, const struct account *account, enum resource resource) {
    enum vmibus_reason reason = (enum vmibus_reason)resource_reason(resource);
    const struct ledger *ledger = account->ledger;
    const struct account *greatest;

    if (result == CHARGE_QUOTA)
        return refusal_of_bound(ack, VMIBUS_ERROR_QUOTA, reason, account->limit[resource], account->used[resource], account->uid);
    greatest = ledger_greatest_holder(ledger, resource);
    return refusal_of_bound(ack, VMIBUS_ERROR_PRESSURE, reason, ledger->limit[resource], ledger->used[resource],
                            greatest ? greatest->uid : account->uid);
}
