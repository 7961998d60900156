/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibus-opend(8), and an asker that was taken over: it may ask for anything, of anybody, in any shape and at any pace.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/opener_scene.h"
#include "harness.h"
#include "memory/opener_protocol.h"
#include "memory/opener_remote.h"

#define WAIT_MS 20000

static struct scene scene;
static struct target target;
static const struct opener *opener;

static void begin(void) {
    scene_init(&scene);
    scene_start(&scene);
    target_start(&target, &scene, "qemu-system-test", TARGET_UID);
    ck_assert_int_eq(opener_remote_new(&opener, scene.socket), 0);
}

/* That it serves as ever belongs to each test. */
static void end(void) {
    int fd = opener->open_maps(opener, &target.process);

    ck_assert_int_ge(fd, 0);
    close(fd);
    opener = opener_remote_free(opener);
    target_stop(&target);
    scene_deinit(&scene);
}

static void expect_fd(int fd, int flags) {
    ck_assert_msg(fd >= 0, "%s", strerror(-fd));
    ck_assert_int_eq(fcntl(fd, F_GETFL) & O_ACCMODE, flags);
    ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
    close(fd);
}

static void expect_refused(const struct opener_process *process) {
    ck_assert_int_eq(opener->open_maps(opener, process), -EACCES);
    ck_assert_int_eq(opener->open_process(opener, process), -EACCES);
    ck_assert_int_eq(opener->open_memory(opener, process), -EACCES);
    ck_assert_int_eq(opener->open_memory_to_read(opener, process), -EACCES);
    ck_assert_int_eq(opener->open_pagemap(opener, process), -EACCES);
    ck_assert_int_eq(opener->open_file(opener, process, &target.ram, O_RDONLY), -EACCES);
}

static int open_file(const struct opener_file *file, int flags) {
    return opener->open_file(opener, &target.process, file, flags);
}

/* --- what is permitted ------------------------------------------------------------------------- */

TEST(test_what_is_named_is_opened, .setup = begin, .teardown = end) {
    char octet;
    int fd;

    expect_fd(opener->open_maps(opener, &target.process), O_RDONLY);
    expect_fd(opener->open_process(opener, &target.process), O_RDWR);
    expect_fd(opener->open_memory(opener, &target.process), O_RDWR);
    expect_fd(opener->open_memory_to_read(opener, &target.process), O_RDONLY);
    expect_fd(opener->open_pagemap(opener, &target.process), O_RDONLY);
    expect_fd(open_file(&target.private, O_RDONLY), O_RDONLY);
    expect_fd(open_file(&target.shm, O_RDWR), O_RDWR);
    fd = open_file(&target.ram, O_RDWR);
    ck_assert_int_eq(pread(fd, &octet, 1, 0), 1);
    ck_assert_int_eq(octet, 'R');
    close(fd);
}

TEST(test_what_was_replaced_by_an_upgrade_still_runs, .setup = begin, .teardown = end) {
    char path[128];

    snprintf(path, sizeof(path), "%s/qemu-system-test", scene.directory);
    ck_assert_int_eq(unlink(path), 0);
    scene_copy_target(&scene, "qemu-system-test", 0, 0755);
    expect_fd(opener->open_maps(opener, &target.process), O_RDONLY);
}

TEST(test_it_keeps_three_capabilities, .setup = begin, .teardown = end) {
    char path[64], text[8192];
    size_t n;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)scene.pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    n = fread(text, 1, sizeof(text) - 1, file);
    text[n] = '\0';
    fclose(file);
    ck_assert_ptr_nonnull(strstr(text, "\nCapEff:\t000000000008000a\n"));
    ck_assert_ptr_nonnull(strstr(text, "\nCapPrm:\t000000000008000a\n"));
    ck_assert_ptr_nonnull(strstr(text, "\nCapBnd:\t000000000008000a\n"));
    ck_assert_ptr_nonnull(strstr(text, "\nCapAmb:\t0000000000000000\n"));
    ck_assert_ptr_nonnull(strstr(text, "\nNoNewPrivs:\t1\n"));
}

TEST(test_p10_asker_outlives_a_restart, .setup = begin, .teardown = end) {
    expect_fd(opener->open_maps(opener, &target.process), O_RDONLY);
    ck_assert_int_eq(scene_end(&scene, SIGKILL), 128 + SIGKILL);
    ck_assert_int_eq(opener->open_maps(opener, &target.process), -ECONNREFUSED);
    scene_start(&scene);
    expect_fd(opener->open_maps(opener, &target.process), O_RDONLY);
    ck_assert_int_eq(scene_end(&scene, SIGTERM), 0);
    scene_start(&scene);
    expect_fd(opener->open_maps(opener, &target.process), O_RDONLY);
}

/* --- processes that are nobody's business ------------------------------------------------------- */

TEST(test_p09_own_and_foreign_processes, .setup = begin, .teardown = end) {
    struct opener_process process = process_of(1);

    expect_refused(&process);
    process = process_of(scene.pid);
    expect_refused(&process);
    process = process_of(getpid());
    expect_refused(&process);
    scene_await_log(&scene, "it is process 1, vmibus-opend or who asks");
}

TEST(test_p09_process_of_another_user, .setup = begin, .teardown = end) {
    struct target other;

    target_start(&other, &scene, "qemu-system-test", OTHER_UID);
    expect_refused(&other.process);
    scene_await_log(&scene, "[opener] users does not name its user");
    target_stop(&other);
    target_start(&other, &scene, "qemu-system-test", 0);
    expect_refused(&other.process);
    target_stop(&other);
}

static void expect_executable_refused(const char *name, uid_t owner, mode_t mode, const char *reason) {
    struct target other;

    scene_copy_target(&scene, name, owner, mode);
    target_start(&other, &scene, name, TARGET_UID);
    expect_refused(&other.process);
    scene_await_log(&scene, reason);
    target_stop(&other);
}

TEST(test_p09_other_executables, .setup = begin, .teardown = end) {
    expect_executable_refused("shell", 0, 0755, "[opener] executables does not name what it runs");
    expect_executable_refused("qemu-system-own", TARGET_UID, 0755, "others than root can change what it runs");
    expect_executable_refused("qemu-system-open", 0, 0777, "others than root can change what it runs");
}

/* In a mount namespace of its own, another file is at a path that is named. */
TEST(test_p09_path_of_another_namespace, .setup = begin, .teardown = end) {
    struct target other;
    char path[128], kept[160];

    scene_copy_target(&scene, "qemu-system-moved", 0, 0755);
    target_start(&other, &scene, "qemu-system-moved", TARGET_UID);
    snprintf(path, sizeof(path), "%s/qemu-system-moved", scene.directory);
    snprintf(kept, sizeof(kept), "%s-kept", path);
    /* The process still runs what it ran; its link in /proc says so only by the file. */
    ck_assert_int_eq(link(path, kept), 0);
    ck_assert_int_eq(unlink(path), 0);
    scene_copy_target(&scene, "qemu-system-moved", 0, 0755);
    expect_refused(&other.process);
    scene_await_log(&scene, "what it runs is not what lies at that path on the host");
    target_stop(&other);
}

TEST(test_p09_recycled_process, .setup = begin, .teardown = end) {
    struct opener_process process = target.process;
    struct target other;

    process.start_time++;
    ck_assert_int_eq(opener->open_maps(opener, &process), -ESRCH);
    ck_assert_int_eq(opener->open_memory(opener, &process), -ESRCH);
    ck_assert_int_eq(opener->open_process(opener, &process), -ESRCH);
    ck_assert_int_eq(opener->open_file(opener, &process, &target.ram, O_RDWR), -ESRCH);
    target_start(&other, &scene, "qemu-system-test", TARGET_UID);
    process = other.process;
    target_stop(&other);
    ck_assert_int_eq(opener->open_maps(opener, &process), -ESRCH);
    ck_assert_int_eq(opener->open_memory(opener, &process), -ESRCH);
}

TEST(test_p09_memory_only_where_the_policy_says_so) {
    begin();
    scene_configure(&scene, "process-memory = no\n");
    ck_assert_int_eq(scene_end(&scene, SIGTERM), 0);
    scene_start(&scene);
    ck_assert_int_eq(opener->open_memory(opener, &target.process), -EACCES);
    ck_assert_int_eq(opener->open_memory_to_read(opener, &target.process), -EACCES);
    expect_fd(open_file(&target.ram, O_RDWR), O_RDWR);
    end();
}

/* --- files that are nobody's business ----------------------------------------------------------- */

TEST(test_p09_files_that_are_no_memory, .setup = begin, .teardown = end) {
    ck_assert_int_eq(open_file(&target.disk, O_RDONLY), -EMEDIUMTYPE);
    ck_assert_int_eq(open_file(&target.disk, O_RDWR), -EMEDIUMTYPE);
    ck_assert_int_eq(open_file(&target.zero, O_RDONLY), -EMEDIUMTYPE);
}

TEST(test_p09_files_that_are_not_the_guests, .setup = begin, .teardown = end) {
    struct opener_file none = target.ram;

    none.inode += 1000000;
    ck_assert_int_eq(open_file(&none, O_RDONLY), -EACCES);
    ck_assert_int_eq(open_file(&target.unmapped, O_RDONLY), -EACCES);
    ck_assert_int_eq(open_file(&target.private, O_RDWR), -EACCES);
    ck_assert_int_eq(open_file(&target.foreign, O_RDONLY), -EACCES);
    ck_assert_int_eq(open_file(&target.foreign, O_RDWR), -EACCES);
}

/* --- modes ------------------------------------------------------------------------------------- */

static mode_t mode_of(int fd) {
    struct stat st;

    ck_assert_int_eq(fstat(fd, &st), 0);
    return st.st_mode & 07777;
}

TEST(test_p09_modes_change_to_less_only, .setup = begin, .teardown = end) {
    int fd = open_file(&target.ram, O_RDWR);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(mode_of(fd), 0777);
    ck_assert_int_eq(opener->tighten(opener, fd, 0400), -EACCES);
    ck_assert_int_eq(mode_of(fd), 0777);
    ck_assert_int_eq(opener->tighten(opener, fd, 0600), 0);
    ck_assert_int_eq(mode_of(fd), 0600);
    ck_assert_int_eq(opener->tighten(opener, fd, 0640), -EACCES);
    ck_assert_int_eq(opener->tighten(opener, fd, 0777), -EACCES);
    ck_assert_int_eq(opener->tighten(opener, fd, 04600), -ECONNREFUSED); /* no request at all */
    ck_assert_int_eq(mode_of(fd), 0600);
    close(fd);
}

TEST(test_p09_modes_of_other_files, .setup = begin, .teardown = end) {
    char path[128];
    int named = open_file(&target.shm, O_RDWR), roots = memfd_create("roots", MFD_CLOEXEC), disk, folder;

    ck_assert_int_ge(named, 0);
    ck_assert_int_eq(fchmod(named, 0666), 0);
    ck_assert_int_eq(opener->tighten(opener, named, 0600), -EACCES);
    ck_assert_int_eq(mode_of(named), 0666);
    ck_assert_int_eq(opener->tighten(opener, roots, 0600), -EACCES);
    ck_assert_int_eq(mode_of(roots), 0777);
    snprintf(path, sizeof(path), "%s/disk", scene.directory);
    disk = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(fchmod(disk, 0666), 0);
    ck_assert_int_eq(opener->tighten(opener, disk, 0600), -EACCES);
    folder = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_eq(opener->tighten(opener, folder, 0700), -EACCES);
    close(folder);
    close(disk);
    close(named);
    close(roots);
}

/* --- what is no request ------------------------------------------------------------------------ */

static int connect_as_asker(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    ck_assert_int_ge(fd, 0);
    strcpy(address.sun_path, scene.socket);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static struct opener_request request_for_maps(void) {
    return (struct opener_request){
        .magic = OPENER_MAGIC,
        .version = OPENER_VERSION,
        .verb = OPENER_MAPS,
        .id = 1,
        .pid = target.process.pid,
        .start_time = target.process.start_time,
    };
}

/* Waits until there is something to read, or the end. Returns whether it is the end. */
static bool await_end(int fd) {
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    char octet;

    ck_assert_int_eq(poll(&ready, 1, (int)harness_scale(WAIT_MS)), 1);
    return recv(fd, &octet, 1, MSG_PEEK) <= 0;
}

static void expect_disconnected(const void *octets, size_t len, int passed) {
    int fd = connect_as_asker();

    ck_assert_int_eq(opener_send(fd, octets, len, passed), 0);
    ck_assert(await_end(fd));
    close(fd);
}

TEST(test_p09_garbage, .setup = begin, .teardown = end) {
    char octets[4096] = {};
    const struct opener_request good = request_for_maps();
    struct opener_request request;
    size_t fds = scene_count_fds(&scene);

    for (size_t len = 1; len < sizeof(octets); len += len < 80 ? 1 : 997) {
        memcpy(octets, &good, sizeof(good));
        if (len != sizeof(good))
            expect_disconnected(octets, len, -1);
    }
    memset(octets, 0xff, sizeof(octets));
    expect_disconnected(octets, sizeof(good), -1);
    expect_disconnected(&good, sizeof(good), STDIN_FILENO);
#define EXPECT_WRONG(field, value) (request = good, request.field = (value), expect_disconnected(&request, sizeof(request), -1))
    EXPECT_WRONG(magic, 0);
    EXPECT_WRONG(version, 2);
    EXPECT_WRONG(verb, 0);
    EXPECT_WRONG(verb, OPENER_MEMORY_TO_READ + 1);
    EXPECT_WRONG(verb, OPENER_TIGHTEN);
    EXPECT_WRONG(verb, OPENER_FILE);
    EXPECT_WRONG(id, 0);
    EXPECT_WRONG(pid, 0);
    EXPECT_WRONG(pid, UINT32_MAX);
    EXPECT_WRONG(start_time, 0);
    EXPECT_WRONG(flags, O_RDWR);
    EXPECT_WRONG(inode, 1);
    EXPECT_WRONG(mode, 0600);
    EXPECT_WRONG(reserved, 1);
#undef EXPECT_WRONG
    request = good;
    request.verb = OPENER_FILE;
    request.inode = 1;
    request.flags = O_RDWR | O_CREAT | O_TRUNC;
    expect_disconnected(&request, sizeof(request), -1);
    ck_assert_uint_eq(scene_count_fds(&scene), fds);
}

/* More descriptors than one: all of them are closed. */
TEST(test_p09_many_descriptors, .setup = begin, .teardown = end) {
    struct opener_request request = {.magic = OPENER_MAGIC, .version = OPENER_VERSION, .verb = OPENER_TIGHTEN, .id = 1, .mode = 0600};
    union {
        struct cmsghdr header;
        char octets[CMSG_SPACE(200 * sizeof(int))];
    } control = {};
    struct iovec piece = {.iov_base = &request, .iov_len = sizeof(request)};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control};
    size_t fds = scene_count_fds(&scene);

    for (size_t n = 2; n <= 200; n += 66) {
        int fd = connect_as_asker();

        control.header = (struct cmsghdr){.cmsg_len = CMSG_LEN(n * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        message.msg_controllen = CMSG_SPACE(n * sizeof(int));
        for (size_t i = 0; i < n; i++)
            memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &(int){STDIN_FILENO}, sizeof(int));
        ck_assert_int_eq(sendmsg(fd, &message, MSG_NOSIGNAL), sizeof(request));
        ck_assert(await_end(fd));
        close(fd);
    }
    ck_assert_uint_eq(scene_count_fds(&scene), fds);
}

/* --- pace -------------------------------------------------------------------------------------- */

TEST(test_p09_asker_that_does_not_read, .setup = begin, .teardown = end) {
    struct opener_request request = request_for_maps();
    size_t fds = scene_count_fds(&scene);
    char octets[64];

    for (int i = 0; i < 20; i++) {
        int fd = connect_as_asker();

        ck_assert_int_eq(opener_send(fd, &request, sizeof(request), -1), 0);
        ck_assert(!await_end(fd));
        request.id++;
        ck_assert_int_eq(opener_send(fd, &request, sizeof(request), -1), 0);
        /* What it did not read is all that it gets. */
        ck_assert_int_eq(recv(fd, octets, sizeof(octets), 0), sizeof(struct opener_answer));
        if (!await_end(fd)) /* the answer was read before the second request was looked at */
            ck_assert_int_eq(recv(fd, octets, sizeof(octets), 0), sizeof(struct opener_answer));
        close(fd);
    }
    expect_fd(opener->open_maps(opener, &target.process), O_RDONLY);
    while (scene_count_fds(&scene) > fds + 1) /* ours is connected; the test's time limit ends the waiting */
        ck_assert_int_eq(poll(NULL, 0, 1), 0);
}

TEST(test_p09_flood, .setup = begin, .teardown = end) {
    struct opener_request request = request_for_maps();
    int fd = connect_as_asker(), n = 0;

    while (n < 100000 && send(fd, &request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) > 0)
        n++;
    ck_assert_int_gt(n, 0);
    close(fd);
    for (int i = 0; i < 200; i++) {
        fd = connect_as_asker();
        (void)opener_send(fd, &request, sizeof(request), -1);
        close(fd);
    }
    /* Until those have been taken and ended, it may be turned away. */
    do
        fd = opener->open_maps(opener, &target.process);
    while (fd == -ECONNREFUSED);
    expect_fd(fd, O_RDONLY);
}

TEST(test_p09_all_connections_taken, .setup = begin, .teardown = end) {
    int fds[12], maps;

    for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
        fds[i] = connect_as_asker();
    scene_await_log(&scene, "connections are open already");
    ck_assert(await_end(fds[11]));
    for (size_t i = 0; i < sizeof(fds) / sizeof(*fds); i++)
        close(fds[i]);
    do
        maps = opener->open_maps(opener, &target.process);
    while (maps == -ECONNREFUSED);
    expect_fd(maps, O_RDONLY);
}

TEST(test_p09_asker_who_is_not_named, .setup = begin, .teardown = end) {
    struct opener_request request = request_for_maps();
    pid_t pid = fork();
    int status;

    if (pid == 0) {
        int fd;

        if (setgid(OTHER_UID) < 0 || setuid(OTHER_UID) < 0)
            _exit(3);
        fd = connect_as_asker();
        (void)opener_send(fd, &request, sizeof(request), -1);
        _exit(await_end(fd) ? 0 : 1);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_int_eq(status, 0);
    scene_await_log(&scene, "[opener] memory-users does not name it");
}

/* --- the configuration ------------------------------------------------------------------------- */

static void expect_no_start(const char *text) {
    scene_spawn(&scene);
    ck_assert_int_eq(scene_await_end(&scene), 1);
    ck_assert_msg(strstr(scene.log, text), "'%s' is not in: %s", text, scene.log);
}

TEST(test_p09_configuration_of_others_is_not_believed) {
    char path[128], other[160];

    scene_init(&scene);
    ck_assert_int_eq(chmod(scene.config, 0664), 0);
    expect_no_start("chmod go-w");
    ck_assert_int_eq(chmod(scene.config, 0644), 0);
    ck_assert_int_eq(chown(scene.config, OTHER_UID, 0), 0);
    expect_no_start("chown root");
    ck_assert_int_eq(chown(scene.config, 0, 0), 0);
    ck_assert_int_eq(chown(scene.directory, OTHER_UID, 0), 0);
    expect_no_start("others than root can change what is in");
    ck_assert_int_eq(chown(scene.directory, 0, 0), 0);
    ck_assert_int_eq(chmod(scene.directory, 0777), 0);
    expect_no_start("others than root can change what is in");
    ck_assert_int_eq(chmod(scene.directory, 0755), 0);
    strcpy(path, scene.config);
    snprintf(other, sizeof(other), "%s.real", path);
    ck_assert_int_eq(rename(path, other), 0);
    ck_assert_int_eq(symlink(other, path), 0);
    expect_no_start("symbolic link");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rename(other, path), 0);
    scene_start(&scene);
    scene_deinit(&scene);
}

TEST(test_configuration_with_a_mistake) {
    static const char *const lines[][2] = {
        {"user = qemu\n", "unknown key 'user'"},     {"users = no-such-user\n", "there is no user no-such-user"},
        {"users = ,\n", "users names nobody"},       {"executables = qemu\n", "is no absolute path"},
        {"timeout-ms = 1\n", "a number from"},       {"process-memory = maybe\n", "'yes' or 'no'"},
        {"sandbox = maybe\n", "'yes', 'no' or 'require'"},
        {"socket = here\n", "an absolute path"},     {"nonsense\n", "neither [section] nor key = value"},
    };

    scene_init(&scene);
    for (size_t i = 0; i < sizeof(lines) / sizeof(*lines); i++) {
        scene_configure(&scene, lines[i][0]);
        expect_no_start(lines[i][1]);
        expect_no_start("vmibusd.conf:8: ");
    }
    scene_deinit(&scene);
}

HARNESS_SUITE("opener", HARNESS_QUICK)
