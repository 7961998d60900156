/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: three controls and a sensor that play on one bus, each behind a socket, and time, which passes when the input says
 * so.  The input is a sequence of moves; a move is an octet that says who (its two high bits: which control, or 3: sensor, time
 * and policy) and what, and the octets that it takes as it goes.  What is demanded of the bus after each move stands in player.h and
 * playing_sensor.h; in the end nothing may be left, which the ledger of the bus asserts.
 *
 * Where the process is root, the controls are three users, of different ranks.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuzz/clock.h"
#include "fuzz/player.h"
#include "fuzz/playing_sensor.h"
#include "fuzz/target.h"
#include "fuzz/world.h"
#include "policy/policy.h"
#include "stub/stub_map.h"

#define INPUT_MAX 1024
#define PLAYERS 3
#define EVENTS (VMIBUS_KIND_BIT(VMIBUS_KIND_WATCH_CHANGED) * 2 - 1)
#define NS_PER_MS UINT64_C(1000000)

static struct world world;
static struct player players[PLAYERS];
static struct playing_sensor sensor;
static struct book book;

/* --- the input --------------------------------------------------------------------------------- */

static const uint8_t *at, *end;

static uint8_t take(void) {
    return at < end ? *at++ : 0;
}

static uint8_t take_below(uint8_t n) {
    return take() % n;
}

/* --- who is who ---------------------------------------------------------------------------------- */

static uid_t uid_of(unsigned player) {
    return geteuid() == 0 ? 1000 + player : geteuid();
}

/* A socket pair has the credentials of who makes it. Of this thread only, which setresuid(3) would not do. */
static int connect_as(uid_t uid) {
    uid_t own = geteuid();
    int fd;

    if (uid != own && syscall(SYS_setresuid, -1, uid, -1) < 0)
        fuzz_fail("peers", "there is no other user");
    fd = world_connect(&world);
    if (uid != own && syscall(SYS_setresuid, -1, own, -1) < 0)
        fuzz_fail("peers", "there is no way back");
    return fd;
}

static void add_rule(struct policy *policy, unsigned player, uint32_t capabilities, uint32_t rank, const char *endpoints) {
    struct policy_rule *rule;

    if (policy_add_rule(policy, endpoints, &rule) < 0)
        fuzz_fail("peers", "there is no rule");
    rule->subject = POLICY_USER;
    rule->id = uid_of(player);
    rule->capabilities = capabilities;
    rule->rank = rank;
    free(rule->endpoints);
    rule->endpoints = strdup(endpoints);
}

static struct policy *make_policy(uint8_t choice) {
    struct policy *policy;

    if (policy_new(&policy) < 0)
        fuzz_fail("peers", "there is no policy");
    for (unsigned i = 0; i < PLAYERS; i++) {
        if (choice >> i & 1)
            add_rule(policy, i, VMIBUS_CAP_OBSERVE, 0, "a*");
        else
            add_rule(policy, i, CAPABILITIES_ALL, (i + choice) % PLAYERS, choice & 8 ? "*a*" : "*");
    }
    if (choice & 16)
        policy->limits[RESOURCE_LEASES] = policy->limits[RESOURCE_COMMANDS] = policy->limits[RESOURCE_WATCHES] = 1;
    if (choice & 32)
        policy->limits[RESOURCE_FDS] = policy->limits[RESOURCE_SUBSCRIPTIONS] = policy->limits[RESOURCE_HOLDS] = 1;
    return policy;
}

/* --- moves of a control ------------------------------------------------------------------------------ */

static struct vmibus_frame command(enum vmibus_kind kind) {
    struct vmibus_frame frame = fuzz_frame(kind, VMIBUS_DIRECTION_DOWN);
    const struct sensor_vm *vm = &sensor.vms[take_below(SENSOR_VMS)];

    frame.header.slot = vm->slot ? vm->slot : 1;
    frame.header.generation = vm->generation;
    frame.header.timestamp = fuzz_clock_now();
    return frame;
}

/* Its own, the one it had before, or somebody else's. */
static uint64_t take_token(const struct player *player, unsigned lease_class) {
    uint8_t choice = take();

    if (choice & 2)
        player = &players[(choice >> 2) % PLAYERS];
    return player->tokens[lease_class][choice & 1];
}

static void move_connection(struct player *player) {
    if (player_is_connected(player))
        player_disconnect(player);
    else
        player_connect_consume_fd(player, connect_as(player->uid));
}

static void move_subscribe(struct player *player) {
    static const char *const patterns[] = {"*", "a*", "?-vm", "vm-[ab]"};
    struct vmibus_frame frame = fuzz_frame(VMIBUS_KIND_SUBSCRIBE, VMIBUS_DIRECTION_DOWN);
    const char *pattern = patterns[take_below(4)];
    uint8_t kinds = take();

    frame.subscribe.kinds = kinds & 0x80 ? EVENTS : kinds;
    player_give(player, &frame, pattern, strlen(pattern));
}

static void move_lease(struct player *player) {
    static const uint32_t times[] = {0, 1, 10, 1000};
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_LEASE);
    uint8_t choice = take();

    frame.cmd_lease.lease_class = (uint8_t)(1 + choice % 3);
    frame.cmd_lease.operation = (uint8_t)(1 + choice / 3 % 3);
    frame.cmd_lease.mode = (uint8_t)(1 + choice / 9 % 3);
    frame.cmd_lease.ttl_ms = times[choice / 27 % 4];
    if (frame.cmd_lease.operation != VMIBUS_LEASE_OPERATION_ACQUIRE)
        frame.cmd_lease.token = take_token(player, frame.cmd_lease.lease_class);
    player_give(player, &frame, NULL, 0);
}

static void move_input(struct player *player) {
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_INPUT);
    uint8_t choice = take();

    frame.cmd_input.token = take_token(player, VMIBUS_LEASE_CLASS_INPUT);
    frame.cmd_input.count = 1;
    frame.cmd_input.not_before_us = choice & 1 ? choice * 1000u : 0;
    frame.header.deadline_us = choice & 2 ? choice * 500u : 0;
    frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = choice >> 2 & 1};
    player_give(player, &frame, NULL, 0);
}

static void move_power(struct player *player) {
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_POWER);

    frame.cmd_power.operation = (uint8_t)(1 + take_below(4));
    frame.cmd_power.token = take_token(player, VMIBUS_LEASE_CLASS_POWER);
    player_give(player, &frame, NULL, 0);
}

static void move_vm(struct player *player) {
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_VM);

    frame.cmd_vm.operation = (uint8_t)(1 + take_below(4));
    frame.cmd_vm.token = take_token(player, VMIBUS_LEASE_CLASS_POWER);
    player_give(player, &frame, NULL, 0);
}

/* Into the buffer of a process, or where nothing can be written; never into what makes the guest one. */
static uint64_t take_address(void) {
    static const uint64_t addresses[] = {STUB_BUFFER_GVA, STUB_BUFFER_GVA + STUB_PAGE - 4, STUB_READ_ONLY_GVA,
                                         STUB_NOT_PRESENT_GVA, STUB_PAGE_OUTSIDE_GVA};

    return addresses[take_below(5)];
}

static void write_table(struct player *player, struct vmibus_frame *frame, uint8_t n) {
    struct {
        struct vmibus_write_extent extents[4];
        uint8_t octets[4][8];
    } tail = {};
    const struct vmibus_memwrite_source source = {.extents = n};

    for (unsigned i = 0; i < n; i++)
        tail.extents[i] = (struct vmibus_write_extent){.gva = take_address(), .len = 8};
    memmove(&tail.extents[n], tail.octets, 8u * n);
    frame->cmd_memwrite.flags |= VMIBUS_MEMWRITE_TABLE;
    frame->cmd_memwrite.len = 8u * n;
    memcpy(frame->cmd_memwrite.data, &source, sizeof(source));
    player_give(player, frame, &tail, n * (sizeof(tail.extents[0]) + 8));
}

static void write_buffer(struct player *player, struct vmibus_frame *frame, uint8_t number) {
    const struct vmibus_memwrite_source source = {.buffer = number};

    frame->cmd_memwrite.flags |= VMIBUS_MEMWRITE_SRC_BUFFER;
    frame->cmd_memwrite.len = 4096;
    memcpy(frame->cmd_memwrite.data, &source, sizeof(source));
    player_give(player, frame, NULL, 0);
}

static void write_payload(struct player *player, struct vmibus_frame *frame, size_t length) {
    static const uint8_t octets[4096];

    frame->cmd_memwrite.flags |= VMIBUS_MEMWRITE_SRC_PAYLOAD;
    frame->cmd_memwrite.len = (uint32_t)length;
    player_give(player, frame, octets, length);
}

static void move_memwrite(struct player *player) {
    struct vmibus_frame frame = command(VMIBUS_KIND_CMD_MEMWRITE);
    uint8_t choice = take();

    frame.cmd_memwrite = (struct vmibus_cmd_memwrite){
        .cr3 = stub_process_cr3(0, 0), .gva = take_address(), .len = 8, .epoch = player->epoch, .flags = choice & 0x38u};
    frame.cmd_memwrite.token = take_token(player, VMIBUS_LEASE_CLASS_MEMWRITE);
    if ((choice & 3) == 1)
        write_table(player, &frame, (uint8_t)(1 + (choice >> 6)));
    else if ((choice & 3) == 2)
        write_buffer(player, &frame, (uint8_t)(1 + (choice >> 6)));
    else if ((choice & 3) == 3)
        write_payload(player, &frame, choice & 4 ? 4096 : 100);
    else
        player_give(player, &frame, NULL, 0);
}

static void move_attach(struct player *player) {
    struct vmibus_frame frame = command(VMIBUS_KIND_MEM_ATTACH);
    uint8_t choice = take();

    if (choice & 1)
        frame.header.kind = VMIBUS_KIND_MEM_RELEASE;
    frame.mem_attach.epoch = choice & 3 ? player->epoch : 0;
    player_give(player, &frame, NULL, 0);
}

static void move_buffer(struct player *player) {
    struct vmibus_frame frame = fuzz_frame(VMIBUS_KIND_BUFFER, VMIBUS_DIRECTION_DOWN);
    uint8_t choice = take();

    frame.buffer.operation = choice & 1 ? VMIBUS_BUFFER_OPERATION_FREE : VMIBUS_BUFFER_OPERATION_ALLOCATE;
    frame.buffer.size = 4096u << (choice >> 1 & 3);
    frame.buffer.buffer = 1 + (choice >> 3 & 3);
    player_give(player, &frame, NULL, 0);
}

static void move_read(struct player *player) {
    struct vmibus_frame frame = command(VMIBUS_KIND_MEM_READ);
    uint8_t choice = take();

    frame.mem_read = (struct vmibus_mem_read){.cr3 = stub_process_cr3(0, 0),
                                              .gva = take_address(),
                                              .epoch = player->epoch,
                                              .len = choice & 4 ? 16384 : 64,
                                              .buffer = 1 + (choice & 3u)};
    player_give(player, &frame, NULL, 0);
}

static void move_watch(struct player *player) {
    struct vmibus_frame frame = command(VMIBUS_KIND_WATCH);
    uint8_t choice = take();

    frame.watch = (struct vmibus_watch){.address = take_address(), .len = 64, .watch = 1 + (choice >> 1 & 3u)};
    frame.watch.operation = choice & 1 ? VMIBUS_WATCH_OPERATION_REMOVE : VMIBUS_WATCH_OPERATION_ADD;
    frame.watch.epoch = choice & 8 ? player->epoch : 0;
    player_give(player, &frame, NULL, 0);
}

static void move_question(struct player *player) {
    static const enum vmibus_kind kinds[] = {VMIBUS_KIND_QUERY, VMIBUS_KIND_MEM_QUERY, VMIBUS_KIND_EXPLAIN,
                                             VMIBUS_KIND_SCREENSHOT, VMIBUS_KIND_REGISTERS, VMIBUS_KIND_CMD_MONITOR};
    enum vmibus_kind kind = kinds[take_below(6)];
    struct vmibus_frame frame = command(kind);
    uint8_t choice = take();

    if (kind == VMIBUS_KIND_EXPLAIN)
        frame.explain.uid = choice & 1 ? UINT32_MAX : choice;
    else
        frame.query.query = choice & 7; /* the first field of all of them */
    if (choice & 8)
        frame.header.slot = 0;
    player_give(player, &frame, "playing", kind == VMIBUS_KIND_EXPLAIN || kind == VMIBUS_KIND_CMD_MONITOR ? 7 : 0);
}

static void move_half(struct player *player) {
    struct vmibus_frame frame = command(VMIBUS_KIND_QUERY);

    frame.query.query = VMIBUS_QUERY_STATS;
    player_begin(player, &frame, 1 + take_below(sizeof(frame) - 1));
}

static void move_ears(struct player *player) {
    player->deaf = !player->deaf;
}

static void (*const moves[])(struct player *player) = {
    move_connection, move_subscribe, move_lease,  move_lease, move_lease, move_input, move_input, move_power, move_vm,
    move_memwrite,   move_memwrite,  move_attach, move_buffer, move_read, move_watch, move_question, move_half, move_ears,
};

/* --- moves of the sensor, of time and of the administrator --------------------------------------------- */

static void move_sensor(void) {
    if (sensor.stream.fd >= 0)
        playing_sensor_disconnect(&sensor);
    else
        playing_sensor_connect_consume_fd(&sensor, connect_as(geteuid()));
}

static void move_offer(void) {
    unsigned vm = take_below(SENSOR_VMS);

    playing_sensor_offer(&sensor, vm, take());
}

static void move_withdraw(void) {
    playing_sensor_withdraw(&sensor, take_below(SENSOR_VMS));
}

static void move_publish(void) {
    static const enum vmibus_kind kinds[] = {VMIBUS_KIND_LIFECYCLE, VMIBUS_KIND_RESOURCES, VMIBUS_KIND_PROCESS,
                                             VMIBUS_KIND_WATCH_CHANGED};
    unsigned vm = take_below(SENSOR_VMS);
    struct vmibus_frame frame = fuzz_frame(kinds[take_below(4)], VMIBUS_DIRECTION_UP);
    uint8_t choice = take();

    if (frame.header.kind == VMIBUS_KIND_LIFECYCLE)
        frame.lifecycle.state = choice % 7;
    if (frame.header.kind == VMIBUS_KIND_WATCH_CHANGED)
        frame.watch_changed = (struct vmibus_watch_changed){.epoch = sensor.vms[vm].epoch, .watch = 1 + (choice & 3u), .len = 8};
    playing_sensor_say(&sensor, vm, &frame, "changed!", frame.header.kind == VMIBUS_KIND_WATCH_CHANGED ? 8 : 0);
}

static void move_layout(void) {
    unsigned vm = take_below(SENSOR_VMS);

    playing_sensor_propose_layout(&sensor, vm, take() >> 4);
}

static void move_root(void) {
    unsigned vm = take_below(SENSOR_VMS);

    playing_sensor_propose_root(&sensor, vm, take() >> 4);
}

static void move_memory(void) {
    unsigned vm = take_below(SENSOR_VMS);
    uint8_t choice = take();
    struct vmibus_frame frame = fuzz_frame(choice & 1 ? VMIBUS_KIND_MEM_BUSY : VMIBUS_KIND_MEM_END, VMIBUS_DIRECTION_UP);

    if (choice & 1)
        frame.mem_busy = (struct vmibus_mem_busy){.busy = choice >> 1 & 1, .reason = VMIBUS_REASON_SNAPSHOT};
    else
        frame.mem_end = (struct vmibus_mem_end){.epoch = sensor.vms[vm].epoch, .reason = VMIBUS_REASON_RESET};
    playing_sensor_say(&sensor, vm, &frame, NULL, 0);
}

static void move_answer(void) {
    static const enum vmibus_error errors[] = {VMIBUS_ERROR_OK, VMIBUS_ERROR_OK, VMIBUS_ERROR_IO, VMIBUS_ERROR_UNSUPPORTED};

    playing_sensor_answer(&sensor, errors[take_below(4)]);
}

static void move_time(void) {
    static const uint64_t times[] = {1, 10, 100, 1000, 60000};

    fuzz_clock_advance(times[take_below(5)] * NS_PER_MS);
}

static void move_policy(void) {
    core_set_policy(world.core, make_policy(take()));
}

static void (*const other_moves[])(void) = {
    move_sensor, move_offer,  move_offer,  move_withdraw, move_publish, move_layout, move_layout, move_root,
    move_root,   move_memory, move_answer, move_answer,   move_answer,  move_time,   move_time,   move_policy,
};

/* --- the game ------------------------------------------------------------------------------------ */

/* The sensor first: nothing that it is sent now may have ended before. */
static void go_on(void) {
    world_dispatch(&world);
    if (sensor.stream.fd >= 0)
        playing_sensor_hear(&sensor);
    for (unsigned i = 0; i < PLAYERS; i++)
        player_hear(&players[i]);
    if (sensor.stream.ended)
        playing_sensor_disconnect(&sensor);
    for (unsigned i = 0; i < PLAYERS; i++)
        if (players[i].stream.ended)
            player_disconnect(&players[i]);
}

static void open_game(void) {
    memset(players, 0, sizeof(players));
    memset(&sensor, 0, sizeof(sensor));
    memset(&book, 0, sizeof(book));
    world_open(&world, make_policy(take()), NULL);
    sensor.book = &book;
    sensor.stream.fd = -1;
    move_sensor();
    for (unsigned i = 0; i < PLAYERS; i++) {
        players[i].book = &book;
        players[i].uid = uid_of(i);
        players[i].stream.fd = -1;
        move_connection(&players[i]);
    }
    go_on();
}

static void close_game(void) {
    for (unsigned i = 0; i < PLAYERS; i++)
        player_disconnect(&players[i]);
    world_dispatch(&world);
    playing_sensor_disconnect(&sensor);
    fuzz_clock_advance(60000 * NS_PER_MS);
    world_dispatch(&world);
    world_close(&world);
}

FUZZ_TARGET(peers) {
    if (size > INPUT_MAX)
        return -1;
    fuzz_clock_stop();
    at = data;
    end = data + size;
    open_game();
    while (at < end) {
        uint8_t move = take(), who = move >> 6, what = move & 63;

        if (who == PLAYERS)
            other_moves[what % (sizeof(other_moves) / sizeof(other_moves[0]))]();
        else
            moves[what % (sizeof(moves) / sizeof(moves[0]))](&players[who]);
        go_on();
    }
    close_game();
    return 0;
}
