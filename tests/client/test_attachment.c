/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Attachments of a control: what an answer must hold, and when an epoch is current. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "client/fake_server.h"
#include "harness.h"

#define EPOCH UINT64_C(0x700000003)

static const struct vmibus_endpoint endpoint = {.slot = 1, .generation = 5};

/* The bus's side, in this process: its writable mapping of the page. */
static struct vmibus_epoch_page *written;
static int page_fd = -1, ram_fd = -1;

static void make_page(off_t size, int seals) {
    page_fd = memfd_create("page", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ram_fd = memfd_create("ram", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(page_fd, size), 0);
    written = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, page_fd, 0);
    ck_assert_ptr_ne(written, MAP_FAILED);
    ck_assert_int_eq(fcntl(page_fd, F_ADD_SEALS, seals), 0);
    if (size)
        written->epoch = EPOCH;
}

static void forget_page(void) {
    close(page_fd);
    close(ram_fd);
}

/* How the fake bus answers. */
static struct answer {
    uint64_t epoch;
    size_t n_fds; /* of the RAM first, the page last */
    bool refuses;
    bool hangs_up;
} answer;

static void serve(int fd) {
    const struct vmibus_ram_range range = {.len = 4096};
    struct vmibus_frame frame = fake_read_frame(fd, NULL, 0), welcome = fake_welcome(&frame);
    int fds[2] = {ram_fd, page_fd};

    welcome.welcome.features = VMIBUS_FEATURE_MEMORY | VMIBUS_FEATURE_EPOCH_PAGE;
    fake_write_frame(fd, &welcome, NULL);
    frame = fake_read_frame(fd, NULL, 0);
    ck_assert_int_eq(frame.header.kind, VMIBUS_KIND_MEM_ATTACH);
    frame = fake_ack(&frame, answer.refuses ? VMIBUS_ERROR_DENIED : VMIBUS_ERROR_OK);
    frame.ack.epoch = answer.epoch;
    if (!answer.refuses) {
        frame.ack.count = 1;
        frame.header.tail_length = sizeof(range);
        frame.header.fd_count = (uint8_t)answer.n_fds;
    }
    if (frame.header.fd_count) {
        uint8_t octets[sizeof(frame) + sizeof(range)];

        memcpy(octets, &frame, sizeof(frame));
        memcpy(octets + sizeof(frame), &range, sizeof(range));
        fake_write_fds(fd, octets, sizeof(octets), answer.n_fds == 1 ? fds + 1 : fds, answer.n_fds);
    } else {
        fake_write_frame(fd, &frame, answer.refuses ? NULL : &range);
    }
    if (answer.hangs_up || answer.refuses)
        return;
    frame = fake_read_frame(fd, NULL, 0);
    ck_assert_int_eq(frame.header.kind, VMIBUS_KIND_MEM_RELEASE);
    ck_assert_uint_eq(frame.mem_release.epoch, EPOCH);
    frame = fake_ack(&frame, VMIBUS_ERROR_OK);
    fake_write_frame(fd, &frame, NULL);
    fake_await_close(fd);
}

static int connect_and_attach(struct fake_server *server, struct vmibus **busp, struct vmibus_attachment **attachmentp) {
    ck_assert_int_eq(vmibus_connect_consume_fd(busp, fake_server_start(server, serve), "test"), 0);
    return vmibus_attach(*busp, &endpoint, 0, attachmentp, NULL);
}

TEST(test_p06_page_tells_without_a_message) {
    struct vmibus_attachment *attachment;
    struct fake_server server;
    struct vmibus *bus;

    make_page(4096, F_SEAL_SHRINK | F_SEAL_GROW);
    answer = (struct answer){.epoch = EPOCH, .n_fds = 2};
    ck_assert_int_eq(connect_and_attach(&server, &bus, &attachment), 0);
    ck_assert_uint_eq(attachment->epoch, EPOCH);
    ck_assert_uint_eq(attachment->n_fds, 1);
    ck_assert_uint_eq(attachment->n_ranges, 1);
    ck_assert_uint_eq(attachment->ranges[0].len, 4096);
    ck_assert(vmibus_epoch_is_current(attachment));
    written->epoch = 0;
    ck_assert(!vmibus_epoch_is_current(attachment));
    written->epoch = EPOCH + 1;
    ck_assert(!vmibus_epoch_is_current(attachment));
    ck_assert_int_eq(vmibus_release(attachment), 0);
    vmibus_free(bus);
    fake_server_join(&server);
    forget_page();
}

/* Who reads through the authority has the page and no descriptors. */
TEST(test_p06_mediated_attachment_has_the_page) {
    struct vmibus_attachment *attachment;
    struct fake_server server;
    struct vmibus *bus;

    make_page(4096, F_SEAL_SHRINK);
    answer = (struct answer){.epoch = EPOCH, .n_fds = 1};
    ck_assert_int_eq(connect_and_attach(&server, &bus, &attachment), 0);
    ck_assert_uint_eq(attachment->n_fds, 0);
    ck_assert(vmibus_epoch_is_current(attachment));
    written->epoch = 0;
    ck_assert(!vmibus_epoch_is_current(attachment));
    ck_assert_int_eq(vmibus_release(attachment), 0);
    vmibus_free(bus);
    fake_server_join(&server);
    forget_page();
}

/* A dead authority changes no page: that the connection has ended must tell. */
TEST(test_p06_hang_up_ends_it) {
    struct vmibus_attachment *attachment;
    struct fake_server server;
    struct vmibus *bus;

    make_page(4096, F_SEAL_SHRINK);
    answer = (struct answer){.epoch = EPOCH, .n_fds = 2, .hangs_up = true};
    ck_assert_int_eq(connect_and_attach(&server, &bus, &attachment), 0);
    ck_assert(vmibus_epoch_is_current(attachment));
    fake_server_join(&server);
    ck_assert_int_eq(vmibus_wait(bus, -1), -ECONNRESET);
    ck_assert_uint_eq(written->epoch, EPOCH);
    ck_assert(!vmibus_epoch_is_current(attachment));
    ck_assert_int_eq(vmibus_release(attachment), -ECONNRESET);
    vmibus_free(bus);
    forget_page();
}

TEST(test_p06_attachment_outlives_its_connection) {
    struct vmibus_attachment *attachment;
    struct fake_server server;
    struct vmibus *bus;

    make_page(4096, F_SEAL_SHRINK);
    answer = (struct answer){.epoch = EPOCH, .n_fds = 2, .hangs_up = true};
    ck_assert_int_eq(connect_and_attach(&server, &bus, &attachment), 0);
    vmibus_free(bus);
    fake_server_join(&server);
    ck_assert(!vmibus_epoch_is_current(attachment));
    ck_assert_int_ge(fcntl(attachment->fds[0], F_GETFD), 0);
    ck_assert_int_eq(vmibus_release(attachment), -ECONNRESET);
    forget_page();
}

/* A page that could make its reader fault, or that is none, is not believed; nor is an epoch of 0. */
TEST(test_p09_answers_that_hold_not_what_they_say, .iterations = 4) {
    struct vmibus_attachment *attachment = NULL;
    struct fake_server server;
    struct vmibus *bus;

    make_page(_i == 0 ? 0 : 4096, _i == 1 ? F_SEAL_GROW : F_SEAL_SHRINK);
    answer = (struct answer){.epoch = _i == 2 ? 0 : EPOCH, .n_fds = _i == 3 ? 0 : 2, .hangs_up = true};
    ck_assert_int_eq(connect_and_attach(&server, &bus, &attachment), -EPROTO);
    ck_assert_ptr_null(attachment);
    vmibus_free(bus);
    fake_server_join(&server);
    forget_page();
}

TEST(test_refusal_is_explained) {
    struct vmibus_attachment *attachment = NULL;
    struct vmibus_message reply;
    struct fake_server server;
    struct vmibus *bus;

    answer = (struct answer){.refuses = true};
    ck_assert_int_eq(vmibus_connect_consume_fd(&bus, fake_server_start(&server, serve), "test"), 0);
    ck_assert_int_eq(vmibus_attach(bus, &endpoint, 0, &attachment, &reply), VMIBUS_ERROR_DENIED);
    ck_assert_int_eq(reply.frame.ack.command, VMIBUS_KIND_MEM_ATTACH);
    vmibus_message_deinit(&reply);
    ck_assert_ptr_null(attachment);
    ck_assert_int_eq(vmibus_release(NULL), 0);
    vmibus_free(bus);
    fake_server_join(&server);
}

HARNESS_SUITE("attachments of a control", HARNESS_QUICK)
