/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Frames, tails and descriptors out of a stream, however it is cut; and what that costs in system calls. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/fake_server.h"
#include "client/recorder.h"
#include "harness.h"

static struct vmibus *connect_to(struct fake_server *server, struct recorder *recorder, fake_script script) {
    struct vmibus *bus = NULL;

    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fake_server_start(server, script), "test"), 0);
    vmibus_set_handler(bus, recorder_handle, recorder);
    return bus;
}

static struct vmibus_frame roster(uint64_t delivery, uint32_t tail_length) {
    struct vmibus_frame frame = fake_frame(VMIBUS_KIND_ROSTER);

    frame.header.delivery = delivery;
    frame.header.tail_length = tail_length;
    return frame;
}

static uint8_t pattern[VMIBUS_TAIL_BOUND_DEFAULT];

static void fill_pattern(void) {
    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = (uint8_t)(i * 31 + (i >> 8));
}

/* --- cuts ------------------------------------------------------------------------------------------ */

/* Tail lengths at and around what fits into one bulk receive, which is 64 KiB. */
static const uint32_t lengths[] = {
    0, 1, 7, 127, 128, 129, 0, 0, 65279, 65280, 65281, 65407, 65408, 65409, 65536, 3, 200000, VMIBUS_TAIL_BOUND_DEFAULT, 0, 5,
};

#define N_LENGTHS (sizeof(lengths) / sizeof(lengths[0]))

static const size_t cuts[] = {1, 2, 127, 128, 129, 1000, 65535, 65536, 65537, SIZE_MAX};

static size_t cut;

static uint8_t *make_stream(size_t *sizep) {
    size_t size = 0;
    uint8_t *stream;

    for (size_t i = 0; i < N_LENGTHS; i++)
        size += VMIBUS_FRAME_SIZE + lengths[i];
    stream = malloc(size);
    ck_assert_ptr_nonnull(stream);
    *sizep = 0;
    for (size_t i = 0; i < N_LENGTHS; i++) {
        struct vmibus_frame frame = roster(i + 1, lengths[i]);

        memcpy(stream + *sizep, &frame, sizeof(frame));
        memcpy(stream + *sizep + sizeof(frame), pattern, lengths[i]);
        *sizep += sizeof(frame) + lengths[i];
    }
    return stream;
}

static void write_in_pieces(int fd) {
    size_t size;
    uint8_t *stream;

    fake_accept(fd);
    stream = make_stream(&size);
    /* Octet by octet, the first frames suffice. */
    if (cut < 100)
        size = 9 * VMIBUS_FRAME_SIZE + 1 + 7 + 127 + 128 + 129;
    for (size_t at = 0; at < size;) {
        size_t n = size - at < cut ? size - at : cut;

        fake_write(fd, stream + at, n);
        at += n;
    }
    free(stream);
    fake_await_close(fd);
}

TEST(test_stream_cut_anywhere, .iterations = sizeof(cuts) / sizeof(cuts[0])) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus;
    size_t n = cuts[_i] < 100 ? 8 : N_LENGTHS;

    fill_pattern();
    cut = cuts[_i];
    bus = connect_to(&server, &recorder, write_in_pieces);
    ck_assert_int_eq(recorder_await(bus, &recorder, n), 0);
    for (size_t i = 0; i < n; i++) {
        ck_assert_uint_eq(recorder.deliveries[i], i + 1);
        ck_assert_uint_eq(recorder.tail_lengths[i], lengths[i]);
        ck_assert_uint_eq(recorder.tail_sums[i], recorder_sum(pattern, lengths[i]));
    }
    vmibus_free(bus);
    fake_server_join(&server);
}

/* --- descriptors ------------------------------------------------------------------------------------ */

/* Distinct files by which descriptors are told apart: memfds whose size is their number. */
static int numbered_file(int number) {
    int fd = memfd_create("numbered", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, number), 0);
    return fd;
}

static void ck_assert_number(int fd, int number) {
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(st.st_size, number);
    ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

static struct vmibus_frame ack_with_fds(uint64_t delivery, uint8_t n) {
    struct vmibus_frame frame = fake_frame(VMIBUS_KIND_ACK);

    frame.header.delivery = delivery;
    frame.header.fd_count = n;
    return frame;
}

static void pass_descriptors(int fd) {
    struct vmibus_frame frames[3] = {roster(1, 0), ack_with_fds(2, 2), roster(3, 0)};
    struct vmibus_frame last = ack_with_fds(4, VMIBUS_FDS_PER_FRAME);
    uint8_t octets[sizeof(last) + 100] = {};
    int fds[VMIBUS_FDS_PER_FRAME];

    for (int i = 0; i < VMIBUS_FDS_PER_FRAME; i++)
        fds[i] = numbered_file(i + 1);
    fake_accept(fd);
    /* Those of the second frame come with the first octet of the first. */
    fake_write_fds(fd, frames, sizeof(frames), fds, 2);
    fake_write(fd, &frames[0], sizeof(frames[0]));
    last.header.tail_length = 100;
    memcpy(octets, &last, sizeof(last));
    /* A frame that is cut, with its descriptors at its first octet. */
    fake_write_fds(fd, octets, 50, fds, VMIBUS_FDS_PER_FRAME);
    fake_write(fd, octets + 50, 100);
    fake_write(fd, octets + 150, sizeof(octets) - 150);
    for (int i = 0; i < VMIBUS_FDS_PER_FRAME; i++)
        close(fds[i]);
    fake_await_close(fd);
}

TEST(test_descriptors_belong_to_their_frame) {
    struct recorder recorder = {.take_fds = true};
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, &recorder, pass_descriptors);

    ck_assert_int_eq(recorder_await(bus, &recorder, 5), 0);
    ck_assert_uint_eq(recorder.n_fds, 2 + VMIBUS_FDS_PER_FRAME);
    for (int i = 0; i < 2 + VMIBUS_FDS_PER_FRAME; i++) {
        ck_assert_number(recorder.fds[i], i < 2 ? i + 1 : i - 1);
        close(recorder.fds[i]);
    }
    vmibus_free(bus);
    fake_server_join(&server);
}

TEST(test_descriptors_not_taken_are_closed) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, &recorder, pass_descriptors);

    ck_assert_int_eq(recorder_await(bus, &recorder, 5), 0);
    vmibus_free(bus);
    fake_server_join(&server);
}

static void answer_with_descriptor(int fd) {
    struct vmibus_frame command, ack;
    int file = numbered_file(77);

    fake_accept(fd);
    command = fake_read_frame(fd, NULL, 0);
    ack = fake_ack(&command, VMIBUS_ERROR_OK);
    ack.header.fd_count = 1;
    fake_write_fds(fd, &ack, sizeof(ack), &file, 1);
    close(file);
    fake_await_close(fd);
}

TEST(test_reply_owns_its_descriptors, .iterations = 2) {
    struct vmibus_endpoint endpoint = {.slot = 1, .generation = 1};
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus_message reply;
    struct vmibus_frame frame;
    struct vmibus *bus = connect_to(&server, &recorder, answer_with_descriptor);

    vmibus_command_init(&frame, VMIBUS_KIND_MEM_ATTACH, &endpoint);
    ck_assert_int_eq(vmibus_call(bus, &frame, NULL, 0, &reply), 0);
    ck_assert_number(reply.fds[0], 77);
    if (_i == 1) {
        close(reply.fds[0]);
        reply.fds[0] = -1;
    }
    vmibus_message_deinit(&reply);
    vmibus_free(bus);
    fake_server_join(&server);
}

static void pass_unannounced(int fd) {
    struct vmibus_frame frame = roster(1, 0);

    fake_accept(fd);
    fake_write_fds(fd, &frame, sizeof(frame), &fd, 1);
    fake_await_close(fd);
}

static void pass_with_an_event(int fd) {
    struct vmibus_frame frame = roster(1, 0);

    fake_accept(fd);
    frame.header.fd_count = 1;
    fake_write_fds(fd, &frame, sizeof(frame), &fd, 1);
    fake_await_close(fd);
}

static void pass_hundreds_in_one_frame(int fd) {
    struct vmibus_frame frame = roster(1, 0);
    int fds[253];

    for (size_t i = 0; i < 253; i++)
        fds[i] = fd;
    fake_accept(fd);
    fake_write_fds(fd, &frame, 10, fds, 253);
    fake_write_fds(fd, (char *)&frame + 10, 10, fds, 253);
    fake_await_close(fd);
}

static const fake_script smugglers[] = {pass_unannounced, pass_with_an_event, pass_hundreds_in_one_frame};

TEST(test_p09_descriptors_of_no_frame_end_the_connection, .iterations = sizeof(smugglers) / sizeof(smugglers[0])) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, &recorder, smugglers[_i]);

    ck_assert_int_eq(recorder_await(bus, &recorder, 100), -EPROTO);
    vmibus_free(bus);
    fake_server_join(&server);
}

static void pass_two_and_hold(int fd) {
    struct vmibus_frame frame = ack_with_fds(1, 2);
    int file = numbered_file(1);
    int fds[] = {file, file};

    fake_accept(fd);
    fake_read_frame(fd, NULL, 0);
    fake_write_fds(fd, &frame, sizeof(frame), fds, 2);
    fake_await_close(fd);
    close(file);
}

/* This process has room for one descriptor more, or for none. */
TEST(test_truncated_descriptors_are_an_error, .iterations = 2) {
    struct recorder recorder = {.take_fds = true};
    struct fake_server server;
    struct vmibus_frame frame;
    struct rlimit limit, small;
    struct vmibus *bus;
    int next;

    if (harness_is_under_valgrind())
        test_skip("valgrind keeps the limit on descriptors to itself: the kernel does not know it");
    bus = connect_to(&server, &recorder, pass_two_and_hold);
    vmibus_command_init(&frame, VMIBUS_KIND_QUERY, NULL);
    ck_assert_int_eq(vmibus_send(bus, &frame, NULL, 0, NULL), 0);
    ck_assert_int_eq(poll(&(struct pollfd){.fd = vmibus_get_fd(bus), .events = POLLIN}, 1, -1), 1);
    next = dup(0);
    close(next);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    small = limit;
    small.rlim_cur = (rlim_t)(next + _i);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &small), 0);
    ck_assert_int_eq(recorder_await(bus, &recorder, 1), -EMFILE);
    ck_assert_uint_eq(recorder.n, 0);
    ck_assert_int_eq(vmibus_dispatch(bus), -EMFILE);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    vmibus_free(bus);
    fake_server_join(&server);
}

/* --- cost -------------------------------------------------------------------------------------------- */

/* Calls that this thread made by way of the library; the linker puts these in between. */
static __thread unsigned n_sent, n_recvmsg, n_poll;

ssize_t __real_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags);
ssize_t __real_send(int fd, const void *octets, size_t length, int flags);
ssize_t __wrap_send(int fd, const void *octets, size_t length, int flags);
ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);

ssize_t __wrap_sendmsg(int fd, const struct msghdr *message, int flags) {
    n_sent++;
    return __real_sendmsg(fd, message, flags);
}

ssize_t __wrap_send(int fd, const void *octets, size_t length, int flags) {
    n_sent++;
    return __real_send(fd, octets, length, flags);
}

ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags) {
    n_recvmsg++;
    return __real_recvmsg(fd, message, flags);
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout) {
    n_poll++;
    return __real_poll(fds, n, timeout);
}

static void ck_assert_cost(unsigned sends, unsigned receives, unsigned polls) {
    ck_assert_uint_eq(n_sent, sends);
    ck_assert_uint_eq(n_recvmsg, receives);
    ck_assert_uint_eq(n_poll, polls);
    n_sent = n_recvmsg = n_poll = 0;
}

static void answer_hundred(int fd) {
    fake_accept(fd);
    for (size_t i = 0; i < 100; i++) {
        struct vmibus_frame command = fake_read_frame(fd, NULL, 0);
        struct vmibus_frame ack = fake_ack(&command, VMIBUS_ERROR_OK);

        fake_write_frame(fd, &ack, NULL);
    }
    fake_await_close(fd);
}

static int call_anything(struct vmibus *bus, uint64_t epoch) {
    struct vmibus_endpoint endpoint = {.slot = 1, .generation = 1};
    struct vmibus_frame frame;

    vmibus_command_init(&frame, VMIBUS_KIND_MEM_RELEASE, &endpoint);
    frame.mem_release.epoch = epoch;
    return vmibus_call(bus, &frame, NULL, 0, NULL);
}

TEST(test_call_costs_one_send_one_wait_and_one_receive) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, &recorder, answer_hundred);

    n_sent = n_recvmsg = n_poll = 0;
    for (size_t i = 0; i < 100; i++)
        ck_assert_int_eq(call_anything(bus, i), 0);
    /* An answer that came while the command was being sent is not seen before the wait. */
    ck_assert_cost(100, 100, 100);
    vmibus_free(bus);
    fake_server_join(&server);
}

static int gate[2];

static void burst(int fd) {
    struct vmibus_frame frames[300];

    for (size_t i = 0; i < 300; i++)
        frames[i] = roster(i + 1, 0);
    fake_accept(fd);
    fake_read_frame(fd, NULL, 0);
    fake_write(fd, frames, sizeof(frames));
    fake_write(gate[1], "", 1);
    fake_await_close(fd);
}

TEST(test_burst_costs_one_receive) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus_frame frame;
    struct vmibus *bus;

    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate), 0);
    bus = connect_to(&server, &recorder, burst);
    vmibus_command_init(&frame, VMIBUS_KIND_QUERY, NULL);
    ck_assert_int_eq(vmibus_send(bus, &frame, NULL, 0, NULL), 0);
    fake_read(gate[0], &(char){0}, 1);
    n_sent = n_recvmsg = n_poll = 0;
    ck_assert_int_eq(vmibus_dispatch(bus), 0);
    ck_assert_uint_eq(recorder.n, 300);
    ck_assert_cost(0, 1, 0);
    vmibus_free(bus);
    fake_server_join(&server);
    close(gate[0]);
    close(gate[1]);
}

TEST(test_wait_on_a_socket_that_does_not_block) {
    struct recorder recorder = {};
    struct fake_server server;
    struct vmibus *bus = connect_to(&server, &recorder, answer_hundred);

    ck_assert_int_eq(fcntl(vmibus_get_fd(bus), F_SETFL, O_NONBLOCK), 0);
    for (size_t i = 0; i < 100; i++)
        ck_assert_int_eq(call_anything(bus, i), 0);
    vmibus_free(bus);
    fake_server_join(&server);
}

HARNESS_SUITE("socket_link", HARNESS_QUICK)
