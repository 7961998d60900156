/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ledger: limits of one and of all, charges released exactly once, zero at the end. */
#include "harness.h"

#include <stdint.h>

#include <vmibus/names.h>

#include "util/ledger.h"

static struct ledger ledger;
static uint64_t own[N_RESOURCES], all[N_RESOURCES];

static void open_ledger(void) {
    for (size_t i = 0; i < N_RESOURCES; i++) {
        own[i] = 10;
        all[i] = 15;
    }
    ledger_init(&ledger, all);
}

static void close_ledger(void) {
    ledger_deinit(&ledger);
}

static struct account *account_of(uid_t uid) {
    struct account *account = NULL;

    ck_assert_int_eq(ledger_ref_account(&ledger, uid, own, &account), 0);
    return account;
}

TEST(test_p08_quota_is_ones_own_and_pressure_everyones, .setup = open_ledger, .teardown = close_ledger) {
    struct account *alice = account_of(1000), *bob = account_of(1001);
    struct charge charges[4] = {};

    ck_assert_int_eq(charge_take(&charges[0], alice, RESOURCE_BYTES, 10), 0);
    ck_assert_int_eq(charge_take(&charges[1], alice, RESOURCE_BYTES, 1), CHARGE_QUOTA);
    ck_assert_ptr_null(charges[1].account);
    ck_assert_int_eq(charge_take(&charges[1], bob, RESOURCE_BYTES, 6), CHARGE_PRESSURE);
    ck_assert_int_eq(charge_take(&charges[1], bob, RESOURCE_BYTES, 5), 0);
    ck_assert_int_eq(charge_raise(&charges[1], 1), CHARGE_PRESSURE);
    ck_assert_int_eq(charge_take(&charges[2], bob, RESOURCE_FDS, 10), 0);
    ck_assert_uint_eq(ledger.used[RESOURCE_BYTES], 15);
    ck_assert_uint_eq(ledger.used[RESOURCE_FDS], 10);
    charge_lower(&charges[0], 4);
    ck_assert_int_eq(charge_raise(&charges[1], 4), 0);
    for (int i = 0; i < 4; i++)
        charge_release(&charges[i]);
    for (int i = 0; i < 4; i++)
        charge_release(&charges[i]);
    ck_assert_uint_eq(ledger.used[RESOURCE_BYTES], 0);
    account_unref(alice);
    account_unref(bob);
}

TEST(test_p08_amounts_do_not_wrap, .setup = open_ledger, .teardown = close_ledger) {
    struct account *account = account_of(1000);
    struct charge charge = {};

    ck_assert_int_eq(charge_take(&charge, account, RESOURCE_BYTES, 5), 0);
    ck_assert_int_eq(charge_raise(&charge, UINT64_MAX), CHARGE_QUOTA);
    ck_assert_int_eq(charge_raise(&charge, UINT64_MAX - 4), CHARGE_QUOTA);
    ck_assert_uint_eq(charge.amount, 5);
    charge_release(&charge);
    account_unref(account);
}

TEST(test_p08_lowered_limits_take_nothing_away, .setup = open_ledger, .teardown = close_ledger) {
    struct account *account = account_of(1000), *same;
    struct charge charge = {}, empty = {};

    ck_assert_int_eq(charge_take(&charge, account, RESOURCE_EVENTS, 8), 0);
    own[RESOURCE_EVENTS] = 5;
    same = account_of(1000);
    ck_assert_ptr_eq(same, account);
    ck_assert_int_eq(charge_raise(&charge, 1), CHARGE_QUOTA);
    /* Something that holds nothing yet is no more than before. */
    ck_assert_int_eq(charge_take(&empty, account, RESOURCE_EVENTS, 0), 0);
    ck_assert_int_eq(charge_raise(&empty, 1), CHARGE_QUOTA);
    charge_lower(&charge, 4);
    ck_assert_int_eq(charge_raise(&empty, 1), 0);
    charge_release(&empty);
    charge_release(&charge);
    account_unref(same);
    account_unref(account);
}

TEST(test_p08_charge_taken_twice, .setup = open_ledger, .signal = SIGABRT) {
    struct account *account = account_of(1000);
    struct charge charge = {};

    ck_assert_int_eq(charge_take(&charge, account, RESOURCE_FDS, 1), 0);
    (void)charge_take(&charge, account, RESOURCE_FDS, 1);
}

TEST(test_p08_charge_lowered_below_zero, .setup = open_ledger, .signal = SIGABRT) {
    struct account *account = account_of(1000);
    struct charge charge = {};

    ck_assert_int_eq(charge_take(&charge, account, RESOURCE_FDS, 1), 0);
    charge_lower(&charge, 2);
}

TEST(test_p08_account_goes_only_when_nothing_is_charged, .setup = open_ledger, .signal = SIGABRT) {
    struct account *account = account_of(1000);
    struct charge charge = {};

    ck_assert_int_eq(charge_take(&charge, account, RESOURCE_FDS, 1), 0);
    account_unref(account);
}

TEST(test_p08_ledger_goes_only_without_accounts, .setup = open_ledger, .signal = SIGABRT) {
    account_of(1000);
    ledger_deinit(&ledger);
}

TEST(test_p08_every_resource_names_its_limit) {
    for (int i = 0; i < N_RESOURCES; i++) {
        ck_assert_uint_ge(resource_reason((enum resource)i), VMIBUS_REASON_LIMIT_CONNECTIONS);
        for (int j = 0; j < i; j++)
            ck_assert_uint_ne(resource_reason((enum resource)i), resource_reason((enum resource)j));
    }
}

HARNESS_SUITE("ledger", HARNESS_QUICK)
