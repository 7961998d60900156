/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An authority that is handed over: who may write, what was promised to the bus, and whom it has heard of. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"
#include "memory/handover.h"
#include "memory/state.h"
#include "util/fds.h"

#define TAG 1

static struct fixture fx;

static void begin(void) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
}

static void end(void) {
    fixture_deinit(&fx);
}

/* What one authority writes, read into another one of the same options: it answers in the place of the first. */
static struct authority *take_over(int *error) {
    static const uint8_t token[HANDOVER_TOKEN];
    struct handover_writer writer = {};
    struct authority_handover handover;
    struct handover_record record;
    struct authority *authority;
    struct handover whole;
    int state, *fds;
    size_t n_fds;

    authority_handover_init(&handover, fx.authority);
    handover_begin(&writer, TAG);
    authority_handover_save(&handover, &writer);
    handover_end(&writer);
    authority_handover_deinit(&handover);
    state = handover_seal(&writer, token, "test");
    ck_assert_int_ge(state, 0);
    n_fds = writer.n_fds;
    fds = calloc(n_fds + 1, sizeof(*fds));
    for (size_t i = 0; i < n_fds; i++)
        fds[i] = fd_dup(writer.fds[i]);
    handover_writer_deinit(&writer);
    ck_assert_int_eq(authority_new(&authority, &fx.authority->options), 0);
    ck_assert_int_eq(handover_open(&whole, state, fds, n_fds), 0);
    authority_handover_init(&handover, authority);
    ck_assert(handover_find(handover_all(&whole), TAG, &record));
    ck_assert_uint_eq(authority_handover_incarnation(handover_in(&record)), fx.authority->options.incarnation);
    (void)authority_handover_restore(&handover, handover_in(&record));
    *error = whole.error;
    authority_handover_deinit(&handover);
    handover_close(&whole);
    close(state);
    return authority;
}

static struct memory_endpoint *endpoint_of(struct authority *authority) {
    return authority_slot(authority, 1);
}

/* A write that was under way under a revoked token ended with its process: the bus is told so by the next one, once. */
TEST(test_p05_what_was_draining_is_drained_by_the_next, .setup = begin, .teardown = end) {
    struct fence *fence = endpoint_of(fx.authority)->fences.current;
    struct authority *next;
    size_t before;
    int error;

    fence_enter(fence);
    link_revoke(&fx, fx.token);
    ck_assert_ptr_null(endpoint_of(fx.authority)->fences.current);
    next = take_over(&error);
    ck_assert_int_eq(error, 0);
    ck_assert_ptr_null(endpoint_of(next)->fences.current);
    ck_assert_uint_eq(endpoint_of(next)->fences.highest, fx.token);
    before = fx.link.n;
    authority_handover_go_on(next, NULL, 0, true);
    ck_assert_uint_gt(fx.link.n, before);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED)->fence_drained.token, fx.token);
    ck_assert(list_is_empty(&endpoint_of(next)->fences.draining));
    authority_free(next);
    fence_leave(fence, memory_endpoint_drained, endpoint_of(fx.authority));
}

/* The fence goes on as it was; without the link it is suspended until the bus has told all. */
TEST(test_p05_fence_is_in_force_only_with_the_link, .setup = begin, .teardown = end, .iterations = 2) {
    struct authority *next;
    struct fence *fence;
    int error;

    next = take_over(&error);
    ck_assert_int_eq(error, 0);
    fence = endpoint_of(next)->fences.current;
    ck_assert_ptr_nonnull(fence);
    ck_assert_uint_eq(fence->token, fx.token);
    authority_handover_go_on(next, NULL, 0, _i == 0);
    ck_assert_uint_eq(fence_check(fence, 0), _i == 0 ? VMIBUS_REASON_NONE : VMIBUS_REASON_NO_LINK);
    authority_free(next);
}

/* Thrown away before it went on, it leaves nothing behind and tells nobody. */
TEST(test_p05_what_does_not_go_on_tells_nobody, .setup = begin, .teardown = end) {
    struct fence *fence = endpoint_of(fx.authority)->fences.current;
    struct authority *next;
    size_t before;
    int error;

    fence_enter(fence);
    link_revoke(&fx, fx.token);
    before = fx.link.n;
    next = take_over(&error);
    ck_assert_int_eq(error, 0);
    authority_free(next);
    ck_assert_uint_eq(fx.link.n, before);
    fence_leave(fence, memory_endpoint_drained, endpoint_of(fx.authority));
}

HARNESS_SUITE("handover of an authority", HARNESS_QUICK)
