/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a daemon finds of the one before, in which an octet is another one: it is taken
 * whole or not at all, nothing of it is left, and nobody was told anything.  vmibusd's state and that of vmibus-memd.
 */
#include "daemon/states.h"
#include "harness.h"
#include "util/lies.h"

static struct state state;

static void make_bus_state(void) {
    states_make(STATE_OF_BUS, &state);
}

static void make_memory_state(void) {
    states_make(STATE_OF_MEMORY, &state);
}

static void forget_state(void) {
    state_deinit(&state);
}

static bool takes(enum state_of of, const uint8_t *octets, size_t size) {
    int r = states_open(of, &state, octets, size);

    if (r == 0)
        states_go_on();
    states_close();
    return r == 0;
}

static bool bus_takes(const uint8_t *octets, size_t size) {
    return takes(STATE_OF_BUS, octets, size);
}

static bool memory_takes(const uint8_t *octets, size_t size) {
    return takes(STATE_OF_MEMORY, octets, size);
}

TEST(test_p12_lies_to_a_bus_are_taken_whole_or_not_at_all, .timeout = 600, .setup = make_bus_state, .teardown = forget_state) {
    struct lies lies = lies_tell(state.octets, state.n_octets, harness_is_full() ? 1 : 11, bus_takes);

    ck_assert_uint_gt(lies.n_refused, 20);
    ck_assert_uint_gt(lies.n_taken, 20);
}

TEST(test_p12_lies_to_a_memory_authority_are_taken_whole_or_not_at_all, .timeout = 600, .setup = make_memory_state,
     .teardown = forget_state) {
    struct lies lies = lies_tell(state.octets, state.n_octets, harness_is_full() ? 1 : 11, memory_takes);

    ck_assert_uint_gt(lies.n_refused, 20);
    ck_assert_uint_gt(lies.n_taken, 20);
}

HARNESS_SUITE("lies to the next daemon", HARNESS_QUICK)
