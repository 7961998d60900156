/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory that is held for peers: its bound, regions and stores made of it, who pays, and that nothing is lost or seen twice. */
#include "harness.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "util/arena.h"
#include "util/poison.h"
#include "util/region.h"
#include "util/slot_table.h"
#include "util/store.h"

#define BLOCKS 64

static struct arena arena;
static struct pool blocks;
static struct ledger ledger;
static struct account *greedy, *modest;

static void open_with(uint64_t quota, uint64_t total) {
    uint64_t limits[N_RESOURCES] = {}, limits_total[N_RESOURCES] = {};

    limits[RESOURCE_BYTES] = quota;
    limits_total[RESOURCE_BYTES] = total;
    ledger_init(&ledger, limits_total);
    ck_assert_int_eq(ledger_ref_account(&ledger, 1000, limits, &greedy), 0);
    ck_assert_int_eq(ledger_ref_account(&ledger, 1001, limits, &modest), 0);
    ck_assert_int_eq(arena_init(&arena, 4 << 20), 0);
    ck_assert_int_eq(region_pool_init(&blocks, &arena, BLOCKS * REGION_BLOCK), 0);
}

static void open_all(void) {
    open_with(UINT64_C(1) << 40, UINT64_C(1) << 40);
}

/* Everything was given back: each deinit asserts it. */
static void close_all(void) {
    pool_deinit(&blocks);
    arena_deinit(&arena);
    account_unref(greedy);
    account_unref(modest);
    ledger_deinit(&ledger);
}

/* Takes until it is refused; returns why. */
static int exhaust(struct region *region, size_t size, size_t *n_taken) {
    void *object;
    int r;

    for (*n_taken = 0; (r = region_take(region, size, &object)) == 0; ++*n_taken)
        memset(object, 0xa5, size);
    return r;
}

/* --- the arena --------------------------------------------------------------------------------- */

TEST(test_p08_arena_carves_its_capacity_and_no_more) {
    struct pool first, second, third;

    ck_assert_int_eq(arena_init(&arena, 3 * 4096), 0);
    ck_assert_int_eq(pool_init(&first, &arena, 4096, 2), 0);
    ck_assert_int_eq(pool_init(&second, &arena, 4096, 2), -ENOMEM);
    ck_assert_int_eq(pool_init(&second, &arena, 16, 1), 0);
    ck_assert_int_eq(pool_init(&third, &arena, 16, 1), -ENOMEM);
    ck_assert_uint_eq(arena.carved, 3 * 4096);
    ck_assert_ptr_nonnull(pool_take(&first));
    ck_assert_uint_eq(arena.used, 4096);
    pool_give(&first, first.memory);
    ck_assert_uint_eq(arena.used, 0);
    pool_deinit(&first);
    pool_deinit(&second);
    arena_deinit(&arena);
    arena_deinit(&arena);
}

TEST(test_arena_cost_is_what_is_carved) {
    static const size_t sizes[] = {1, 16, 40, 4096, 5000}, counts[] = {1, 3, 1000};
    struct pool pool;

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        for (size_t j = 0; j < sizeof(counts) / sizeof(counts[0]); j++) {
            ck_assert_int_eq(arena_init(&arena, arena_cost(sizes[i], counts[j])), 0);
            ck_assert_int_eq(pool_init(&pool, &arena, sizes[i], counts[j]), 0);
            ck_assert_uint_eq(arena.carved, arena.capacity);
            pool_deinit(&pool);
            arena_deinit(&arena);
        }
    ck_assert_uint_eq(arena_cost(SIZE_MAX / 2, 3), SIZE_MAX);
    ck_assert_int_eq(arena_init(&arena, 0), -EINVAL);
    ck_assert_int_eq(arena_init(&arena, SIZE_MAX), -EINVAL);
}

TEST(test_arena_knows_what_is_resident) {
    struct pool pool;
    void *taken[8];

    ck_assert_int_eq(arena_init(&arena, 1 << 20), 0);
    ck_assert_int_eq(pool_init(&pool, &arena, 8192, 64), 0);
    ck_assert_uint_eq(arena_resident(&arena), 0);
    for (int i = 0; i < 8; i++)
        memset(taken[i] = pool_take(&pool), 1, 8192);
    ck_assert_uint_eq(arena_resident(&arena), sizeof(taken) / sizeof(taken[0]) * 8192);
    for (int i = 0; i < 8; i++)
        pool_give(&pool, taken[i]);
    /* What was touched stays. */
    ck_assert_uint_eq(arena_resident(&arena), sizeof(taken) / sizeof(taken[0]) * 8192);
    pool_deinit(&pool);
    arena_deinit(&arena);
}

/* --- regions ----------------------------------------------------------------------------------- */

TEST(test_region_objects_are_zero_aligned_and_apart, .setup = open_all, .teardown = close_all) {
    struct region region;
    unsigned char *objects[400];
    size_t sizes[400];

    region_init(&region, &blocks, greedy);
    for (size_t i = 0; i < 400; i++) {
        void *object;

        sizes[i] = 1 + i * 97 % 1500;
        ck_assert_int_eq(region_take(&region, sizes[i], &object), 0);
        objects[i] = object;
        ck_assert_uint_eq((uintptr_t)object % 16, 0);
        for (size_t j = 0; j < sizes[i]; j++)
            ck_assert_uint_eq(objects[i][j], 0);
        memset(object, (int)(i & 0xff), sizes[i]);
    }
    for (size_t i = 0; i < 400; i++)
        for (size_t j = 0; j < sizes[i]; j++)
            ck_assert_uint_eq(objects[i][j], i & 0xff);
    region_deinit(&region);
    ck_assert_uint_eq(blocks.in_use, 0);
    ck_assert_uint_eq(ledger.used[RESOURCE_BYTES], 0);
}

TEST(test_region_takes_every_size_up_to_its_bound, .setup = open_all, .teardown = close_all) {
    struct region region;
    void *object;

    region_init(&region, &blocks, greedy);
    for (size_t size = 1; size <= REGION_OBJECT_MAX; size += size < 1100 ? 1 : 251) {
        ck_assert_int_eq(region_take(&region, size, &object), 0);
        memset(object, 1, size);
        region_give(&region, object, size);
    }
    ck_assert_int_eq(region_take(&region, REGION_OBJECT_MAX, &object), 0);
    ck_assert_int_eq(region_take(&region, REGION_OBJECT_MAX + 1, &object), -EMSGSIZE);
    region_deinit(&region);
}

/* A connection that lives long and gives back what it takes does not grow. */
TEST(test_p08_region_reuses_what_it_gave_back, .setup = open_all, .teardown = close_all) {
    struct region region;
    void *objects[50];
    size_t n_blocks;

    region_init(&region, &blocks, greedy);
    for (int round = 0; round < 1000; round++) {
        for (size_t i = 0; i < 50; i++)
            ck_assert_int_eq(region_take(&region, 100 + i * 20, &objects[i]), 0);
        if (round == 0)
            n_blocks = region.n_blocks;
        for (size_t i = 0; i < 50; i++)
            region_give(&region, objects[i], 100 + i * 20);
        ck_assert_uint_eq(region.n_blocks, n_blocks);
    }
    region_give(&region, NULL, 8);
    region_deinit(&region);
}

/* The tail of a block that was too short for the next object serves smaller ones. */
TEST(test_region_loses_no_rest, .setup = open_all, .teardown = close_all) {
    struct region region;
    void *object;

    region_init(&region, &blocks, greedy);
    ck_assert_int_eq(region_take(&region, 12288, &object), 0);
    ck_assert_int_eq(region_take(&region, 12288, &object), 0); /* leaves 4080 octets */
    ck_assert_uint_eq(region.n_blocks, 2);
    ck_assert_int_eq(region_take(&region, 12288, &object), 0);
    ck_assert_uint_eq(region.n_blocks, 3);
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(region_take(&region, 3072, &object), 0);
    ck_assert_uint_eq(region.n_blocks, 3);
    region_deinit(&region);
}

TEST(test_p08_greedy_region_ends_at_its_quota, .teardown = close_all) {
    struct vmibus_ack ack = {};
    struct region region, other;
    size_t n;

    open_with(10 * REGION_BLOCK, UINT64_C(1) << 40);
    region_init(&region, &blocks, greedy);
    region_init(&other, &blocks, modest);
    ck_assert_int_eq(exhaust(&region, 1000, &n), CHARGE_QUOTA);
    ck_assert_uint_eq(region.n_blocks, 10);
    ck_assert_uint_eq(greedy->used[RESOURCE_BYTES], 10 * REGION_BLOCK);
    ck_assert_uint_eq(region_refusal(&ack, CHARGE_QUOTA, &region), VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(ack.reason, VMIBUS_REASON_LIMIT_BYTES);
    ck_assert_uint_eq(ack.value, 10 * REGION_BLOCK);
    ck_assert_uint_eq(ack.count, 10 * REGION_BLOCK);
    ck_assert_uint_eq(ack.token, 1000);
    ck_assert_int_eq(exhaust(&other, 1000, &n), CHARGE_QUOTA);
    ck_assert_uint_eq(other.n_blocks, 10);
    region_deinit(&region);
    region_deinit(&other);
}

TEST(test_p08_full_arena_is_told_as_pressure, .setup = open_all, .teardown = close_all) {
    struct vmibus_ack ack = {};
    struct region region, other;
    void *object;
    size_t n;

    region_init(&region, &blocks, greedy);
    region_init(&other, &blocks, modest);
    ck_assert_int_eq(region_take(&other, 100, &object), 0);
    ck_assert_int_eq(exhaust(&region, 8192, &n), REGION_FULL);
    ck_assert_uint_eq(blocks.in_use, BLOCKS);
    ck_assert_uint_eq(region_refusal(&ack, REGION_FULL, &other), VMIBUS_ERROR_PRESSURE);
    ck_assert_uint_eq(ack.reason, VMIBUS_REASON_LIMIT_MEMORY);
    ck_assert_uint_eq(ack.value, BLOCKS * REGION_BLOCK);
    ck_assert_uint_eq(ack.count, BLOCKS * REGION_BLOCK);
    ck_assert_uint_eq(ack.token, 1000);
    /* What was not had is not charged, and what there is goes on. */
    ck_assert_uint_eq(ledger.used[RESOURCE_BYTES], BLOCKS * REGION_BLOCK);
    ck_assert_int_eq(region_take(&other, 100, &object), 0);
    region_deinit(&region);
    ck_assert_int_eq(exhaust(&other, 8192, &n), REGION_FULL);
    ck_assert_uint_eq(other.n_blocks, BLOCKS);
    region_deinit(&other);
    ck_assert_uint_eq(arena.used, 0);
}

/*
 * What a region costs to end does not depend on what it holds: of its blocks it touches the last one alone.  AddressSanitizer's
 * build marks each block, so there it is not so.
 */
TEST(test_p09_region_ends_in_one_step, .setup = open_all, .teardown = close_all) {
    struct region region;
    size_t n;

    if (POISON_IS_SEEN)
        test_skip("AddressSanitizer's marks are set block by block");
    region_init(&region, &blocks, greedy);
    ck_assert_int_eq(exhaust(&region, 500, &n), REGION_FULL);
    for (struct pool_block *block = region.first, *next; block != region.last; block = next) {
        next = block->next;
        ck_assert_int_eq(mprotect(block, REGION_BLOCK, PROT_NONE), 0);
    }
    region_deinit(&region);
    ck_assert_uint_eq(blocks.in_use, 0);
    ck_assert_int_eq(mprotect(arena.memory, arena.capacity, PROT_READ | PROT_WRITE), 0);
    /* Whole, and each block once. */
    region_init(&region, &blocks, greedy);
    ck_assert_int_eq(exhaust(&region, 500, &n), REGION_FULL);
    ck_assert_uint_eq(region.n_blocks, BLOCKS);
    region_deinit(&region);
}

TEST(test_p09_what_was_given_back_is_seen_when_touched, .setup = open_all, .teardown = close_all) {
#if POISON_IS_SEEN
    struct region region;
    void *kept, *given, *block;

    region_init(&region, &blocks, greedy);
    ck_assert_int_eq(region_take(&region, 100, &kept), 0);
    ck_assert_int_eq(region_take(&region, 100, &given), 0);
    ck_assert(!__asan_address_is_poisoned(kept) && !__asan_address_is_poisoned(given));
    ck_assert(__asan_address_is_poisoned((char *)given + 112));
    region_give(&region, given, 100);
    ck_assert(!__asan_address_is_poisoned(kept));
    ck_assert(__asan_address_is_poisoned(given) && __asan_address_is_poisoned((char *)given + 99));
    block = region.first;
    region_deinit(&region);
    ck_assert(__asan_address_is_poisoned(kept) && __asan_address_is_poisoned(block));
    ck_assert_ptr_eq(pool_take(&blocks), block);
    ck_assert(!__asan_address_is_poisoned(kept));
    pool_give(&blocks, block);
#else
    test_skip("built without AddressSanitizer");
#endif
}

/* --- slot tables ------------------------------------------------------------------------------- */

TEST(test_slot_table_finds_what_was_set, .setup = open_all, .teardown = close_all) {
    struct slot_table table = {};
    struct region region;
    static char things[65537];

    region_init(&region, &blocks, greedy);
    ck_assert_ptr_null(slot_table_get(&table, 0));
    ck_assert_int_eq(slot_table_init(&table, &region, 65537), 0);
    for (uint32_t slot = 0; slot < 65537; slot += 331)
        ck_assert_int_eq(slot_table_set(&table, &region, slot, &things[slot]), 0);
    for (uint32_t slot = 0; slot < 65537; slot++)
        ck_assert_ptr_eq(slot_table_get(&table, slot), slot % 331 ? NULL : &things[slot]);
    ck_assert_ptr_null(slot_table_get(&table, 65537));
    ck_assert_ptr_null(slot_table_get(&table, UINT32_MAX));
    ck_assert_int_eq(slot_table_set(&table, &region, 331, NULL), 0);
    ck_assert_ptr_null(slot_table_get(&table, 331));
    region_deinit(&region);
}

TEST(test_slot_table_pays_for_slots_in_use, .setup = open_all, .teardown = close_all) {
    struct slot_table table;
    struct region region;
    void *object;
    size_t n;

    region_init(&region, &blocks, greedy);
    ck_assert_int_eq(slot_table_init(&table, &region, 257), 0);
    ck_assert_int_eq(exhaust(&region, 16, &n), REGION_FULL);
    ck_assert_int_eq(slot_table_set(&table, &region, 100, NULL), 0);
    ck_assert_int_eq(slot_table_set(&table, &region, 100, &table), REGION_FULL);
    ck_assert_ptr_null(slot_table_get(&table, 100));
    ck_assert_int_eq(region_take(&region, 16, &object), REGION_FULL);
    region_deinit(&region);
}

/* --- stores ------------------------------------------------------------------------------------ */

TEST(test_p08_store_keeps_a_part_back_from_peers) {
    static struct {
        struct pool *pool;
        void *room;
    } taken[4096];
    struct store store;
    size_t n = 0, for_peers;

    ck_assert_int_eq(arena_init(&arena, store_cost(4 << 20, 1 << 20)), 0);
    ck_assert_int_eq(store_init(&store, &arena, 4 << 20, 1 << 20), 0);
    while ((taken[n].room = store_take(&store, 100, true, &taken[n].pool)))
        memset(taken[n++].room, 0xa5, 100);
    for_peers = n;
    for (size_t i = 0; i < STORE_SIZES - 1; i++)
        ck_assert_uint_eq(store.pools[i].in_use, store.pools[i].capacity - store.pools[i].capacity / 4);
    ck_assert_ptr_null(store_take(&store, 1 << 20, true, &taken[n].pool));
    while ((taken[n].room = store_take(&store, 100, false, &taken[n].pool)))
        n++;
    ck_assert_uint_gt(n, for_peers);
    ck_assert_uint_eq(arena.used + 4 * 4096 >= arena.carved, 1);
    while (n-- > 0)
        pool_give(taken[n].pool, taken[n].room);
    ck_assert_uint_eq(arena.used, 0);
    store_deinit(&store);
    arena_deinit(&arena);
}

TEST(test_store_gives_what_fits) {
    struct store store;
    struct pool *pool;
    void *room;

    ck_assert_int_eq(arena_init(&arena, store_cost(8 << 20, 1 << 20)), 0);
    ck_assert_int_eq(store_init(&store, &arena, 8 << 20, 1 << 20), 0);
    for (size_t size = 1; size <= 1 << 20; size = size * 3 + 1) {
        room = store_take(&store, size, false, &pool);
        ck_assert_ptr_nonnull(room);
        ck_assert_uint_ge(pool->block_size, size);
        memset(room, 1, size);
        pool_give(pool, room);
    }
    ck_assert_ptr_null(store_take(&store, (1 << 20) + 1, false, &pool));
    store_deinit(&store);
    arena_deinit(&arena);
}

HARNESS_SUITE("arena", HARNESS_QUICK)
