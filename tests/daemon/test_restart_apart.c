/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * vmibusd, vmibus-memd and vmibus-sensord as processes of their own, each started anew under controls that go on: by a
 * service manager of this test, one after the other.  A control has two connections here, and neither is to notice.
 */
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
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
#include <time.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/manager.h"
#include "harness.h"
#include "stub/stub_map.h"

/* --- the processes ------------------------------------------------------------------------------ */

enum program {
    MEMD,
    VMIBUSD,
    SENSORD,
    PROGRAMS,
};

static const char *const names[PROGRAMS] = {"vmibus-memd", "vmibusd", "vmibus-sensord"};

static struct {
    char directory[64], socket[96], memory[96], config[96], state[96], memory_state[96], log[96];
    const char *notify;
    pid_t pids[PROGRAMS];
    bool loses_memory; /* its sensor is killed: epochs end */
    bool loses_channel; /* so is the memory authority: a control's second connection ends */
} host;

static const char *build_path(char *path, size_t size, const char *name) {
    const char *build = getenv("top_builddir");

    snprintf(path, size, "%s/%s", build ? build : ".", name);
    if (access(path, X_OK) < 0)
        test_skip("%s is not there: set top_builddir", path);
    return path;
}

/* As a service manager does it: what is in its store from 3 on. Epoch pages are the memory authority's. */
static void pass_store(const struct daemon *store, enum program program) {
    static char text[32 * DAEMON_KEPT];
    int given[DAEMON_KEPT], n = 0;

    text[0] = '\0';
    for (size_t i = 0; i < store->options.n_kept; i++) {
        const char *name = store->options.kept_names[i];

        if (strncmp(name, "epoch-", 6) == 0 && program != MEMD)
            continue;
        given[n++] = fcntl(store->options.kept[i], F_DUPFD, 2 * DAEMON_KEPT);
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s", n > 1 ? ":" : "", name);
    }
    if (n == 0)
        return;
    setenv("LISTEN_FDNAMES", text, 1);
    for (int i = 0; i < n; i++) {
        dup2(given[i], 3 + i);
        close(given[i]);
    }
    snprintf(text, sizeof(text), "%d", n);
    setenv("LISTEN_FDS", text, 1);
    snprintf(text, sizeof(text), "%d", getpid());
    setenv("LISTEN_PID", text, 1);
}

static void execute(enum program program, const struct daemon *store) {
    char path[4096], sensors[4096];
    const char *arguments[PROGRAMS][16] = {
        [MEMD] = {path, "--config", host.config, "--state-directory", host.memory_state, "--socket", host.memory},
        [VMIBUSD] = {path, "--config", host.config, "--state-directory", host.state, "--sensor-directory", sensors, "--socket",
                     host.socket, "--memory", host.memory},
        [SENSORD] = {path, "--config", host.config, "--sensor-directory", sensors, "--socket", host.socket, "--set",
                     "heartbeat_ms=2", "stub"},
    };

    build_path(path, sizeof(path), names[program]);
    build_path(sensors, sizeof(sensors), "sensors/modules");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(open(host.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), STDERR_FILENO);
    pass_store(store, program);
    setenv("NOTIFY_SOCKET", host.notify, 1);
    execv(path, (char **)arguments[program]);
    _exit(127);
}

static void fail_with_log(const char *what) {
    static char text[16384];
    int fd = open(host.log, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd >= 0 && lseek(fd, -(off_t)sizeof(text) + 1, SEEK_END) < 0)
        (void)lseek(fd, 0, SEEK_SET);
    n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    ck_abort_msg("%s; they said: %s", what, text);
}

/* It begins once the manager knows after how many of its words it is killed; 0: never. */
static void spawn(enum program program, unsigned n_words) {
    static struct daemon store;
    char octet = 0;
    int gate[2];

    manager_give(&store);
    fflush(NULL);
    ck_assert_int_eq(pipe2(gate, O_CLOEXEC), 0);
    host.pids[program] = fork();
    ck_assert_int_ge(host.pids[program], 0);
    if (host.pids[program] == 0) {
        if (read(gate[0], &octet, 1) == 1)
            execute(program, &store);
        _exit(127);
    }
    manager_kill_after(host.pids[program], n_words);
    ck_assert_int_eq(write(gate[1], &octet, 1), 1);
    close(gate[0]);
    close(gate[1]);
}

static void launch(enum program program) {
    unsigned before = manager_ready();

    spawn(program, 0);
    if (!manager_wait_ready_or_death(host.pids[program], before + 1))
        fail_with_log("a process did not start");
}

static void end(enum program program) {
    int status;

    ck_assert_int_eq(kill(host.pids[program], SIGTERM), 0);
    ck_assert_int_eq(waitpid(host.pids[program], &status, 0), host.pids[program]);
    if (!WIFEXITED(status) || WEXITSTATUS(status))
        fail_with_log("a process did not end as it should");
}

static void start(const char *config) {
    FILE *file;

    strcpy(host.directory, "/tmp/vmibus-restart-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(host.directory));
    snprintf(host.socket, sizeof(host.socket), "%s/socket", host.directory);
    snprintf(host.memory, sizeof(host.memory), "%s/memory", host.directory);
    snprintf(host.config, sizeof(host.config), "%s/vmibusd.conf", host.directory);
    snprintf(host.state, sizeof(host.state), "%s/state", host.directory);
    snprintf(host.memory_state, sizeof(host.memory_state), "%s/memory-state", host.directory);
    snprintf(host.log, sizeof(host.log), "%s/log", host.directory);
    file = fopen(host.config, "we");
    ck_assert_ptr_nonnull(file);
    fputs(config, file);
    fclose(file);
    host.notify = manager_start();
    for (unsigned i = 0; i < PROGRAMS; i++)
        launch((enum program)i);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *walk) {
    (void)st;
    (void)type;
    (void)walk;
    return remove(path);
}

/* The sensor first: it would look for the others. By SIGINT nothing is handed over, so each gives everything back. */
static void finish(void) {
    for (int i = PROGRAMS - 1; i >= 0; i--) {
        int status;

        kill(host.pids[i], SIGINT);
        ck_assert_int_eq(waitpid(host.pids[i], &status, 0), host.pids[i]);
        if (!WIFEXITED(status) || WEXITSTATUS(status))
            fail_with_log("a process did not end as it should");
    }
    manager_stop();
    ck_assert_int_eq(nftw(host.directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

/* --- a control with both channels --------------------------------------------------------------- */

struct channel {
    int fd;
    uint64_t deliveries;
};

struct client {
    struct channel bus, memory;
    struct wire_endpoint endpoint;
    uint64_t events;        /* LIFECYCLE seen */
    uint64_t publication;
};

/* Every delivery is the one after the last, and none tells that something was lost. */
static void take(struct client *client, struct channel *channel, struct vmibus_frame *frame) {
    if (!wire_receive(channel->fd, frame, NULL))
        fail_with_log("a connection ended");
    ck_assert_uint_eq(frame->header.delivery, ++channel->deliveries);
    ck_assert_uint_ne(frame->header.kind, VMIBUS_KIND_GAP);
    ck_assert_uint_ne(frame->header.kind, VMIBUS_KIND_ERROR);
    if (!host.loses_memory)
        ck_assert_uint_ne(frame->header.kind, VMIBUS_KIND_MEMCTX_INVALIDATED);
    if (frame->header.kind == VMIBUS_KIND_ROSTER && !host.loses_memory)
        ck_assert_uint_ne(frame->roster.change, VMIBUS_ROSTER_CHANGE_REMOVED);
    if (frame->header.publication && client->endpoint.slot && frame->header.slot == client->endpoint.slot) {
        ck_assert_uint_eq(frame->header.generation, client->endpoint.generation);
        ck_assert_uint_gt(frame->header.publication, client->publication);
        client->publication = frame->header.publication;
    }
    client->events += frame->header.kind == VMIBUS_KIND_LIFECYCLE;
}

static struct vmibus_ack answer_to(struct client *client, struct channel *channel, uint64_t correlation) {
    struct vmibus_frame frame;

    do
        take(client, channel, &frame);
    while (frame.header.kind != VMIBUS_KIND_ACK || frame.header.correlation != correlation);
    return frame.ack;
}

static struct vmibus_ack ask(struct client *client, struct channel *channel, struct vmibus_frame *command, const char *tail) {
    ck_assert(wire_send(channel->fd, command, tail, tail ? strlen(tail) : 0));
    return answer_to(client, channel, command->header.correlation);
}

/* Without the second channel of the tests' own that wire_open() would give it. */
static struct client connect_client(void) {
    struct vmibus_frame hello = wire_hello(), welcome, subscribe = wire_frame(VMIBUS_KIND_SUBSCRIBE);
    struct client client = {};
    int finder = wire_connect(host.socket);

    ck_assert(wire_send(finder, &hello, NULL, 0));
    (void)wire_await(finder, VMIBUS_KIND_WELCOME);
    client.endpoint = wire_find(finder, "stub-0");
    close(finder);
    client.bus.fd = wire_connect(host.socket);
    hello = wire_hello();
    ck_assert(wire_send(client.bus.fd, &hello, NULL, 0));
    take(&client, &client.bus, &welcome);
    client.memory.fd = wire_connect(host.memory);
    hello = wire_hello();
    hello.hello.channel = VMIBUS_CHANNEL_MEMORY;
    memcpy(hello.hello.session, welcome.welcome.session, sizeof(hello.hello.session));
    ck_assert(wire_send(client.memory.fd, &hello, NULL, 0));
    take(&client, &client.memory, &welcome);
    ck_assert_uint_eq(welcome.header.kind, VMIBUS_KIND_WELCOME);
    subscribe.subscribe.kinds = VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE) |
                                VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED) |
                                VMIBUS_KIND_BIT(VMIBUS_KIND_LEASE);
    ck_assert_uint_eq(ask(&client, &client.bus, &subscribe, "stub-0").error, VMIBUS_ERROR_OK);
    return client;
}

static void disconnect(struct client *client) {
    close(client->bus.fd);
    close(client->memory.fd);
}

static struct vmibus_frame lease_command(const struct client *client, enum vmibus_lease_operation operation) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, &client->endpoint);

    frame.cmd_lease.operation = (uint8_t)operation;
    frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_MEMWRITE;
    return frame;
}

static uint64_t acquire(struct client *client, uint32_t ttl_ms) {
    struct vmibus_frame frame = lease_command(client, VMIBUS_LEASE_OPERATION_ACQUIRE);
    struct vmibus_ack ack;

    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_QUEUE;
    frame.cmd_lease.ttl_ms = ttl_ms;
    ack = ask(client, &client->bus, &frame, NULL);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    return ack.token;
}

/* Returns the correlation: it is answered when its turn comes. */
static uint64_t queue(struct client *client) {
    struct vmibus_frame frame = lease_command(client, VMIBUS_LEASE_OPERATION_ACQUIRE);

    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_QUEUE;
    ck_assert(wire_send(client->bus.fd, &frame, NULL, 0));
    return frame.header.correlation;
}

static struct vmibus_ack tell_lease(struct client *client, enum vmibus_lease_operation operation, uint64_t token) {
    struct vmibus_frame frame = lease_command(client, operation);

    frame.cmd_lease.token = token;
    return ask(client, &client->bus, &frame, NULL);
}

static struct vmibus_frame write_command(const struct client *client, uint64_t token, uint64_t value) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_MEMWRITE, &client->endpoint);

    frame.cmd_memwrite.gva = STUB_FREE_GPA;
    frame.cmd_memwrite.len = sizeof(value);
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_PHYSICAL;
    frame.cmd_memwrite.token = token;
    frame.cmd_memwrite.epoch = client->endpoint.epoch;
    memcpy(frame.cmd_memwrite.data, &value, sizeof(value));
    return frame;
}

static struct vmibus_ack write_value(struct client *client, uint64_t token, uint64_t value) {
    struct vmibus_frame frame = write_command(client, token, value);

    return ask(client, &client->memory, &frame, NULL);
}

struct view {
    int ram, page_fd;
    const volatile struct vmibus_epoch_page *page;
};

static struct view attach(struct client *client) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_MEM_ATTACH, &client->endpoint);
    int fds[VMIBUS_FDS_PER_FRAME];
    struct view view;
    size_t n;

    frame.mem_attach.epoch = client->endpoint.epoch;
    wire_keep_fds(fds, &n);
    ck_assert_uint_eq(ask(client, &client->memory, &frame, NULL).error, VMIBUS_ERROR_OK);
    wire_keep_fds(NULL, NULL);
    ck_assert_uint_eq(n, 2);
    view = (struct view){.ram = fds[0], .page_fd = fds[1], .page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fds[1], 0)};
    ck_assert_ptr_ne((void *)view.page, MAP_FAILED);
    return view;
}

static void detach(struct view *view) {
    munmap((void *)view->page, 4096);
    close(view->page_fd);
    close(view->ram);
}

static uint64_t read_value(const struct view *view) {
    uint64_t value = 0;

    ck_assert_int_eq(pread(view->ram, &value, sizeof(value), STUB_FREE_GPA), sizeof(value));
    return value;
}

/* --- nobody notices ----------------------------------------------------------------------------- */

static void restart_in_turn(unsigned n) {
    struct client holder, waiter;
    uint64_t token, queued;
    struct view view;

    start("");
    holder = connect_client();
    waiter = connect_client();
    token = acquire(&holder, 0);
    queued = queue(&waiter);
    view = attach(&waiter);
    for (unsigned i = 0; i < n; i++) {
        enum program program = (enum program)(i % PROGRAMS);
        uint64_t events = holder.events, value = i + 1;
        struct vmibus_frame half = write_command(&holder, token, value), frame;
        struct vmibus_ack ack;

        /* Half a frame on each channel, and the rest of it when somebody else is there. */
        ck_assert(wire_write(holder.memory.fd, &half, 100));
        frame = lease_command(&holder, VMIBUS_LEASE_OPERATION_RENEW);
        frame.cmd_lease.token = token;
        ck_assert(wire_write(holder.bus.fd, &frame, 60));
        end(program);
        launch(program);
        ck_assert_uint_eq(manager_count("handover"), 0);
        ck_assert(program != VMIBUSD || manager_serving_is("serving, linked to the memory authority"));
        ck_assert(wire_write(holder.memory.fd, (const uint8_t *)&half + 100, sizeof(half) - 100));
        ack = answer_to(&holder, &holder.memory, half.header.correlation);
        ck_assert_msg(ack.error == 0, "a write after restart %u of %s: error %u, reason %u", i, names[program], ack.error, ack.reason);
        ck_assert_uint_eq(read_value(&view), value);
        ck_assert(wire_write(holder.bus.fd, (const uint8_t *)&frame + 60, sizeof(frame) - 60));
        ck_assert_uint_eq(answer_to(&holder, &holder.bus, frame.header.correlation).error, VMIBUS_ERROR_OK);
        ck_assert_uint_eq(view.page->epoch, holder.endpoint.epoch);
        while (holder.events < events + 5)
            take(&holder, &holder.bus, &frame);
        /* The lease changes hands, and back. */
        ck_assert_uint_eq(tell_lease(&holder, VMIBUS_LEASE_OPERATION_RELEASE, token).error, VMIBUS_ERROR_OK);
        ack = answer_to(&waiter, &waiter.bus, queued);
        ck_assert_uint_gt(ack.token, token);
        ck_assert_uint_eq(write_value(&holder, token, 0).error, VMIBUS_ERROR_STALE_TOKEN);
        ck_assert_uint_eq(write_value(&waiter, ack.token, value).error, VMIBUS_ERROR_OK);
        ck_assert_uint_eq(tell_lease(&waiter, VMIBUS_LEASE_OPERATION_RELEASE, ack.token).error, VMIBUS_ERROR_OK);
        token = acquire(&holder, 0);
        queued = queue(&waiter);
    }
    detach(&view);
    disconnect(&holder);
    disconnect(&waiter);
    finish();
}

TEST(test_p07_nobody_notices_restarts_of_each, .timeout = 300) {
    restart_in_turn(60);
}

TEST(test_p07_nobody_notices_a_hundred_restarts_of_each, .timeout = 1800, .full = true) {
    restart_in_turn(300);
}

/* --- one holder --------------------------------------------------------------------------------- */

static uint64_t now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* The bus is away: the memory authority knows by itself how long a lease lasts, and nobody else gets it meanwhile. */
TEST(test_p05_lease_expires_while_the_bus_is_away, .timeout = 120) {
    struct client holder, waiter;
    uint64_t token, queued, until;
    struct vmibus_ack ack;

    start("");
    holder = connect_client();
    waiter = connect_client();
    token = acquire(&holder, 1000);
    until = now() + UINT64_C(1000000000);
    queued = queue(&waiter);
    /* What was said before is in the socket before. */
    ck_assert_uint_eq(write_value(&holder, token, 1).error, VMIBUS_ERROR_OK);
    end(VMIBUSD);
    while (now() < until)
        (void)poll(NULL, 0, 10);
    ack = write_value(&holder, token, 2);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_STALE_TOKEN);
    ck_assert_uint_eq(ack.reason, VMIBUS_REASON_LEASE_EXPIRED);
    launch(VMIBUSD);
    ack = answer_to(&waiter, &waiter.bus, queued);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_gt(ack.token, token);
    ck_assert_uint_eq(write_value(&waiter, ack.token, 3).error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(write_value(&holder, token, 4).error, VMIBUS_ERROR_STALE_TOKEN);
    disconnect(&holder);
    disconnect(&waiter);
    finish();
}

/* The memory authority is away while a lease changes hands: what it hears first is that the old token is revoked. */
TEST(test_p05_lease_is_revoked_while_the_memory_authority_is_away, .timeout = 120) {
    struct client holder, waiter;
    struct vmibus_frame stale;
    uint64_t token, queued;
    struct vmibus_ack ack;

    start("");
    holder = connect_client();
    waiter = connect_client();
    token = acquire(&holder, 0);
    ck_assert_uint_eq(write_value(&holder, token, 1).error, VMIBUS_ERROR_OK);
    queued = queue(&waiter);
    end(MEMD);
    ck_assert_uint_eq(tell_lease(&holder, VMIBUS_LEASE_OPERATION_RELEASE, token).error, VMIBUS_ERROR_OK);
    stale = write_command(&holder, token, 2);
    ck_assert(wire_send(holder.memory.fd, &stale, NULL, 0));
    launch(MEMD);
    ck_assert_uint_eq(answer_to(&holder, &holder.memory, stale.header.correlation).error, VMIBUS_ERROR_STALE_TOKEN);
    ack = answer_to(&waiter, &waiter.bus, queued);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(write_value(&waiter, ack.token, 3).error, VMIBUS_ERROR_OK);
    disconnect(&holder);
    disconnect(&waiter);
    finish();
}

/* Killed at each thing that it says to the manager: the next one goes on with all, or with nothing that was there. */
TEST(test_p05_memory_authority_killed_while_it_hands_over, .timeout = 300) {
    bool all = false;

    for (unsigned n = 1; !all; n += 3) {
        struct client holder;
        struct vmibus_frame frame;
        uint64_t token;
        int status;

        start("");
        holder = connect_client();
        token = acquire(&holder, 0);
        manager_kill_after(host.pids[MEMD], n);
        ck_assert_int_eq(kill(host.pids[MEMD], SIGTERM), 0);
        ck_assert_int_eq(waitpid(host.pids[MEMD], &status, 0), host.pids[MEMD]);
        manager_kill_after(0, 0);
        all = WIFEXITED(status);
        launch(MEMD);
        frame = write_command(&holder, token, n);
        if (wire_send(holder.memory.fd, &frame, NULL, 0) && wire_receive(holder.memory.fd, &frame, NULL))
            ck_assert_uint_eq(frame.ack.error, VMIBUS_ERROR_OK);
        else
            ck_assert(!all);
        disconnect(&holder);
        finish();
    }
}

/* Another process may have said that it is ready, since its connection had ended. */
static void await_socket(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", host.socket);
    for (unsigned i = 0; i < 600; i++) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

        ck_assert_int_ge(fd, 0);
        r = connect(fd, (const struct sockaddr *)&address, sizeof(address));
        close(fd);
        if (r == 0)
            return;
        (void)poll(NULL, 0, 50);
    }
    fail_with_log("nobody listens");
}

/* Waits until the VM is there again, if it went. */
static void await_vm(void) {
    struct vmibus_frame hello = wire_hello();
    int finder;

    await_socket();
    finder = wire_connect(host.socket);
    ck_assert(wire_send(finder, &hello, NULL, 0));
    (void)wire_await(finder, VMIBUS_KIND_WELCOME);
    (void)wire_find(finder, "stub-0");
    close(finder);
}

/* A control of the VM as it is now: a sensor that lost its state has just begun anew, perhaps. */
static struct client connect_holder(uint64_t *token) {
    for (unsigned i = 0; i < 200; i++) {
        struct client client;

        await_vm();
        client = connect_client();
        *token = acquire(&client, 0);
        if (write_value(&client, *token, i).error == VMIBUS_ERROR_OK)
            return client;
        disconnect(&client);
        (void)poll(NULL, 0, 100);
    }
    ck_abort_msg("nothing can be written any more");
}

/* A control that was thrown out comes back, gets what nobody has any more, and nothing that it had is good. */
static void begin_anew(struct client *before, uint64_t token) {
    uint64_t given;
    struct client again = connect_holder(&given);

    ck_assert_uint_gt(given, token);
    ck_assert_uint_ne(write_value(&again, token, 1).error, VMIBUS_ERROR_OK);
    disconnect(before);
    disconnect(&again);
}

/* Whether a lease is still its holder's; the connection may have ended. */
static bool still_holds(struct client *client, uint64_t token) {
    struct vmibus_frame frame = lease_command(client, VMIBUS_LEASE_OPERATION_RENEW);
    uint64_t correlation = frame.header.correlation;

    frame.cmd_lease.token = token;
    if (!wire_send(client->bus.fd, &frame, NULL, 0))
        return false;
    do
        if (!wire_receive(client->bus.fd, &frame, NULL))
            return false;
    while (frame.header.kind != VMIBUS_KIND_ACK || frame.header.correlation != correlation);
    return frame.ack.error == VMIBUS_ERROR_OK;
}

/* Whether a holder goes on, as who lost nothing but RAM; it is thrown out otherwise, and whoever comes begins anew. */
static bool outlived(struct client *holder, uint64_t token, uint64_t value) {
    struct vmibus_frame frame = write_command(holder, token, value);
    bool goes_on = still_holds(holder, token);

    if (goes_on) {
        goes_on = wire_send(holder->memory.fd, &frame, NULL, 0);
        do
            goes_on = goes_on && wire_receive(holder->memory.fd, &frame, NULL);
        while (goes_on && frame.header.kind != VMIBUS_KIND_ACK);
        ck_assert(goes_on || host.loses_channel);
    }
    if (!goes_on) {
        begin_anew(holder, token);
        return false;
    }
    /* The sensor may have lost the RAM that the token was for: then another epoch says so. */
    ck_assert(frame.ack.error == VMIBUS_ERROR_OK || frame.ack.error == VMIBUS_ERROR_STALE_EPOCH);
    disconnect(holder);
    return true;
}

/* The bus, and the sensor, killed at each thing that they say to the manager while they hand over. */
TEST(test_p05_each_killed_while_it_hands_over, .timeout = 600, .iterations = 2) {
    enum program program = _i == 0 ? VMIBUSD : SENSORD;
    unsigned n_kept = 0, n_anew = 0;
    bool all = false;

    host.loses_memory = program == SENSORD;
    start("");
    for (unsigned n = 1; !all; n++) {
        struct client holder;
        uint64_t token;
        int status;

        holder = connect_holder(&token);
        manager_sync();
        manager_kill_after(host.pids[program], n);
        ck_assert_int_eq(kill(host.pids[program], SIGTERM), 0);
        ck_assert_int_eq(waitpid(host.pids[program], &status, 0), host.pids[program]);
        manager_kill_after(0, 0);
        all = WIFEXITED(status);
        launch(program);
        if (outlived(&holder, token, n))
            n_kept++;
        else
            n_anew++;
    }
    ck_assert_uint_ge(n_kept, 1);
    /* What is the sensor's may be found again in time without what it left. */
    if (program == VMIBUSD)
        ck_assert_uint_ge(n_anew, 1);
    finish(); /* where each asserts that nothing is charged any more */
}

/* Each killed at each thing that it says to the manager while it takes over: the next one has all or nothing of it. */
TEST(test_p05_each_killed_while_it_takes_over, .timeout = 600, .iterations = PROGRAMS) {
    enum program program = (enum program)_i;
    unsigned n_kept = 0, n_anew = 0;
    bool done = false;

    host.loses_memory = program != VMIBUSD;
    host.loses_channel = program == MEMD;
    start("");
    for (unsigned n = 1; !done; n++) {
        struct client holder;
        uint64_t token;
        int status;

        holder = connect_holder(&token);
        end(program);
        spawn(program, n);
        done = manager_wait_victim();
        if (!done) {
            ck_assert_int_eq(waitpid(host.pids[program], &status, 0), host.pids[program]);
            ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
            launch(program);
        }
        if (outlived(&holder, token, n))
            n_kept++;
        else
            n_anew++;
    }
    ck_assert_uint_ge(n_kept, 1);
    ck_assert_uint_ge(n_anew, 1);
    finish();
}

/* --- held still --------------------------------------------------------------------------------- */

static uint64_t send_operation(struct client *client, enum vmibus_vm_operation operation) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_VM, &client->endpoint);

    frame.cmd_vm.operation = (uint8_t)operation;
    ck_assert(wire_send(client->bus.fd, &frame, NULL, 0));
    return frame.header.correlation;
}

static struct vmibus_ack operate(struct client *client, enum vmibus_vm_operation operation) {
    return answer_to(client, &client->bus, send_operation(client, operation));
}

static void await_state(struct client *client, enum vmibus_vm_state state) {
    struct vmibus_frame frame;

    do
        take(client, &client->bus, &frame);
    while (frame.header.kind != VMIBUS_KIND_LIFECYCLE || frame.lifecycle.state != state);
}

/* Whichever of the processes is started anew, the guest stays held, and goes on when its holder says so. */
TEST(test_p11_guest_is_held_over_restarts_of_each, .timeout = 300) {
    struct vmibus_ack ack;
    struct client client;

    start("");
    client = connect_client();
    ck_assert_uint_eq(operate(&client, VMIBUS_VM_OPERATION_HOLD).error, VMIBUS_ERROR_OK);
    await_state(&client, VMIBUS_VM_STATE_PAUSED);
    for (unsigned i = 0; i < 2 * PROGRAMS; i++) {
        struct vmibus_frame frame;

        end((enum program)(i % PROGRAMS));
        launch((enum program)(i % PROGRAMS));
        for (uint64_t events = client.events; client.events < events + 3;) {
            take(&client, &client.bus, &frame);
            if (frame.header.kind == VMIBUS_KIND_LIFECYCLE)
                ck_assert_uint_eq(frame.lifecycle.state, VMIBUS_VM_STATE_PAUSED);
        }
    }
    ack = operate(&client, VMIBUS_VM_OPERATION_LET_GO);
    ck_assert_msg(ack.error == VMIBUS_ERROR_OK, "error %u, reason %u", ack.error, ack.reason);
    await_state(&client, VMIBUS_VM_STATE_RUNNING);
    disconnect(&client);
    finish();
}

/* The bus dies: nobody knows of the hold any more, so the sensor, which lives, ends it when it meets the next one. */
TEST(test_p11_guest_goes_on_when_the_bus_was_killed, .timeout = 120) {
    struct client client, again;
    int status;

    start("");
    client = connect_client();
    ck_assert_uint_eq(operate(&client, VMIBUS_VM_OPERATION_HOLD).error, VMIBUS_ERROR_OK);
    ck_assert_int_eq(kill(host.pids[VMIBUSD], SIGKILL), 0);
    ck_assert_int_eq(waitpid(host.pids[VMIBUSD], &status, 0), host.pids[VMIBUSD]);
    launch(VMIBUSD);
    await_vm();
    again = connect_client();
    await_state(&again, VMIBUS_VM_STATE_RUNNING);
    disconnect(&client);
    disconnect(&again);
    finish();
}

static uint32_t keys_held(const struct view *view) {
    struct stub_input_header header;

    ck_assert_int_eq(pread(view->ram, &header, sizeof(header), STUB_INPUT_GPA), sizeof(header));
    return header.held;
}

static void press_key(struct client *client) {
    struct vmibus_frame frame = lease_command(client, VMIBUS_LEASE_OPERATION_ACQUIRE);
    struct vmibus_ack ack;

    frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_INPUT;
    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_QUEUE;
    ack = ask(client, &client->bus, &frame, NULL);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    frame = wire_command(VMIBUS_KIND_CMD_INPUT, &client->endpoint);
    frame.cmd_input.token = ack.token;
    frame.cmd_input.count = 1;
    frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = 1};
    ck_assert_uint_eq(ask(client, &client->bus, &frame, NULL).error, VMIBUS_ERROR_OK);
}

/* The bus dies and stays away: the sensor undoes what was done for it by itself, before any bus is there that it could ask. */
TEST(test_p11_what_a_bus_that_stays_away_did_is_undone, .timeout = 180) {
    struct client client, again;
    struct view view;
    int status;

    host.loses_memory = true;
    start("");
    client = connect_client();
    view = attach(&client);
    press_key(&client);
    ck_assert_uint_eq(operate(&client, VMIBUS_VM_OPERATION_HOLD).error, VMIBUS_ERROR_OK);
    await_state(&client, VMIBUS_VM_STATE_PAUSED);
    ck_assert_uint_eq(keys_held(&view), 1);
    ck_assert_int_eq(kill(host.pids[VMIBUSD], SIGKILL), 0);
    ck_assert_int_eq(waitpid(host.pids[VMIBUSD], &status, 0), host.pids[VMIBUSD]);
    for (unsigned i = 0; i < 1200 && keys_held(&view); i++)
        (void)poll(NULL, 0, 50);
    ck_assert_uint_eq(keys_held(&view), 0);
    ck_assert_int_eq(waitpid(host.pids[SENSORD], &status, WNOHANG), 0);
    launch(VMIBUSD);
    await_vm();
    again = connect_client();
    await_state(&again, VMIBUS_VM_STATE_RUNNING);
    ck_assert_uint_eq(keys_held(&view), 0);
    detach(&view);
    disconnect(&client);
    disconnect(&again);
    finish();
}

HARNESS_SUITE("restarts of each process", HARNESS_QUICK)
