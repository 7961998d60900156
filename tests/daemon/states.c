/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/states.h"

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
#include "fuzz/world.h"
#include "harness.h"
#include "memory/handover.h"
#include "transport/listener.h"
#include "util/fds.h"
#include "util/lies.h"

#define EVENTS (VMIBUS_KIND_BIT(VMIBUS_KIND_SENSOR) * 2 - 1)

struct stream states_streams[N_WHO] = {{.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}, {.fd = -1}};

/* The daemon that is open. */
static struct {
    enum state_of of;
    struct world bus;
    struct memory_world memory;
    struct bus_handover_parts bus_parts;
    struct memory_handover_parts memory_parts;
    uint64_t correlation;
} now;

/* --- a daemon ------------------------------------------------------------------------------------ */

static const struct handover_ops *ops(void) {
    return now.of == STATE_OF_BUS ? &bus_handover_ops : &memory_handover_ops;
}

static void *parts(void) {
    return now.of == STATE_OF_BUS ? (void *)&now.bus_parts : &now.memory_parts;
}

static struct listener *listener(void) {
    return now.of == STATE_OF_BUS ? now.bus.listener : now.memory.listener;
}

static void open_daemon(enum state_of of) {
    now.of = of;
    now.correlation = 0;
    if (of == STATE_OF_BUS) {
        world_open(&now.bus, NULL, NULL);
        now.bus_parts = (struct bus_handover_parts){.core = now.bus.core, .listener = now.bus.listener, .with_socket = true};
    } else {
        memory_world_open(&now.memory);
        now.memory_parts =
            (struct memory_handover_parts){.home = &now.memory.home, .listener = now.memory.listener, .with_socket = true};
    }
}

void states_dispatch(void) {
    if (now.of == STATE_OF_BUS)
        world_dispatch(&now.bus);
    else
        memory_world_dispatch(&now.memory);
}

void states_close(void) {
    if (now.of == STATE_OF_BUS)
        world_close(&now.bus);
    else
        memory_world_close(&now.memory);
}

/* --- a state ------------------------------------------------------------------------------------- */

void states_save(struct state *state) {
    static const uint8_t token[HANDOVER_TOKEN];
    struct handover_writer writer = {};
    int file;

    ops()->settle_begin(parts());
    ops()->settle(parts());
    ck_assert(ops()->is_settled(parts()));
    ops()->save(parts(), &writer);
    file = handover_seal(&writer, token, "test");
    ck_assert_int_ge(file, 0);
    *state = (struct state){.n_fds = writer.n_fds, .fds = calloc(writer.n_fds + 1, sizeof(int))};
    for (size_t i = 0; i < state->n_fds; i++)
        state->fds[i] = fd_dup(writer.fds[i]);
    handover_writer_deinit(&writer);
    state->octets = lies_read_consume_fd(file, &state->n_octets);
}

void state_deinit(struct state *state) {
    fds_close(state->fds, state->n_fds);
    free(state->fds);
    free(state->octets);
    *state = (struct state){};
    for (size_t i = 0; i < N_WHO; i++)
        stream_close(&states_streams[i]);
}

/* NULL: there is no memory or no descriptor. */
static int *duplicate(const struct state *state) {
    int *fds = malloc((state->n_fds + 1) * sizeof(*fds));

    for (size_t i = 0; fds && i < state->n_fds; i++) {
        fds[i] = fcntl(state->fds[i], F_DUPFD_CLOEXEC, 3);
        if (fds[i] < 0) {
            fds_close(fds, i);
            free(fds);
            return NULL;
        }
    }
    return fds;
}

int states_open(enum state_of of, const struct state *state, const uint8_t *octets, size_t size) {
    struct handover handover = {};
    int *fds = duplicate(state), r;

    open_daemon(of);
    listener_pause(listener());
    if (!fds)
        return -ENOMEM;
    r = handover_open_octets(&handover, octets, size, fds, state->n_fds);
    if (r == 0 && ops()->incarnation(&handover) == 1)
        ops()->restore(parts(), &handover);
    else
        (void)handover_wrong(&handover, r ? r : -EBADMSG);
    r = handover.error;
    handover_close(&handover);
    return r;
}

void states_go_on(void) {
    if (now.of == STATE_OF_BUS)
        core_handover_go_on(now.bus.core, NULL, 0);
    else
        authority_handover_go_on(now.memory.authority, NULL, 0, now.memory_parts.is_linked);
    listener_resume(listener());
}

/* --- what peers say ------------------------------------------------------------------------------ */

static void say(enum who who, struct vmibus_frame frame, const char *tail) {
    if (frame.header.kind != VMIBUS_KIND_HELLO && who != BUS)
        frame.header.correlation = ++now.correlation;
    stream_say(&states_streams[who], &frame, tail, strlen(tail));
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

static void identify(uint64_t generation) {
    say(SENSOR, to_vm(up(VMIBUS_KIND_MEM_IDENTITY), generation), "vm");
}

/* RAM that is an object of its own. */
static void propose_layout(uint64_t generation) {
    struct vmibus_frame frame = to_vm(up(VMIBUS_KIND_MEM_LAYOUT), generation);
    const struct vmibus_layout_range range = {.len = STATES_RAM};
    int ram = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    ck_assert_int_eq(ftruncate(ram, STATES_RAM), 0);
    ck_assert_int_eq(fcntl(ram, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    frame.header.correlation = 100;
    frame.header.tail_length = sizeof(range);
    frame.header.fd_count = 1;
    frame.mem_layout.range_count = 1;
    stream_put(&states_streams[SENSOR], &frame, sizeof(frame), &ram, 1);
    stream_put(&states_streams[SENSOR], &range, sizeof(range), NULL, 0);
    close(ram);
}

/* The beginning of a frame with a tail. */
static void say_half(enum who who, struct vmibus_frame frame) {
    frame.header.tail_length = 8;
    frame.header.correlation = STATES_CORRELATION;
    stream_put(&states_streams[who], &frame, sizeof(frame), NULL, 0);
    stream_put(&states_streams[who], "web", 3, NULL, 0);
}

/* --- vmibusd ------------------------------------------------------------------------------------- */

static uint64_t generation_of_vm(void) {
    struct vmibus_frame frame;
    uint64_t generation = 0;
    const uint8_t *tail;

    stream_receive(&states_streams[CONTROL]);
    while (stream_next(&states_streams[CONTROL], &frame, &tail))
        if (frame.header.kind == VMIBUS_KIND_ROSTER)
            generation = frame.header.generation;
    ck_assert_uint_ne(generation, 0);
    return generation;
}

static void come_to_bus(enum who who, enum vmibus_role role) {
    stream_open_consume_fd(&states_streams[who], world_connect(&now.bus));
    say(who, fuzz_hello(role, VMIBUS_CHANNEL_BUS), "");
}

static void offer_vm(void) {
    struct vmibus_frame announce = up(VMIBUS_KIND_SENSOR_ANNOUNCE), offer = up(VMIBUS_KIND_ENDPOINT_OFFER);

    announce.sensor_announce = (struct vmibus_sensor_announce){
        .state = VMIBUS_SENSOR_STATE_READY, .groups = VMIBUS_GROUP_ALL & ~VMIBUS_GROUP_WATCH, .name = "sensor"};
    say(SENSOR, announce, "");
    offer.endpoint_offer.groups = announce.sensor_announce.groups;
    say(SENSOR, offer, "vm");
    states_dispatch();
}

static void want_lease(enum who who, uint64_t generation) {
    struct vmibus_frame frame = to_vm(down(VMIBUS_KIND_CMD_LEASE), generation);

    frame.cmd_lease = (struct vmibus_cmd_lease){.operation = VMIBUS_LEASE_OPERATION_ACQUIRE,
                                                .lease_class = VMIBUS_LEASE_CLASS_POWER,
                                                .mode = VMIBUS_LEASE_MODE_QUEUE};
    say(who, frame, "");
    states_dispatch();
}

static void tell_lifecycle(uint64_t generation) {
    struct vmibus_frame frame = to_vm(up(VMIBUS_KIND_LIFECYCLE), generation);

    frame.lifecycle.state = VMIBUS_VM_STATE_RUNNING;
    say(SENSOR, frame, "");
    states_dispatch();
}

/*
 * A control with a subscription, a lease, events that wait and half a frame; one that waits for the lease; a sensor with a VM; a
 * newcomer.
 */
static void fill_bus(void) {
    struct vmibus_frame frame;
    uint64_t generation;

    come_to_bus(SENSOR, VMIBUS_ROLE_SENSOR);
    offer_vm();
    come_to_bus(CONTROL, VMIBUS_ROLE_CONTROL);
    frame = down(VMIBUS_KIND_SUBSCRIBE);
    frame.subscribe.kinds = EVENTS;
    say(CONTROL, frame, "*");
    states_dispatch();
    generation = generation_of_vm();
    want_lease(CONTROL, generation);
    identify(generation);
    propose_layout(generation);
    tell_lifecycle(generation);
    come_to_bus(WAITER, VMIBUS_ROLE_CONTROL);
    want_lease(WAITER, generation);
    say_half(CONTROL, down(VMIBUS_KIND_SUBSCRIBE));
    stream_open_consume_fd(&states_streams[NEWCOMER], world_connect(&now.bus));
    stream_put(&states_streams[NEWCOMER], "half a HELLO", 12, NULL, 0);
    states_dispatch();
}

/* --- vmibus-memd --------------------------------------------------------------------------------- */

static void come_to_memory(enum who who, enum vmibus_role role) {
    struct vmibus_frame hello = fuzz_hello(role, who == BUS ? VMIBUS_CHANNEL_LINK : VMIBUS_CHANNEL_MEMORY);

    if (who != BUS)
        hello.hello.session[0] = (uint8_t)who;
    stream_open_consume_fd(&states_streams[who], memory_world_connect(&now.memory));
    say(who, hello, "");
    states_dispatch();
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

static void attach(void) {
    struct vmibus_frame frame = to_vm(down(VMIBUS_KIND_MEM_ATTACH), 1);

    frame.mem_attach.epoch = STATES_EPOCH;
    say(CONTROL, frame, "");
}

struct vmibus_frame states_half_write(void) {
    const uint64_t value = STATES_WRITTEN;
    struct vmibus_frame frame = to_vm(down(VMIBUS_KIND_CMD_MEMWRITE), 1);

    frame.header.correlation = STATES_CORRELATION;
    frame.cmd_memwrite.gva = STATES_WRITTEN_AT;
    frame.cmd_memwrite.len = sizeof(value);
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_PHYSICAL;
    frame.cmd_memwrite.token = 1;
    frame.cmd_memwrite.epoch = STATES_EPOCH;
    memcpy(frame.cmd_memwrite.data, &value, sizeof(value));
    return frame;
}

/*
 * The link amidst a frame; a sensor with a VM's RAM; a control with a fence, a buffer, an attachment and half a write; one nobody
 * told of.
 */
static void fill_memory(void) {
    struct vmibus_frame frame;

    come_to_memory(BUS, VMIBUS_ROLE_BUS);
    open_session(CONTROL, VMIBUS_ROLE_CONTROL);
    open_session(SENSOR, VMIBUS_ROLE_SENSOR);
    say(BUS, to_vm(down(VMIBUS_KIND_ENDPOINT_OPENED), 1), "vm");
    frame = to_vm(down(VMIBUS_KIND_FENCE_ISSUE), 1);
    frame.fence_issue = (struct vmibus_fence_issue){.session = {CONTROL}, .token = 1, .uid = geteuid()};
    say(BUS, frame, "");
    say(BUS, down(VMIBUS_KIND_LINK_SYNCED), "");
    come_to_memory(SENSOR, VMIBUS_ROLE_SENSOR);
    identify(1);
    propose_layout(1);
    come_to_memory(CONTROL, VMIBUS_ROLE_CONTROL);
    allocate_buffer();
    attach();
    come_to_memory(NEWCOMER, VMIBUS_ROLE_CONTROL);
    frame = states_half_write();
    stream_put(&states_streams[CONTROL], &frame, STATES_HALF, NULL, 0);
    say_half(BUS, to_vm(down(VMIBUS_KIND_ENDPOINT_OPENED), 1));
    states_dispatch();
}

void states_make(enum state_of of, struct state *state) {
    open_daemon(of);
    if (of == STATE_OF_BUS)
        fill_bus();
    else
        fill_memory();
    states_save(state);
    states_close();
}
