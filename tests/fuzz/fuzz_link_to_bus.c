/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: what a memory authority in another process says to its bus, which trusts it with memory and with nothing else.  The
 * bus has a sensor with one VM, and a control that sees all, holds its lease MEMWRITE and an attachment's place in the queue of
 * POWER.  The first octet: bit 0, whether a lawful WELCOME precedes; bits 2 to 7, pieces of what size.  Generation 0 becomes that of
 * the slot, token 1 in FENCE_DRAINED that of the lease.  Whatever it says, the bus goes on: a query is answered, and nothing is left.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "bus/bus.h"
#include "bus/endpoint.h"
#include "fuzz/clock.h"
#include "fuzz/stream.h"
#include "fuzz/target.h"
#include "fuzz/world.h"

#define INPUT_MAX 16384
#define EVENTS (VMIBUS_KIND_BIT(VMIBUS_KIND_SENSOR) * 2 - 1)

static struct world world;
static struct stream memory, control, sensor;
static char directory[] = "/tmp/vmibus-fuzz-link.XXXXXX";
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static int listening = -1;
static uint64_t token;
static uint64_t answered; /* correlation of the last command of the control that was */

static void remove_directory(void) {
    unlink(address.sun_path);
    rmdir(directory);
}

static void listen_for_bus(void) {
    if (!mkdtemp(directory))
        fuzz_fail("link_to_bus", "there is no directory");
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/memory", directory);
    listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listening < 0 || bind(listening, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listening, 1) < 0)
        fuzz_fail("link_to_bus", "there is no socket");
    atexit(remove_directory);
}

static void hear(struct stream *stream) {
    struct vmibus_frame frame;
    const uint8_t *tail;

    stream_receive(stream);
    while (stream_next(stream, &frame, &tail)) {
        if (stream != &control || frame.header.kind != VMIBUS_KIND_ACK)
            continue;
        answered = frame.header.correlation;
        if (frame.ack.command == VMIBUS_KIND_CMD_LEASE && frame.ack.token)
            token = frame.ack.token;
    }
}

static void go_on(void) {
    world_dispatch(&world);
    hear(&memory);
    hear(&control);
    hear(&sensor);
}

static void give_command(struct vmibus_frame frame, const char *tail) {
    static uint64_t correlation;

    frame.header.direction = VMIBUS_DIRECTION_DOWN;
    frame.header.correlation = ++correlation;
    stream_say(&control, &frame, tail, strlen(tail));
    go_on();
}

static struct vmibus_frame of_vm(enum vmibus_kind kind) {
    struct vmibus_frame frame = fuzz_frame(kind, VMIBUS_DIRECTION_DOWN);

    frame.header.slot = 1;
    frame.header.generation = world.core->bus->endpoints[1] ? world.core->bus->endpoints[1]->generation : 1;
    return frame;
}

static void open_world(void) {
    struct vmibus_frame hello = fuzz_hello(VMIBUS_ROLE_CONTROL, VMIBUS_CHANNEL_BUS);
    struct vmibus_frame announce = fuzz_frame(VMIBUS_KIND_SENSOR_ANNOUNCE, VMIBUS_DIRECTION_UP);
    struct vmibus_frame offer = fuzz_frame(VMIBUS_KIND_ENDPOINT_OFFER, VMIBUS_DIRECTION_UP);
    struct vmibus_frame frame = fuzz_frame(VMIBUS_KIND_SUBSCRIBE, VMIBUS_DIRECTION_DOWN);

    world_open(&world, NULL, address.sun_path);
    world_dispatch(&world);
    stream_open_consume_fd(&memory, accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
    stream_open_consume_fd(&control, world_connect(&world));
    stream_say(&control, &hello, NULL, 0);
    stream_open_consume_fd(&sensor, world_connect(&world));
    hello.hello.role = VMIBUS_ROLE_SENSOR;
    stream_say(&sensor, &hello, NULL, 0);
    announce.sensor_announce = (struct vmibus_sensor_announce){
        .state = VMIBUS_SENSOR_STATE_READY, .groups = VMIBUS_GROUP_ALL & ~VMIBUS_GROUP_WATCH, .name = "sensor"};
    stream_say(&sensor, &announce, NULL, 0);
    offer.endpoint_offer.groups = announce.sensor_announce.groups;
    offer.header.correlation = 1;
    stream_say(&sensor, &offer, "vm", 2);
    go_on();
    frame.subscribe.kinds = EVENTS;
    give_command(frame, "*");
    frame = of_vm(VMIBUS_KIND_CMD_LEASE);
    frame.cmd_lease = (struct vmibus_cmd_lease){.operation = VMIBUS_LEASE_OPERATION_ACQUIRE,
                                                .lease_class = VMIBUS_LEASE_CLASS_MEMWRITE,
                                                .mode = VMIBUS_LEASE_MODE_QUEUE};
    give_command(frame, "");
}

static void say_welcome(void) {
    struct vmibus_frame frame = fuzz_frame(VMIBUS_KIND_WELCOME, VMIBUS_DIRECTION_UP);

    frame.welcome = (struct vmibus_welcome){.magic = VMIBUS_MAGIC,
                                            .incarnation = 1,
                                            .tail_bound = WORLD_TAIL_BOUND,
                                            .endpoints = 4,
                                            .version = VMIBUS_PROTOCOL_VERSION,
                                            .memory = VMIBUS_MEMORY_LOCATION_HERE};
    stream_say(&memory, &frame, NULL, 0);
    go_on();
}

static void put_frame(struct vmibus_frame *frame, const uint8_t *tail, size_t tail_length, size_t piece) {
    const struct bus *bus = world.core->bus;
    const struct endpoint *endpoint = frame->header.slot <= bus->n_endpoints ? bus->endpoints[frame->header.slot] : NULL;

    if (endpoint && frame->header.generation == 0)
        frame->header.generation = endpoint->generation;
    if (frame->header.kind == VMIBUS_KIND_FENCE_DRAINED && frame->fence_drained.token == 1)
        frame->fence_drained.token = token;
    stream_put(&memory, frame, sizeof(*frame), NULL, 0);
    while (tail_length) {
        size_t n = piece && piece < tail_length ? piece : tail_length;

        stream_put(&memory, tail, n, NULL, 0);
        go_on();
        tail += n;
        tail_length -= n;
    }
    go_on();
}

static void play(const uint8_t *data, size_t size) {
    size_t piece = (size_t)(*data >> 2) * 13;

    for (data++, size--; size >= sizeof(struct vmibus_frame);) {
        struct vmibus_frame frame;
        size_t tail_length;

        memcpy(&frame, data, sizeof(frame));
        data += sizeof(frame);
        size -= sizeof(frame);
        tail_length = frame.header.tail_length < size ? frame.header.tail_length : size;
        put_frame(&frame, data, tail_length, piece);
        data += tail_length;
        size -= tail_length;
    }
    stream_put(&memory, data, size, NULL, 0);
    go_on();
}

static void close_world(void) {
    struct vmibus_frame query = fuzz_frame(VMIBUS_KIND_QUERY, VMIBUS_DIRECTION_DOWN);
    uint64_t before = answered;

    query.query.query = VMIBUS_QUERY_STATS;
    give_command(query, "");
    if (answered == before)
        fuzz_fail("link_to_bus", "the control is not answered any more");
    stream_close(&control);
    go_on();
    stream_close(&memory);
    fuzz_clock_advance(UINT64_C(200000000));
    world_dispatch(&world);
    stream_close(&sensor);
    world_close(&world);
    /* It came again meanwhile. */
    for (int fd; (fd = accept(listening, NULL, NULL)) >= 0;)
        close(fd);
}

FUZZ_TARGET(link_to_bus) {
    if (size < 1 || size > INPUT_MAX)
        return -1;
    fuzz_clock_stop();
    if (listening < 0)
        listen_for_bus();
    open_world();
    if (data[0] & 1)
        say_welcome();
    play(data, size);
    close_world();
    return 0;
}
