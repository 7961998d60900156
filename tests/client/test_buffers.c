/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Buffers of a bus that does not keep its word. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client/fake_server.h"
#include "harness.h"

#define PAGE 4096

enum answer {
    GOOD,
    NO_DESCRIPTOR,
    TWO_DESCRIPTORS,
    NOT_SEALED,
    TOO_SHORT,
    NO_OCTETS,
    NO_FILE,
    REFUSED,
    N_ANSWERS,
};

static enum answer wanted;
static struct fake_server server;

static int make_file(void) {
    int ends[2], fd;

    if (wanted == NO_FILE) {
        ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
        close(ends[1]);
        return ends[0];
    }
    fd = memfd_create("buffer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(fd, wanted == TOO_SHORT ? PAGE / 2 : PAGE), 0);
    if (wanted != NOT_SEALED)
        ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    return fd;
}

static void answer(int fd, const struct vmibus_frame *command) {
    struct vmibus_frame ack = fake_ack(command, wanted == REFUSED ? VMIBUS_ERROR_QUOTA : VMIBUS_ERROR_OK);
    int file = make_file();
    const int fds[] = {file, file};

    ack.ack.value = 7;
    ack.ack.count = wanted == NO_OCTETS ? 0 : PAGE;
    ack.header.fd_count = wanted == NO_DESCRIPTOR || wanted == REFUSED ? 0 : wanted == TWO_DESCRIPTORS ? 2 : 1;
    if (ack.header.fd_count)
        fake_write_fds(fd, &ack, sizeof(ack), fds, ack.header.fd_count);
    else
        fake_write_frame(fd, &ack, NULL);
    close(file);
}

static void serve(int fd) {
    struct vmibus_frame command;

    fake_accept(fd);
    command = fake_read_frame(fd, NULL, 0);
    ck_assert_uint_eq(command.header.kind, VMIBUS_KIND_BUFFER);
    ck_assert_uint_eq(command.buffer.operation, VMIBUS_BUFFER_OPERATION_ALLOCATE);
    answer(fd, &command);
    if (wanted == REFUSED)
        return;
    /* What is no buffer to the library is given back all the same. */
    command = fake_read_frame(fd, NULL, 0);
    ck_assert_uint_eq(command.buffer.operation, VMIBUS_BUFFER_OPERATION_FREE);
    ck_assert_uint_eq(command.buffer.buffer, 7);
    command = fake_ack(&command, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &command, NULL);
}

TEST(test_p09_a_buffer_is_looked_at, .iterations = N_ANSWERS) {
    struct vmibus_mapped_buffer *buffer = NULL;
    struct vmibus_message reply;
    struct vmibus *bus;
    int r;

    wanted = (enum answer)_i;
    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fake_server_start(&server, serve), "test"), 0);
    r = vmibus_buffer_new(bus, PAGE, &buffer, &reply);
    vmibus_message_deinit(&reply);
    if (wanted == GOOD) {
        ck_assert_int_eq(r, 0);
        ck_assert_uint_eq(buffer->number, 7);
        buffer->octets[PAGE - 1] = 1;
        vmibus_buffer_free(buffer);
    } else {
        ck_assert_int_eq(r, wanted == REFUSED ? (int)VMIBUS_ERROR_QUOTA : -EPROTO);
        ck_assert_ptr_null(buffer);
    }
    vmibus_free(bus);
    fake_server_join(&server);
}

HARNESS_SUITE("buffers", HARNESS_QUICK)
