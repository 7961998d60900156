/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A daemon that is started anew under its controls, by a service manager of this test: nobody is to notice.  And one that is
 * killed on the way, or finds something else than what it left: everybody is to notice, and nothing that was revoked comes back.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/manager.h"
#include "harness.h"
#include "stub/stub_map.h"

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

/* --- the daemon --------------------------------------------------------------------------------- */

/* With two VMs, the first of which says every few milliseconds that it runs. */
static void start(const struct daemon_options *more) {
    struct daemon_options options = more ? *more : (struct daemon_options){};
    size_t n = 0;

    options.notify = manager_start();
    while (options.arguments[n])
        n++;
    options.arguments[n++] = "--sensor";
    options.arguments[n++] = "stub:heartbeat_ms=2";
    daemon_start(d, &options);
    manager_await_ready(1);
}

static void finish(void) {
    daemon_stop(d);
    manager_stop();
}

/* Until its end, but for what this test has connected. */
static void end_by(int signal, int status) {
    int bystander = d->bystander;

    d->bystander = -1;
    ck_assert_int_eq(kill(d->pid, signal), 0);
    ck_assert_msg(daemon_await_exit(d) == status, "the daemon did not end as it should; it said: %s", d->log);
    d->bystander = bystander;
}

static void start_next(void) {
    unsigned before = manager_ready();

    manager_give(d);
    if (d->options.activated)
        unlink(d->path);
    daemon_respawn(d);
    if (!manager_wait_ready_or_death(d->pid, before + 1)) {
        (void)daemon_await_exit(d);
        ck_abort_msg("the daemon did not start; it said: %s", d->log);
    }
}

/* Of a daemon that began anew meanwhile: what is charged to nobody it asserts itself, as it ends. */
static void finish_another(void) {
    end_by(SIGINT, 0);
    close(d->bystander);
    daemon_remove(d);
    manager_stop();
}

static void restart(void) {
    end_by(SIGTERM, 0);
    start_next();
    ck_assert_uint_eq(manager_count("handover"), 0);
}

/* --- a control that counts ---------------------------------------------------------------------- */

struct client {
    int fd;
    uint64_t deliveries;    /* seen so far */
    uint64_t events;        /* of them, LIFECYCLE */
    uint64_t publication;   /* of the last one */
    struct wire_endpoint endpoint;
    struct vmibus_frame welcome;
};

/* Every delivery is the one after the last, and none is a gap. */
static void take(struct client *client, struct vmibus_frame *frame, void *tail) {
    ck_assert_msg(wire_receive(client->fd, frame, tail), "the connection ended; the daemon said: %s", d->log);
    ck_assert_uint_eq(frame->header.delivery, ++client->deliveries);
    ck_assert_uint_ne(frame->header.kind, VMIBUS_KIND_GAP);
    ck_assert_uint_ne(frame->header.kind, VMIBUS_KIND_MEMCTX_INVALIDATED);
    if (frame->header.kind == VMIBUS_KIND_ROSTER)
        ck_assert_uint_ne(frame->roster.change, VMIBUS_ROSTER_CHANGE_REMOVED);
    if (frame->header.slot == client->endpoint.slot && frame->header.publication && client->endpoint.slot) {
        ck_assert_uint_gt(frame->header.publication, client->publication);
        client->publication = frame->header.publication;
    }
    client->events += frame->header.kind == VMIBUS_KIND_LIFECYCLE;
}

static struct vmibus_ack answer_to(struct client *client, uint64_t correlation) {
    struct vmibus_frame frame;

    do
        take(client, &frame, NULL);
    while (frame.header.kind != VMIBUS_KIND_ACK || frame.header.correlation != correlation);
    return frame.ack;
}

static struct vmibus_ack ask(struct client *client, struct vmibus_frame *command, const void *tail, size_t length) {
    ck_assert(wire_send(client->fd, command, tail, length));
    return answer_to(client, command->header.correlation);
}

static void subscribe(struct client *client) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);

    frame.subscribe.kinds = VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE) |
                            VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED) |
                            VMIBUS_KIND_BIT(VMIBUS_KIND_LEASE);
    ck_assert_uint_eq(ask(client, &frame, "stub-0", 6).error, VMIBUS_ERROR_OK);
}

static struct client connect_client(void) {
    struct client client = {};
    int finder = wire_open(d->path, NULL);
    const struct wire_endpoint endpoint = wire_find(finder, "stub-0");

    close(finder);
    client.fd = wire_open(d->path, &client.welcome);
    client.deliveries = 1;
    subscribe(&client);
    client.endpoint = endpoint;
    return client;
}

static uint64_t acquire(struct client *client, enum vmibus_lease_class lease_class) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, &client->endpoint);
    struct vmibus_ack ack;

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
    ack = ask(client, &frame, NULL, 0);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    return ack.token;
}

static struct vmibus_ack renew(struct client *client, enum vmibus_lease_class lease_class, uint64_t token) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, &client->endpoint);

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RENEW;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.token = token;
    return ask(client, &frame, NULL, 0);
}

static struct vmibus_ack release(struct client *client, enum vmibus_lease_class lease_class, uint64_t token) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, &client->endpoint);

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RELEASE;
    frame.cmd_lease.lease_class = (uint8_t)lease_class;
    frame.cmd_lease.token = token;
    return ask(client, &frame, NULL, 0);
}

static struct vmibus_frame memwrite(const struct client *client, uint64_t token, uint64_t value) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_MEMWRITE, &client->endpoint);

    frame.cmd_memwrite.gva = STUB_FREE_GPA;
    frame.cmd_memwrite.len = sizeof(value);
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_PHYSICAL;
    frame.cmd_memwrite.token = token;
    frame.cmd_memwrite.epoch = client->endpoint.epoch;
    memcpy(frame.cmd_memwrite.data, &value, sizeof(value));
    return frame;
}

/* The RAM, and the epoch page. */
static void attach(struct client *client, int *ram, int *page) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &client->endpoint);
    int fds[VMIBUS_FDS_PER_FRAME];
    size_t n;

    frame.mem_attach.epoch = client->endpoint.epoch;
    wire_keep_fds(fds, &n);
    ck_assert_uint_eq(ask(client, &frame, NULL, 0).error, VMIBUS_ERROR_OK);
    wire_keep_fds(NULL, NULL);
    ck_assert_uint_eq(n, 2);
    *ram = fds[0];
    *page = fds[1];
}

static int allocate_buffer(struct client *client, uint32_t *number) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_BUFFER);
    int fds[VMIBUS_FDS_PER_FRAME];
    struct vmibus_ack ack;
    size_t n;

    frame.buffer.operation = VMIBUS_BUFFER_OPERATION_ALLOCATE;
    frame.buffer.size = 4096;
    wire_keep_fds(fds, &n);
    ack = ask(client, &frame, NULL, 0);
    wire_keep_fds(NULL, NULL);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(n, 1);
    *number = (uint32_t)ack.value;
    return fds[0];
}

/* --- nobody notices ----------------------------------------------------------------------------- */

/* Everything that a control can have, over one restart after another. */
struct scene {
    struct client holder, waiter, reader;
    uint64_t power, memwrite;
    uint64_t queued;                    /* correlation of the waiter's command */
    int ram, page_fd, buffer_fd;
    uint32_t buffer;
    const volatile struct vmibus_epoch_page *page;
    uint64_t value;
};

static void queue_waiter(struct scene *scene) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, &scene->waiter.endpoint);

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_POWER;
    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_QUEUE;
    ck_assert(wire_send(scene->waiter.fd, &frame, NULL, 0));
    scene->queued = frame.header.correlation;
}

static void set_scene(struct scene *scene) {
    *scene = (struct scene){.holder = connect_client(), .waiter = connect_client(), .reader = connect_client(), .value = 1};
    scene->power = acquire(&scene->holder, VMIBUS_LEASE_CLASS_POWER);
    scene->memwrite = acquire(&scene->holder, VMIBUS_LEASE_CLASS_MEMWRITE);
    queue_waiter(scene);
    attach(&scene->reader, &scene->ram, &scene->page_fd);
    scene->page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, scene->page_fd, 0);
    ck_assert_ptr_ne((void *)scene->page, MAP_FAILED);
    scene->buffer_fd = allocate_buffer(&scene->holder, &scene->buffer);
}

static void end_scene(struct scene *scene) {
    munmap((void *)scene->page, 4096);
    close(scene->page_fd);
    close(scene->ram);
    close(scene->buffer_fd);
    close(scene->holder.fd);
    close(scene->waiter.fd);
    close(scene->reader.fd);
}

/* A write whose source is in the buffer. */
static void write_from_buffer(struct scene *scene) {
    struct vmibus_frame frame = memwrite(&scene->holder, scene->memwrite, 0);
    const struct vmibus_memwrite_source source = {.buffer = scene->buffer};
    uint64_t value = ++scene->value, seen = 0;

    ck_assert_int_eq(pwrite(scene->buffer_fd, &value, sizeof(value), 0), sizeof(value));
    frame.cmd_memwrite.flags |= VMIBUS_MEMWRITE_SRC_BUFFER;
    memcpy(frame.cmd_memwrite.data, &source, sizeof(source));
    ck_assert_uint_eq(ask(&scene->holder, &frame, NULL, 0).error, VMIBUS_ERROR_OK);
    ck_assert_int_eq(pread(scene->ram, &seen, sizeof(seen), STUB_FREE_GPA), sizeof(seen));
    ck_assert_uint_eq(seen, value);
}

/* Half of a write with a tail is sent before the restart, the rest after it. */
static void send_half(struct scene *scene, struct vmibus_frame *frame, const uint8_t *tail, size_t length, size_t half) {
    *frame = memwrite(&scene->holder, scene->memwrite, 0);
    frame->cmd_memwrite.len = (uint32_t)length;
    frame->cmd_memwrite.flags |= VMIBUS_MEMWRITE_SRC_PAYLOAD;
    frame->header.tail_length = (uint32_t)length;
    if (half < sizeof(*frame)) {
        ck_assert(wire_write(scene->holder.fd, frame, half));
    } else {
        ck_assert(wire_write(scene->holder.fd, frame, sizeof(*frame)));
        ck_assert(wire_write(scene->holder.fd, tail, half - sizeof(*frame)));
    }
}

static void send_rest(struct scene *scene, const struct vmibus_frame *frame, const uint8_t *tail, size_t length, size_t half) {
    if (half < sizeof(*frame)) {
        ck_assert(wire_write(scene->holder.fd, (const uint8_t *)frame + half, sizeof(*frame) - half));
        half = sizeof(*frame);
    }
    ck_assert(wire_write(scene->holder.fd, tail + (half - sizeof(*frame)), length - (half - sizeof(*frame))));
    ck_assert_uint_eq(answer_to(&scene->holder, frame->header.correlation).error, VMIBUS_ERROR_OK);
}

static void check_scene(struct scene *scene) {
    struct vmibus_frame frame;
    uint64_t seen;

    ck_assert_uint_eq(renew(&scene->holder, VMIBUS_LEASE_CLASS_POWER, scene->power).error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(scene->page->epoch, scene->holder.endpoint.epoch);
    frame = memwrite(&scene->holder, scene->memwrite, ++scene->value);
    ck_assert_uint_eq(ask(&scene->holder, &frame, NULL, 0).error, VMIBUS_ERROR_OK);
    ck_assert_int_eq(pread(scene->ram, &seen, sizeof(seen), STUB_FREE_GPA), sizeof(seen));
    ck_assert_uint_eq(seen, scene->value);
    write_from_buffer(scene);
    frame = wire_frame(VMIBUS_KIND_QUERY);
    frame.query.query = VMIBUS_QUERY_STATS;
    ck_assert_uint_eq(ask(&scene->reader, &frame, NULL, 0).error, VMIBUS_ERROR_OK);
}

/* The waiter gets what the holder lets go, and the other way round. */
static void pass_lease(struct scene *scene) {
    struct vmibus_ack ack;

    ck_assert_uint_eq(release(&scene->holder, VMIBUS_LEASE_CLASS_POWER, scene->power).error, VMIBUS_ERROR_OK);
    ack = answer_to(&scene->waiter, scene->queued);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_gt(ack.token, scene->power);
    ck_assert_uint_eq(renew(&scene->holder, VMIBUS_LEASE_CLASS_POWER, scene->power).error, VMIBUS_ERROR_STALE_TOKEN);
    ck_assert_uint_eq(release(&scene->waiter, VMIBUS_LEASE_CLASS_POWER, ack.token).error, VMIBUS_ERROR_OK);
    scene->power = acquire(&scene->holder, VMIBUS_LEASE_CLASS_POWER);
    ck_assert_uint_gt(scene->power, ack.token);
    queue_waiter(scene);
}

static void restart_often(unsigned n, bool activated) {
    const struct daemon_options options = {.activated = activated};
    static uint8_t tail[40000];
    uint64_t events;
    struct scene scene;

    start(&options);
    set_scene(&scene);
    events = scene.reader.events;
    for (unsigned i = 0; i < n; i++) {
        static const size_t halves[] = {1, 100, 127, 128, 129, 2000, 4000, 30000};
        size_t half = halves[i % 8], length = half > 3000 ? sizeof(tail) : 3000;
        struct vmibus_frame frame, welcome;
        int late;

        memset(tail, (int)i, sizeof(tail));
        send_half(&scene, &frame, tail, length, half);
        restart();
        send_rest(&scene, &frame, tail, length, half);
        check_scene(&scene);
        pass_lease(&scene);
        late = wire_open(d->path, &welcome);
        ck_assert_uint_eq(welcome.welcome.incarnation, scene.holder.welcome.welcome.incarnation);
        close(late);
    }
    ck_assert_uint_gt(scene.reader.events, events);
    end_scene(&scene);
    finish();
}

TEST(test_p07_nobody_notices_restarts, .timeout = 300, .iterations = 2) {
    restart_often(5, _i == 1);
}

TEST(test_p07_nobody_notices_a_hundred_restarts, .timeout = 1800, .full = true) {
    restart_often(100, false);
}

/* One that reads nothing has all that fits into its queue afterwards, in order, and then the gap that there was without a restart. */
TEST(test_p07_what_waits_is_delivered_after_the_restart, .timeout = 120) {
    const int small = 4096;
    struct vmibus_frame frame, query = wire_frame(VMIBUS_KIND_QUERY);
    struct client slow;

    start(NULL);
    slow = connect_client();
    ck_assert_int_eq(setsockopt(slow.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t waits = wire_counter(d->bystander, VMIBUS_COUNTER_EVENT_BLOCKS);

        while (wire_counter(d->bystander, VMIBUS_COUNTER_EVENT_BLOCKS) < waits + 100)
            ;
        restart();
        ck_assert_uint_ge(wire_counter(d->bystander, VMIBUS_COUNTER_EVENT_BLOCKS), waits + 100);
    }
    query.query.query = VMIBUS_QUERY_STATS;
    ck_assert_uint_eq(ask(&slow, &query, NULL, 0).error, VMIBUS_ERROR_OK);
    for (unsigned i = 0; i < 100; i++)
        take(&slow, &frame, NULL);
    close(slow.fd);
    finish();
}


/* --- what is half done -------------------------------------------------------------------------- */

/* Descriptors that are on their way arrive, behind what waited before them. */
TEST(descriptors_on_their_way_arrive, .timeout = 120) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_MEM_ATTACH);
    int fds[VMIBUS_FDS_PER_FRAME];
    const int small = 4096;
    struct client slow;
    size_t n;

    start(NULL);
    slow = connect_client();
    ck_assert_int_eq(setsockopt(slow.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    while (wire_counter(d->bystander, VMIBUS_COUNTER_EVENT_BLOCKS) < 200)
        ;
    frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &slow.endpoint);
    frame.mem_attach.epoch = slow.endpoint.epoch;
    ck_assert(wire_send(slow.fd, &frame, NULL, 0));
    while (wire_counter(d->bystander, VMIBUS_COUNTER_ATTACHMENTS) == 0)
        ;
    restart();
    restart();
    ck_assert_uint_eq(wire_counter(d->bystander, VMIBUS_COUNTER_ATTACHMENTS), 1);
    wire_keep_fds(fds, &n);
    ck_assert_uint_eq(answer_to(&slow, frame.header.correlation).error, VMIBUS_ERROR_OK);
    wire_keep_fds(NULL, NULL);
    ck_assert_uint_eq(n, 2);
    ck_assert_int_gt(lseek(fds[0], 0, SEEK_END), 0);
    close(fds[0]);
    close(fds[1]);
    close(slow.fd);
    finish();
}

/* What is said while there is no daemon is not late, however long that takes: a HELLO, the other half of a frame. */
TEST(test_p07_nobody_is_late_by_a_restart, .timeout = 120, .full = true) {
    const struct daemon_options options = {.config = "[daemon]\nhello-timeout-ms = 3000\nframe-timeout-ms = 3000\n"};
    struct vmibus_frame hello = wire_hello(), query = wire_frame(VMIBUS_KIND_QUERY);
    uint64_t connected;
    int fresh, half;

    start(&options);
    half = wire_open(d->path, NULL);
    query.query.query = VMIBUS_QUERY_STATS;
    ck_assert(wire_write(half, &query, 50));
    connected = wire_counter(d->bystander, VMIBUS_COUNTER_CONNECTIONS);
    fresh = wire_connect(d->path);
    while (wire_counter(d->bystander, VMIBUS_COUNTER_CONNECTIONS) == connected)
        ;
    end_by(SIGTERM, 0);
    ck_assert(wire_write(half, (const uint8_t *)&query + 50, sizeof(query) - 50));
    ck_assert(wire_write(fresh, &hello, sizeof(hello)));
    ck_assert_int_eq(poll(NULL, 0, 3000), 0); /* both are due */
    start_next();
    ck_assert_uint_eq(wire_await(fresh, VMIBUS_KIND_WELCOME).header.kind, VMIBUS_KIND_WELCOME);
    ck_assert_uint_eq(wire_answer(half, query.header.correlation, NULL).ack.error, VMIBUS_ERROR_OK);
    close(fresh);
    close(half);
    finish();
}

static struct vmibus_frame reset_command(const struct client *client, uint64_t token) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_VM, &client->endpoint);

    frame.cmd_vm.token = token;
    frame.cmd_vm.operation = VMIBUS_VM_OPERATION_PAUSE;
    return frame;
}

/* What a sensor can finish is finished before; what it cannot is answered, and the class is free. */
TEST(command_at_a_sensor_is_finished_or_answered, .timeout = 120, .iterations = 2) {
    const struct daemon_options options = {
        .config = "[daemon]\nhandover-timeout-ms = 500\n",
        .arguments = {"--sensor", _i ? "stub:execute=hang" : "stub:execute=slow", "--sensor", "stub:execute_ms=100"},
    };
    struct vmibus_frame frame;
    struct vmibus_ack ack;
    struct client client;
    uint64_t token;

    start(&options);
    client = connect_client();
    token = acquire(&client, VMIBUS_LEASE_CLASS_POWER);
    frame = reset_command(&client, token);
    ck_assert(wire_send(client.fd, &frame, NULL, 0));
    while (wire_counter(d->bystander, VMIBUS_COUNTER_COMMANDS_IN_FLIGHT) == 0 && _i)
        ;
    restart();
    ack = answer_to(&client, frame.header.correlation);
    if (_i) {
        ck_assert_uint_eq(ack.error, VMIBUS_ERROR_GONE);
        ck_assert_uint_eq(ack.reason, VMIBUS_REASON_RESTARTED);
    } else {
        ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    }
    ck_assert_uint_eq(release(&client, VMIBUS_LEASE_CLASS_POWER, token).error, VMIBUS_ERROR_OK);
    ck_assert_uint_gt(acquire(&client, VMIBUS_LEASE_CLASS_POWER), token);
    close(client.fd);
    finish();
}

static uint64_t now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Input that is to be applied later is applied after the restart, at its time. */
TEST(command_that_waits_for_its_time_goes_on_waiting, .timeout = 120) {
    struct vmibus_frame frame;
    struct client client;
    uint64_t token;

    start(NULL);
    client = connect_client();
    token = acquire(&client, VMIBUS_LEASE_CLASS_INPUT);
    frame = wire_command(VMIBUS_KIND_CMD_INPUT, &client.endpoint);
    frame.cmd_input.token = token;
    frame.cmd_input.not_before_us = 1500000;
    frame.header.timestamp = now();
    frame.cmd_input.count = 1;
    frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = 1};
    ck_assert(wire_send(client.fd, &frame, NULL, 0));
    ck_assert_uint_eq(renew(&client, VMIBUS_LEASE_CLASS_INPUT, token).error, VMIBUS_ERROR_OK);
    restart();
    ck_assert_uint_eq(renew(&client, VMIBUS_LEASE_CLASS_INPUT, token).error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(answer_to(&client, frame.header.correlation).error, VMIBUS_ERROR_OK);
    close(client.fd);
    finish();
}

/* --- what sensors keep -------------------------------------------------------------------------- */

static struct stub_input_header read_input(int ram) {
    struct stub_input_header header;

    ck_assert_int_eq(pread(ram, &header, sizeof(header), STUB_INPUT_GPA), sizeof(header));
    return header;
}

TEST(test_p05_key_stays_down_until_its_holder_goes, .timeout = 120) {
    struct client client, reader;
    struct vmibus_frame frame;
    uint64_t token;
    int ram, page;

    start(NULL);
    client = connect_client();
    reader = connect_client();
    attach(&reader, &ram, &page);
    token = acquire(&client, VMIBUS_LEASE_CLASS_INPUT);
    frame = wire_command(VMIBUS_KIND_CMD_INPUT, &client.endpoint);
    frame.cmd_input.token = token;
    frame.cmd_input.count = 1;
    frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = 1};
    ck_assert_uint_eq(ask(&client, &frame, NULL, 0).error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(read_input(ram).held, 1);
    for (int i = 0; i < 3; i++)
        restart();
    ck_assert_uint_eq(read_input(ram).held, 1);
    ck_assert_uint_eq(read_input(ram).released, 0);
    close(client.fd);
    (void)wire_acquire(d->bystander, &client.endpoint, VMIBUS_LEASE_CLASS_INPUT);
    ck_assert_uint_eq(read_input(ram).held, 0);
    ck_assert_uint_eq(read_input(ram).released, 1);
    frame = wire_command(VMIBUS_KIND_CMD_LEASE, &reader.endpoint);
    close(ram);
    close(page);
    close(reader.fd);
    close(d->bystander);
    d->bystander = wire_open(d->path, NULL);
    finish();
}

static struct vmibus_ack hold(struct client *client, enum vmibus_vm_operation operation) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_VM, &client->endpoint);

    frame.cmd_vm.operation = (uint8_t)operation;
    return ask(client, &frame, NULL, 0);
}

/* A guest that is held still stays so, and goes on when its holder lets go or is gone. */
TEST(test_p11_guest_is_held_over_a_restart, .timeout = 120, .iterations = 2) {
    struct vmibus_frame frame;
    struct client client;

    start(NULL);
    client = connect_client();
    ck_assert_uint_eq(hold(&client, VMIBUS_VM_OPERATION_HOLD).error, VMIBUS_ERROR_OK);
    restart();
    restart();
    do
        take(&client, &frame, NULL);
    while (frame.header.kind != VMIBUS_KIND_LIFECYCLE);
    if (_i == 0) {
        struct vmibus_ack ack = hold(&client, VMIBUS_VM_OPERATION_LET_GO);

        ck_assert_msg(ack.error == VMIBUS_ERROR_OK, "error %u, reason %u", ack.error, ack.reason);
        do
            take(&client, &frame, NULL);
        while (frame.header.kind != VMIBUS_KIND_LIFECYCLE || frame.lifecycle.state != VMIBUS_VM_STATE_RUNNING);
        close(client.fd);
    } else {
        struct client other = connect_client();

        close(client.fd);
        do
            take(&other, &frame, NULL);
        while (frame.header.kind != VMIBUS_KIND_LIFECYCLE || frame.lifecycle.state != VMIBUS_VM_STATE_RUNNING);
        close(other.fd);
    }
    finish();
}

TEST(watch_goes_on_after_a_restart, .timeout = 120) {
    struct vmibus_frame frame;
    struct client client;
    struct vmibus_ack ack;
    uint64_t token;
    uint32_t number;

    start(NULL);
    client = connect_client();
    token = acquire(&client, VMIBUS_LEASE_CLASS_MEMWRITE);
    frame = wire_command(VMIBUS_KIND_WATCH, &client.endpoint);
    frame.watch.operation = VMIBUS_WATCH_OPERATION_ADD;
    frame.watch.address = STUB_FREE_GPA;
    frame.watch.len = 8;
    frame.watch.flags = VMIBUS_WATCH_PHYSICAL;
    ack = ask(&client, &frame, NULL, 0);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    number = (uint32_t)ack.value;
    for (uint64_t i = 1; i <= 3; i++) {
        restart();
        frame = memwrite(&client, token, i);
        ck_assert_uint_eq(ask(&client, &frame, NULL, 0).error, VMIBUS_ERROR_OK);
        do
            take(&client, &frame, NULL);
        while (frame.header.kind != VMIBUS_KIND_WATCH_CHANGED);
        ck_assert_uint_eq(frame.watch_changed.watch, number);
        ck_assert_uint_eq(frame.watch_changed.flags & VMIBUS_WATCH_CHANGE_ENDED, 0);
    }
    frame = wire_command(VMIBUS_KIND_WATCH, &client.endpoint);
    frame.watch.operation = VMIBUS_WATCH_OPERATION_REMOVE;
    frame.watch.watch = number;
    ck_assert_uint_eq(ask(&client, &frame, NULL, 0).error, VMIBUS_ERROR_OK);
    close(client.fd);
    finish();
}

/* A VM that its sensor does not offer again goes; the others stay. */
TEST(vm_that_is_not_offered_again_goes, .timeout = 120, .full = true) {
    struct vmibus_frame frame;
    struct client client;
    int fd;

    start(NULL);
    client = connect_client();
    fd = wire_open(d->path, NULL);
    (void)wire_find(fd, "stub-1");
    d->options.arguments[0] = "--stub=1";
    d->options.arguments[1] = NULL;
    d->options.unready = true;
    restart();
    do
        ck_assert(wire_receive(fd, &frame, NULL));
    while (frame.header.kind != VMIBUS_KIND_ROSTER || frame.roster.change != VMIBUS_ROSTER_CHANGE_REMOVED);
    ck_assert_uint_eq(frame.roster.reason, VMIBUS_REASON_RESTARTED);
    frame = wire_frame(VMIBUS_KIND_QUERY);
    frame.query.query = VMIBUS_QUERY_STATS;
    ck_assert_uint_eq(ask(&client, &frame, NULL, 0).error, VMIBUS_ERROR_OK);
    close(client.fd);
    close(fd);
    end_by(SIGINT, 0);
    close(d->bystander);
    daemon_remove(d);
    manager_stop();
}

/* --- all, or a fresh start ---------------------------------------------------------------------- */

/* What a control had before a daemon ended. */
struct before {
    struct client client;
    uint64_t token;
    int ram, page_fd;
    const volatile struct vmibus_epoch_page *page;
};

static void note_before(struct before *before) {
    before->client = connect_client();
    before->token = acquire(&before->client, VMIBUS_LEASE_CLASS_MEMWRITE);
    attach(&before->client, &before->ram, &before->page_fd);
    before->page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, before->page_fd, 0);
    ck_assert_ptr_ne((void *)before->page, MAP_FAILED);
}

static void forget_before(struct before *before) {
    munmap((void *)before->page, 4096);
    close(before->page_fd);
    close(before->ram);
    close(before->client.fd);
}

/* Whether the connection is still there, with all that it had; or else that nothing of it is. */
static bool all_or_nothing(struct before *before) {
    struct vmibus_frame frame = memwrite(&before->client, before->token, 77), last = {};
    struct client again;
    bool alive = wire_send(before->client.fd, &frame, NULL, 0), answered = false;

    while (alive && !answered) {
        alive = wire_receive(before->client.fd, &last, NULL);
        answered = alive && last.header.kind == VMIBUS_KIND_ACK && last.header.correlation == frame.header.correlation;
    }
    if (answered) {
        ck_assert_uint_eq(last.ack.error, VMIBUS_ERROR_OK);
        ck_assert_uint_eq(before->page->epoch, before->client.endpoint.epoch);
        return true;
    }
    again = connect_client();
    ck_assert_uint_gt(again.welcome.welcome.incarnation, before->client.welcome.welcome.incarnation);
    ck_assert_uint_ne(before->page->epoch, before->client.endpoint.epoch);
    ck_assert_uint_gt(again.endpoint.epoch, before->client.endpoint.epoch);
    frame = memwrite(&again, before->token, 78);
    ck_assert_uint_ne(ask(&again, &frame, NULL, 0).error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(renew(&again, VMIBUS_LEASE_CLASS_MEMWRITE, before->token).error, VMIBUS_ERROR_STALE_TOKEN);
    ck_assert_uint_gt(acquire(&again, VMIBUS_LEASE_CLASS_MEMWRITE), before->token);
    close(again.fd);
    return false;
}

static int await_end(void) {
    int status;

    close(d->bystander);
    d->bystander = -1;
    status = daemon_await_exit(d);
    manager_kill_after(0, 0);
    return status;
}

/* The daemon is killed at each thing that it says to the manager, first of those by which it hands over, then of the start. */
TEST(test_p05_killed_while_it_hands_over, .timeout = 300) {
    unsigned n_taken = 0, n_fresh = 0;
    bool done = false;

    start(NULL);
    for (unsigned i = 1; !done; i++) {
        struct before before;

        note_before(&before);
        manager_sync();
        manager_kill_after(d->pid, i);
        ck_assert_int_eq(kill(d->pid, SIGTERM), 0);
        done = await_end() == 0;
        start_next();
        if (all_or_nothing(&before))
            n_taken++;
        else
            n_fresh++;
        forget_before(&before);
        d->bystander = wire_open(d->path, NULL);
    }
    /* At whichever of its words: until the last, nothing is handed over. */
    ck_assert_uint_gt(n_fresh, 5);
    ck_assert_uint_ge(n_taken, 1);
    finish_another();
}

TEST(test_p05_killed_while_it_takes_over, .timeout = 300) {
    unsigned n_taken = 0, n_fresh = 0, n_ready;
    bool done = false;

    start(NULL);
    for (unsigned i = 1; !done; i++) {
        struct before before;
        int status = 0;

        note_before(&before);
        close(d->bystander);
        d->bystander = -1;
        end_by(SIGTERM, 0);
        n_ready = manager_ready();
        manager_give(d);
        manager_kill_after(0, 0);
        daemon_respawn(d);
        manager_kill_after(d->pid, i);
        if (manager_wait_ready_or_death(d->pid, n_ready + 1)) {
            manager_kill_after(0, 0);
            done = true;
        } else {
            status = await_end();
            ck_assert_int_eq(status, 128 + SIGKILL);
            start_next();
        }
        if (all_or_nothing(&before))
            n_taken++;
        else
            n_fresh++;
        forget_before(&before);
        d->bystander = wire_open(d->path, NULL);
    }
    ck_assert_uint_ge(n_fresh, 1);
    ck_assert_uint_ge(n_taken, 1);
    finish_another();
}

/* At any moment, whatever it is doing. */
TEST(test_p05_killed_at_any_moment, .timeout = 600) {
    unsigned n = harness_is_full() ? 200 : 20;

    start(NULL);
    for (unsigned i = 0; i < n; i++) {
        struct before before;
        struct timespec pause = {.tv_nsec = (long)(i * 7919 % 40) * 250000};

        note_before(&before);
        ck_assert_int_eq(kill(d->pid, SIGTERM), 0);
        nanosleep(&pause, NULL); /* whichever moment that is */
        kill(d->pid, SIGKILL);
        (void)await_end();
        start_next();
        (void)all_or_nothing(&before);
        forget_before(&before);
        d->bystander = wire_open(d->path, NULL);
    }
    finish_another();
}

/* The manager gives again what was taken already, as it does if the daemon dies before it could say that it has it. */
TEST(test_p05_state_is_taken_once, .timeout = 120) {
    struct before before;

    start(NULL);
    note_before(&before);
    end_by(SIGTERM, 0);
    manager_sync();
    manager_copy();
    start_next();
    ck_assert(all_or_nothing(&before));
    close(d->bystander);
    d->bystander = -1;
    end_by(SIGKILL, 128 + SIGKILL);
    manager_put_back();
    start_next();
    daemon_await_log(d, "is not taken");
    ck_assert(!all_or_nothing(&before));
    forget_before(&before);
    d->bystander = wire_open(d->path, NULL);
    finish_another();
}

/* Without somebody who keeps it the daemon ends as ever. */
TEST(test_p10_manager_that_keeps_nothing, .timeout = 120, .iterations = 2) {
    const struct daemon_options options = {.config = "[daemon]\nhandover-timeout-ms = 200\n"};
    struct before before;

    start(&options);
    note_before(&before);
    manager_sync();
    manager_refuse(_i == 0, _i == 0 ? -1 : 0);
    end_by(SIGTERM, 0);
    manager_refuse(false, -1);
    start_next();
    ck_assert(!all_or_nothing(&before));
    forget_before(&before);
    close(d->bystander);
    d->bystander = wire_open(d->path, NULL);
    finish_another();
}

/* --- a state that is none ----------------------------------------------------------------------- */

static int sealed(const uint8_t *octets, size_t size, bool seal) {
    int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    ck_assert_int_eq(write(fd, octets, size), size);
    if (seal)
        ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL), 0);
    return fd;
}

enum damage {
    NOT_SEALED,
    ONE_BIT,
    CUT,
    EMPTY,
    NO_STATE,
    NO_DESCRIPTOR,
    OTHER_DESCRIPTOR,
    OTHER_TOKEN,
    NO_TOKEN,
    OTHER_INCARNATION,
    DAMAGES,
};

static void damage(enum damage how) {
    int state = manager_find("handover"), fd = -1;
    struct stat st;
    uint8_t *octets;
    char path[128];

    ck_assert_int_ge(state, 0);
    ck_assert_int_eq(fstat(state, &st), 0);
    octets = malloc((size_t)st.st_size);
    ck_assert_int_eq(pread(state, octets, (size_t)st.st_size, 0), st.st_size);
    switch (how) {
    case NOT_SEALED:
        fd = sealed(octets, (size_t)st.st_size, false);
        break;
    case ONE_BIT:
        octets[st.st_size / 2] ^= 1;
        fd = sealed(octets, (size_t)st.st_size, true);
        break;
    case CUT:
        fd = sealed(octets, (size_t)st.st_size / 2, true);
        break;
    case EMPTY:
        fd = sealed(octets, 0, true);
        break;
    case NO_STATE:
        manager_drop("handover");
        break;
    case NO_DESCRIPTOR:
        manager_drop("handover-1");
        break;
    case OTHER_DESCRIPTOR:
        for (unsigned i = 0; i < 3; i++) {
            snprintf(path, sizeof(path), "handover-%u", i);
            fd = open("/dev/null", O_RDWR | O_CLOEXEC);
            manager_replace(path, fd);
            close(fd);
        }
        fd = -1;
        break;
    case OTHER_TOKEN:
        daemon_write_file(d, "state/handover", "0123456789abcdef");
        break;
    case NO_TOKEN:
        snprintf(path, sizeof(path), "%s/state/handover", d->directory);
        ck_assert_int_eq(unlink(path), 0);
        break;
    case OTHER_INCARNATION:
        daemon_write_file(d, "state/incarnation", "1000\n");
        break;
    case DAMAGES:
        break;
    }
    if (fd >= 0) {
        manager_replace("handover", fd);
        close(fd);
    }
    free(octets);
}

TEST(test_p12_state_that_is_wrong_is_not_taken, .timeout = 120, .iterations = DAMAGES) {
    struct before before;

    start(NULL);
    note_before(&before);
    end_by(SIGTERM, 0);
    damage((enum damage)_i);
    start_next();
    daemon_await_log(d, "is not taken");
    ck_assert_uint_eq(manager_count("handover"), 0);
    ck_assert(!all_or_nothing(&before));
    forget_before(&before);
    close(d->bystander);
    d->bystander = wire_open(d->path, NULL);
    /* It hands over itself, afterwards. */
    note_before(&before);
    restart();
    ck_assert(all_or_nothing(&before));
    forget_before(&before);
    finish_another();
}

/* --- another configuration ---------------------------------------------------------------------- */

#define ROOT_MAY(capabilities) \
    "[rule root]\nuser = root\nendpoints = *\ncapabilities = " capabilities "\n"

/* What the next daemon's policy does not allow ends with the restart, and is told. */
TEST(test_p01_policy_of_the_next_daemon_counts, .timeout = 120) {
    struct vmibus_frame frame;
    struct client client;
    uint64_t token;

    if (geteuid() != 0)
        test_skip("needs root");
    start(NULL);
    client = connect_client();
    token = acquire(&client, VMIBUS_LEASE_CLASS_POWER);
    daemon_write_file(d, "vmibusd.conf", ROOT_MAY("observe memctx stats"));
    restart();
    do
        ck_assert(wire_receive(client.fd, &frame, NULL));
    while (frame.header.kind != VMIBUS_KIND_LEASE || frame.lease.state == VMIBUS_LEASE_STATE_HELD);
    ck_assert_uint_eq(frame.lease.reason, VMIBUS_REASON_NO_CAPABILITY);
    client.deliveries = frame.header.delivery;
    ck_assert_uint_ne(renew(&client, VMIBUS_LEASE_CLASS_POWER, token).error, VMIBUS_ERROR_OK);
    close(client.fd);
    finish();
}

HARNESS_SUITE("restarts", HARNESS_QUICK)
