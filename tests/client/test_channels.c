/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A memory authority on a socket of its own, and connections that are lent. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/fake_server.h"
#include "client/recorder.h"
#include "harness.h"

/* --- two channels ----------------------------------------------------------------------------------- */

static char directory[] = "/tmp/vmibus-test-XXXXXX";
static char memory_path[64];
static int gate[2];

static int listen_for_memory(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    ck_assert_ptr_nonnull(mkdtemp(directory));
    snprintf(memory_path, sizeof(memory_path), "%s/memory.sock", directory);
    strcpy(address.sun_path, memory_path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(fd, 1), 0);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate), 0);
    return fd;
}

static void forget_memory(void) {
    unlink(memory_path);
    rmdir(directory);
    close(gate[0]);
    close(gate[1]);
}

static void accept_with_memory_elsewhere(int fd) {
    struct vmibus_frame hello = fake_read_frame(fd, NULL, 0);
    struct vmibus_frame welcome = fake_welcome(&hello);

    welcome.welcome.memory = VMIBUS_MEMORY_LOCATION_SOCKET;
    welcome.header.tail_length = (uint32_t)strlen(memory_path);
    fake_write_frame(fd, &welcome, memory_path);
}

/* Answers SUBSCRIBE; then, at the gate's word, an event. */
static void bus_side(int fd) {
    struct vmibus_frame frame;

    accept_with_memory_elsewhere(fd);
    frame = fake_read_frame(fd, NULL, 0);
    ck_assert_int_eq(frame.header.kind, VMIBUS_KIND_SUBSCRIBE);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &frame, NULL);
    fake_read(gate[0], &(char){0}, 1);
    frame = fake_frame(VMIBUS_KIND_LIFECYCLE);
    frame.header.delivery = 1;
    fake_write_frame(fd, &frame, NULL);
    fake_await_close(fd);
}

/* Answers MEM_ATTACH; then, after another command, says something unasked. */
static void memory_side(int fd) {
    struct vmibus_frame frame;
    uint8_t session[16];

    memset(session, 0x5e, sizeof(session));
    frame = fake_accept(fd);
    ck_assert_int_eq(frame.hello.channel, VMIBUS_CHANNEL_MEMORY);
    ck_assert_mem_eq(frame.hello.session, session, sizeof(session));
    frame = fake_read_frame(fd, NULL, 0);
    ck_assert_int_eq(frame.header.kind, VMIBUS_KIND_MEM_ATTACH);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    frame.ack.epoch = 9;
    fake_write_frame(fd, &frame, NULL);
    frame = fake_read_frame(fd, NULL, 0);
    ck_assert_int_eq(frame.header.kind, VMIBUS_KIND_MEM_RELEASE);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    frame.header.delivery = 2;
    fake_write_frame(fd, &frame, NULL);
    /* The end of this channel is the end of the connection. */
    fake_read(gate[0], &(char){0}, 1);
}

TEST(test_memory_channel_is_hidden) {
    struct vmibus_endpoint endpoint = {.slot = 1, .generation = 1};
    struct recorder recorder = {};
    struct fake_server server, memory;
    struct vmibus_attachment *attachment;
    struct vmibus_frame frame;
    struct pollfd poll_fd;
    struct vmibus *bus;
    int fd;

    fake_server_start_listening(&memory, memory_side, listen_for_memory());
    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fake_server_start(&server, bus_side), "test"), 0);
    vmibus_set_handler(bus, recorder_handle, &recorder);
    fd = vmibus_get_fd(bus);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", 1), 0);
    ck_assert_int_eq(vmibus_attach(bus, &endpoint, 0, &attachment, NULL), 0);
    ck_assert_int_eq(vmibus_get_fd(bus), fd);

    /* One descriptor wakes for either. */
    poll_fd = (struct pollfd){.fd = fd, .events = vmibus_get_poll_events(bus)};
    ck_assert_int_eq(poll(&poll_fd, 1, 0), 0);
    fake_write(gate[1], "", 1);
    ck_assert_int_eq(poll(&poll_fd, 1, -1), 1);
    ck_assert_int_eq(vmibus_dispatch(bus), 0);
    ck_assert_uint_eq(recorder.n, 1);
    ck_assert_int_eq(poll(&poll_fd, 1, 0), 0);
    vmibus_command_init(&frame, VMIBUS_KIND_MEM_RELEASE, &endpoint);
    ck_assert_int_eq(vmibus_send(bus, &frame, NULL, 0, NULL), 0);
    ck_assert_int_eq(poll(&poll_fd, 1, -1), 1);
    ck_assert_int_eq(vmibus_wait(bus, -1), 0);
    ck_assert_uint_eq(recorder.n, 2);
    ck_assert_uint_eq(recorder.deliveries[1], 2);

    /* Without the authority nobody tells of an epoch's end any more. */
    ck_assert(vmibus_epoch_is_current(attachment));
    fake_write(gate[1], "", 1);
    ck_assert_int_eq(vmibus_wait(bus, -1), -ECONNRESET);
    ck_assert(!vmibus_epoch_is_current(attachment));
    ck_assert_int_eq(vmibus_subscribe(bus, "*", 1), -ECONNRESET);
    vmibus_free(bus);
    ck_assert(!vmibus_epoch_is_current(attachment));
    ck_assert_int_eq(vmibus_release(attachment), -ECONNRESET);
    fake_server_join(&server);
    fake_server_join(&memory);
    forget_memory();
}

static void bus_with_an_event_in_a_call(int fd) {
    struct vmibus_frame frame, ack;

    accept_with_memory_elsewhere(fd);
    frame = fake_read_frame(fd, NULL, 0);
    ack = fake_ack(&frame, VMIBUS_ERROR_OK);
    frame = fake_frame(VMIBUS_KIND_LIFECYCLE);
    fake_write_frame(fd, &frame, NULL);
    fake_write_frame(fd, &ack, NULL);
    fake_await_close(fd);
}

TEST(test_p02_epoll_descriptor_tells_of_what_was_put_aside) {
    struct recorder recorder = {};
    struct fake_server server;
    struct pollfd poll_fd;
    struct vmibus *bus;

    strcpy(memory_path, "/nonexistent/memory.sock");
    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fake_server_start(&server, bus_with_an_event_in_a_call), "test"), 0);
    vmibus_set_handler(bus, recorder_handle, &recorder);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", 1), 0);
    poll_fd = (struct pollfd){.fd = vmibus_get_fd(bus), .events = POLLIN};
    ck_assert_int_eq(poll(&poll_fd, 1, -1), 1);
    ck_assert_int_eq(vmibus_dispatch(bus), 0);
    ck_assert_uint_eq(recorder.n, 1);
    ck_assert_int_eq(poll(&poll_fd, 1, 0), 0);
    vmibus_free(bus);
    fake_server_join(&server);
}

TEST(test_memory_socket_that_is_not_there) {
    struct vmibus_endpoint endpoint = {.slot = 1, .generation = 1};
    struct vmibus_attachment *attachment;
    struct fake_server server;
    struct vmibus *bus;

    strcpy(memory_path, "/nonexistent/memory.sock");
    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fake_server_start(&server, bus_with_an_event_in_a_call), "test"), 0);
    ck_assert_int_eq(vmibus_attach(bus, &endpoint, 0, &attachment, NULL), -ENOENT);
    /* The bus is still there. */
    ck_assert_int_eq(vmibus_subscribe(bus, "*", 1), 0);
    vmibus_free(bus);
    fake_server_join(&server);
}

/* --- lending ------------------------------------------------------------------------------------------ */

/* What the last borrower did not read comes first, an older WELCOME among it. */
static void welcome_a_borrower(int fd) {
    struct vmibus_frame hello = fake_read_frame(fd, NULL, 0);
    struct vmibus_frame welcome = fake_welcome(&hello);
    struct vmibus_frame stale = welcome;

    stale.header.correlation ^= 1;
    stale.welcome.incarnation = 99;
    fake_write_frame(fd, &stale, NULL);
    stale = fake_frame(VMIBUS_KIND_ROSTER);
    stale.header.tail_length = 3;
    fake_write_frame(fd, &stale, "old");
    stale = fake_ack(&hello, VMIBUS_ERROR_OK);
    stale.header.correlation ^= 2;
    fake_write_frame(fd, &stale, NULL);
    stale = fake_frame(VMIBUS_KIND_ERROR);
    fake_write_frame(fd, &stale, NULL);
    fake_write_frame(fd, &welcome, NULL);
    stale = fake_frame(VMIBUS_KIND_LIFECYCLE);
    stale.header.delivery = 6;
    fake_write_frame(fd, &stale, NULL);
    fake_await_close(fd);
}

static void lend(int fd) {
    char number[16];

    snprintf(number, sizeof(number), "%d", fd);
    ck_assert_int_eq(setenv("VMIBUS_LENT_FD", number, 1), 0);
    ck_assert_int_eq(setenv("VMIBUS_SOCKET", "/nonexistent/socket", 1), 0);
}

TEST(test_borrower_finds_the_session) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus, *another;
    int fd = fake_server_start(&server, welcome_a_borrower);

    lend(fd);
    ck_assert_int_eq(fcntl(fd, F_SETFD, 0), 0);
    ck_assert_int_eq(vmibus_connect(&bus, NULL, "test"), 0);
    ck_assert(vmibus_is_lent(bus));
    ck_assert_int_eq(vmibus_get_fd(bus), fd);
    ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    ck_assert_uint_eq(vmibus_get_welcome(bus)->incarnation, 7);
    /* It is lent once: whoever connects next goes the usual way. */
    ck_assert_int_eq(vmibus_connect(&another, NULL, "test"), -ENOENT);
    vmibus_set_handler(bus, recorder_handle, &recorder);
    ck_assert_int_eq(recorder_await(bus, &recorder, 1), 0);
    ck_assert_uint_eq(recorder.deliveries[0], 6);
    vmibus_free(bus);
    fake_server_join(&server);
}

TEST(test_lent_descriptor_that_is_none) {
    struct vmibus *bus;

    lend(1000);
    ck_assert_int_eq(vmibus_connect(&bus, NULL, "test"), -EBADF);
    ck_assert_int_eq(setenv("VMIBUS_LENT_FD", "3x", 1), 0);
    ck_assert_int_eq(vmibus_connect(&bus, NULL, "test"), -EBADF);
    ck_assert_int_eq(setenv("VMIBUS_LENT_FD", "-1", 1), 0);
    ck_assert_int_eq(vmibus_connect(&bus, NULL, "test"), -EBADF);
    /* A path that is named is meant. */
    ck_assert_int_eq(vmibus_connect(&bus, "/nonexistent/other", "test"), -ENOENT);
}

static void lender(int fd) {
    fake_accept(fd);
    welcome_a_borrower(fd);
}

TEST(test_lender_takes_it_back) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus;
    int copy;

    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fake_server_start(&server, lender), "test"), 0);
    vmibus_set_handler(bus, recorder_handle, &recorder);
    copy = vmibus_dup_fd(bus);
    ck_assert_int_ge(copy, 0);
    ck_assert_int_eq(fcntl(copy, F_GETFD), FD_CLOEXEC);
    close(copy);
    ck_assert_int_eq(vmibus_reclaim(bus, 5000), 0);
    ck_assert_int_eq(recorder_await(bus, &recorder, 1), 0);
    ck_assert_uint_eq(recorder.deliveries[0], 6);
    vmibus_free(bus);
    fake_server_join(&server);
}

static int no_send(void *context, const struct vmibus_frame *frame, const void *tail, const int *fds) {
    (void)context, (void)frame, (void)tail, (void)fds;
    return -ENOBUFS;
}

static void count_close(void *context) {
    ++*(int *)context;
}

TEST(test_link_is_closed_whatever_the_outcome) {
    static const struct vmibus_link_ops ops = {.send = no_send, .close = count_close};
    struct vmibus *bus;
    int closed = 0;

    ck_assert_int_eq(vmibus_connect_link(&bus, &ops, &closed, NULL), -ENOBUFS);
    ck_assert_int_eq(closed, 1);
}

HARNESS_SUITE("channels", HARNESS_QUICK)
