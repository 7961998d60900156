/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: what a control sends.  One bus with the stub sensor's VMs lives as long as the process;
 * each input is a connection of its own.
 *
 * The first octet chooses: bit 0, whether a lawful HELLO precedes the input; bit 1, whether the other
 * end never reads; bits 2 to 7, in pieces of what size (0: whole) the rest is sent.  So that an input
 * gets past the first checks, some values are put in where frames begin: generation 0 becomes that of
 * the slot, token 1 the last one given, epoch 1 the VM's current one.
 *
 * Afterwards nothing may be charged that was not before.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bus/bus.h"
#include "bus/endpoint.h"
#include "core/core.h"
#include "policy/policy.h"
#include "stub/stub.h"
#include "transport/listener.h"
#include "transport/peer.h"

#define INPUT_MAX 65536
#define SLOTS 4
#define IDLE_ROUNDS 10000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vmibus_core *core;
static struct listener *listener;
static uint64_t used[N_RESOURCES];
static uint64_t last_token;

static void fail(const char *what) {
    fprintf(stderr, "fuzz_frames: %s\n", what);
    abort();
}

static void dispatch_all(void) {
    while (vmibus_core_dispatch(core, 0) > 0)
        ;
}

/* --- the world --------------------------------------------------------------------------------- */

static uint64_t epoch_of(uint32_t slot) {
    const struct endpoint *endpoint = slot && slot <= core->bus->n_endpoints ? core->bus->endpoints[slot] : NULL;

    if (!endpoint)
        return 0;
    for (unsigned i = 0; i < N_RETAINED; i++)
        if (endpoint->retained[i].present && endpoint->retained[i].frame.header.kind == VMIBUS_KIND_MEMCTX)
            return endpoint->retained[i].frame.memctx.epoch;
    return 0;
}

static int listen_nowhere(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    /* The kernel chooses an abstract name. */
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(sa_family_t)) < 0 || listen(fd, 1) < 0)
        fail("no socket");
    return fd;
}

static void make_world(void) {
    static const struct vmibus_sensor_option options[] = {{"vms", "2"}, {"ram", "32M"}, {"respawn_ms", "1"}};
    struct core_options core_options = {
        .incarnation = 1,
        .n_endpoints = SLOTS,
        .n_connections = 4,
        .queue_depth = 16,
        .commands = 8,
        .drain_ms = 100,
        .hold_ms = 100,
        .tail_bound = 8192,
        .n_large_tails = 1,
        .audit_fd = -1,
    };
    struct listener_options listener_options = {
        .n_connections = 2, .hello_ms = 60000, .half_frame_ms = 60000, .n_large_tails = 1};

    if (policy_new(&core_options.policy) < 0 || core_new(&core, &core_options) < 0)
        fail("no core");
    if (vmibus_core_add_sensor(core, &vmibus_stub_sensor, options, 3) < 0)
        fail("no sensor");
    listener_options.home = core->home;
    listener_options.arena = &core->arena;
    if (listener_new_consume_fd(&listener, core->loop, listen_nowhere(), &listener_options) < 0)
        fail("no listener");
    while (!epoch_of(1) || !epoch_of(2))
        vmibus_core_dispatch(core, -1);
    dispatch_all();
    memcpy(used, core->ledger.used, sizeof(used));
}

/* --- the input --------------------------------------------------------------------------------- */

static void fill_in(struct vmibus_frame *frame) {
    const struct endpoint *endpoint =
        frame->header.slot <= core->bus->n_endpoints ? core->bus->endpoints[frame->header.slot] : NULL;
    uint64_t *token = NULL;

    if (endpoint && frame->header.generation == 0)
        frame->header.generation = endpoint->generation;
    if (frame->header.kind == VMIBUS_KIND_CMD_LEASE)
        token = &frame->cmd_lease.token;
    else if (frame->header.kind == VMIBUS_KIND_CMD_INPUT)
        token = &frame->cmd_input.token;
    else if (frame->header.kind == VMIBUS_KIND_CMD_POWER)
        token = &frame->cmd_power.token;
    else if (frame->header.kind == VMIBUS_KIND_CMD_VM)
        token = &frame->cmd_vm.token;
    else if (frame->header.kind == VMIBUS_KIND_CMD_MEMWRITE)
        token = &frame->cmd_memwrite.token;
    if (token && *token == 1)
        *token = last_token;
    if (frame->header.kind == VMIBUS_KIND_CMD_MEMWRITE && frame->cmd_memwrite.epoch == 1)
        frame->cmd_memwrite.epoch = epoch_of(frame->header.slot);
    if (frame->header.kind == VMIBUS_KIND_MEM_READ && frame->mem_read.epoch == 1)
        frame->mem_read.epoch = epoch_of(frame->header.slot);
    if ((frame->header.kind == VMIBUS_KIND_MEM_ATTACH || frame->header.kind == VMIBUS_KIND_MEM_RELEASE) &&
        frame->mem_attach.epoch == 1)
        frame->mem_attach.epoch = epoch_of(frame->header.slot);
}

/* Reads what there is; learns tokens where it begins with an answer. */
static void take(int fd) {
    uint8_t octets[4096];
    ssize_t n;

    while ((n = recv(fd, octets, sizeof(octets), MSG_DONTWAIT)) > 0)
        for (ssize_t i = 0; i + VMIBUS_FRAME_SIZE <= n; i += VMIBUS_FRAME_SIZE) {
            struct vmibus_frame frame;

            memcpy(&frame, octets + i, sizeof(frame));
            if (frame.header.kind == VMIBUS_KIND_ACK && frame.ack.token)
                last_token = frame.ack.token;
        }
}

static void put(int fd, const uint8_t *data, size_t size, bool reads) {
    while (size > 0) {
        ssize_t n = send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n < 0 && (errno != EAGAIN || !reads))
            return;
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
        dispatch_all();
        if (reads)
            take(fd);
    }
}

static void put_hello(int fd) {
    struct vmibus_frame hello = {
        .header = {.kind = VMIBUS_KIND_HELLO, .direction = VMIBUS_DIRECTION_DOWN, .version = VMIBUS_PROTOCOL_VERSION},
        .hello = {.magic = VMIBUS_MAGIC,
                  .version_min = VMIBUS_PROTOCOL_VERSION,
                  .version_max = VMIBUS_PROTOCOL_VERSION,
                  .role = VMIBUS_ROLE_CONTROL,
                  .channel = VMIBUS_CHANNEL_BUS},
    };

    put(fd, (const uint8_t *)&hello, sizeof(hello), true);
}

static void play(int fd, uint8_t choice, uint8_t *data, size_t size) {
    size_t piece = choice >> 2 ? (size_t)(choice >> 2) * 13 : size;
    bool reads = !(choice & 2);
    size_t begin = 0;

    if (choice & 1)
        put_hello(fd);
    while (begin < size) {
        size_t length = size - begin;
        struct vmibus_frame frame;

        if (length >= sizeof(frame)) {
            memcpy(&frame, data + begin, sizeof(frame));
            fill_in(&frame);
            memcpy(data + begin, &frame, sizeof(frame));
            if (frame.header.tail_length < length - sizeof(frame))
                length = sizeof(frame) + frame.header.tail_length;
        }
        for (size_t i = 0; i < length; i += piece)
            put(fd, data + begin + i, length - i < piece ? length - i : piece, reads);
        begin += length;
    }
}

static void await_idle(void) {
    for (unsigned round = 0; round < IDLE_ROUNDS; round++) {
        bool idle;

        dispatch_all();
        idle = listener->n_peers == 0;
        for (size_t i = 0; i < N_RESOURCES; i++)
            idle = idle && (core->ledger.used[i] == used[i] || i == RESOURCE_ENDPOINTS || i == RESOURCE_FDS || i == RESOURCE_BYTES);
        if (idle && epoch_of(1) && epoch_of(2))
            return;
        vmibus_core_dispatch(core, 1);
    }
    for (size_t i = 0; i < N_RESOURCES; i++)
        fprintf(stderr, "resource %zu: %lu, was %lu\n", i, (unsigned long)core->ledger.used[i], (unsigned long)used[i]);
    fail("something is left behind");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t copy[INPUT_MAX];
    int sockets[2];

    if (size < 1 || size > INPUT_MAX)
        return -1;
    if (!core)
        make_world();
    memcpy(copy, data + 1, size - 1);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sockets) < 0)
        fail("no socket pair");
    peer_new_consume_fd(listener, sockets[0]);
    play(sockets[1], data[0], copy, size - 1);
    close(sockets[1]);
    await_idle();
    return 0;
}
