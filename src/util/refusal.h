/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a limit that was hit is told: which limit (reason), its bound (value), how much of it is in use (count)
 * and whose use that is (token): QUOTA, the caller's uid; PRESSURE, the uid that uses most.
 */
#ifndef UTIL_REFUSAL_H
#define UTIL_REFUSAL_H

#include <stdint.h>

#include <vmibus/protocol.h>

#include "util/ledger.h"

/**
 * Writes into an ACK why a charge was not had. Takes a step for each account under pressure: for refusals only.
 * @param result CHARGE_QUOTA or CHARGE_PRESSURE
 * @return the error: QUOTA or PRESSURE
 */
uint16_t refusal_of_charge(struct vmibus_ack *ack, int result, const struct account *account, enum resource resource);

/**
 * The same for a bound that no ledger keeps: of one connection (QUOTA), or of a store that all share (PRESSURE).
 * @param used how much of it is in use
 * @param uid  whose: the caller's for QUOTA; for PRESSURE, as refusal_of_charge() says it of what fills the store
 */
uint16_t refusal_of_bound(struct vmibus_ack *ack, enum vmibus_error error, enum vmibus_reason reason, uint64_t bound,
                          uint64_t used, uint32_t uid);

#endif
