/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pools: capacity, alignment, reuse, and that reserving costs no memory. */
#include "harness.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/pool.h"

static struct arena arena;

static void open_arena(void) {
    ck_assert_int_eq(arena_init(&arena, 1 << 20), 0);
}

static void close_arena(void) {
    arena_deinit(&arena);
}

TEST(test_pool_gives_its_capacity_and_no_more, .setup = open_arena, .teardown = close_arena) {
    struct pool pool;
    void *blocks[100];

    ck_assert_int_eq(pool_init(&pool, &arena, 40, 100), 0);
    for (int i = 0; i < 100; i++) {
        blocks[i] = pool_take(&pool);
        ck_assert_ptr_nonnull(blocks[i]);
        ck_assert_uint_eq((uintptr_t)blocks[i] % 16, 0);
        memset(blocks[i], i, 40);
    }
    ck_assert_ptr_null(pool_take(&pool));
    for (int i = 0; i < 100; i++)
        for (int j = 0; j < 40; j++)
            ck_assert_int_eq(((unsigned char *)blocks[i])[j], i);
    pool_give(&pool, blocks[17]);
    ck_assert_ptr_eq(pool_take(&pool), blocks[17]);
    ck_assert_ptr_null(pool_take(&pool));
    for (int i = 0; i < 100; i++)
        pool_give(&pool, blocks[i]);
    ck_assert_uint_eq(pool.in_use, 0);
    pool_deinit(&pool);
    pool_deinit(&pool);
}

TEST(test_pool_reuses_last_in_first_out, .setup = open_arena, .teardown = close_arena) {
    struct pool pool;
    void *first, *second;

    ck_assert_int_eq(pool_init(&pool, &arena, 1, 1000), 0);
    first = pool_take(&pool);
    second = pool_take(&pool);
    pool_give(&pool, first);
    pool_give(&pool, second);
    ck_assert_ptr_eq(pool_take(&pool), second);
    ck_assert_ptr_eq(pool_take(&pool), first);
    ck_assert_uint_eq(pool.touched, 2);
    pool_give(&pool, first);
    pool_give(&pool, second);
    pool_deinit(&pool);
}

TEST(test_pool_is_resident_as_far_as_it_was_used, .setup = open_arena, .teardown = close_arena) {
    struct pool pool;
    unsigned char resident[64];
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *block;

    ck_assert_int_eq(pool_init(&pool, &arena, page, sizeof(resident)), 0);
    block = pool_take(&pool);
    memset(block, 1, page);
    ck_assert_int_eq(mincore(pool.memory, page * sizeof(resident), resident), 0);
    ck_assert(resident[0] & 1);
    for (size_t i = 1; i < sizeof(resident); i++)
        ck_assert(!(resident[i] & 1));
    pool_give(&pool, block);
    pool_deinit(&pool);
}

TEST(test_pool_of_nothing_or_too_much_is_refused, .setup = open_arena, .teardown = close_arena) {
    struct pool pool = {};

    ck_assert_int_eq(pool_init(&pool, &arena, 16, 0), -EINVAL);
    ck_assert_int_eq(pool_init(&pool, &arena, 16, SIZE_MAX / 8), -EINVAL);
    ck_assert_int_eq(pool_init(&pool, &arena, 16, (1 << 20) / 16 + 1), -ENOMEM);
    ck_assert_uint_eq(arena.carved, 0);
    pool_deinit(&pool);
}

TEST(test_pool_in_use_is_not_released, .setup = open_arena, .signal = SIGABRT) {
    struct pool pool;

    ck_assert_int_eq(pool_init(&pool, &arena, 16, 4), 0);
    pool_take(&pool);
    pool_deinit(&pool);
}

/* As one that is to be where it was in another process. */
TEST(block_is_had_at_its_place) {
    struct arena own;
    struct pool pool;
    char *at[8];

    ck_assert_int_eq(arena_init(&own, 1 << 20), 0);
    ck_assert_int_eq(pool_init(&pool, &own, 64, 8), 0);
    at[5] = pool_take_place(&pool, 5);
    ck_assert_ptr_eq(at[5], pool.memory + 5 * pool.block_size);
    at[2] = pool_take_place(&pool, 2);
    ck_assert_ptr_eq(at[2], pool.memory + 2 * pool.block_size);
    ck_assert_ptr_null(pool_take_place(&pool, 5));
    ck_assert_ptr_null(pool_take_place(&pool, 8));
    for (int i = 0; i < 8; i++)
        if (i != 2 && i != 5) {
            at[i] = pool_take(&pool);
            ck_assert_ptr_nonnull(at[i]);
            for (int j = 0; j < i; j++)
                ck_assert_ptr_ne(at[i], at[j]);
        }
    ck_assert_ptr_null(pool_take(&pool));
    ck_assert_uint_eq(pool.in_use, 8);
    for (int i = 0; i < 8; i++)
        pool_give(&pool, at[i]);
    pool_deinit(&pool);
    arena_deinit(&own);
}

HARNESS_SUITE("pool", HARNESS_QUICK)
