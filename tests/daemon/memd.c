/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/memd.h"

#include <check.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

/* --- the process ------------------------------------------------------------------------------- */

bool memd_await_log(struct memd *memd, const char *text) {
    char *found;

    while (!(found = strstr(memd->log, text))) {
        ssize_t n;

        /* Of what is not waited for the end is kept. */
        if (memd->n_log == sizeof(memd->log) - 1)
            memmove(memd->log, memd->log + sizeof(memd->log) / 2, memd->n_log = sizeof(memd->log) / 2 - 1);
        n = read(memd->log_fd, memd->log + memd->n_log, sizeof(memd->log) - 1 - memd->n_log);
        if (n <= 0)
            return false;
        memd->n_log += (size_t)n;
        memd->log[memd->n_log] = '\0';
    }
    found += strlen(text);
    memd->n_log = strlen(found);
    memmove(memd->log, found, memd->n_log + 1);
    return true;
}

/* As a service manager does it that listens itself; in the child. */
static void pass_listener(int fd) {
    char pid[16];

    snprintf(pid, sizeof(pid), "%d", getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    unsetenv("LISTEN_FDNAMES");
    if (fd == 3)
        fcntl(fd, F_SETFD, 0);
    else
        dup2(fd, 3);
}

static void spawn(struct memd *memd) {
    char program[4096], config[128], state[128];
    const char *build = getenv("top_builddir");
    int pipes[2];

    snprintf(program, sizeof(program), "%s/vmibus-memd", build ? build : ".");
    if (access(program, X_OK) < 0)
        test_skip("%s is not there: set top_builddir", program);
    snprintf(config, sizeof(config), "%s/vmibusd.conf", memd->directory);
    snprintf(state, sizeof(state), "%s/memory-state", memd->directory);
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    fflush(NULL);
    memd->pid = fork();
    ck_assert_int_ge(memd->pid, 0);
    if (memd->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(pipes[1], STDERR_FILENO);
        unsetenv("NOTIFY_SOCKET");
        if (memd->listener > 0)
            pass_listener(memd->listener);
        execl(program, program, "--config", config, "--state-directory", state, "--socket", memd->path, NULL);
        _exit(127);
    }
    close(pipes[1]);
    memd->log_fd = pipes[0];
    memd->n_log = 0;
    memd->log[0] = '\0';
}

void memd_spawn(struct memd *memd, const char *directory) {
    *memd = (struct memd){};
    snprintf(memd->directory, sizeof(memd->directory), "%s", directory);
    snprintf(memd->path, sizeof(memd->path), "%s/memory", directory);
    spawn(memd);
}

void memd_restart(struct memd *memd) {
    spawn(memd);
    if (!memd_await_log(memd, "serving at"))
        ck_abort_msg("vmibus-memd ended; it said: %s", memd->log);
    /* What it says from now on is not read, and not waited for by it. */
    ck_assert_int_eq(fcntl(memd->log_fd, F_SETFL, O_NONBLOCK), 0);
}

static void prepare(struct memd *memd, const char *config) {
    char path[128];
    FILE *file;

    *memd = (struct memd){};
    strcpy(memd->directory, "/tmp/vmibus-memd-test-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(memd->directory));
    ck_assert_int_eq(chmod(memd->directory, 0755), 0);
    snprintf(memd->path, sizeof(memd->path), "%s/socket", memd->directory);
    snprintf(path, sizeof(path), "%s/vmibusd.conf", memd->directory);
    file = fopen(path, "we");
    ck_assert_ptr_nonnull(file);
    fputs(config, file);
    fclose(file);
}

void memd_start(struct memd *memd, const char *config) {
    prepare(memd, config);
    memd_restart(memd);
}

void memd_start_activated(struct memd *memd, const char *config) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    prepare(memd, config);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", memd->path);
    memd->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_ge(memd->listener, 0);
    ck_assert_int_eq(bind(memd->listener, (const struct sockaddr *)&address, sizeof(address)), 0);
    ck_assert_int_eq(listen(memd->listener, 16), 0);
    memd_restart(memd);
}

static int await_exit(struct memd *memd) {
    int status;

    ck_assert_int_eq(waitpid(memd->pid, &status, 0), memd->pid);
    close(memd->log_fd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int memd_end(struct memd *memd) {
    kill(memd->pid, SIGTERM);
    return await_exit(memd);
}

void memd_kill(struct memd *memd) {
    ck_assert_int_eq(kill(memd->pid, SIGKILL), 0);
    ck_assert_int_eq(await_exit(memd), 128 + SIGKILL);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk) {
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

void memd_stop(struct memd *memd) {
    ck_assert_int_eq(kill(memd->pid, SIGTERM), 0);
    ck_assert_int_eq(await_exit(memd), 0);
    /* What it was given to listen on is not its own to remove. */
    ck_assert_int_eq(access(memd->path, F_OK), memd->listener > 0 ? 0 : -1);
    if (memd->listener > 0)
        close(memd->listener);
    ck_assert_int_eq(nftw(memd->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* --- connections ------------------------------------------------------------------------------- */

int memd_say_hello(const struct memd *memd, uid_t uid, enum vmibus_role role, enum vmibus_channel channel, const uint8_t *session) {
    struct vmibus_frame hello = wire_hello();
    uid_t self = geteuid();
    int fd;

    if (uid != self && seteuid(uid) < 0)
        test_skip("being uid %u takes root", uid);
    fd = wire_connect(memd->path);
    if (uid != self)
        ck_assert_int_eq(seteuid(self), 0);
    hello.hello.role = (uint8_t)role;
    hello.hello.channel = (uint8_t)channel;
    if (session)
        memcpy(hello.hello.session, session, sizeof(hello.hello.session));
    (void)wire_send(fd, &hello, NULL, 0);
    return fd;
}

int memd_link(const struct memd *memd) {
    int fd = memd_say_hello(memd, geteuid(), VMIBUS_ROLE_BUS, VMIBUS_CHANNEL_LINK, NULL);

    (void)wire_await(fd, VMIBUS_KIND_WELCOME);
    return fd;
}

int memd_channel(const struct memd *memd, enum vmibus_role role, const uint8_t *session) {
    int fd = memd_say_hello(memd, geteuid(), role, VMIBUS_CHANNEL_MEMORY, session);

    (void)wire_await(fd, VMIBUS_KIND_WELCOME);
    return fd;
}

/* --- the bus ----------------------------------------------------------------------------------- */

uint64_t memd_generation(uint32_t slot) {
    return UINT64_C(7) << 32 | slot;
}

static struct vmibus_frame link_frame(enum vmibus_kind kind, uint32_t slot) {
    struct vmibus_frame frame = wire_frame(kind);

    frame.header.slot = slot;
    frame.header.generation = slot ? memd_generation(slot) : 0;
    return frame;
}

void bus_opened(int link, uint32_t slot, const char *name, uint8_t uuid) {
    struct vmibus_frame frame = link_frame(VMIBUS_KIND_ENDPOINT_OPENED, slot);

    frame.endpoint_opened.uuid[0] = uuid;
    ck_assert(wire_send(link, &frame, name, strlen(name)));
}

void bus_session(int link, const uint8_t *session, uid_t uid, enum vmibus_role role) {
    struct vmibus_frame frame = link_frame(VMIBUS_KIND_SESSION_OPENED, 0);

    memcpy(frame.session_opened.session, session, sizeof(frame.session_opened.session));
    frame.session_opened.uid = uid;
    frame.session_opened.role = (uint8_t)role;
    ck_assert(wire_send(link, &frame, NULL, 0));
}

void bus_closed(int link, const uint8_t *session) {
    struct vmibus_frame frame = link_frame(VMIBUS_KIND_SESSION_CLOSED, 0);

    memcpy(frame.session_closed.session, session, sizeof(frame.session_closed.session));
    ck_assert(wire_send(link, &frame, NULL, 0));
}

void bus_issue(int link, uint32_t slot, const uint8_t *session, uint64_t token) {
    struct vmibus_frame frame = link_frame(VMIBUS_KIND_FENCE_ISSUE, slot);

    memcpy(frame.fence_issue.session, session, sizeof(frame.fence_issue.session));
    frame.fence_issue.token = token;
    frame.fence_issue.uid = geteuid();
    ck_assert(wire_send(link, &frame, NULL, 0));
}

void bus_revoke(int link, uint32_t slot, uint64_t token) {
    struct vmibus_frame frame = link_frame(VMIBUS_KIND_FENCE_REVOKE, slot);

    frame.fence_revoke.token = token;
    ck_assert(wire_send(link, &frame, NULL, 0));
}

void bus_synced(int link) {
    struct vmibus_frame frame = link_frame(VMIBUS_KIND_LINK_SYNCED, 0);

    ck_assert(wire_send(link, &frame, NULL, 0));
}

/* --- sensors and controls ---------------------------------------------------------------------- */

int memd_ram(void) {
    int fd = memfd_create("ram", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(ftruncate(fd, MEMD_RAM), 0);
    ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
    return fd;
}

struct vmibus_ack sensor_propose(int fd, uint32_t slot, const char *name, uint8_t uuid, int ram, bool identify) {
    struct vmibus_frame identity = link_frame(VMIBUS_KIND_MEM_IDENTITY, slot);
    struct {
        struct vmibus_frame frame;
        struct vmibus_layout_range range;
    } layout = {.frame = link_frame(VMIBUS_KIND_MEM_LAYOUT, slot), .range = {.len = MEMD_RAM}};

    identity.header.direction = VMIBUS_DIRECTION_UP;
    identity.mem_identity.uuid[0] = uuid;
    if (identify)
        (void)wire_ask(fd, &identity, name, strlen(name));
    layout.frame.header.direction = VMIBUS_DIRECTION_UP;
    layout.frame.header.tail_length = sizeof(layout.range);
    layout.frame.header.fd_count = 1;
    layout.frame.mem_layout.range_count = 1;
    ck_assert(wire_send_fds(fd, &layout, sizeof(layout), &ram, 1));
    return wire_answer(fd, layout.frame.header.correlation, NULL).ack;
}

struct vmibus_frame control_write_frame(uint32_t slot, uint64_t token, uint64_t epoch) {
    struct vmibus_frame frame = link_frame(VMIBUS_KIND_CMD_MEMWRITE, slot);

    frame.cmd_memwrite.gva = 4096;
    frame.cmd_memwrite.len = 8;
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_PHYSICAL;
    frame.cmd_memwrite.token = token;
    frame.cmd_memwrite.epoch = epoch;
    memcpy(frame.cmd_memwrite.data, &token, sizeof(token));
    return frame;
}

struct vmibus_ack control_write(int fd, uint32_t slot, uint64_t token, uint64_t epoch) {
    struct vmibus_frame frame = control_write_frame(slot, token, epoch);

    return wire_ask(fd, &frame, NULL, 0).ack;
}
