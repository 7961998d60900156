/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Whole daemons' states, as they hand them over: made amidst everything, taken by a daemon of this process, written again.
 * A peer's other end is a stream of whoever it is; what is wrong besides the state fails the test.
 */
#ifndef TESTS_DAEMON_STATES_H
#define TESTS_DAEMON_STATES_H

#include <stddef.h>
#include <stdint.h>

#include "fuzz/stream.h"

/** Whose state. */
enum state_of { STATE_OF_BUS, STATE_OF_MEMORY };

/** Who has a connection: to vmibusd all but BUS, to vmibus-memd all but WAITER. */
enum who { BUS, CONTROL, SENSOR, NEWCOMER, WAITER, N_WHO };

/** What the memory authority's states have in common: RAM of the VM, its context, and half a write into it. */
#define STATES_RAM (1u << 20)
#define STATES_EPOCH (UINT64_C(1) << 32 | 1)
#define STATES_WRITTEN_AT 0x2000u
#define STATES_WRITTEN UINT64_C(0x1122334455667788)

/** Octets of that half, and the correlation of what is said half. */
#define STATES_HALF 100u
#define STATES_CORRELATION 200u

/** A state, and the descriptors beside it. Octets and descriptors are its own. */
struct state {
    uint8_t *octets;
    size_t n_octets;
    int *fds;
    size_t n_fds;
};

/** The other ends. Closed by state_deinit(). */
extern struct stream states_streams[N_WHO];

/** Makes one by a daemon that is gone afterwards. */
void states_make(enum state_of of, struct state *state);

/** Frees it, and closes the streams. */
void state_deinit(struct state *state);

/**
 * Opens a daemon that takes octets, with duplicates of the state's descriptors; states_close() in any case.
 * @return 0 or a negative errno: it is not taken
 */
int states_open(enum state_of of, const struct state *state, const uint8_t *octets, size_t size);

/** Writes the state of the daemon that is open, which does nothing any more afterwards. */
void states_save(struct state *state);

/** Has it go on. */
void states_go_on(void);

/** Has it do what there is to do. */
void states_dispatch(void);

/** The whole of the half write. */
struct vmibus_frame states_half_write(void);

/** Closes it; what is still charged then fails the test. */
void states_close(void);

#endif
