/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: what a sensor in another process sends.  The first octet: bit 0, whether a lawful HELLO precedes; bit 1, whether
 * frames bring the descriptors that they announce; bits 2 to 7, pieces of what size.  A control watches, and gives a command to
 * each VM that it hears of.  So that an input gets past the first checks, generation 0 becomes that of the slot, epoch 1 the VM's
 * current one, and correlation 1 of an ACK that of the last command.  In the end nothing is left.
 */
#include <fcntl.h>
#include <string.h>
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
static struct stream sensor, control;
static uint64_t command; /* correlation of the last one that the sensor was sent */

static void say_hello(struct stream *stream, enum vmibus_role role) {
    struct vmibus_frame hello = fuzz_hello(role, VMIBUS_CHANNEL_BUS);

    stream_open_consume_fd(stream, world_connect(&world));
    stream_say(stream, &hello, NULL, 0);
}

/* A picture needs no lease. */
static void give_command(const struct vmibus_header *vm) {
    struct vmibus_frame frame = fuzz_frame(VMIBUS_KIND_SCREENSHOT, VMIBUS_DIRECTION_DOWN);
    static uint64_t correlation;

    frame.header.slot = vm->slot;
    frame.header.generation = vm->generation;
    frame.header.correlation = ++correlation;
    frame.screenshot.format = VMIBUS_IMAGE_FORMAT_PNG;
    stream_say(&control, &frame, NULL, 0);
}

static void go_on(void) {
    struct vmibus_frame frame;
    const uint8_t *tail;

    world_dispatch(&world);
    stream_receive(&control);
    while (stream_next(&control, &frame, &tail))
        if (frame.header.kind == VMIBUS_KIND_ROSTER && frame.roster.change == VMIBUS_ROSTER_CHANGE_ADDED)
            give_command(&frame.header);
    world_dispatch(&world);
    stream_receive(&sensor);
    while (stream_next(&sensor, &frame, &tail))
        if (frame.header.direction == VMIBUS_DIRECTION_DOWN && frame.header.correlation)
            command = frame.header.correlation;
}

static void fill_in(struct vmibus_frame *frame) {
    const struct bus *bus = world.core->bus;
    const struct endpoint *endpoint = frame->header.slot <= bus->n_endpoints ? bus->endpoints[frame->header.slot] : NULL;

    if (endpoint && frame->header.generation == 0)
        frame->header.generation = endpoint->generation;
    if (frame->header.kind == VMIBUS_KIND_ACK && frame->header.correlation == 1)
        frame->header.correlation = command;
    /* The epoch is the first field of whatever names one. */
    if (frame->mem_attach.epoch == 1)
        frame->mem_attach.epoch = world_epoch(&world, frame->header.slot);
}

static void put_frame(struct vmibus_frame *frame, const uint8_t *tail, size_t tail_length, size_t piece, bool with_fds) {
    int fds[VMIBUS_FDS_PER_FRAME];
    size_t n_fds = with_fds && frame->header.fd_count <= VMIBUS_FDS_PER_FRAME ? frame->header.fd_count : 0;

    fill_in(frame);
    for (size_t i = 0; i < n_fds; i++)
        fds[i] = sensor.fd; /* some descriptor or other */
    stream_put(&sensor, frame, sizeof(*frame), fds, n_fds);
    while (tail_length) {
        size_t n = piece && piece < tail_length ? piece : tail_length;

        stream_put(&sensor, tail, n, NULL, 0);
        go_on();
        tail += n;
        tail_length -= n;
    }
    go_on();
}

static void play(const uint8_t *data, size_t size) {
    uint8_t choice = data[0];

    for (data++, size--; size >= sizeof(struct vmibus_frame);) {
        struct vmibus_frame frame;
        size_t tail_length;

        memcpy(&frame, data, sizeof(frame));
        data += sizeof(frame);
        size -= sizeof(frame);
        tail_length = frame.header.tail_length < size ? frame.header.tail_length : size;
        put_frame(&frame, data, tail_length, (size_t)(choice >> 2) * 13, choice & 2);
        data += tail_length;
        size -= tail_length;
    }
    stream_put(&sensor, data, size, NULL, 0);
    go_on();
}

FUZZ_TARGET(sensor_peer) {
    struct vmibus_frame subscribe = fuzz_frame(VMIBUS_KIND_SUBSCRIBE, VMIBUS_DIRECTION_DOWN);

    if (size < 1 || size > INPUT_MAX)
        return -1;
    fuzz_clock_stop();
    world_open(&world, NULL, NULL);
    say_hello(&control, VMIBUS_ROLE_CONTROL);
    subscribe.subscribe.kinds = EVENTS;
    stream_say(&control, &subscribe, "*", 1);
    if (data[0] & 1)
        say_hello(&sensor, VMIBUS_ROLE_SENSOR);
    else
        stream_open_consume_fd(&sensor, world_connect(&world));
    go_on();
    play(data, size);
    stream_close(&sensor);
    fuzz_clock_advance(UINT64_C(60000000000));
    go_on();
    stream_close(&control);
    world_close(&world);
    return 0;
}
