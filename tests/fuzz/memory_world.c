/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz/memory_world.h"

#include <sys/socket.h>

#include "fuzz/world.h"
#include "memory/opener.h"
#include "transport/listener.h"
#include "transport/peer.h"

#define SLOTS 4
#define CONNECTIONS 8
#define ARENA (UINT64_C(1) << 24)
#define ROUNDS 100000

static void require(int good) {
    if (!good)
        fuzz_fail("memory_world", "there is no authority");
}

void memory_world_open(struct memory_world *world) {
    const struct memory_home_options home_options = {
        .loop = (require(loop_new(&world->loop) == 0 && policy_new(&world->policy) == 0), world->loop),
        .ledger = &world->ledger,
        .arena = &world->arena,
        .policy = world->policy,
        .incarnation = 1,
        .n_endpoints = SLOTS,
        .n_connections = CONNECTIONS,
        .commands = 8,
        .tail_bound = WORLD_TAIL_BOUND,
        .half_frame_ms = 60000,
        .region_octets = 1 << 20,
    };
    const struct authority_options options = {
        .loop = world->loop,
        .ledger = &world->ledger,
        .audit = &world->audit,
        .opener = opener_local(),
        .policy = world->policy,
        .incarnation = 1,
        .n_endpoints = SLOTS,
        .retire_ms = 100,
        .apart = true,
        .n_sessions = 2 * CONNECTIONS,
        .link = memory_home_tell,
        .link_context = &world->home,
    };
    const struct listener_options listener_options = {.home = &world->home.home,
                                                      .n_connections = CONNECTIONS,
                                                      .hello_ms = 60000,
                                                      .half_frame_ms = 60000,
                                                      .n_large_tails = 1,
                                                      .arena = &world->arena};

    ledger_init(&world->ledger, world->policy->limits_total);
    require(arena_init(&world->arena, ARENA + memory_home_needed(&home_options)) == 0);
    require(memory_home_init(&world->home, &home_options) == 0);
    require(authority_new(&world->authority, &options) == 0);
    world->home.authority = world->authority;
    require(listener_new_consume_fd(&world->listener, world->loop, fuzz_listen_nowhere(), &listener_options) == 0);
    world->home.listener = world->listener;
}

void memory_world_close(struct memory_world *world) {
    world->listener = listener_free(world->listener);
    world->authority = authority_free(world->authority);
    memory_home_deinit(&world->home);
    world->loop = loop_free(world->loop);
    arena_deinit(&world->arena);
    ledger_deinit(&world->ledger);
    audit_deinit(&world->audit);
    world->policy = policy_free(world->policy);
}

void memory_world_dispatch(struct memory_world *world) {
    for (unsigned round = 0; loop_dispatch(world->loop, 0) > 0; round++)
        if (round == ROUNDS)
            fuzz_fail("memory_world", "there is no end of what there is to do");
}

int memory_world_connect(struct memory_world *world) {
    int sockets[2];

    require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) == 0);
    peer_new_consume_fd(world->listener, sockets[0]);
    return sockets[1];
}
