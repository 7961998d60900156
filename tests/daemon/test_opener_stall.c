/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The service of vmibus-opend(8), when what it opens blocks: for as long as it pleases somebody, or where not even SIGKILL reaches.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "daemon/opener_config.h"
#include "daemon/opener_scene.h"
#include "daemon/opener_server.h"
#include "harness.h"
#include "memory/opener_remote.h"

#define TIMEOUT_MS "200"

static struct scene scene;
static struct target target;
static const struct opener *opener;
static char mount_point[128];

/* --- a server whose opener blocks when it is asked for mappings ---------------------------------- */

static int open_maps_never(const struct opener *inner, const struct opener_process *process) {
    (void)inner;
    (void)process;
    while (pause() < 0 && errno == EINTR)
        ;
    return -EIO;
}

/* Whoever serves that file system does not answer. */
static int open_maps_unkillably(const struct opener *inner, const struct opener_process *process) {
    struct statfs fs;

    (void)inner;
    (void)process;
    return statfs(mount_point, &fs) < 0 ? -errno : -EIO;
}

static void __attribute__((noreturn)) serve(const struct opener *inner, int ready) {
    struct opener_config config;
    struct opener_config_error error;
    struct opener_server *server;
    struct loop *loop;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (opener_config_init(&config) < 0 || opener_config_read(&config, scene.config, &error) < 0 ||
        opener_config_complete(&config, &error) < 0 || loop_new(&loop) < 0 ||
        opener_server_new_consume_fd(&server, loop, opener_server_bind(config.socket), inner, &config) < 0)
        _exit(1);
    if (write(ready, "r", 1) != 1)
        _exit(1);
    _exit(loop_run(loop) < 0);
}

static pid_t start_server(int (*open_maps)(const struct opener *, const struct opener_process *)) {
    struct opener inner = *opener_local();
    int ready[2];
    char octet;
    pid_t pid;

    scene_init(&scene);
    scene_configure(&scene, "timeout-ms = " TIMEOUT_MS "\n");
    target_start(&target, &scene, "qemu-system-test", TARGET_UID);
    inner.open_maps = open_maps;
    ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
    pid = fork();
    if (pid == 0)
        serve(&inner, ready[1]);
    close(ready[1]);
    ck_assert_int_eq(read(ready[0], &octet, 1), 1);
    close(ready[0]);
    ck_assert_int_eq(opener_remote_new(&opener, scene.socket), 0);
    return pid;
}

static void stop_server(pid_t pid) {
    opener = opener_remote_free(opener);
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    target_stop(&target);
    scene_deinit(&scene);
}

/* --- tests ------------------------------------------------------------------------------------- */

static void expect_served(void) {
    int fd = opener->open_process(opener, &target.process);

    ck_assert_msg(fd >= 0, "%s", strerror(-fd));
    close(fd);
}

TEST(test_p09_what_blocks_is_given_up) {
    pid_t pid = start_server(open_maps_never);

    for (int i = 0; i < 3; i++) {
        ck_assert_int_eq(opener->open_maps(opener, &target.process), -ETIMEDOUT);
        expect_served();
    }
    stop_server(pid);
}

/* One that waits is in nobody else's way. */
TEST(test_p09_what_blocks_holds_up_nobody_else) {
    pid_t pid = start_server(open_maps_never), waiting;
    int status;

    waiting = fork();
    if (waiting == 0) {
        const struct opener *mine;

        if (opener_remote_new(&mine, scene.socket) < 0)
            _exit(2);
        _exit(mine->open_maps(mine, &target.process) != -ETIMEDOUT);
    }
    /* It is asked as long as the other one waits. */
    while (waitpid(waiting, &status, WNOHANG) == 0)
        expect_served();
    ck_assert_int_eq(status, 0);
    stop_server(pid);
}

/* The asker gives up as well, should opend itself stand still. */
TEST(test_p09_opend_that_stands_still, .timeout = 60) {
    pid_t pid = start_server(open_maps_never);

    expect_served();
    ck_assert_int_eq(kill(pid, SIGSTOP), 0);
    ck_assert_int_eq(opener->open_process(opener, &target.process), -ETIMEDOUT);
    ck_assert_int_eq(kill(pid, SIGCONT), 0);
    expect_served();
    stop_server(pid);
}

/* --- a file system that does not answer --------------------------------------------------------- */

static void fuse_init(int fd) {
    union {
        struct fuse_in_header header;
        char octets[FUSE_MIN_READ_BUFFER];
    } request;
    struct {
        struct fuse_out_header header;
        struct fuse_init_out init;
    } answer = {.header = {.len = sizeof(answer)},
                .init = {.major = FUSE_KERNEL_VERSION, .minor = 31, .max_readahead = 4096, .max_write = 4096}};

    ck_assert_int_gt(read(fd, &request, sizeof(request)), 0);
    ck_assert_int_eq(request.header.opcode, FUSE_INIT);
    answer.header.unique = request.header.unique;
    ck_assert_int_eq(write(fd, &answer, sizeof(answer)), sizeof(answer));
}

static int mount_deaf(void) {
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    char options[128];

    if (fd < 0)
        test_skip("/dev/fuse: %s", strerror(errno));
    snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", fd);
    ck_assert_int_eq(mkdir(mount_point, 0755), 0);
    ck_assert_msg(mount("deaf", mount_point, "fuse", MS_NOSUID | MS_NODEV, options) == 0, "%s", strerror(errno));
    fuse_init(fd);
    return fd;
}

/* Takes a request, as who has taken it must answer it; it is not. */
static void take_and_forget(int fd) {
    char request[FUSE_MIN_READ_BUFFER];
    struct pollfd ready = {.fd = fd, .events = POLLIN};

    while (poll(&ready, 1, 0) == 1 && read(fd, request, sizeof(request)) > 0)
        ;
}

/* Asks, and meanwhile takes what the file system is asked. */
static int ask_and_forget(int fd) {
    int status;
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        const struct opener *mine;

        if (opener_remote_new(&mine, scene.socket) < 0)
            _exit(0);
        _exit(-mine->open_maps(mine, &target.process));
    }
    while (waitpid(pid, &status, WNOHANG) == 0)
        take_and_forget(fd);
    ck_assert(WIFEXITED(status));
    return -WEXITSTATUS(status);
}

TEST(test_p09_children_that_do_not_die, .timeout = 120) {
    unsigned n_stuck = 0;
    int fd, opened, answer;
    pid_t pid;

    if (geteuid() != 0)
        test_skip("it takes root to mount a file system");
    snprintf(mount_point, sizeof(mount_point), "/tmp/vmibus-deaf-%d", (int)getpid());
    /* In this order: the server has no copy of the descriptor, whose end is to be the file system's. */
    pid = start_server(open_maps_unkillably);
    fd = mount_deaf();
    /* On a busy machine one may be given up before it got as far as to be stuck. */
    while ((answer = ask_and_forget(fd)) == -ETIMEDOUT)
        n_stuck++;
    /* Their places are taken, and it says so at once. */
    ck_assert_int_eq(answer, -EBUSY);
    ck_assert_uint_ge(n_stuck, OPENER_CHILDREN_MAX);
    ck_assert_int_eq(opener->open_process(opener, &target.process), -EBUSY);
    /* The file system ends, and so do they. */
    ck_assert_int_eq(umount2(mount_point, MNT_FORCE | MNT_DETACH), 0);
    close(fd);
    do
        opened = opener->open_process(opener, &target.process);
    while (opened == -EBUSY);
    ck_assert_int_ge(opened, 0);
    close(opened);
    stop_server(pid);
    ck_assert_int_eq(rmdir(mount_point), 0);
}

HARNESS_SUITE("opener_stall", HARNESS_QUICK)
