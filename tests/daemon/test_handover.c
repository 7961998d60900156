/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Epoch pages over the daemon's death: a service manager made of this test keeps them, and the next daemon ends what they
 * show.  Nobody tells the readers anything.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

/* --- the service manager ------------------------------------------------------------------------ */

static struct manager {
    char directory[64];
    char path[96];
    int fd;
    char name[64];  /* of what was given to be kept last */
    int kept;
} manager = {.fd = -1, .kept = -1};

static void manager_start(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    strcpy(manager.directory, "/tmp/vmibus-manager-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(manager.directory));
    snprintf(manager.path, sizeof(manager.path), "%s/notify", manager.directory);
    manager.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    strcpy(address.sun_path, manager.path);
    ck_assert_int_eq(bind(manager.fd, (struct sockaddr *)&address, sizeof(address)), 0);
}

static void manager_stop(void) {
    close(manager.kept);
    close(manager.fd);
    unlink(manager.path);
    rmdir(manager.directory);
}

/* Reads notifications until one gives something to keep. */
static void manager_await_store(void) {
    for (;;) {
        _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
        char text[512];
        struct iovec piece = {.iov_base = text, .iov_len = sizeof(text) - 1};
        struct msghdr message = {
            .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
        ssize_t n = recvmsg(manager.fd, &message, MSG_CMSG_CLOEXEC);

        ck_assert_int_gt(n, 0);
        text[n] = '\0';
        for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header))
            if (header->cmsg_type == SCM_RIGHTS)
                memcpy(&manager.kept, CMSG_DATA(header), sizeof(manager.kept));
        if (!strstr(text, "FDSTORE=1\n"))
            continue;
        ck_assert_int_ge(manager.kept, 0);
        ck_assert_int_eq(sscanf(strstr(text, "FDNAME="), "FDNAME=%63[^\n]", manager.name), 1);
        return;
    }
}

/* --- the reader --------------------------------------------------------------------------------- */

struct reader {
    int connection;
    struct wire_endpoint endpoint;
    int page_fd;
    const volatile struct vmibus_epoch_page *page;
};

static struct reader read_page(void) {
    struct reader reader = {.connection = wire_open(d->path, NULL)};
    struct vmibus_frame command;
    int fds[VMIBUS_FDS_PER_FRAME];
    size_t n;

    reader.endpoint = wire_find(reader.connection, "stub-0");
    command = wire_command(VMIBUS_KIND_MEM_ATTACH, &reader.endpoint);
    command.mem_attach.epoch = reader.endpoint.epoch;
    wire_keep_fds(fds, &n);
    ck_assert_uint_eq(wire_ask(reader.connection, &command, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    wire_keep_fds(NULL, NULL);
    ck_assert_uint_eq(n, 2);
    close(fds[0]);
    reader.page_fd = fds[1];
    reader.page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fds[1], 0);
    ck_assert_ptr_ne((void *)reader.page, MAP_FAILED);
    ck_assert_uint_eq(reader.page->epoch, reader.endpoint.epoch);
    return reader;
}

static void reader_close(struct reader *reader) {
    munmap((void *)reader->page, 4096);
    close(reader->page_fd);
    close(reader->connection);
}

static ino_t inode_of(int fd) {
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return st.st_ino;
}

static void start(bool activated) {
    const struct daemon_options options = {.notify = manager.path, .activated = activated};

    daemon_start(d, &options);
}

static void start_again(const char *name) {
    if (d->options.activated)
        unlink(d->path);
    d->options.kept[0] = manager.kept;
    d->options.kept_names[0] = name;
    d->options.n_kept = 1;
    daemon_restart(d);
}

/* --- what the reader sees ----------------------------------------------------------------------- */

TEST(test_p06_dead_epoch_is_ended_by_the_next_daemon, .timeout = 60, .iterations = 2) {
    struct reader reader, next;
    char name[32];
    uint64_t dead;

    manager_start();
    start(_i == 1);
    reader = read_page();
    dead = reader.endpoint.epoch;
    manager_await_store();
    snprintf(name, sizeof(name), "epoch-%u", reader.endpoint.slot);
    ck_assert_str_eq(manager.name, name);
    ck_assert_uint_eq(inode_of(manager.kept), inode_of(reader.page_fd));

    /* While there is no daemon nobody can tell: that the connection ended is all there is. */
    daemon_kill(d);
    ck_assert_uint_eq(reader.page->epoch, dead);
    (void)wire_await_end(reader.connection);

    start_again(manager.name);
    ck_assert_uint_ne(reader.page->epoch, dead);
    /* It is given up: its old readers see nothing of the next daemon's epochs, and the manager need not keep it. */
    ck_assert_uint_eq(reader.page->epoch, 0);
    next = read_page();
    ck_assert_uint_ne(inode_of(next.page_fd), inode_of(reader.page_fd));
    ck_assert_uint_gt(next.endpoint.epoch, dead);
    ck_assert_uint_eq(reader.page->epoch, 0);
    reader_close(&next);
    daemon_stop(d);
    ck_assert_uint_eq(reader.page->epoch, 0);
    reader_close(&reader);
    manager_stop();
}

/* It ends the page by itself, not because another epoch begins there. */
TEST(test_p06_dead_epoch_ends_without_a_successor, .timeout = 60) {
    struct reader reader;

    manager_start();
    start(false);
    reader = read_page();
    manager_await_store();
    daemon_kill(d);
    d->options.arguments[0] = "--stub=0";
    d->options.unready = true;
    start_again(manager.name);
    ck_assert_uint_eq(reader.page->epoch, 0);
    reader_close(&reader);
    daemon_stop(d);
    manager_stop();
}

/* A page whose slot the next daemon does not have is ended too. */
TEST(test_p06_page_of_a_slot_that_is_no_more_is_ended, .timeout = 60) {
    struct reader reader;

    manager_start();
    start(false);
    reader = read_page();
    manager_await_store();
    daemon_kill(d);
    start_again("epoch-4000000000");
    ck_assert_uint_eq(reader.page->epoch, 0);
    reader_close(&reader);
    daemon_stop(d);
    manager_stop();
}

/* Something else by the name of a page is not written into. */
TEST(test_p12_what_is_no_page_is_left_alone, .timeout = 60) {
    uint64_t word = 0x1234;

    manager_start();
    start(false);
    daemon_kill(d);
    manager.kept = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ck_assert_int_eq(ftruncate(manager.kept, 4096), 0);
    ck_assert_int_eq(fchmod(manager.kept, 0400), 0);
    ck_assert_int_eq(pwrite(manager.kept, &word, sizeof(word), 0), sizeof(word));
    start_again("epoch-1");
    ck_assert_int_eq(pread(manager.kept, &word, sizeof(word), 0), sizeof(word));
    ck_assert_uint_eq(word, 0x1234);
    daemon_stop(d);
    manager_stop();
}

TEST(test_p12_unknown_descriptor_stops_the_start, .timeout = 60) {
    struct daemon_options options = {.kept = {STDERR_FILENO}, .kept_names = {"epoch-"}, .n_kept = 1};

    daemon_spawn(d, &options);
    daemon_await_log(d, "the service manager passed something else");
    ck_assert_int_eq(daemon_await_exit(d), 1);
    daemon_remove(d);
}

/* Who can open it for writing: nobody, unless the next daemon has to. */
TEST(test_p03_page_is_sealed_as_far_as_it_can_be, .timeout = 60, .iterations = 2) {
    const struct daemon_options options = {.notify = _i == 1 ? manager.path : NULL};
    const int size = F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK;
    struct reader reader;

    manager_start();
    daemon_start(d, &options);
    reader = read_page();
    ck_assert_int_eq(fcntl(reader.page_fd, F_GET_SEALS), _i == 1 ? size : size | F_SEAL_FUTURE_WRITE);
    ck_assert_int_eq(fcntl(reader.page_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    reader_close(&reader);
    daemon_stop(d);
    manager_stop();
}

/* --- the barrier, over a socket ----------------------------------------------------------------- */

static int attach_ram(int fd, struct wire_endpoint *endpoint) {
    struct vmibus_frame command;
    int fds[VMIBUS_FDS_PER_FRAME];
    size_t n;

    *endpoint = wire_find(fd, "stub-0");
    command = wire_command(VMIBUS_KIND_MEM_ATTACH, endpoint);
    command.mem_attach.epoch = endpoint->epoch;
    wire_keep_fds(fds, &n);
    ck_assert_uint_eq(wire_ask(fd, &command, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    wire_keep_fds(NULL, NULL);
    ck_assert_uint_eq(n, 2);
    close(fds[1]);
    return fds[0];
}

static void release(int fd, const struct wire_endpoint *endpoint) {
    struct vmibus_frame command = wire_command(VMIBUS_KIND_MEM_RELEASE, endpoint);

    command.mem_release.epoch = endpoint->epoch;
    ck_assert_uint_eq(wire_ask(fd, &command, NULL, 0).ack.error, VMIBUS_ERROR_OK);
}

static void reset(int fd, const struct wire_endpoint *endpoint) {
    uint64_t token = wire_acquire(fd, endpoint, VMIBUS_LEASE_CLASS_POWER);
    struct vmibus_frame command = wire_command(VMIBUS_KIND_CMD_POWER, endpoint);

    command.cmd_power.token = token;
    command.cmd_power.operation = VMIBUS_POWER_OPERATION_RESET;
    ck_assert_uint_eq(wire_ask(fd, &command, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    command = wire_command(VMIBUS_KIND_CMD_LEASE, endpoint);
    command.cmd_lease.operation = VMIBUS_LEASE_OPERATION_RELEASE;
    command.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_POWER;
    command.cmd_lease.token = token;
    ck_assert_uint_eq(wire_ask(fd, &command, NULL, 0).ack.error, VMIBUS_ERROR_OK);
}

/* The stub's RAM of an ended epoch stays what it was for as long as somebody holds it, and is used again afterwards. */
TEST(test_p06_stub_reuses_ram_only_when_it_is_retired, .timeout = 60) {
    const struct daemon_options options = {.config = "[daemon]\nretire-timeout-ms = 600000\n"};
    struct wire_endpoint first, second, third, fourth;
    uint8_t before[4096], after[4096];
    int fd, rams[4];
    off_t at;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    rams[0] = attach_ram(fd, &first);
    at = lseek(rams[0], 0, SEEK_DATA);
    ck_assert_int_ge(at, 0);
    ck_assert_int_eq(pread(rams[0], before, sizeof(before), at), sizeof(before));
    reset(fd, &first);
    rams[1] = attach_ram(fd, &second);
    ck_assert_uint_ne(inode_of(rams[1]), inode_of(rams[0]));
    reset(fd, &first);
    rams[2] = attach_ram(fd, &third);
    ck_assert_uint_ne(inode_of(rams[2]), inode_of(rams[0]));
    ck_assert_uint_ne(inode_of(rams[2]), inode_of(rams[1]));
    ck_assert_int_eq(pread(rams[0], after, sizeof(after), at), sizeof(after));
    ck_assert_mem_eq(before, after, sizeof(before));
    ck_assert_uint_eq(wire_counter(fd, VMIBUS_COUNTER_EPOCHS_RETIRING), 2);

    /* One that nobody holds is used again. */
    release(fd, &first);
    release(fd, &second);
    ck_assert_uint_eq(wire_counter(fd, VMIBUS_COUNTER_EPOCHS_RETIRING), 0);
    release(fd, &third);
    reset(fd, &first);
    rams[3] = attach_ram(fd, &fourth);
    ck_assert_uint_eq(inode_of(rams[3]), inode_of(rams[2]));
    for (int i = 0; i < 4; i++)
        close(rams[i]);
    close(fd);
    daemon_stop(d);
}

TEST(test_p06_overdue_peer_is_disconnected_and_told_why, .timeout = 60) {
    const struct daemon_options options = {.config = "[daemon]\nretire-timeout-ms = 100\n"};
    struct wire_endpoint endpoint;
    struct vmibus_frame error;
    int fd, ram;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    ram = attach_ram(fd, &endpoint);
    reset(d->bystander, &endpoint);
    error = wire_expect_end(fd, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_RETIRE_OVERDUE);
    ck_assert_uint_eq(error.error.value, endpoint.epoch);
    ck_assert_uint_eq(error.error.bound, 100);
    ck_assert_uint_eq(error.error.closing, 1);
    /* What cannot be done: the descriptor is still there. */
    ck_assert_int_gt(lseek(ram, 0, SEEK_END), 0);
    ck_assert_uint_eq(wire_counter(d->bystander, VMIBUS_COUNTER_EPOCHS_RETIRING), 0);
    close(ram);
    close(fd);
    daemon_stop(d);
}

HARNESS_SUITE("handing over", HARNESS_QUICK)
