/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A soak: controls of all tempers (tempers.h) on a daemon with stub VMs, some of which come and go, over restarts that hand over,
 * deaths by SIGKILL after which everybody connects again, and rests, in which everybody has gone and nothing may be left.  It
 * ends in a line that says what happened, and a verdict of which every number has to be 0:
 *
 *   lost, duplicated    see client.h
 *   leaked              descriptors more than at the first rest, and charges that stay
 *   grown               KiB of the daemon's own memory, beyond what a rest may differ from the first one
 *
 * Environment: VMIBUS_SOAK_SECONDS (5), or VMIBUS_SOAK_EVENTS if that comes later; VMIBUS_SOAK_VMS (8); VMIBUS_SOAK_CLIENTS (42);
 * VMIBUS_SOAK_HEARTBEAT_MS (5), between two events of each VM; VMIBUS_SOAK_FAULTS: one in so many things fails, in a build with
 * fault injection.  With faults a connection may end at any time.  With so many VMs that the test's service manager could not
 * keep what they have, there are no restarts.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/manager.h"
#include "harness.h"
#include "soak/tempers.h"

#define CLIENTS_MAX 200
#define FDS_OF_VM 3                 /* at most: RAM and epoch page, of which the test's service manager keeps DAEMON_KEPT in all */
#define RANKS 4
#define FIRST_UID 1000
#define PERIOD_NS UINT64_C(1000000000)
#define GROWTH_KIB 1024             /* that rests may differ by */
#define PATIENCE_NS UINT64_C(30000000000)

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;
static struct client clients[CLIENTS_MAX];
static size_t n_clients;
static unsigned n_vms;
static int epoll_fd;
static uint64_t faults;             /* one in so many things fails; 0: none does */
static char config[2048];

static struct {
    unsigned restarts, deaths, rests;
    size_t fds, resident;           /* at the first rest */
    uint64_t leaked, grown;
} seen;

static uint64_t now(void) {
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * UINT64_C(1000000000) + (uint64_t)time.tv_nsec;
}

static uint64_t setting(const char *name, uint64_t otherwise) {
    const char *text = getenv(name);

    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

/* --- the clients ---------------------------------------------------------------------------------- */

/* Those that read as it comes are waited for. */
static void connect_client(struct client *client) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};

    if (client_connect(client) && client->fd >= 0)
        ck_assert_int_eq(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, client->fd, &event), 0);
}

/* Reads only now and then, once it is connected. */
static bool reads_seldom(const struct client *client) {
    return client->welcomed && (client->temper->reads || client->temper->deaf);
}

static void ready(struct client *client) {
    client_read(client, 0);
    if (client->fd >= 0 && reads_seldom(client))
        ck_assert_int_eq(epoll_ctl(epoll_fd, EPOLL_CTL_DEL, client->fd, NULL), 0);
}

static void act(struct client *client, uint64_t time) {
    client->due = time + client->temper->every_ms * UINT64_C(1000000);
    if (client->fd < 0)
        connect_client(client);
    else if (client->welcomed && reads_seldom(client) && client->temper->reads)
        client_read(client, client->temper->reads);
    if (client->fd >= 0 && client->welcomed)
        client->temper->act(client);
}

/* One turn of all of them. */
static void turn(bool acting) {
    struct epoll_event events[CLIENTS_MAX];
    int n = epoll_wait(epoll_fd, events, CLIENTS_MAX, 2);
    uint64_t time = now();

    ck_assert(n >= 0 || errno == EINTR);
    for (int i = 0; i < n; i++)
        ready(events[i].data.ptr);
    /* The first one, by which all know the VMs, may have to connect again. */
    for (size_t i = 0; i < (acting ? n_clients : 1); i++)
        if (clients[i].due <= time)
            act(&clients[i], time);
}

static void play_until(uint64_t end) {
    while (now() < end)
        turn(true);
}

static unsigned commands_owed(void) {
    unsigned owed = 0;

    for (size_t i = 0; i < n_clients; i++) {
        if (clients[i].fd >= 0 && clients[i].temper->reads)
            client_read(&clients[i], 0);
        owed += client_owed(&clients[i]);
    }
    return owed;
}

/* VMs that are there, with their memory. */
static unsigned count_vms(void) {
    unsigned n = 0;

    for (unsigned i = 0; i < CLIENT_SLOTS; i++)
        n += soak_vms[i].present && soak_vms[i].epoch;
    return n;
}

/* Until everybody has been answered, and every VM that was ended is there again; what is not answered is lost. */
static void settle(void) {
    uint64_t end = now() + PATIENCE_NS;
    unsigned owed;

    do {
        turn(false);
        owed = commands_owed();
    } while ((owed || count_vms() < n_vms) && now() < end);
    if (owed || count_vms() < n_vms)
        fprintf(stderr, "%u commands are not answered, %u of %u VMs are there\n", owed, count_vms(), n_vms);
    tally.lost += owed + (count_vms() < n_vms);
}

static void disconnect_all(void) {
    for (size_t i = 0; i < n_clients; i++)
        client_disconnect(&clients[i]);
    memset(soak_vms, 0, sizeof(soak_vms));
}

/* --- the daemon ---------------------------------------------------------------------------------- */

static size_t resident_kib(void) {
    char path[64], line[128];
    size_t kib = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/status", d->pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "RssAnon: %zu", &kib) == 1)
            break;
    fclose(file);
    return kib;
}

/* A user of each rank, where the test may be several. */
static uid_t uid_of(size_t client) {
    return geteuid() == 0 ? FIRST_UID + client % RANKS : geteuid();
}

static void write_config(void) {
    size_t n = (size_t)snprintf(
        config, sizeof(config),
        "[daemon]\nmax-connections = %u\nframe-timeout-ms = 2000\nqueue-depth = 512\nmax-endpoints = 1024\n"
        "[limits]\nconnections = 1000\ncommands = 10000\ndescriptors = 4096\n"
        "[limits-total]\nconnections = 1000\ncommands = 10000\ndescriptors = 8192\n",
        CLIENTS_MAX + 8);

    for (unsigned i = 0; i < RANKS; i++)
        n += (size_t)snprintf(config + n, sizeof(config) - n, "[rule rank-%u]\nuser = %u\ncapabilities = all\nrank = %u\n", i,
                      geteuid() == 0 ? FIRST_UID + i : geteuid(), i);
    snprintf(config + n, sizeof(config) - n, "[rule root]\nuser = 0\ncapabilities = all\n");
}

/* Only while clients play: what the test itself asks the daemon does not fail. */
static void begin_faults(void) {
    char text[sizeof(config) + 256];

    if (!faults)
        return;
    snprintf(text, sizeof(text),
             "%s[faults]\nallocation = rate:%ju\nsocket-send = rate:%ju\nsocket-receive = rate:%ju\nfd-passing = rate:%ju\n",
             config, (uintmax_t)faults, (uintmax_t)faults, (uintmax_t)faults, (uintmax_t)faults);
    daemon_reload(d, text);
    daemon_await_log(d, "the policy was read anew");
}

static void end_faults(void) {
    if (!faults)
        return;
    daemon_reload(d, config);
    daemon_await_log(d, "the policy was read anew");
    close(d->bystander);
    d->bystander = wire_open(d->path, NULL);
}

/* All VMs are there, with their memory: that is what there has to be at each rest. */
static void await_vms(void) {
    char name[32];

    for (unsigned i = 0; i < n_vms; i++) {
        struct vmibus_frame unsubscribe = wire_frame(VMIBUS_KIND_SUBSCRIBE);
        int n = snprintf(name, sizeof(name), "stub-%u", i);

        (void)wire_find(d->bystander, name);
        ck_assert_uint_eq(wire_ask(d->bystander, &unsubscribe, name, (size_t)n).ack.error, VMIBUS_ERROR_OK);
    }
    daemon_note(d);
}

static void start(void) {
    static char vms[64], heartbeat[64];
    struct daemon_options options = {.config = config,
                                     .arguments = {"--sensor", vms, "--sensor", heartbeat, "--sensor", "stub:respawn_ms=50",
                                                   "--sensor", "stub:ram=32M"},
                                     .notify = manager_start()};

    faults = setting("VMIBUS_SOAK_FAULTS", 0);
    client_losses_allowed = faults != 0;
    write_config();
    snprintf(vms, sizeof(vms), "stub:vms=%u", n_vms);
    snprintf(heartbeat, sizeof(heartbeat), "stub:heartbeat_ms=%ju", (uintmax_t)setting("VMIBUS_SOAK_HEARTBEAT_MS", 5));
    daemon_start(d, &options);
    manager_await_ready(1);
    await_vms();
    client_path = d->path;
}

/* Nobody notices. */
static void restart(void) {
    unsigned before = manager_ready();
    int bystander = d->bystander;

    d->bystander = -1;
    ck_assert_int_eq(kill(d->pid, SIGTERM), 0);
    ck_assert_int_eq(daemon_await_exit(d), 0);
    d->bystander = bystander;
    manager_give(d);
    daemon_respawn(d);
    ck_assert_msg(manager_wait_ready_or_death(d->pid, before + 1), "the daemon did not start");
    seen.restarts++;
}

/*
 * Everybody has to connect again.  The service manager goes too, as in a crash of the host: epoch pages that it kept would be
 * charged only when their slots are used, so that nobody could say what there has to be at a rest.
 */
static void die(void) {
    daemon_kill(d);
    disconnect_all();
    manager_stop();
    d->options.notify = manager_start();
    d->options.n_kept = 0;
    daemon_restart(d);
    manager_await_ready(1);
    await_vms();
    seen.deaths++;
}

/* Everybody goes; then there is what there was at the first rest. */
static void rest(void) {
    size_t fds, kib;

    settle();
    disconnect_all();
    daemon_await_idle(d);
    fds = daemon_count_fds(d);
    kib = resident_kib();
    if (seen.rests++ == 0) {
        seen.fds = fds;
        seen.resident = kib;
    }
    seen.leaked = fds > seen.fds ? fds - seen.fds : 0;
    seen.grown = kib > seen.resident + GROWTH_KIB ? kib - seen.resident : 0;
    fprintf(stderr, "rest %u: %ju events, %zu descriptors, %zu KiB\n", seen.rests, (uintmax_t)tally.events, fds, kib);
}

/* --- the soak ------------------------------------------------------------------------------------ */

static void period(unsigned number) {
    begin_faults();
    play_until(now() + PERIOD_NS);
    end_faults();
    if (number % 5 == 1)
        rest();
    else if (number % 8 == 7)
        die();
    else if (number % 3 == 0 && n_clients + FDS_OF_VM * n_vms < DAEMON_KEPT)
        restart();
}

static void tell(uint64_t begin) {
    fprintf(stderr,
            "soak: %ju events delivered, %ju gaps of %ju, %ju commands (%ju refused), %ju writes, %ju connections, %u restarts, "
            "%u deaths, %u rests, %ju s\n",
            (uintmax_t)tally.events, (uintmax_t)tally.gaps, (uintmax_t)tally.dropped, (uintmax_t)tally.commands,
            (uintmax_t)tally.refused, (uintmax_t)tally.writes, (uintmax_t)tally.connections, seen.restarts, seen.deaths, seen.rests,
            (uintmax_t)((now() - begin) / UINT64_C(1000000000)));
    fprintf(stderr, "verdict: lost %ju, duplicated %ju, leaked %ju, grown %ju\n", (uintmax_t)tally.lost,
            (uintmax_t)tally.duplicated, (uintmax_t)seen.leaked, (uintmax_t)seen.grown);
}

TEST(test_p05_p07_p08_p09_soak, .timeout = 36000) {
    uint64_t begin = now(), end = begin + setting("VMIBUS_SOAK_SECONDS", 5) * UINT64_C(1000000000);
    uint64_t events = setting("VMIBUS_SOAK_EVENTS", 0);

    n_clients = setting("VMIBUS_SOAK_CLIENTS", 42);
    n_vms = (unsigned)setting("VMIBUS_SOAK_VMS", 8);
    ck_assert_uint_le(n_clients, CLIENTS_MAX);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    start();
    for (unsigned i = 0; i < n_clients; i++)
        clients[i] = (struct client){.temper = temper_of(i), .number = i, .uid = uid_of(i), .fd = -1};
    for (unsigned i = 0; now() < end || tally.events < events; i++)
        period(i);
    rest();
    tell(begin);
    close(epoll_fd);
    daemon_stop(d);
    manager_stop();
    ck_assert_uint_eq(tally.lost, 0);
    ck_assert_uint_eq(tally.duplicated, 0);
    ck_assert_uint_eq(seen.leaked, 0);
#ifndef VMIBUS_SANITIZED /* a sanitizer keeps what was freed */
    ck_assert_uint_eq(seen.grown, 0);
#endif
    ck_assert_uint_gt(tally.writes, 0);
}

HARNESS_SUITE("soak", HARNESS_QUICK)
