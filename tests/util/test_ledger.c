/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The ledger: limits of one and of all, charges released exactly once, zero at the end. */
#include "harness.h"

#include <stdint.h>

#include <vmibus/names.h>

#include "util/ledger.h"
#include "util/refusal.h"

static struct ledger ledger;
static uint64_t own[N_RESOURCES], all[N_RESOURCES];

static void open_ledger(void) {
    for (size_t i = 0; i < N_RESOURCES; i++) {
        own[i] = 10;
        all[i] = 30;
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
    ck_assert_int_eq(charge_take(&charges[1], bob, RESOURCE_BYTES, 7), CHARGE_PRESSURE);
    ck_assert_int_eq(charge_take(&charges[1], bob, RESOURCE_BYTES, 6), 0);
    ck_assert_int_eq(charge_raise(&charges[1], 1), CHARGE_PRESSURE);
    ck_assert_int_eq(charge_take(&charges[2], bob, RESOURCE_FDS, 10), 0);
    ck_assert_uint_eq(ledger.used[RESOURCE_BYTES], 16);
    ck_assert_uint_eq(ledger.used[RESOURCE_FDS], 10);
    charge_lower(&charges[0], 3);
    ck_assert_int_eq(charge_raise(&charges[1], 1), 0);
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

/* --- shares ------------------------------------------------------------------------------------ */

#define TOTAL 1000
#define USERS 20

static struct account *accounts[USERS];
static struct charge held[USERS];

static void open_shares(void) {
    for (size_t i = 0; i < N_RESOURCES; i++)
        own[i] = all[i] = TOTAL;
    ledger_init(&ledger, all);
    for (uid_t i = 0; i < USERS; i++) {
        accounts[i] = account_of(1000 + i);
        held[i] = (struct charge){};
        ck_assert_int_eq(charge_take(&held[i], accounts[i], RESOURCE_EVENTS, 0), 0);
    }
}

static void close_shares(void) {
    for (size_t i = 0; i < USERS; i++) {
        charge_release(&held[i]);
        account_unref(accounts[i]);
    }
    ledger_deinit(&ledger);
}

/* Takes one by one until refused. Returns what the account has then. */
static uint64_t take_all(size_t user) {
    int r;

    while ((r = charge_raise(&held[user], 1)) == 0)
        continue;
    ck_assert_int_eq(r, CHARGE_PRESSURE);
    return held[user].amount;
}

TEST(test_p08_p09_whoever_comes_after_hoarders_has_a_share, .setup = open_shares, .teardown = close_shares) {
    for (uint64_t n = 1; n <= USERS; n++) {
        uint64_t had = take_all((size_t)n - 1);

        ck_assert_uint_ge(had, TOTAL / (n * (n + 1)));
        ck_assert_uint_ge(TOTAL - ledger.used[RESOURCE_EVENTS], TOTAL / (n + 1));
        if (n == 1)
            ck_assert_uint_eq(had, TOTAL / 2);
    }
    /* Those that are connected and hold nothing of another resource take nothing from anybody. */
    ck_assert_uint_eq(ledger.n_holders[RESOURCE_EVENTS], USERS);
    ck_assert_uint_eq(ledger.n_holders[RESOURCE_FDS], 0);
}

/* What the header proves, for any order of taking and giving back. */
TEST(test_p08_p09_shares_hold_in_any_order, .setup = open_shares, .teardown = close_shares) {
    uint32_t random = 1;

    for (int i = 0; i < 200000; i++) {
        size_t user, n = 0;
        uint64_t amount;

        random = random * 1664525 + 1013904223;
        user = (random >> 8) % USERS;
        amount = (random >> 16) % 97;
        if (random >> 31 && i % 1000 < 900)
            (void)charge_raise(&held[user], amount);
        else
            charge_lower(&held[user], amount < held[user].amount ? amount : held[user].amount);
        for (size_t j = 0; j < USERS; j++)
            n += held[j].amount > 0;
        ck_assert_uint_eq(ledger.n_holders[RESOURCE_EVENTS], n);
        ck_assert_uint_ge(TOTAL - ledger.used[RESOURCE_EVENTS], TOTAL / (n + 1));
        /* The asker's guarantee. */
        n += held[user].amount == 0;
        if (held[user].amount < TOTAL / (n * (n + 1))) {
            ck_assert_int_eq(charge_raise(&held[user], 1), 0);
            charge_lower(&held[user], 1);
        }
    }
}

TEST(test_p08_p09_one_is_had_as_long_as_one_is_left, .setup = open_ledger, .teardown = close_ledger) {
    struct account *all_of_them[32];
    struct charge charges[32] = {};

    ledger_bound(&ledger, RESOURCE_TAILS, 16);
    for (uid_t i = 0; i < 32; i++) {
        all_of_them[i] = account_of(i);
        ck_assert_int_eq(charge_take(&charges[i], all_of_them[i], RESOURCE_TAILS, 1), i < 16 ? 0 : CHARGE_PRESSURE);
    }
    for (uid_t i = 0; i < 32; i++) {
        charge_release(&charges[i]);
        account_unref(all_of_them[i]);
    }
}

TEST(test_p08_refusals_name_limit_use_and_owner, .setup = open_ledger, .teardown = close_ledger) {
    struct account *alice = account_of(1000), *bob = account_of(1001);
    struct charge charges[3] = {};
    struct vmibus_ack ack = {};

    ck_assert_ptr_null(ledger_greatest_holder(&ledger, RESOURCE_BYTES));
    ck_assert_int_eq(charge_take(&charges[0], alice, RESOURCE_BYTES, 9), 0);
    ck_assert_int_eq(charge_take(&charges[1], bob, RESOURCE_BYTES, 3), 0);
    ck_assert_uint_eq(refusal_of_charge(&ack, charge_raise(&charges[0], 2), alice, RESOURCE_BYTES), VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(ack.reason, VMIBUS_REASON_LIMIT_BYTES);
    ck_assert_uint_eq(ack.value, 10);
    ck_assert_uint_eq(ack.count, 9);
    ck_assert_uint_eq(ack.token, 1000);
    ck_assert_uint_eq(refusal_of_charge(&ack, charge_raise(&charges[1], 5), bob, RESOURCE_BYTES), VMIBUS_ERROR_PRESSURE);
    ck_assert_uint_eq(ack.reason, VMIBUS_REASON_LIMIT_BYTES);
    ck_assert_uint_eq(ack.value, 30);
    ck_assert_uint_eq(ack.count, 12);
    ck_assert_uint_eq(ack.token, 1000);
    charge_release(&charges[0]);
    charge_release(&charges[1]);
    account_unref(alice);
    account_unref(bob);
}

TEST(test_p08_every_resource_names_its_limit) {
    for (int i = 0; i < N_RESOURCES; i++) {
        ck_assert_uint_ge(resource_reason((enum resource)i), VMIBUS_REASON_LIMIT_CONNECTIONS);
        for (int j = 0; j < i; j++)
            ck_assert_uint_ne(resource_reason((enum resource)i), resource_reason((enum resource)j));
    }
}

HARNESS_SUITE("ledger", HARNESS_QUICK)
