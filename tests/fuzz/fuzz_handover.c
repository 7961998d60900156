/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: what a daemon finds of the one before, as records in a file whose sum agrees, beside a few descriptors that are
 * nothing of what they are said to be.  It is taken whole or not at all, and what is taken can be ended again: the ledger and every
 * table assert that nothing is left.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bus/bus.h"
#include "core/core.h"
#include "core/handover.h"
#include "fuzz/target.h"
#include "transport/handover.h"
#include "transport/listener.h"

#define N_FDS 8
#define INCARNATION 7

static struct vmibus_core *make_core(void) {
    struct core_options options = {
        .incarnation = INCARNATION,
        .n_endpoints = 4,
        .n_connections = 4,
        .queue_depth = 16,
        .commands = 4,
        .drain_ms = 1000,
        .hold_ms = 1000,
        .retire_ms = 1000,
        .tail_bound = 4096,
        .n_large_tails = 1,
        .audit_fd = -1,
    };
    struct vmibus_core *core;

    if (policy_new(&options.policy) < 0 || core_new(&core, &options) < 0)
        abort();
    return core;
}

static struct listener *make_listener(struct vmibus_core *core) {
    const struct listener_options options = {
        .home = &core->home.home,
        .n_connections = 2,
        .hello_ms = 1000,
        .half_frame_ms = 1000,
        .n_large_tails = 1,
        .arena = &core->arena,
    };
    struct listener *listener;

    if (listener_new_consume_fd(&listener, core->loop, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), &options) < 0)
        abort();
    listener_pause(listener);
    return listener;
}

/* A file made of the input, its header as it has to be. */
static struct handover_header *make_file(const uint8_t *data, size_t size) {
    struct handover_header *header = calloc(1, sizeof(*header) + size);
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < size; i++)
        sum = (sum ^ data[i]) * UINT64_C(0x100000001b3);
    *header = (struct handover_header){
        .magic = HANDOVER_MAGIC, .format = HANDOVER_FORMAT, .n_fds = N_FDS, .length = size, .sum = sum};
    if (size)
        memcpy(header + 1, data, size);
    return header;
}

static int *make_fds(void) {
    int *fds = calloc(N_FDS, sizeof(*fds)), pair[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        abort();
    fds[0] = pair[0];
    fds[1] = pair[1];
    for (int i = 2; i < N_FDS; i++)
        fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
    return fds;
}

FUZZ_TARGET(handover) {
    struct handover_header *file = make_file(data, size);
    struct vmibus_core *core = make_core();
    struct listener *listener = make_listener(core);
    struct bus_home_handover share;
    struct handover_record record;
    struct handover handover;

    if (handover_open_octets(&handover, file, sizeof(*file) + size, make_fds(), N_FDS) < 0)
        abort();
    core_handover_begin(core, &share);
    if (core_handover_restore(core, &handover) && handover_find(handover_all(&handover), CORE_HANDOVER_LISTENER, &record))
        (void)listener_handover_restore(listener, handover_in(&record));
    (void)core_handover_check(core, &handover);
    core_handover_end(core);
    if (!handover.error) {
        core_handover_go_on(core, NULL, 0);
        listener_resume(listener);
        (void)loop_dispatch(core->loop, 0);
    }
    handover_close(&handover);
    listener_free(listener);
    vmibus_core_free(core);
    free(file);
    return 0;
}
