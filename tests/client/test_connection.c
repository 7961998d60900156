/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A connection against a server that is played: HELLO, calls, order, unsent octets, ends, lies. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/fake_server.h"
#include "client/recorder.h"
#include "harness.h"

static struct vmibus *connect_to(struct fake_server *server, fake_script script) {
    struct vmibus *bus = NULL;

    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fake_server_start(server, script), "test"), 0);
    ck_assert_ptr_nonnull(bus);
    return bus;
}

static struct vmibus_frame event(uint64_t delivery) {
    struct vmibus_frame frame = fake_frame(VMIBUS_KIND_LIFECYCLE);

    frame.header.delivery = delivery;
    return frame;
}

/* --- HELLO ---------------------------------------------------------------------------------------- */

static void accept_and_leave(int fd) {
    struct vmibus_frame hello = fake_accept(fd);

    ck_assert_int_eq(hello.hello.channel, VMIBUS_CHANNEL_BUS);
    ck_assert_mem_eq(hello.hello.name, "a-name-of-more-than-twe", 24);
    fake_await_close(fd);
}

TEST(test_hello_tells_and_learns) {
    struct fake_server server;
    struct vmibus *bus;
    int fd = fake_server_start(&server, accept_and_leave);

    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fd, "a-name-of-more-than-twenty-three"), 0);
    ck_assert_uint_eq(vmibus_get_welcome(bus)->incarnation, 7);
    ck_assert_uint_eq(vmibus_get_welcome(bus)->tail_bound, VMIBUS_TAIL_BOUND_DEFAULT);
    ck_assert_int_eq(vmibus_get_fd(bus), fd);
    ck_assert_int_eq(vmibus_get_poll_events(bus), POLLIN);
    ck_assert(!vmibus_is_lent(bus));
    ck_assert_ptr_null(vmibus_free(bus));
    fake_server_join(&server);
}

static void refuse_denied(int fd) {
    struct vmibus_frame error = fake_frame(VMIBUS_KIND_ERROR);

    fake_read_frame(fd, NULL, 0);
    error.error.error = VMIBUS_ERROR_DENIED;
    error.error.reason = VMIBUS_REASON_NO_GRANT;
    error.error.closing = 1;
    fake_write_frame(fd, &error, NULL);
}

static void refuse_unheard(int fd) {
    struct vmibus_frame error = fake_frame(VMIBUS_KIND_ERROR);

    error.error.error = VMIBUS_ERROR_QUOTA;
    error.error.closing = 1;
    fake_write_frame(fd, &error, NULL);
}

static void refuse_version(int fd) {
    struct vmibus_frame error = fake_frame(VMIBUS_KIND_ERROR);

    fake_read_frame(fd, NULL, 0);
    error.error.error = VMIBUS_ERROR_VALIDATION;
    error.error.reason = VMIBUS_REASON_BAD_VERSION;
    error.error.closing = 1;
    fake_write_frame(fd, &error, NULL);
}

static void welcome_of_another_version(int fd) {
    struct vmibus_frame hello = fake_read_frame(fd, NULL, 0);
    struct vmibus_frame welcome = fake_welcome(&hello);

    welcome.welcome.version = 2;
    fake_write_frame(fd, &welcome, NULL);
}

static void welcome_without_magic(int fd) {
    struct vmibus_frame hello = fake_read_frame(fd, NULL, 0);
    struct vmibus_frame welcome = fake_welcome(&hello);

    welcome.welcome.magic = 0;
    fake_write_frame(fd, &welcome, NULL);
}

static void welcome_with_enormous_bound(int fd) {
    struct vmibus_frame hello = fake_read_frame(fd, NULL, 0);
    struct vmibus_frame welcome = fake_welcome(&hello);

    welcome.welcome.tail_bound = UINT32_MAX;
    fake_write_frame(fd, &welcome, NULL);
}

static void welcome_with_path_for_nothing(int fd) {
    struct vmibus_frame hello = fake_read_frame(fd, NULL, 0);
    struct vmibus_frame welcome = fake_welcome(&hello);

    welcome.header.tail_length = 4;
    fake_write_frame(fd, &welcome, "/tmp");
}

static void welcome_with_nul_in_path(int fd) {
    struct vmibus_frame hello = fake_read_frame(fd, NULL, 0);
    struct vmibus_frame welcome = fake_welcome(&hello);

    welcome.header.tail_length = 4;
    welcome.welcome.memory = VMIBUS_MEMORY_LOCATION_SOCKET;
    fake_write_frame(fd, &welcome, "/t\0p");
}

static void welcome_with_long_path(int fd) {
    struct vmibus_frame hello = fake_read_frame(fd, NULL, 0);
    struct vmibus_frame welcome = fake_welcome(&hello);
    char path[108];

    memset(path, 'x', sizeof(path));
    welcome.header.tail_length = sizeof(path);
    welcome.welcome.memory = VMIBUS_MEMORY_LOCATION_SOCKET;
    fake_write_frame(fd, &welcome, path);
}

static void event_before_welcome(int fd) {
    struct vmibus_frame frame = event(1);

    fake_write_frame(fd, &frame, NULL);
    fake_accept(fd);
}

static void speak_http(int fd) {
    char text[400];

    fake_read_frame(fd, NULL, 0);
    memset(text, 'x', sizeof(text));
    memcpy(text, "HTTP/1.1 400 Bad Request\r\n", 26);
    fake_write(fd, text, sizeof(text));
}

static void close_at_once(int fd) {
    fake_read_frame(fd, NULL, 0);
}

static const struct {
    fake_script script;
    int outcome;
} refusals[] = {
    {refuse_denied, VMIBUS_ERROR_DENIED},      {refuse_unheard, VMIBUS_ERROR_QUOTA},
    {refuse_version, -EPROTONOSUPPORT},        {welcome_of_another_version, -EPROTONOSUPPORT},
    {welcome_without_magic, -EPROTO},          {welcome_with_enormous_bound, -EPROTO},
    {welcome_with_path_for_nothing, -EPROTO},  {welcome_with_nul_in_path, -EPROTO},
    {welcome_with_long_path, -EPROTO},         {event_before_welcome, -EPROTO},
    {speak_http, -EPROTO},                     {close_at_once, -ECONNRESET},
};

TEST(test_hello_refused, .iterations = sizeof(refusals) / sizeof(refusals[0])) {
    struct fake_server server;
    struct vmibus *bus;

    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fake_server_start(&server, refusals[_i].script), "test"),
                     refusals[_i].outcome);
    fake_server_join(&server);
}

TEST(test_connect_names_what_is_missing) {
    struct vmibus *bus;
    char path[200];
    int fds[2];

    ck_assert_int_eq(vmibus_connect(&bus, "/nonexistent/socket", "test"), -ENOENT);
    memset(path, 'x', sizeof(path));
    path[sizeof(path) - 1] = '\0';
    ck_assert_int_eq(vmibus_connect(&bus, path, "test"), -ENAMETOOLONG);
    ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fds[0], "test"), -ENOTSOCK);
    close(fds[1]);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fds[0], "test"), -EPROTOTYPE);
    close(fds[1]);
}

static void accept_then_be_silent(int fd) {
    fake_accept(fd);
    fake_read_frame(fd, NULL, 0);
    fake_await_close(fd);
}

TEST(test_unanswered_hello_times_out) {
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, accept_then_be_silent);

    ck_assert_int_eq(vmibus_reclaim(bus, 20), -ETIMEDOUT);
    vmibus_free(bus);
    fake_server_join(&server);
}

/* --- calls ---------------------------------------------------------------------------------------- */

static void answer_among_events(int fd) {
    struct vmibus_frame frame, command, other;

    fake_accept(fd);
    command = fake_read_frame(fd, NULL, 0);
    ck_assert_int_eq(command.header.kind, VMIBUS_KIND_CMD_POWER);
    ck_assert_uint_eq(command.header.slot, 3);
    ck_assert_uint_eq(command.header.generation, 9);
    ck_assert_uint_ne(command.header.timestamp, 0);
    frame = event(1);
    fake_write_frame(fd, &frame, NULL);
    other = fake_ack(&command, VMIBUS_ERROR_IO);
    other.header.correlation ^= 0x100;
    other.header.delivery = 2;
    fake_write_frame(fd, &other, NULL);
    frame = fake_ack(&command, VMIBUS_ERROR_BUSY);
    frame.header.delivery = 3;
    frame.header.tail_length = 5;
    frame.ack.value = 42;
    fake_write_frame(fd, &frame, "hello");
    frame = event(4);
    fake_write_frame(fd, &frame, NULL);
    fake_await_close(fd);
}

TEST(test_p07_call_keeps_the_order_of_all_else) {
    struct vmibus_endpoint endpoint = {.slot = 3, .generation = 9};
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus_message reply;
    struct vmibus *bus = connect_to(&server, answer_among_events);

    vmibus_set_handler(bus, recorder_handle, &recorder);
    ck_assert_int_eq(vmibus_power(bus, &endpoint, 1, VMIBUS_POWER_OPERATION_RESET, &reply), VMIBUS_ERROR_BUSY);
    ck_assert_uint_eq(reply.frame.ack.value, 42);
    ck_assert_uint_eq(reply.frame.header.tail_length, 5);
    ck_assert_mem_eq(reply.tail, "hello", 5);
    vmibus_message_deinit(&reply);
    vmibus_message_deinit(&reply);
    ck_assert_uint_eq(recorder.n, 0);
    ck_assert_int_eq(vmibus_get_poll_events(bus), POLLIN | POLLOUT);
    ck_assert_int_eq(recorder_await(bus, &recorder, 3), 0);
    ck_assert_uint_eq(recorder.deliveries[0], 1);
    ck_assert_uint_eq(recorder.deliveries[1], 2);
    ck_assert_uint_eq(recorder.deliveries[2], 4);
    ck_assert_int_eq(recorder.kinds[1], VMIBUS_KIND_ACK);
    ck_assert_int_eq(vmibus_get_poll_events(bus), POLLIN);
    vmibus_free(bus);
    fake_server_join(&server);
}

static void answer_then_event(int fd) {
    struct vmibus_frame frame, command;

    fake_accept(fd);
    command = fake_read_frame(fd, NULL, 0);
    frame = fake_ack(&command, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &frame, NULL);
    command = fake_read_frame(fd, NULL, 0);
    frame = event(5);
    fake_write_frame(fd, &frame, NULL);
    fake_await_close(fd);
}

TEST(test_dispatch_after_a_call_sees_what_came_since) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus_frame frame;
    struct pollfd poll_fd;
    struct vmibus *bus = connect_to(&server, answer_then_event);

    vmibus_set_handler(bus, recorder_handle, &recorder);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE)), 0);
    vmibus_command_init(&frame, VMIBUS_KIND_QUERY, NULL);
    ck_assert_int_eq(vmibus_send(bus, &frame, NULL, 0, NULL), 0);
    poll_fd = (struct pollfd){.fd = vmibus_get_fd(bus), .events = POLLIN};
    ck_assert_int_eq(poll(&poll_fd, 1, -1), 1);
    ck_assert_int_eq(vmibus_dispatch(bus), 0);
    ck_assert_uint_eq(recorder.n, 1);
    ck_assert_uint_eq(recorder.deliveries[0], 5);
    vmibus_free(bus);
    fake_server_join(&server);
}

static void events_around_a_nested_call(int fd) {
    struct vmibus_frame frames[2] = {event(1), event(2)};
    struct vmibus_frame command, ack, late = event(3);

    fake_accept(fd);
    fake_write(fd, frames, sizeof(frames));
    command = fake_read_frame(fd, NULL, 0);
    fake_write_frame(fd, &late, NULL);
    ack = fake_ack(&command, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &ack, NULL);
    fake_await_close(fd);
}

static void call_from_handler(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct vmibus_message reply;

    if (message->frame.header.delivery == 1) {
        ck_assert_int_eq(vmibus_dispatch(bus), -EDEADLK);
        ck_assert_int_eq(vmibus_wait(bus, 0), -EDEADLK);
        ck_assert_int_eq(vmibus_query(bus, NULL, VMIBUS_QUERY_STATS, &reply), 0);
        vmibus_message_deinit(&reply);
    }
    recorder_handle(bus, message, userdata);
}

TEST(test_p07_call_from_a_handler_keeps_the_order) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, events_around_a_nested_call);

    vmibus_set_handler(bus, call_from_handler, &recorder);
    ck_assert_int_eq(recorder_await(bus, &recorder, 3), 0);
    for (size_t i = 0; i < 3; i++)
        ck_assert_uint_eq(recorder.deliveries[i], i + 1);
    vmibus_free(bus);
    fake_server_join(&server);
}

static void accept_only(int fd) {
    fake_accept(fd);
    fake_await_close(fd);
}

TEST(test_call_refuses_what_would_never_be_answered) {
    struct fake_server server;
    struct vmibus_frame frame;
    struct vmibus *bus = connect_to(&server, accept_only);

    vmibus_command_init(&frame, VMIBUS_KIND_QUERY, NULL);
    frame.header.flags = VMIBUS_FRAME_NO_ACK;
    ck_assert_int_eq(vmibus_call(bus, &frame, NULL, 0, NULL), -EINVAL);
    vmibus_command_init(&frame, VMIBUS_KIND_CMD_MEMWRITE, NULL);
    ck_assert_int_eq(vmibus_call(bus, &frame, "", VMIBUS_TAIL_BOUND_DEFAULT + 1, NULL), -EMSGSIZE);
    vmibus_free(bus);
    fake_server_join(&server);
}

static volatile sig_atomic_t alarms;

static void count_alarm(int number) {
    (void)number;
    alarms++;
}

TEST(test_signal_ends_a_wait) {
    struct sigaction action = {.sa_handler = count_alarm};
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, accept_only);
    struct itimerval interval = {.it_value = {.tv_usec = 1000}, .it_interval = {.tv_usec = 1000}};

    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
    ck_assert_int_eq(setitimer(ITIMER_REAL, &interval, NULL), 0);
    ck_assert_int_eq(vmibus_wait(bus, -1), -EINTR);
    interval = (struct itimerval){};
    setitimer(ITIMER_REAL, &interval, NULL);
    ck_assert_int_eq(vmibus_wait(bus, 0), -ETIMEDOUT);
    vmibus_free(bus);
    fake_server_join(&server);
}

/* --- unsent octets --------------------------------------------------------------------------------- */

static int gate[2];

static void open_gate(void) {
    ck_assert_int_eq(write(gate[1], "", 1), 1);
}

static void await_gate(void) {
    char octet;

    ck_assert_int_eq(read(gate[0], &octet, 1), 1);
}

static size_t n_commands_sent;

static void fill_tail(uint8_t *tail, size_t size, size_t command) {
    for (size_t at = 0; at < size; at++)
        tail[at] = (uint8_t)(at * 7 + command);
}

static void read_late(int fd) {
    static uint8_t tail[100000], expected[100000];
    struct vmibus_frame frame;

    fake_accept(fd);
    await_gate();
    for (size_t i = 0; i < n_commands_sent; i++) {
        frame = fake_read_frame(fd, tail, sizeof(tail));
        ck_assert_int_eq(frame.header.kind, VMIBUS_KIND_CMD_MEMWRITE);
        ck_assert_uint_eq(frame.cmd_memwrite.gva, i);
        ck_assert_uint_eq(frame.header.tail_length, sizeof(tail));
        fill_tail(expected, sizeof(expected), i);
        ck_assert_mem_eq(tail, expected, sizeof(tail));
    }
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &frame, NULL);
    fake_await_close(fd);
}

TEST(test_p09_unsent_octets_are_bounded_and_none_is_lost) {
    static uint8_t tail[100000];
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus_frame frame;
    struct vmibus *bus;
    int r = 0;

    ck_assert_int_eq(pipe2(gate, O_CLOEXEC), 0);
    bus = connect_to(&server, read_late);
    vmibus_set_handler(bus, recorder_handle, &recorder);
    for (n_commands_sent = 0; n_commands_sent < 1000; n_commands_sent++) {
        vmibus_command_init(&frame, VMIBUS_KIND_CMD_MEMWRITE, NULL);
        frame.cmd_memwrite.gva = n_commands_sent;
        fill_tail(tail, sizeof(tail), n_commands_sent);
        r = vmibus_send(bus, &frame, tail, sizeof(tail), NULL);
        if (r)
            break;
    }
    ck_assert_int_eq(r, -ENOBUFS);
    ck_assert_uint_gt(n_commands_sent, 5);
    ck_assert_int_eq(vmibus_get_poll_events(bus), POLLIN | POLLOUT);
    open_gate();
    ck_assert_int_eq(recorder_await(bus, &recorder, 1), 0);
    ck_assert_int_eq(vmibus_get_poll_events(bus), POLLIN);
    vmibus_free(bus);
    fake_server_join(&server);
    close(gate[0]);
    close(gate[1]);
}

static void chatter_before_reading(int fd) {
    struct vmibus_frame frame;
    static uint8_t tail[VMIBUS_TAIL_BOUND_DEFAULT];

    fake_accept(fd);
    for (uint64_t i = 1; i <= 3000; i++) {
        frame = event(i);
        fake_write_frame(fd, &frame, NULL);
    }
    do
        frame = fake_read_frame(fd, tail, sizeof(tail));
    while (frame.cmd_memwrite.gva != 99);
    ck_assert_uint_eq(frame.header.tail_length, sizeof(tail));
    ck_assert_uint_eq(tail[sizeof(tail) - 1], 0x77);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &frame, NULL);
    fake_await_close(fd);
}

TEST(test_call_with_a_full_socket_reads_on) {
    static uint8_t data[VMIBUS_TAIL_BOUND_DEFAULT];
    struct vmibus_endpoint endpoint = {.slot = 1, .generation = 1};
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus_frame frame;
    struct vmibus *bus = connect_to(&server, chatter_before_reading);

    memset(data, 0x77, sizeof(data));
    vmibus_set_handler(bus, recorder_handle, &recorder);
    do
        vmibus_command_init(&frame, VMIBUS_KIND_CMD_MEMWRITE, NULL);
    while (vmibus_send(bus, &frame, data, sizeof(data), NULL) == 0);
    ck_assert_int_eq(vmibus_memwrite(bus, &endpoint, &(struct vmibus_write){.gva = 99, .data = data, .len = sizeof(data)}, NULL),
                     0);
    ck_assert_uint_eq(recorder.n, 0);
    ck_assert_int_eq(vmibus_dispatch(bus), 0);
    ck_assert_uint_eq(recorder.n, 3000);
    for (size_t i = 0; i < recorder.n; i++)
        ck_assert_uint_eq(recorder.deliveries[i], i + 1);
    vmibus_free(bus);
    fake_server_join(&server);
}

/* --- ends ------------------------------------------------------------------------------------------ */

static void say_why_and_close(int fd) {
    struct vmibus_frame frame;

    fake_accept(fd);
    fake_read_frame(fd, NULL, 0);
    frame = event(1);
    fake_write_frame(fd, &frame, NULL);
    frame = fake_frame(VMIBUS_KIND_ERROR);
    frame.error.closing = 1;
    fake_write_frame(fd, &frame, NULL);
}

TEST(test_call_ends_with_the_connection) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus_message reply;
    struct vmibus *bus = connect_to(&server, say_why_and_close);

    vmibus_set_handler(bus, recorder_handle, &recorder);
    ck_assert_int_eq(vmibus_query(bus, NULL, VMIBUS_QUERY_STATS, &reply), -ECONNRESET);
    vmibus_message_deinit(&reply);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", 1), -ECONNRESET);
    ck_assert_int_eq(vmibus_dispatch(bus), -ECONNRESET);
    ck_assert_uint_eq(recorder.n, 2);
    ck_assert_int_eq(recorder.kinds[1], VMIBUS_KIND_ERROR);
    ck_assert_int_eq(vmibus_wait(bus, -1), -ECONNRESET);
    vmibus_free(bus);
    fake_server_join(&server);
}

static void close_in_a_frame(int fd) {
    struct vmibus_frame frame = event(1);

    fake_accept(fd);
    fake_write_frame(fd, &frame, NULL);
    fake_write(fd, &frame, 100);
}

static void close_in_a_tail(int fd) {
    struct vmibus_frame frame = event(1);

    fake_accept(fd);
    fake_write_frame(fd, &frame, NULL);
    frame = fake_frame(VMIBUS_KIND_ROSTER);
    frame.header.tail_length = 100;
    fake_write(fd, &frame, sizeof(frame));
    fake_write(fd, "abc", 3);
}

static void close_with_a_descriptor_under_way(int fd) {
    struct vmibus_frame frame = event(1);
    int passed = open("/dev/null", O_RDONLY | O_CLOEXEC);

    fake_accept(fd);
    fake_write_frame(fd, &frame, NULL);
    frame = fake_frame(VMIBUS_KIND_ACK);
    frame.header.fd_count = 1;
    fake_write_fds(fd, &frame, 60, &passed, 1);
    close(passed);
}

static const fake_script half_ends[] = {close_in_a_frame, close_in_a_tail, close_with_a_descriptor_under_way};

TEST(test_end_in_the_middle, .iterations = sizeof(half_ends) / sizeof(half_ends[0])) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, half_ends[_i]);

    vmibus_set_handler(bus, recorder_handle, &recorder);
    ck_assert_int_eq(recorder_await(bus, &recorder, 2), -ECONNRESET);
    ck_assert_uint_eq(recorder.n, 1);
    vmibus_free(bus);
    fake_server_join(&server);
}

/* --- lies ------------------------------------------------------------------------------------------ */

static struct vmibus_frame lie(int number) {
    struct vmibus_frame frame = event(2);

    switch (number) {
    case 0: /* the wrong way */
        frame.header.direction = VMIBUS_DIRECTION_DOWN;
        break;
    case 1: /* not the version agreed */
        frame.header.version = 2;
        break;
    case 2: /* a tail over the bound told in WELCOME */
        frame.header.kind = VMIBUS_KIND_ROSTER;
        frame.header.tail_length = VMIBUS_TAIL_BOUND_DEFAULT + 1;
        break;
    case 3: /* the same, enormous */
        frame.header.kind = VMIBUS_KIND_ROSTER;
        frame.header.tail_length = UINT32_MAX;
        break;
    case 4: /* more descriptors than told in WELCOME */
        frame.header.kind = VMIBUS_KIND_ACK;
        frame.header.fd_count = VMIBUS_FDS_PER_FRAME + 1;
        break;
    case 5: /* a descriptor announced that does not come */
        frame.header.kind = VMIBUS_KIND_ACK;
        frame.header.fd_count = 1;
        break;
    case 6: /* a second WELCOME */
        frame.header.kind = VMIBUS_KIND_WELCOME;
        break;
    case 7: /* a tail where the kind has none */
        frame.header.tail_length = 8;
        break;
    }
    return frame;
}

#define N_LIES 8

static int lie_number;

static void tell_a_lie(int fd) {
    struct vmibus_frame frame = event(1);
    static const uint8_t tail[4096];

    fake_accept(fd);
    fake_write_frame(fd, &frame, NULL);
    frame = lie(lie_number);
    fake_write(fd, &frame, sizeof(frame));
    fake_write(fd, tail, sizeof(tail));
    fake_await_close(fd);
}

TEST(test_p09_lies_end_the_connection, .iterations = N_LIES) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus;

    lie_number = _i;
    bus = connect_to(&server, tell_a_lie);
    vmibus_set_handler(bus, recorder_handle, &recorder);
    ck_assert_int_eq(recorder_await(bus, &recorder, 2), -EPROTO);
    ck_assert_uint_eq(recorder.n, 1);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", 1), -EPROTO);
    vmibus_free(bus);
    fake_server_join(&server);
}

static void unknown_kind(int fd) {
    struct vmibus_frame frame = event(1);

    fake_accept(fd);
    frame.header.kind = 0x01ff;
    frame.header.tail_length = 3;
    fake_write_frame(fd, &frame, "new");
    fake_await_close(fd);
}

TEST(test_unknown_kinds_are_the_handlers_matter) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, unknown_kind);

    vmibus_set_handler(bus, recorder_handle, &recorder);
    ck_assert_int_eq(recorder_await(bus, &recorder, 1), 0);
    ck_assert_int_eq(recorder.kinds[0], 0x01ff);
    ck_assert_uint_eq(recorder.tail_lengths[0], 3);
    vmibus_free(bus);
    fake_server_join(&server);
}

/* --- commands -------------------------------------------------------------------------------------- */

static void check_commands(int fd) {
    struct vmibus_frame frame;
    uint8_t tail[256];

    fake_accept(fd);
    frame = fake_read_frame(fd, tail, sizeof(tail));
    ck_assert_int_eq(frame.header.kind, VMIBUS_KIND_SUBSCRIBE);
    ck_assert_uint_eq(frame.header.tail_length, 4);
    ck_assert_mem_eq(tail, "vm-*", 4);
    ck_assert_uint_eq(frame.subscribe.kinds, 6);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &frame, NULL);

    frame = fake_read_frame(fd, NULL, 0);
    ck_assert_int_eq(frame.cmd_lease.operation, VMIBUS_LEASE_OPERATION_ACQUIRE);
    ck_assert_int_eq(frame.cmd_lease.lease_class, VMIBUS_LEASE_CLASS_INPUT);
    ck_assert_int_eq(frame.cmd_lease.mode, VMIBUS_LEASE_MODE_QUEUE);
    ck_assert_uint_eq(frame.cmd_lease.ttl_ms, 500);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    frame.ack.token = 0x700000001;
    fake_write_frame(fd, &frame, NULL);

    frame = fake_read_frame(fd, NULL, 0);
    ck_assert_int_eq(frame.cmd_lease.operation, VMIBUS_LEASE_OPERATION_RENEW);
    ck_assert_uint_eq(frame.cmd_lease.token, 0x700000001);
    frame = fake_ack(&frame, VMIBUS_ERROR_STALE_TOKEN);
    fake_write_frame(fd, &frame, NULL);

    frame = fake_read_frame(fd, NULL, 0);
    ck_assert_int_eq(frame.cmd_lease.operation, VMIBUS_LEASE_OPERATION_RELEASE);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &frame, NULL);

    frame = fake_read_frame(fd, tail, sizeof(tail));
    ck_assert_int_eq(frame.header.kind, VMIBUS_KIND_CMD_INPUT);
    ck_assert_uint_eq(frame.cmd_input.count, 6);
    ck_assert_uint_eq(frame.header.tail_length, 0);
    ck_assert_int_eq(frame.cmd_input.events[5].value, 5);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    frame.ack.count = 6;
    fake_write_frame(fd, &frame, NULL);

    frame = fake_read_frame(fd, tail, sizeof(tail));
    ck_assert_uint_eq(frame.cmd_input.count, 7);
    ck_assert_uint_eq(frame.header.tail_length, 7 * sizeof(struct vmibus_input_event));
    frame = fake_ack(&frame, VMIBUS_ERROR_BUSY);
    frame.ack.count = 2;
    fake_write_frame(fd, &frame, NULL);

    frame = fake_read_frame(fd, tail, sizeof(tail));
    ck_assert_int_eq(frame.header.kind, VMIBUS_KIND_CMD_MEMWRITE);
    ck_assert_uint_eq(frame.header.tail_length, 0);
    ck_assert_uint_eq(frame.cmd_memwrite.cr3, 0x1000);
    ck_assert_uint_eq(frame.cmd_memwrite.flags, VMIBUS_MEMWRITE_PHYSICAL);
    ck_assert_uint_eq(frame.cmd_memwrite.len, 24);
    ck_assert_uint_eq(frame.cmd_memwrite.data[23], 23);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &frame, NULL);

    frame = fake_read_frame(fd, tail, sizeof(tail));
    ck_assert_uint_eq(frame.cmd_memwrite.flags, VMIBUS_MEMWRITE_SRC_PAYLOAD);
    ck_assert_uint_eq(frame.header.tail_length, 25);
    ck_assert_uint_eq(tail[24], 24);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &frame, NULL);

    frame = fake_read_frame(fd, tail, sizeof(tail));
    ck_assert_uint_eq(frame.cmd_memwrite.flags, VMIBUS_MEMWRITE_SRC_PAYLOAD | VMIBUS_MEMWRITE_EXPECT);
    ck_assert_uint_eq(frame.cmd_memwrite.len, 13);
    ck_assert_uint_eq(frame.header.tail_length, 26);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &frame, NULL);

    frame = fake_read_frame(fd, NULL, 0);
    ck_assert_int_eq(frame.header.kind, VMIBUS_KIND_MEM_ATTACH);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    frame.ack.count = 2;
    frame.header.tail_length = sizeof(struct vmibus_ram_range);
    fake_write_frame(fd, &frame, tail);
    fake_await_close(fd);
}

TEST(test_usual_commands) {
    static const struct vmibus_endpoint endpoint = {.slot = 2, .generation = 5};
    struct vmibus_input_event events[7];
    struct fake_server server;
    struct vmibus_attachment *attachment;
    struct vmibus_message reply;
    struct vmibus_write write = {.cr3 = 0x1000, .gva = 0x2000, .len = 24, .flags = VMIBUS_MEMWRITE_PHYSICAL};
    uint8_t data[32];
    uint64_t token = 0;
    struct vmibus *bus = connect_to(&server, check_commands);

    for (size_t i = 0; i < 7; i++)
        events[i] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = (int32_t)i};
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)i;
    write.data = data;
    ck_assert_int_eq(vmibus_subscribe(bus, "", 6), -EMSGSIZE);
    ck_assert_int_eq(vmibus_subscribe(bus, "vm-*", 6), 0);
    ck_assert_int_eq(vmibus_lease_acquire(bus, &endpoint, VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_QUEUE, 500, &token, NULL), 0);
    ck_assert_uint_eq(token, 0x700000001);
    ck_assert_int_eq(vmibus_lease_renew(bus, &endpoint, VMIBUS_LEASE_CLASS_INPUT, token, 500), VMIBUS_ERROR_STALE_TOKEN);
    ck_assert_int_eq(vmibus_lease_release(bus, &endpoint, VMIBUS_LEASE_CLASS_INPUT, token), 0);
    ck_assert_int_eq(vmibus_input(bus, &endpoint, token, events, 0, &reply), -EINVAL);
    ck_assert_int_eq(vmibus_input(bus, &endpoint, token, events, 6, &reply), 0);
    ck_assert_uint_eq(reply.frame.ack.count, 6);
    vmibus_message_deinit(&reply);
    ck_assert_int_eq(vmibus_input(bus, &endpoint, token, events, 7, &reply), VMIBUS_ERROR_BUSY);
    ck_assert_uint_eq(reply.frame.ack.count, 2);
    vmibus_message_deinit(&reply);
    ck_assert_int_eq(vmibus_memwrite(bus, &endpoint, &write, NULL), 0);
    write.len = 25;
    write.flags = 0;
    ck_assert_int_eq(vmibus_memwrite(bus, &endpoint, &write, NULL), 0);
    write.len = 13;
    write.flags = VMIBUS_MEMWRITE_EXPECT;
    ck_assert_int_eq(vmibus_memwrite(bus, &endpoint, &write, NULL), 0);
    ck_assert_int_eq(vmibus_attach(bus, &endpoint, 0, &attachment, NULL), -EPROTO);
    vmibus_free(bus);
    fake_server_join(&server);
}

HARNESS_SUITE("connection", HARNESS_QUICK)
