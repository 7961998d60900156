/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A sensor behind a socket, made of octets: what it may say, and that one which lies, floods or falls silent hurts only itself. */
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

#define GROUPS (VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER | VMIBUS_GROUP_INPUT | VMIBUS_GROUP_SCREEN)

/* The sensor is given little, so that each bound is soon met. */
static const struct daemon_options little = {
    .config = "[daemon]\n"
              "commands = 16\n"
              "sensor-endpoints = 3\n"
              "sensor-answer-timeout-ms = 600000\n"
              "[limits]\n"
              "commands = 8192\n"
              "[limits-total]\n"
              "commands = 16384\n",
};

/* Of tails that come in parts, a user's peers gather one at a time. */
static const struct daemon_options forgetful = {
    .config = "[daemon]\n"
              "commands = 16\n"
              "[limits]\n"
              "commands = 8192\n"
              "tails = 1\n"
              "[limits-total]\n"
              "commands = 16384\n",
};

static const struct daemon_options impatient = {
    .config = "[daemon]\n"
              "sensor-answer-timeout-ms = 100\n",
};

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

static void start_little(void) {
    daemon_start(d, &little);
}

static void start_forgetful(void) {
    daemon_start(d, &forgetful);
}

static void start_impatient(void) {
    daemon_start(d, &impatient);
}

/* That the bystander is served, and nothing is left charged. */
static void stop(void) {
    daemon_stop(d);
}

#define WITH_DAEMON .setup = start_little, .teardown = stop

/* --- a sensor ------------------------------------------------------------------------------------ */

static int say_hello(uint32_t role, uint32_t channel, struct vmibus_frame *answer) {
    struct vmibus_frame hello = wire_hello();
    int fd = wire_connect(d->path);

    hello.hello.role = (uint8_t)role;
    hello.hello.channel = (uint8_t)channel;
    wire_be_sensor();
    ck_assert(wire_write(fd, &hello, sizeof(hello)));
    ck_assert(wire_receive(fd, answer, NULL));
    return fd;
}

static struct vmibus_frame up(enum vmibus_kind kind) {
    struct vmibus_frame frame = wire_frame(kind);

    frame.header.direction = VMIBUS_DIRECTION_UP;
    return frame;
}

static struct vmibus_frame announce(const char *name) {
    struct vmibus_frame frame = up(VMIBUS_KIND_SENSOR_ANNOUNCE);

    frame.sensor_announce.state = VMIBUS_SENSOR_STATE_READY;
    frame.sensor_announce.groups = GROUPS;
    strncpy((char *)frame.sensor_announce.name, name, sizeof(frame.sensor_announce.name) - 1);
    return frame;
}

static int connect_sensor(void) {
    struct vmibus_frame frame;
    int fd = say_hello(VMIBUS_ROLE_SENSOR, VMIBUS_CHANNEL_BUS, &frame);

    ck_assert_uint_eq(frame.header.kind, VMIBUS_KIND_WELCOME);
    frame = announce("hand-made");
    ck_assert(wire_send(fd, &frame, NULL, 0));
    return fd;
}

/* Returns the ACK. */
static struct vmibus_frame offer(int fd, const char *name) {
    struct vmibus_frame frame = up(VMIBUS_KIND_ENDPOINT_OFFER);

    frame.endpoint_offer.groups = GROUPS;
    ck_assert(wire_send(fd, &frame, name, strlen(name)));
    return wire_answer(fd, frame.header.correlation, NULL);
}

static struct wire_endpoint offer_vm(int fd, const char *name) {
    struct vmibus_frame ack = offer(fd, name);

    ck_assert_uint_eq(ack.ack.error, VMIBUS_ERROR_OK);
    return (struct wire_endpoint){.slot = ack.header.slot, .generation = ack.header.generation};
}

static struct vmibus_frame of_vm(enum vmibus_kind kind, const struct wire_endpoint *vm) {
    struct vmibus_frame frame = up(kind);

    frame.header.slot = vm->slot;
    frame.header.generation = vm->generation;
    return frame;
}

/* Asks for a picture, which needs no lease, without waiting for the answer. */
static uint64_t ask_picture(int fd, const struct wire_endpoint *vm) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_SCREENSHOT, vm);

    frame.screenshot.format = VMIBUS_IMAGE_FORMAT_PNG;
    ck_assert(wire_send(fd, &frame, NULL, 0));
    return frame.header.correlation;
}

static struct vmibus_frame ack_to(const struct vmibus_frame *command) {
    struct vmibus_frame frame = up(VMIBUS_KIND_ACK);

    frame.header.correlation = command->header.correlation;
    frame.ack.command = command->header.kind;
    return frame;
}

/* --- what works ---------------------------------------------------------------------------------- */

TEST(test_a_sensor_offers_and_executes, WITH_DAEMON) {
    int sensor = connect_sensor(), control = wire_open(d->path, NULL), memory = memfd_create("picture", MFD_CLOEXEC);
    int fds[VMIBUS_FDS_PER_FRAME];
    struct wire_endpoint vm = offer_vm(sensor, "made");
    uint64_t correlation = ask_picture(control, &vm);
    struct vmibus_frame command = wire_await(sensor, VMIBUS_KIND_SCREENSHOT), ack = ack_to(&command);
    size_t n_fds = 0;

    ck_assert_uint_eq(command.header.slot, vm.slot);
    ck_assert_uint_eq(command.screenshot.format, VMIBUS_IMAGE_FORMAT_PNG);
    ack.header.fd_count = 1;
    ack.ack.count = 4;
    ck_assert_int_eq(write(memory, "PNG!", 4), 4);
    wire_send_fds(sensor, &ack, sizeof(ack), &memory, 1);
    wire_keep_fds(fds, &n_fds);
    ack = wire_answer(control, correlation, NULL);
    wire_keep_fds(NULL, NULL);
    ck_assert_uint_eq(ack.ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ack.ack.count, 4);
    ck_assert_uint_eq(n_fds, 1);
    close(fds[0]);
    close(memory);
    close(control);
    close(sensor);
}

TEST(test_its_endpoints_go_with_it, WITH_DAEMON) {
    int sensor = connect_sensor(), control = wire_open(d->path, NULL);
    struct wire_endpoint vm = offer_vm(sensor, "made");
    uint64_t correlation = ask_picture(control, &vm);
    struct vmibus_frame frame;

    (void)wire_await(sensor, VMIBUS_KIND_SCREENSHOT);
    close(sensor);
    frame = wire_answer(control, correlation, NULL);
    ck_assert_uint_eq(frame.ack.error, VMIBUS_ERROR_GONE);
    close(control);
}

TEST(test_it_observes_what_it_subscribes_to, WITH_DAEMON) {
    int sensor = connect_sensor();
    struct vmibus_frame frame;

    (void)wire_subscribe(sensor, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER));
    frame = wire_await(sensor, VMIBUS_KIND_ROSTER);
    ck_assert_uint_eq(frame.roster.change, VMIBUS_ROSTER_CHANGE_ADDED);
    close(sensor);
}

/* --- who may ------------------------------------------------------------------------------------- */

static const struct daemon_options nobody_may = {
    .config = "[daemon]\n"
              "sensor-users = 65534\n",
};

static const struct daemon_options root_may = {
    .config = "[daemon]\n"
              "sensor-users = 65534, root\n"
              "[rule nobody]\n"
              "user = 65534\n"
              "capabilities = OBSERVE\n",
};

static void start_closed(void) {
    daemon_start(d, &nobody_may);
}

static void start_open(void) {
    struct daemon_options options = root_may;

    options.unready = true;
    daemon_spawn(d, &options);
    daemon_await_log(d, "serving");
}

static void stop_open(void) {
    daemon_kill(d);
    daemon_remove(d);
}

TEST(test_p01_only_users_that_are_named_may_be_sensors, .setup = start_closed, .teardown = stop) {
    struct vmibus_frame frame;
    int fd = say_hello(VMIBUS_ROLE_SENSOR, VMIBUS_CHANNEL_BUS, &frame);

    ck_assert_uint_eq(frame.header.kind, VMIBUS_KIND_ERROR);
    ck_assert_uint_eq(frame.error.error, VMIBUS_ERROR_DENIED);
    ck_assert_uint_eq(frame.error.reason, VMIBUS_REASON_NO_GRANT);
    ck_assert_uint_eq(frame.error.value, geteuid());
    close(fd);
}

/* Root has no rule here: it may be a sensor, and nothing else. */
TEST(test_p01_a_sensor_user_is_no_control_by_that, .setup = start_open, .teardown = stop_open) {
    struct vmibus_frame frame;
    int fd = say_hello(VMIBUS_ROLE_CONTROL, VMIBUS_CHANNEL_BUS, &frame);

    ck_assert_uint_eq(frame.header.kind, VMIBUS_KIND_ERROR);
    ck_assert_uint_eq(frame.error.error, VMIBUS_ERROR_DENIED);
    close(fd);
    fd = say_hello(VMIBUS_ROLE_SENSOR, VMIBUS_CHANNEL_BUS, &frame);
    ck_assert_uint_eq(frame.header.kind, VMIBUS_KIND_WELCOME);
    close(fd);
}

TEST(test_p01_a_sensor_gives_no_commands_and_sees_no_leases, WITH_DAEMON) {
    static const enum vmibus_kind kinds[] = {VMIBUS_KIND_QUERY, VMIBUS_KIND_CMD_LEASE, VMIBUS_KIND_CMD_POWER,
                                             VMIBUS_KIND_CMD_MEMWRITE, VMIBUS_KIND_BUFFER, VMIBUS_KIND_HELLO};

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        int fd = connect_sensor();
        struct vmibus_frame frame = kinds[i] == VMIBUS_KIND_HELLO ? wire_hello() : wire_frame(kinds[i]);

        ck_assert(wire_send(fd, &frame, NULL, 0));
        (void)wire_expect_end(fd, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_KIND);
        close(fd);
    }
    int fd = connect_sensor();

    (void)wire_subscribe(fd, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_LEASE));
    (void)wire_expect_end(fd, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    close(fd);
}

/* --- liars --------------------------------------------------------------------------------------- */

static void expect_end_of(const struct vmibus_frame *wrong, const void *tail, size_t length, enum vmibus_reason reason) {
    struct vmibus_frame frame = *wrong;
    int fd = connect_sensor();

    ck_assert(wire_send(fd, &frame, tail, length));
    (void)wire_expect_end(fd, VMIBUS_ERROR_VALIDATION, reason);
    close(fd);
}

TEST(test_p09_a_frame_that_is_not_allowed_ends_the_sensor_alone, WITH_DAEMON) {
    static const uint8_t zeros[5000];
    struct vmibus_frame frame = announce("hand-made");

    expect_end_of(&frame, zeros, sizeof(zeros), VMIBUS_REASON_BAD_FIELD); /* a NUL in a text */
    frame.sensor_announce.state = 77;
    expect_end_of(&frame, NULL, 0, VMIBUS_REASON_BAD_FIELD);
    frame = announce("another name");
    expect_end_of(&frame, NULL, 0, VMIBUS_REASON_BAD_FIELD);
    frame = announce("hand-made");
    frame.sensor_announce.fallback = VMIBUS_GROUP_MEMORY;
    expect_end_of(&frame, NULL, 0, VMIBUS_REASON_BAD_FIELD);
    frame = announce("");
    memset(frame.sensor_announce.name, 'x', sizeof(frame.sensor_announce.name));
    expect_end_of(&frame, NULL, 0, VMIBUS_REASON_BAD_FIELD);
    frame = up(VMIBUS_KIND_ENDPOINT_OFFER);
    frame.endpoint_offer.groups = VMIBUS_GROUP_MEMORY; /* which it did not announce */
    expect_end_of(&frame, "vm", 2, VMIBUS_REASON_BAD_FIELD);
    frame.endpoint_offer.groups = 1u << 31;
    expect_end_of(&frame, "vm", 2, VMIBUS_REASON_BAD_FIELD);
    frame.endpoint_offer.groups = GROUPS;
    expect_end_of(&frame, NULL, 0, VMIBUS_REASON_BAD_LENGTH);
    frame.header.direction = VMIBUS_DIRECTION_DOWN;
    expect_end_of(&frame, "vm", 2, VMIBUS_REASON_BAD_DIRECTION);
    frame = up(VMIBUS_KIND_LIFECYCLE);
    frame.lifecycle.state = 200;
    expect_end_of(&frame, NULL, 0, VMIBUS_REASON_BAD_FIELD);
    frame = up(VMIBUS_KIND_ROSTER);
    expect_end_of(&frame, NULL, 0, VMIBUS_REASON_BAD_KIND);
    frame = up(VMIBUS_KIND_MEMCTX);
    expect_end_of(&frame, NULL, 0, VMIBUS_REASON_BAD_KIND);
    frame = up(VMIBUS_KIND_FENCE_DRAINED);
    expect_end_of(&frame, NULL, 0, VMIBUS_REASON_BAD_KIND);
    frame = up(VMIBUS_KIND_ACK);
    frame.ack.error = 4000;
    expect_end_of(&frame, NULL, 0, VMIBUS_REASON_BAD_FIELD);
}

TEST(test_p09_nothing_is_heard_of_a_sensor_that_does_not_announce_itself, WITH_DAEMON) {
    struct vmibus_frame welcome, frame = up(VMIBUS_KIND_ENDPOINT_OFFER);
    int fd = say_hello(VMIBUS_ROLE_SENSOR, VMIBUS_CHANNEL_BUS, &welcome);

    frame.endpoint_offer.groups = GROUPS;
    ck_assert(wire_send(fd, &frame, "vm", 2));
    (void)wire_expect_end(fd, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_KIND);
    close(fd);
}

TEST(test_p09_descriptors_where_none_belong_end_the_sensor, WITH_DAEMON) {
    int sensor = connect_sensor(), null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct vmibus_frame frame = up(VMIBUS_KIND_LIFECYCLE);

    frame.lifecycle.state = VMIBUS_VM_STATE_RUNNING;
    frame.header.fd_count = 1;
    wire_send_fds(sensor, &frame, sizeof(frame), &null, 1);
    (void)wire_expect_end(sensor, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS);
    close(sensor);
    close(null);
}

TEST(test_p09_descriptors_that_do_not_come_end_the_sensor, WITH_DAEMON) {
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);

    for (size_t n_sent = 0; n_sent < 3; n_sent++) {
        int sensor = connect_sensor();
        const int fds[2] = {null, null};
        struct vmibus_frame frame = up(VMIBUS_KIND_ACK);

        frame.header.fd_count = 3;
        if (n_sent)
            wire_send_fds(sensor, &frame, sizeof(frame), fds, n_sent);
        else
            wire_write(sensor, &frame, sizeof(frame));
        (void)wire_expect_end(sensor, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS);
        close(sensor);
    }
    close(null);
}

/* What another provider was given is not its to answer, and what is not its is not its to speak of. */
TEST(test_p09_a_sensor_speaks_for_itself_alone, WITH_DAEMON) {
    int sensor = connect_sensor(), other = connect_sensor(), control = wire_open(d->path, NULL);
    struct wire_endpoint vm = offer_vm(sensor, "made");
    struct vmibus_frame command, frame, ack;
    uint64_t correlation = ask_picture(control, &vm);

    command = wire_await(sensor, VMIBUS_KIND_SCREENSHOT);
    frame = ack_to(&command);
    frame.ack.error = VMIBUS_ERROR_IO;
    ck_assert(wire_send(other, &frame, NULL, 0));
    frame = of_vm(VMIBUS_KIND_LIFECYCLE, &vm);
    frame.lifecycle.state = VMIBUS_VM_STATE_CRASHED;
    ck_assert(wire_send(other, &frame, NULL, 0));
    /* Who lost sight of a VM says so: that is no violation. */
    frame.lifecycle.state = VMIBUS_VM_STATE_UNKNOWN;
    ck_assert(wire_send(sensor, &frame, NULL, 0));
    frame = of_vm(VMIBUS_KIND_ENDPOINT_WITHDRAW, &vm);
    ck_assert(wire_send(other, &frame, NULL, 0));
    (void)offer_vm(other, "its own"); /* all of it has been heard now */
    frame = ack_to(&command);
    frame.header.correlation += UINT64_C(1) << 32; /* nobody was given this one */
    frame.ack.error = VMIBUS_ERROR_IO;
    ck_assert(wire_send(sensor, &frame, NULL, 0));
    frame = ack_to(&command);
    frame.ack.count = 4711;
    ck_assert(wire_send(sensor, &frame, NULL, 0));
    ck_assert(wire_send(sensor, &frame, NULL, 0)); /* once more */
    ack = wire_answer(control, correlation, NULL);
    ck_assert_uint_eq(ack.ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ack.ack.count, 4711);
    close(control);
    close(other);
    close(sensor);
}

/* --- floods -------------------------------------------------------------------------------------- */

TEST(test_p08_a_sensor_offers_so_many_vms_and_no_more, WITH_DAEMON) {
    int sensor = connect_sensor(), other;
    struct vmibus_frame ack;

    (void)offer_vm(sensor, "one");
    (void)offer_vm(sensor, "two");
    (void)offer_vm(sensor, "three");
    ack = offer(sensor, "four");
    ck_assert_uint_eq(ack.ack.error, VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(ack.ack.reason, VMIBUS_REASON_LIMIT_ENDPOINTS);
    other = connect_sensor();
    (void)offer_vm(other, "four");
    close(other);
    close(sensor);
}

/* Sends 15 commands and a question; returns how many were refused because the sensor is behind, once the question is answered. */
static size_t ask_much(const struct wire_endpoint *vm) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_QUERY), answer;
    int control = wire_open(d->path, NULL);
    size_t n_behind = 0;

    for (size_t i = 0; i < 15; i++)
        (void)ask_picture(control, vm);
    frame.query.query = VMIBUS_QUERY_SENSORS;
    ck_assert(wire_send(control, &frame, NULL, 0));
    do {
        ck_assert(wire_receive(control, &answer, NULL));
        n_behind += answer.ack.error == VMIBUS_ERROR_PRESSURE && answer.ack.reason == VMIBUS_REASON_SENSOR_BEHIND;
    } while (answer.header.correlation != frame.header.correlation);
    close(control);
    return n_behind;
}

/* Beyond what may wait for it, commands are answered; nobody waits for the sensor, and it can go on reading. */
TEST(test_p09_a_sensor_that_does_not_read_is_sent_no_more, WITH_DAEMON) {
    int sensor = connect_sensor();
    struct wire_endpoint vm = offer_vm(sensor, "made");
    size_t n_behind = 0;

    /* More than the socket holds. */
    for (size_t i = 0; i < 1000 && n_behind < 30; i++)
        n_behind += ask_much(&vm);
    ck_assert_uint_ge(n_behind, 30);
    (void)wire_await(sensor, VMIBUS_KIND_SCREENSHOT);
    (void)offer_vm(sensor, "another");
    close(sensor);
}

/* What a control's subscriptions come to is told; how often they changed, a sensor that is slow need not read. */
TEST(test_p09_changing_demand_floods_no_sensor, WITH_DAEMON) {
    int sensor = connect_sensor(), control = wire_open(d->path, NULL);
    struct wire_endpoint vm = offer_vm(sensor, "made");
    struct vmibus_frame frame;
    uint64_t kinds = 0;

    for (size_t i = 0; i < 10000; i++) {
        uint64_t correlation = wire_subscribe(control, "made", kinds);

        (void)wire_answer(control, correlation, NULL);
        kinds = kinds ? 0 : VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS);
    }
    /* 0 was said first, and PROCESS last. */
    frame = offer(sensor, "another");
    ck_assert_uint_eq(frame.ack.error, VMIBUS_ERROR_OK);
    (void)vm;
    close(control);
    close(sensor);
}

TEST(test_p09_events_without_end_hurt_nobody, WITH_DAEMON) {
    int sensor = connect_sensor(), control = wire_open(d->path, NULL);
    struct wire_endpoint vm = offer_vm(sensor, "made");
    struct vmibus_frame frame = of_vm(VMIBUS_KIND_LIFECYCLE, &vm);
    struct vmibus_frame question = wire_frame(VMIBUS_KIND_QUERY);

    (void)wire_subscribe(control, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE));
    question.query.query = VMIBUS_QUERY_SENSORS;
    for (size_t i = 0; i < 20000; i++) {
        frame.lifecycle.state = i % 2 ? VMIBUS_VM_STATE_RUNNING : VMIBUS_VM_STATE_PAUSED;
        ck_assert(wire_send(sensor, &frame, NULL, 0));
    }
    wire_expect(control, &question, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    close(control);
    close(sensor);
}

#define LONG_TAIL 8192 /* more than a sensor is read from at once, where 16 frames are */

/* Waits until so many are gathered. */
static void await_tails(uint64_t n) {
    struct vmibus_limit_use use;

    do
        (void)wire_limit(d->bystander, VMIBUS_REASON_LIMIT_TAILS, (int64_t)geteuid(), &use);
    while (use.used != n);
}

/* Begins a tail that never comes, and waits until it is what may be gathered. Returns the connection. */
static int take_all_tails(void) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);
    int fd = wire_open(d->path, NULL);

    frame.header.tail_length = LONG_TAIL;
    ck_assert(wire_write(fd, &frame, sizeof(frame)));
    ck_assert(wire_write(fd, "dribble", 7));
    await_tails(1);
    return fd;
}

static void answer_at_length(int sensor, const struct vmibus_frame *command) {
    static const uint8_t octets[LONG_TAIL];
    struct vmibus_frame ack = ack_to(command);

    ck_assert(wire_send(sensor, &ack, octets, sizeof(octets)));
}

/* Whoever asked learns that it was a limit, and not that it is its own; the sensor goes on. */
TEST(test_p08_an_answer_that_cannot_be_gathered_is_a_refusal, .setup = start_forgetful, .teardown = stop) {
    int sensor = connect_sensor(), control = wire_open(d->path, NULL), hoarder = take_all_tails();
    struct wire_endpoint vm = offer_vm(sensor, "made");
    uint64_t correlation = ask_picture(control, &vm);
    struct vmibus_frame command = wire_await(sensor, VMIBUS_KIND_SCREENSHOT), ack;

    answer_at_length(sensor, &command);
    ack = wire_answer(control, correlation, NULL);
    ck_assert_uint_eq(ack.ack.error, VMIBUS_ERROR_PRESSURE);
    ck_assert_uint_eq(ack.ack.reason, VMIBUS_REASON_LIMIT_TAILS);
    (void)offer_vm(sensor, "another");
    close(hoarder);
    await_tails(0);
    correlation = ask_picture(control, &vm);
    command = wire_await(sensor, VMIBUS_KIND_SCREENSHOT);
    answer_at_length(sensor, &command);
    ack = wire_answer(control, correlation, NULL);
    ck_assert_uint_eq(ack.ack.error, VMIBUS_ERROR_OK);
    close(control);
    close(sensor);
}

/* What is wrong in a frame is wrong whether or not its tail was kept. */
TEST(test_p09_a_lie_before_a_tail_that_cannot_be_gathered_ends_the_sensor, .setup = start_forgetful, .teardown = stop) {
    static const uint8_t octets[LONG_TAIL];
    int sensor = connect_sensor(), hoarder = take_all_tails();
    struct vmibus_frame frame = up(VMIBUS_KIND_ACK);

    frame.ack.error = 4000;
    ck_assert(wire_send(sensor, &frame, octets, sizeof(octets)));
    (void)wire_expect_end(sensor, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    close(sensor);
    close(hoarder);
}

TEST(test_p09_a_command_that_is_never_answered_ends_the_sensor, .setup = start_impatient, .teardown = stop) {
    int sensor = connect_sensor(), control = wire_open(d->path, NULL);
    struct wire_endpoint vm = offer_vm(sensor, "made");
    uint64_t correlation = ask_picture(control, &vm);
    struct vmibus_frame frame;

    (void)wire_await(sensor, VMIBUS_KIND_SCREENSHOT);
    (void)wire_expect_end(sensor, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_SENSOR_SILENT);
    frame = wire_answer(control, correlation, NULL);
    ck_assert_uint_eq(frame.ack.error, VMIBUS_ERROR_GONE);
    close(control);
    close(sensor);
}

/* Each connection has a name of its own on the bus, and there are not for ever more of them. */
TEST(test_p08_sensors_come_and_go_without_end, WITH_DAEMON, .full = true, .timeout = 600) {
    for (size_t i = 0; i < 70000; i++) {
        int sensor = connect_sensor();

        if (i % 1000 == 0)
            (void)offer_vm(sensor, "made");
        close(sensor);
    }
    int sensor = connect_sensor();

    (void)offer_vm(sensor, "made");
    close(sensor);
}

HARNESS_SUITE("sensor peer", HARNESS_QUICK)
