/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: what a bus, a control and a sensor say to a memory authority in another process, each over its own socket, in any
 * order.  The first octet: bit 0, whether the bus says lawfully what there is first: a VM in slot 1, generation 1, a session for
 * the control and one for the sensor, a fence under token 1.  The rest are records: an octet that says whose (0 to 2), a frame, its
 * tail.  Epoch 1 becomes the VM's current one.  In the end nothing is left.
 */
#include <string.h>
#include <unistd.h>

#include "fuzz/clock.h"
#include "fuzz/memory_world.h"
#include "fuzz/stream.h"
#include "fuzz/target.h"
#include "fuzz/world.h"

#define INPUT_MAX 16384
enum who { BUS, CONTROL, SENSOR, N_WHO };

static struct memory_world memd;
static struct stream streams[N_WHO];
static uint64_t epoch; /* of the VM, as the authority told it last */

static void hear(struct stream *stream) {
    struct vmibus_frame frame;
    const uint8_t *tail;

    stream_receive(stream);
    while (stream_next(stream, &frame, &tail))
        if (frame.header.kind == VMIBUS_KIND_MEMCTX && frame.header.slot == 1)
            epoch = frame.memctx.epoch;
}

static void go_on(void) {
    memory_world_dispatch(&memd);
    for (size_t i = 0; i < N_WHO; i++)
        hear(&streams[i]);
}

static void come(enum who who) {
    static const enum vmibus_role roles[] = {VMIBUS_ROLE_BUS, VMIBUS_ROLE_CONTROL, VMIBUS_ROLE_SENSOR};
    struct vmibus_frame hello = fuzz_hello(roles[who], who == BUS ? VMIBUS_CHANNEL_LINK : VMIBUS_CHANNEL_MEMORY);

    stream_open_consume_fd(&streams[who], memory_world_connect(&memd));
    if (who != BUS)
        hello.hello.session[0] = (uint8_t)who;
    stream_say(&streams[who], &hello, NULL, 0);
    go_on();
}

static void tell(struct vmibus_frame frame, const char *tail) {
    frame.header.slot = frame.header.kind == VMIBUS_KIND_SESSION_OPENED || frame.header.kind == VMIBUS_KIND_LINK_SYNCED ? 0 : 1;
    frame.header.generation = frame.header.slot;
    stream_say(&streams[BUS], &frame, tail, strlen(tail));
    go_on();
}

static void tell_all(void) {
    struct vmibus_frame frame = fuzz_frame(VMIBUS_KIND_SESSION_OPENED, VMIBUS_DIRECTION_DOWN);

    frame.session_opened = (struct vmibus_session_opened){.session = {CONTROL}, .uid = geteuid(), .role = VMIBUS_ROLE_CONTROL};
    tell(frame, "");
    frame.session_opened = (struct vmibus_session_opened){.session = {SENSOR}, .uid = geteuid(), .role = VMIBUS_ROLE_SENSOR};
    tell(frame, "");
    tell(fuzz_frame(VMIBUS_KIND_ENDPOINT_OPENED, VMIBUS_DIRECTION_DOWN), "vm");
    frame = fuzz_frame(VMIBUS_KIND_FENCE_ISSUE, VMIBUS_DIRECTION_DOWN);
    frame.fence_issue = (struct vmibus_fence_issue){.session = {CONTROL}, .token = 1, .uid = geteuid()};
    tell(frame, "");
    tell(fuzz_frame(VMIBUS_KIND_LINK_SYNCED, VMIBUS_DIRECTION_DOWN), "");
}

static void put_frame(struct stream *stream, struct vmibus_frame *frame, const uint8_t *tail, size_t tail_length) {
    int fds[VMIBUS_FDS_PER_FRAME];
    size_t n_fds = frame->header.fd_count <= VMIBUS_FDS_PER_FRAME ? frame->header.fd_count : 0;

    for (size_t i = 0; i < n_fds; i++)
        fds[i] = stream->fd; /* some descriptor or other */
    if (frame->header.kind == VMIBUS_KIND_CMD_MEMWRITE && frame->cmd_memwrite.epoch == 1)
        frame->cmd_memwrite.epoch = epoch;
    else if (frame->header.kind == VMIBUS_KIND_MEM_READ && frame->mem_read.epoch == 1)
        frame->mem_read.epoch = epoch;
    else if (frame->header.kind == VMIBUS_KIND_MEM_ROOT && frame->mem_root.epoch == 1)
        frame->mem_root.epoch = epoch;
    stream_put(stream, frame, sizeof(*frame), fds, n_fds);
    stream_put(stream, tail, tail_length, NULL, 0);
    go_on();
}

static void play(const uint8_t *data, size_t size) {
    while (size > sizeof(struct vmibus_frame)) {
        struct stream *stream = &streams[data[0] % N_WHO];
        struct vmibus_frame frame;
        size_t tail_length;

        memcpy(&frame, data + 1, sizeof(frame));
        data += 1 + sizeof(frame);
        size -= 1 + sizeof(frame);
        tail_length = frame.header.tail_length < size ? frame.header.tail_length : size;
        put_frame(stream, &frame, data, tail_length);
        data += tail_length;
        size -= tail_length;
    }
    stream_put(&streams[BUS], data, size, NULL, 0);
    go_on();
}

FUZZ_TARGET(link_to_memory) {
    if (size < 1 || size > INPUT_MAX)
        return -1;
    fuzz_clock_stop();
    epoch = 0;
    memory_world_open(&memd);
    come(BUS);
    if (data[0] & 1)
        tell_all();
    come(CONTROL);
    come(SENSOR);
    play(data + 1, size - 1);
    for (size_t i = N_WHO; i-- > 0;)
        stream_close(&streams[i]);
    fuzz_clock_advance(UINT64_C(200000000));
    go_on();
    memory_world_close(&memd);
    return 0;
}
