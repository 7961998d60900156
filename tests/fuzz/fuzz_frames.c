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
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bus/bus.h"
#include "bus/endpoint.h"
#include "fuzz/target.h"
#include "fuzz/world.h"
#include "stub/stub.h"
#include "transport/listener.h"

#define INPUT_MAX 65536
#define IDLE_ROUNDS 10000

static struct world world;
static uint64_t used[N_RESOURCES];
static uint64_t last_token;

static void make_world(void) {
    static const struct vmibus_sensor_option options[] = {{"vms", "2"}, {"ram", "32M"}, {"respawn_ms", "1"}};

    world_open(&world, NULL, NULL);
    if (vmibus_core_add_sensor(world.core, &vmibus_stub_sensor, options, 3) < 0)
        fuzz_fail("frames", "there is no sensor");
    while (!world_epoch(&world, 1) || !world_epoch(&world, 2))
        vmibus_core_dispatch(world.core, -1);
    world_dispatch(&world);
    memcpy(used, world.core->ledger.used, sizeof(used));
}

/* --- the input --------------------------------------------------------------------------------- */

static void fill_in(struct vmibus_frame *frame) {
    const struct endpoint *endpoint =
        frame->header.slot <= world.core->bus->n_endpoints ? world.core->bus->endpoints[frame->header.slot] : NULL;
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
        frame->cmd_memwrite.epoch = world_epoch(&world, frame->header.slot);
    if (frame->header.kind == VMIBUS_KIND_MEM_READ && frame->mem_read.epoch == 1)
        frame->mem_read.epoch = world_epoch(&world, frame->header.slot);
    if ((frame->header.kind == VMIBUS_KIND_MEM_ATTACH || frame->header.kind == VMIBUS_KIND_MEM_RELEASE) &&
        frame->mem_attach.epoch == 1)
        frame->mem_attach.epoch = world_epoch(&world, frame->header.slot);
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
        world_dispatch(&world);
        if (reads)
            take(fd);
    }
}

static void put_hello(int fd) {
    const struct vmibus_frame hello = fuzz_hello(VMIBUS_ROLE_CONTROL, VMIBUS_CHANNEL_BUS);

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

        world_dispatch(&world);
        idle = world.listener->n_peers == 0;
        for (size_t i = 0; i < N_RESOURCES; i++)
            idle = idle && (world.core->ledger.used[i] == used[i] || i == RESOURCE_ENDPOINTS || i == RESOURCE_FDS || i == RESOURCE_BYTES);
        if (idle && world_epoch(&world, 1) && world_epoch(&world, 2))
            return;
        vmibus_core_dispatch(world.core, 1);
    }
    for (size_t i = 0; i < N_RESOURCES; i++)
        fprintf(stderr, "resource %zu: %lu, was %lu\n", i, (unsigned long)world.core->ledger.used[i], (unsigned long)used[i]);
    fuzz_fail("frames", "something is left behind");
}

FUZZ_TARGET(frames) {
    static uint8_t copy[INPUT_MAX];
    int fd;

    if (size < 1 || size > INPUT_MAX)
        return -1;
    if (!world.core)
        make_world();
    memcpy(copy, data + 1, size - 1);
    fd = world_connect(&world);
    play(fd, data[0], copy, size - 1);
    close(fd);
    await_idle();
    return 0;
}
