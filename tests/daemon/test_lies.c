/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a daemon finds of the one before, in which an octet is another one: it is taken
 * whole or not at all, nothing of it is left, and nobody was told anything.  vmibusd's state and that of vmibus-memd.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/core.h"
#include "core/handover.h"
#include "daemon/handover_bus.h"
#include "daemon/handover_memory.h"
#include "fuzz/memory_world.h"
#include "fuzz/stream.h"
#include "fuzz/world.h"
#include "harness.h"
#include "memory/handover.h"
#include "transport/listener.h"
#include "util/fds.h"
#include "util/lies.h"

#define EVENTS (VMIBUS_KIND_BIT(VMIBUS_KIND_SENSOR) * 2 - 1)
#define RAM (1u << 20)

enum who { BUS, CONTROL, SENSOR, NEWCOMER, N_WHO };

static struct stream streams[N_WHO] = {{.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}};
static uint8_t *octets;
static size_t n_octets;
static int *given; /* the descriptors beside the state */
static size_t n_given;

/* --- a state ------------------------------------------------------------------------------------- */

static void keep_state(const struct handover_ops *ops, void *parts) {
    static const uint8_t token[HANDOVER_TOKEN];
    struct handover_writer writer = {};
    int state;

    ops->settle_begin(parts);
    ops->settle(parts);
    ck_assert(ops->is_settled(parts));
    ops->save(parts, &writer);
    state = handover_seal(&writer, token, "test");
    ck_assert_int_ge(state, 0);
    n_given = writer.n_fds;
    given = calloc(n_given + 1, sizeof(*given));
    for (size_t i = 0; i < n_given; i++)
        given[i] = fd_dup(writer.fds[i]);
    handover_writer_deinit(&writer);
    octets = lies_read_consume_fd(state, &n_octets);
}

static void forget_state(void) {
    fds_close(given, n_given);
    free(given);
    free(octets);
    for (size_t i = 0; i < N_WHO; i++)
        stream_close(&streams[i]);
}

/* The state's descriptors, duplicated for whoever takes it. NULL: there is no memory or no descriptor. */
static int *give(void) {
    int *fds = malloc((n_given + 1) * sizeof(*fds));

    for (size_t i = 0; fds && i < n_given; i++) {
        fds[i] = fcntl(given[i], F_DUPFD_CLOEXEC, 3);
        if (fds[i] < 0) {
            fds_close(fds, i);
            free(fds);
            return NULL;
        }
    }
    return fds;
}

static void say(enum who who, struct vmibus_frame frame, const char *tail) {
    static uint64_t correlation;

    if (frame.header.kind != VMIBUS_KIND_HELLO && who != BUS)
        frame.header.correlation = ++correlation;
    stream_say(&streams[who], &frame, tail, strlen(tail));
}

static struct vmibus_frame down(enum vmibus_kind kind) {
    return fuzz_frame(kind, VMIBUS_DIRECTION_DOWN);
}

static struct vmibus_frame up(enum vmibus_kind kind) {
    return fuzz_frame(kind, VMIBUS_DIRECTION_UP);
}

static struct vmibus_frame to_vm(struct vmibus_frame frame, uint64_t generation) {
    frame.header.slot = 1;
    frame.header.generation = generation;
    return frame;
}

/* RAM that is an object of its own. */
static void propose_layout(uint64_t generation) {
    struct vmibus_frame frame = to_vm(up(VMIBUS_KIND_MEM_LAYOUT), generation);
    const struct vmibus_layout_range range = {.len = RAM};
    int ram = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    ck_assert_int_eq(ftruncate(ram, RAM), 0);
    ck_assert_int_eq(fcntl(ram, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    frame.header.correlation = 100;
    frame.header.tail_length = sizeof(range);
    frame.header.fd_count = 1;
    frame.mem_layout.range_count = 1;
    stream_put(&streams[SENSOR], &frame, sizeof(frame), &ram, 1);
    stream_put(&streams[SENSOR], &range, sizeof(range), NULL, 0);
    close(ram);
}

/* The beginning of a frame with a tail. */
static void say_half(enum who who, struct vmibus_frame frame) {
    frame.header.tail_length = 8;
    frame.header.correlation = 200;
    stream_put(&streams[who], &frame, sizeof(frame), NULL, 0);
    stream_put(&streams[who], "web", 3, NULL, 0);
}

/* --- vmibusd ------------------------------------------------------------------------------------- */

static struct world world;

static void dispatch_bus(void) {
    world_dispatch(&world);
}

static uint64_t generation_of_vm(void) {
    struct vmibus_frame frame;
    uint64_t generation = 0;
    const uint8_t *tail;

    stream_receive(&streams[CONTROL]);
    while (stream_next(&streams[CONTROL], &frame, &tail))
        if (frame.header.kind == VMIBUS_KIND_ROSTER)
            generation = frame.header.generation;
    ck_assert_uint_ne(generation, 0);
    return generation;
}

static void come_to_bus(enum who who, enum vmibus_role role) {
    stream_open_consume_fd(&streams[who], world_connect(&world));
    say(who, fuzz_hello(role, VMIBUS_CHANNEL_BUS), "");
}

static void offer_vm(void) {
    struct vmibus_frame announce = up(VMIBUS_KIND_SENSOR_ANNOUNCE), offer = up(VMIBUS_KIND_ENDPOINT_OFFER);

    announce.sensor_announce = (struct vmibus_sensor_announce){
        .state = VMIBUS_SENSOR_STATE_READY, .groups = VMIBUS_GROUP_ALL & ~VMIBUS_GROUP_WATCH, .name = "sensor"};
    say(SENSOR, announce, "");
    offer.endpoint_offer.groups = announce.sensor_announce.groups;
    say(SENSOR, offer, "vm");
    dispatch_bus();
}

/* A control with a subscription, a lease, a place in a queue, events that wait and half a frame; a sensor with a VM; a newcomer. */
static void make_bus_state(void) {
    struct bus_handover_parts parts;
    struct vmibus_frame frame;
    uint64_t generation;

    world_open(&world, NULL, NULL);
    come_to_bus(SENSOR, VMIBUS_ROLE_SENSOR);
    offer_vm();
    come_to_bus(CONTROL, VMIBUS_ROLE_CONTROL);
    frame = down(VMIBUS_KIND_SUBSCRIBE);
    frame.subscribe.kinds = EVENTS;
    say(CONTROL, frame, "*");
    dispatch_bus();
    generation = generation_of_vm();
    frame = to_vm(down(VMIBUS_KIND_CMD_LEASE), generation);
    frame.cmd_lease = (struct vmibus_cmd_lease){.operation = VMIBUS_LEASE_OPERATION_ACQUIRE,
                                                .lease_class = VMIBUS_LEASE_CLASS_POWER,
                                                .mode = VMIBUS_LEASE_MODE_QUEUE};
    say(CONTROL, frame, "");
    propose_layout(generation);
    dispatch_bus();
    say_half(CONTROL, down(VMIBUS_KIND_SUBSCRIBE));
    stream_open_consume_fd(&streams[NEWCOMER], world_connect(&world));
    stream_put(&streams[NEWCOMER], "half a HELLO", 12, NULL, 0);
    dispatch_bus();
    parts = (struct bus_handover_parts){.core = world.core, .listener = world.listener, .with_socket = true};
    keep_state(&bus_handover_ops, &parts);
    world_close(&world);
}

static int take_bus_state(const uint8_t *state, size_t size) {
    struct bus_handover_parts parts;
    struct handover handover = {};
    int *fds = give(), r;

    if (!fds)
        return -ENOMEM;
    world_open(&world, NULL, NULL);
    listener_pause(world.listener);
    parts = (struct bus_handover_parts){.core = world.core, .listener = world.listener};
    r = handover_open_octets(&handover, state, size, fds, n_given);
    if (r == 0 && bus_handover_ops.incarnation(&handover) == 1)
        bus_handover_ops.restore(&parts, &handover);
    else
        (void)handover_wrong(&handover, r ? r : -EBADMSG);
    r = handover.error;
    if (r == 0) {
        core_handover_go_on(world.core, NULL, 0);
        listener_resume(world.listener);
    }
    handover_close(&handover);
    world_close(&world);
    return r;
}

/* --- vmibus-memd --------------------------------------------------------------------------------- */

static struct memory_world memd;

static void come_to_memory(enum who who, enum vmibus_role role) {
    struct vmibus_frame hello = fuzz_hello(role, who == BUS ? VMIBUS_CHANNEL_LINK : VMIBUS_CHANNEL_MEMORY);

    if (who != BUS)
        hello.hello.session[0] = (uint8_t)who;
    stream_open_consume_fd(&streams[who], memory_world_connect(&memd));
    say(who, hello, "");
    memory_world_dispatch(&memd);
}

static void open_session(enum who who, enum vmibus_role role) {
    struct vmibus_frame frame = down(VMIBUS_KIND_SESSION_OPENED);

    frame.session_opened = (struct vmibus_session_opened){.session = {(uint8_t)who}, .uid = geteuid(), .role = (uint8_t)role};
    say(BUS, frame, "");
}

static void allocate_buffer(void) {
    struct vmibus_frame frame = down(VMIBUS_KIND_BUFFER);

    frame.buffer.operation = VMIBUS_BUFFER_OPERATION_ALLOCATE;
    frame.buffer.size = 65536;
    say(CONTROL, frame, "");
}

/* The link amidst a frame; a sensor with a VM's RAM; a control with a fence, a buffer and half a command; one nobody told of. */
static void make_memory_state(void) {
    struct memory_handover_parts parts;
    struct vmibus_frame frame;

    memory_world_open(&memd);
    come_to_memory(BUS, VMIBUS_ROLE_BUS);
    open_session(CONTROL, VMIBUS_ROLE_CONTROL);
    open_session(SENSOR, VMIBUS_ROLE_SENSOR);
    say(BUS, to_vm(down(VMIBUS_KIND_ENDPOINT_OPENED), 1), "vm");
    frame = to_vm(down(VMIBUS_KIND_FENCE_ISSUE), 1);
    frame.fence_issue = (struct vmibus_fence_issue){.session = {CONTROL}, .token = 1, .uid = geteuid()};
    say(BUS, frame, "");
    say(BUS, down(VMIBUS_KIND_LINK_SYNCED), "");
    come_to_memory(SENSOR, VMIBUS_ROLE_SENSOR);
    propose_layout(1);
    come_to_memory(CONTROL, VMIBUS_ROLE_CONTROL);
    allocate_buffer();
    come_to_memory(NEWCOMER, VMIBUS_ROLE_CONTROL);
    say_half(CONTROL, to_vm(down(VMIBUS_KIND_CMD_MEMWRITE), 1));
    say_half(BUS, to_vm(down(VMIBUS_KIND_ENDPOINT_OPENED), 1));
    memory_world_dispatch(&memd);
    parts = (struct memory_handover_parts){.home = &memd.home, .listener = memd.listener, .with_socket = true};
    keep_state(&memory_handover_ops, &parts);
    memory_world_close(&memd);
}

static int take_memory_state(const uint8_t *state, size_t size) {
    struct memory_handover_parts parts;
    struct handover handover = {};
    int *fds = give(), r;

    if (!fds)
        return -ENOMEM;
    memory_world_open(&memd);
    listener_pause(memd.listener);
    parts = (struct memory_handover_parts){.home = &memd.home, .listener = memd.listener};
    r = handover_open_octets(&handover, state, size, fds, n_given);
    if (r == 0 && memory_handover_ops.incarnation(&handover) == 1)
        memory_handover_ops.restore(&parts, &handover);
    else
        (void)handover_wrong(&handover, r ? r : -EBADMSG);
    r = handover.error;
    if (r == 0) {
        authority_handover_go_on(memd.authority, NULL, 0, parts.is_linked);
        listener_resume(memd.listener);
    }
    handover_close(&handover);
    memory_world_close(&memd);
    return r;
}

/* --- lies, and calls that fail ------------------------------------------------------------------- */

static bool bus_takes(const uint8_t *state, size_t size) {
    return take_bus_state(state, size) == 0;
}

static bool memory_takes(const uint8_t *state, size_t size) {
    return take_memory_state(state, size) == 0;
}

TEST(test_p12_lies_to_a_bus_are_taken_whole_or_not_at_all, .timeout = 600, .setup = make_bus_state, .teardown = forget_state) {
    struct lies lies = lies_tell(octets, n_octets, harness_is_full() ? 1 : 11, bus_takes);

    ck_assert_uint_gt(lies.n_refused, 20);
    ck_assert_uint_gt(lies.n_taken, 20);
}

TEST(test_p12_lies_to_a_memory_authority_are_taken_whole_or_not_at_all, .timeout = 600, .setup = make_memory_state,
     .teardown = forget_state) {
    struct lies lies = lies_tell(octets, n_octets, harness_is_full() ? 1 : 11, memory_takes);

    ck_assert_uint_gt(lies.n_refused, 20);
    ck_assert_uint_gt(lies.n_taken, 20);
}

HARNESS_SUITE("lies to the next daemon", HARNESS_QUICK)
