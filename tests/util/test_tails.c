/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Tails that are kept: what can be, by whom, for how long. */
#include "harness.h"

#include <pthread.h>
#include <string.h>

#include "util/tails.h"

#define SIZE 100000u

static struct arena arena;
static struct tails *tails;
static uint8_t *block;

static void setup(void) {
    ck_assert_int_eq(arena_init(&arena, arena_cost(SIZE, 2)), 0);
    ck_assert_int_eq(tails_new(&tails, &arena, SIZE, 2), 0);
    block = tails_take(tails);
    memset(block, 0x77, SIZE);
}

static void teardown(void) {
    tails = tails_free(tails);
    arena_deinit(&arena);
}

#define READY .setup = setup, .teardown = teardown

TEST(test_tail_on_offer_is_kept_once, READY) {
    struct kept_tail kept = {}, again = {};

    tails_offer(tails, block);
    ck_assert(kept_tail_take(&kept, block + SIZE - 1));
    ck_assert_ptr_eq(kept.octets, block);
    ck_assert(!kept_tail_take(&again, block));
    ck_assert(tails_withdraw());
    kept_tail_give(&kept);
    kept_tail_give(&kept);
    ck_assert_uint_eq(arena.used, 0);
}

TEST(test_what_is_not_on_offer_is_not_kept, READY) {
    uint8_t *other = tails_take(tails), elsewhere[8];
    struct kept_tail kept = {};

    ck_assert(!kept_tail_take(&kept, block));
    tails_offer(tails, block);
    ck_assert(!kept_tail_take(&kept, other));
    ck_assert(!kept_tail_take(&kept, elsewhere));
    ck_assert(!kept_tail_take(&kept, NULL));
    ck_assert(!tails_withdraw());
    ck_assert(!kept_tail_take(&kept, block));
    ck_assert_ptr_null(kept.octets);
    kept_tail_give(&kept);
    tails_give(tails, block);
    tails_give(tails, other);
}

TEST(test_no_more_are_taken_than_there_are, READY) {
    uint8_t *other = tails_take(tails);

    ck_assert_ptr_null(tails_take(tails));
    tails_give(tails, other);
    ck_assert_ptr_eq(tails_take(tails), other);
    tails_give(tails, other);
    tails_give(tails, block);
}

static void *keep_elsewhere(void *data) {
    struct kept_tail kept = {};

    *(bool *)data = kept_tail_take(&kept, block);
    return NULL;
}

TEST(test_another_thread_has_no_part_in_it, READY) {
    bool taken = true;
    pthread_t thread;

    tails_offer(tails, block);
    ck_assert_int_eq(pthread_create(&thread, NULL, keep_elsewhere, &taken), 0);
    pthread_join(thread, NULL);
    ck_assert(!taken);
    ck_assert(!tails_withdraw());
    tails_give(tails, block);
}

TEST(test_p08_kept_tail_outlives_its_owner, READY) {
    struct kept_tail kept = {};

    tails_offer(tails, block);
    ck_assert(kept_tail_take(&kept, block));
    ck_assert(tails_withdraw());
    tails = tails_free(tails);
    for (size_t i = 0; i < SIZE; i++)
        if (block[i] != 0x77)
            ck_abort_msg("octet %zu has changed", i);
    kept_tail_give(&kept);
    ck_assert(list_is_empty(&arena.pools));
}

/* Whoever still reads it when all else has ended finds it. */
TEST(test_p09_abandoned_tail_stays, READY) {
    static struct kept_tail kept;

    tails_offer(tails, block);
    ck_assert(kept_tail_take(&kept, block));
    ck_assert(tails_withdraw());
    kept_tail_abandon(&kept);
    tails = tails_free(tails);
    arena_deinit(&arena);
    ck_assert_uint_eq(block[0], 0x77);
    ck_assert_uint_eq(block[SIZE - 1], 0x77);
}

HARNESS_SUITE("tails", HARNESS_QUICK)
