/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bus/bus.h"
#include "bus/endpoint.h"
#include "policy/policy.h"
#include "transport/listener.h"
#include "transport/peer.h"

#define SLOTS 4
#define CONNECTIONS 8
#define FDS 64
#define ROUNDS 100000

void fuzz_fail(const char *target, const char *rule) {
    fprintf(stderr, "fuzz_%s: %s\n", target, rule);
    abort();
}

int fuzz_listen_nowhere(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* The kernel chooses an abstract name. */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)) < 0 || listen(fd, 1) < 0)
        fuzz_fail("world", "there is no socket");
    return fd;
}

void world_open(struct world *world, struct policy *policy, const char *memory_path) {
    struct core_options core_options = {
        .incarnation = 1,
        .n_endpoints = SLOTS,
        .n_connections = CONNECTIONS,
        .queue_depth = 16,
        .commands = 8,
        .drain_ms = 100,
        .hold_ms = 100,
        .retire_ms = 100,
        .tail_bound = WORLD_TAIL_BOUND,
        .n_large_tails = 1,
        .audit_fd = -1,
        .memory_path = memory_path,
        .hello_ms = 60000,
        .policy = policy,
    };
    struct listener_options listener_options = {
        .n_connections = CONNECTIONS, .hello_ms = 60000, .half_frame_ms = 60000, .n_large_tails = 1};

    if (!policy && policy_new(&core_options.policy) < 0)
        fuzz_fail("world", "there is no policy");
    core_options.policy->limits_total[RESOURCE_FDS] = FDS;
    core_options.memory_cap = core_least_memory(&core_options);
    if (core_new(&world->core, &core_options) < 0)
        fuzz_fail("world", "there is no core");
    listener_options.home = &world->core->home.home;
    listener_options.arena = &world->core->arena;
    if (listener_new_consume_fd(&world->listener, world->core->loop, fuzz_listen_nowhere(), &listener_options) < 0)
        fuzz_fail("world", "there is no listener");
}

void world_close(struct world *world) {
    world->listener = listener_free(world->listener);
    world->core = vmibus_core_free(world->core);
}

void world_dispatch(struct world *world) {
    for (unsigned round = 0; vmibus_core_dispatch(world->core, 0) > 0; round++)
        if (round == ROUNDS)
            fuzz_fail("world", "there is no end of what there is to do");
}

int world_connect(struct world *world) {
    int sockets[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) < 0)
        fuzz_fail("world", "there is no pair of sockets");
    peer_new_consume_fd(world->listener, sockets[0]);
    return sockets[1];
}

uint64_t world_epoch(const struct world *world, uint32_t slot) {
    const struct bus *bus = world->core->bus;
    const struct endpoint *endpoint = slot && slot <= bus->n_endpoints ? bus->endpoints[slot] : NULL;

    for (unsigned i = 0; endpoint && i < N_RETAINED; i++)
        if (endpoint->retained[i].present && endpoint->retained[i].frame.header.kind == VMIBUS_KIND_MEMCTX)
            return endpoint->retained[i].frame.memctx.epoch;
    return 0;
}

struct vmibus_frame fuzz_frame(enum vmibus_kind kind, enum vmibus_direction direction) {
    return (struct vmibus_frame){.header = {.kind = (uint16_t)kind,
                                            .direction = (uint8_t)direction,
                                            .priority = VMIBUS_PRIORITY_NORMAL,
                                            .version = VMIBUS_PROTOCOL_VERSION}};
}

struct vmibus_frame fuzz_hello(enum vmibus_role role, enum vmibus_channel channel) {
    struct vmibus_frame hello = fuzz_frame(VMIBUS_KIND_HELLO, VMIBUS_DIRECTION_DOWN);

    hello.hello = (struct vmibus_hello){.magic = VMIBUS_MAGIC,
                                        .version_min = VMIBUS_PROTOCOL_VERSION,
                                        .version_max = VMIBUS_PROTOCOL_VERSION,
                                        .role = (uint8_t)role,
                                        .channel = (uint8_t)channel};
    return hello;
}
