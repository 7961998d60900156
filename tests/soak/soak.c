/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "soak/soak.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "daemon/manager.h"
#include "harness.h"
#include "soak/tempers.h"

#define CLIENTS_MAX 200
#define FDS_OF_STUB 3               /* RAM and epoch page, at most */
#define FDS_OF_VM 16                /* of a real one, at most: the test's service manager keeps DAEMON_KEPT in all */
#define RANKS 4
#define N_ARGUMENTS 8               /* of the daemon, before those that others need */
#define FIRST_UID 1000
#define PERIOD_NS UINT64_C(1000000000)
#define GROWTH_KIB 1024             /* that rests may differ by, */
#define GROWTH_OF_VM_KIB 4          /* and a page for each VM: what it left in the heap lies elsewhere each time */
#define PATIENCE_NS UINT64_C(30000000000)
#define OPEN_MAX 4096               /* descriptors that can be told by what they are of */

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;
static struct client clients[CLIENTS_MAX];
static size_t n_clients;
static unsigned n_vms;
static int epoll_fd;
static uint64_t faults;             /* one in so many things fails; 0: none does */
static uint64_t seed;
static const struct soak_others *others;
static char config[2048];

static struct {
    unsigned restarts, deaths, rests;
    size_t fds, resident;           /* at the first rest */
    uint64_t leaked, grown;         /* at the worst one */
} seen;

/* What is open, each by the name that the kernel has for it, sorted. */
struct open {
    size_t n;
    char names[OPEN_MAX][64];
};

static struct open open_first, open_last;

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

/*
 * Where nobody begins anything, who holds something lets go of it.  The first one, by which all know the VMs, may have to
 * connect again.
 */
static bool may_act(const struct client *client, bool acting) {
    return acting || client->number == 0 || (client->temper->holds && client->phase && client->fd >= 0);
}

/* One turn of all of them. */
static void turn(bool acting) {
    struct epoll_event events[CLIENTS_MAX];
    int n = epoll_wait(epoll_fd, events, CLIENTS_MAX, 2);
    uint64_t time = now();

    ck_assert(n >= 0 || errno == EINTR);
    for (int i = 0; i < n; i++)
        ready(events[i].data.ptr);
    for (size_t i = 0; i < n_clients; i++)
        if (clients[i].due <= time && may_act(&clients[i], acting))
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

static void tend_others(void) {
    if (others)
        others->tend();
}

/* Until everybody has been answered, and every VM that was ended is there again; what is not answered is lost. */
static void settle(void) {
    unsigned owed, n = n_vms + (others ? others->n : 0);
    uint64_t end = now() + PATIENCE_NS * (others ? others->patience : 1);

    do {
        turn(false);
        tend_others();
        owed = commands_owed();
    } while ((owed || count_vms() < n) && now() < end);
    if (owed || count_vms() < n)
        fprintf(stderr, "%u commands are not answered, %u of %u VMs are there\n", owed, count_vms(), n);
    tally.lost += owed + (count_vms() < n);
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

/* The times are those after which lawful clients would be disconnected, who may be slow where the machine is. */
static void write_config(void) {
    size_t n = (size_t)snprintf(
        config, sizeof(config),
        "[daemon]\nmax-connections = %u\nhello-timeout-ms = 60000\nframe-timeout-ms = 60000\n"
        "retire-timeout-ms = 60000\nqueue-depth = 512\nmax-endpoints = 1024\n"
        "[limits]\nconnections = 1000\ncommands = 10000\ndescriptors = 4096\n"
        "[limits-total]\nconnections = 1000\ncommands = 10000\ndescriptors = 8192\n",
        CLIENTS_MAX + 8);

    for (unsigned i = 0; i < RANKS; i++)
        n += (size_t)snprintf(config + n, sizeof(config) - n, "[rule rank-%u]\nuser = %u\ncapabilities = all\nrank = %u\n", i,
                      geteuid() == 0 ? FIRST_UID + i : geteuid(), i);
    snprintf(config + n, sizeof(config) - n, "[rule root]\nuser = 0\ncapabilities = all\n");
}

/* Only while clients play: what the test itself asks the daemon does not fail. */
static void begin_faults(unsigned number) {
    char text[sizeof(config) + 256];

    if (!faults)
        return;
    snprintf(text, sizeof(text),
             "%s[faults]\nseed = %ju\nallocation = rate:%ju\nsocket-send = rate:%ju\nsocket-receive = rate:%ju\n"
             "fd-passing = rate:%ju\n",
             config, (uintmax_t)seed + number, (uintmax_t)faults, (uintmax_t)faults, (uintmax_t)faults, (uintmax_t)faults);
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
    if (others) {
        settle();
        disconnect_all();
    }
    daemon_note(d);
}

static void start(void) {
    static char vms[64], heartbeat[64];
    struct daemon_options options = {.config = config,
                                     .arguments = {"--sensor", vms, "--sensor", heartbeat, "--sensor", "stub:respawn_ms=50",
                                                   "--sensor", "stub:ram=32M"},
                                     .notify = manager_start()};

    for (size_t i = 0; others && others->arguments[i]; i++)
        options.arguments[N_ARGUMENTS + i] = others->arguments[i];
    faults = setting("VMIBUS_SOAK_FAULTS", 0);
    seed = setting("VMIBUS_SOAK_SEED", (uint64_t)getpid());
    if (faults)
        fprintf(stderr, "VMIBUS_SOAK_FAULTS=%ju VMIBUS_SOAK_SEED=%ju\n", (uintmax_t)faults, (uintmax_t)seed);
    srandom((unsigned)seed);
    client_losses_allowed = faults != 0;
    write_config();
    snprintf(vms, sizeof(vms), "stub:vms=%u", n_vms);
    snprintf(heartbeat, sizeof(heartbeat), "stub:heartbeat_ms=%ju", (uintmax_t)setting("VMIBUS_SOAK_HEARTBEAT_MS", 5));
    daemon_start(d, &options);
    client_path = d->path;
    manager_await_ready(1);
    await_vms();
}

/* The daemon has said why, before it was ready. */
static void tell_noticed(void) {
    ssize_t n = read(d->log_fd, d->log, sizeof(d->log) - 1);

    fprintf(stderr, "a restart ended the bystander's connection; the daemon said: %.*s\n", n > 0 ? (int)n : 0, d->log);
    tally.lost++;
    d->bystander = wire_open(d->path, NULL);
}

/* Nobody notices. */
static void restart(void) {
    unsigned before = manager_ready();
    int bystander = d->bystander;
    uint8_t octet;

    d->bystander = -1;
    ck_assert_int_eq(kill(d->pid, SIGTERM), 0);
    ck_assert_int_eq(daemon_await_exit(d), 0);
    d->bystander = bystander;
    manager_give(d);
    daemon_respawn(d);
    ck_assert_msg(manager_wait_ready_or_death(d->pid, before + 1), "the daemon did not start");
    if (recv(d->bystander, &octet, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
        tell_noticed();
    seen.restarts++;
}

/* Everybody has to connect again. The next one gets what its service manager kept, as after any crash. */
static void die(void) {
    unsigned before = manager_ready();

    daemon_kill(d);
    disconnect_all();
    manager_give(d);
    daemon_restart(d);
    manager_await_ready(before + 1);
    await_vms();
    seen.deaths++;
}

/* The audit's file is another one after a while. */
static void list_open(struct open *list) {
    char path[320];
    struct dirent *entry;
    DIR *directory;

    snprintf(path, sizeof(path), "/proc/%d/fd", d->pid);
    directory = opendir(path);
    ck_assert_ptr_nonnull(directory);
    list->n = 0;
    while ((entry = readdir(directory)) && list->n < OPEN_MAX) {
        char *name = list->names[list->n];
        ssize_t length;

        snprintf(path, sizeof(path), "/proc/%d/fd/%s", d->pid, entry->d_name);
        length = readlink(path, name, sizeof(list->names[0]) - 1);
        if (length <= 0)
            continue;
        name[length] = '\0';
        if (strncmp(name, "anon_inode:", 11) != 0)
            name[strcspn(name, "[")] = '\0'; /* a socket's number */
        list->n++;
    }
    closedir(directory);
    qsort(list->names, list->n, sizeof(list->names[0]), (int (*)(const void *, const void *))strcmp);
}

/* Both are sorted: what is in the last one only. */
static void tell_open(void) {
    size_t first = 0;

    for (size_t i = 0; i < open_last.n; i++) {
        while (first < open_first.n && strcmp(open_first.names[first], open_last.names[i]) < 0)
            first++;
        if (first < open_first.n && strcmp(open_first.names[first], open_last.names[i]) == 0)
            first++;
        else
            fprintf(stderr, "  open, and was not: %s\n", open_last.names[i]);
    }
}

static size_t count_eventfds(const struct open *list) {
    size_t n = 0;

    for (size_t i = 0; i < list->n; i++)
        n += strcmp(list->names[i], "anon_inode:[eventfd]") == 0;
    return n;
}

/* A sensor's worker is started when it is first needed, and stays: sensor_worker.c. */
static size_t count_new_workers(void) {
    size_t first = count_eventfds(&open_first), last = count_eventfds(&open_last), sensors = 1 + (others != NULL);

    return last <= first ? 0 : last - first < sensors ? last - first : sensors;
}

static void judge(size_t fds, size_t kib) {
    size_t expected = seen.fds + count_new_workers();
    uint64_t leaked = fds > expected ? fds - expected : 0;
    size_t bound = seen.resident + GROWTH_KIB + GROWTH_OF_VM_KIB * n_vms;
    uint64_t grown = kib > bound ? kib - seen.resident : 0;

    if (leaked)
        tell_open();
    seen.leaked = leaked > seen.leaked ? leaked : seen.leaked;
    seen.grown = grown > seen.grown ? grown : seen.grown;
}

/* Everybody goes; then there is what there was at the first rest. */
static void rest(void) {
    size_t fds, kib;
    char why[128];

    settle();
    disconnect_all();
    if (!daemon_wait_idle(d, why, sizeof(why))) {
        fprintf(stderr, "something stays after everybody has gone: %s\n", why);
        seen.leaked++;
    }
    fds = daemon_count_fds(d);
    kib = resident_kib();
    if (seen.rests++ == 0) {
        seen.fds = fds;
        seen.resident = kib;
        list_open(&open_first);
    }
    list_open(&open_last);
    fprintf(stderr, "rest %u: %ju events, %zu descriptors, %zu KiB\n", seen.rests, (uintmax_t)tally.events, fds, kib);
    judge(fds, kib);
}

/* --- the soak ------------------------------------------------------------------------------------ */

/* What the test's service manager would have to keep. */
static bool can_restart(void) {
    return n_clients + FDS_OF_STUB * n_vms + FDS_OF_VM * (others ? others->n : 0) < DAEMON_KEPT;
}

static void period(unsigned number) {
    begin_faults(number);
    play_until(now() + PERIOD_NS);
    end_faults();
    tend_others();
    if (number % 5 == 1)
        rest();
    else if (number % 8 == 7)
        die();
    else if (others && number % 11 == 9)
        others->churn();
    else if (number % 3 == 0 && can_restart())
        restart();
}

static void tell(uint64_t begin) {
    fprintf(stderr,
            "soak%s: %ju events delivered, %ju gaps of %ju, %ju commands (%ju refused), "
            "%ju writes, %ju read back, %ju connections, %u restarts, "
            "%u deaths, %u rests, %ju s\n",
            others ? " of guests" : "", (uintmax_t)tally.events, (uintmax_t)tally.gaps, (uintmax_t)tally.dropped,
            (uintmax_t)tally.commands,
            (uintmax_t)tally.refused, (uintmax_t)tally.writes, (uintmax_t)tally.proofs,
            (uintmax_t)tally.connections, seen.restarts, seen.deaths, seen.rests,
            (uintmax_t)((now() - begin) / UINT64_C(1000000000)));
    fprintf(stderr, "verdict: lost %ju, duplicated %ju, leaked %ju, grown %ju\n", (uintmax_t)tally.lost,
            (uintmax_t)tally.duplicated, (uintmax_t)seen.leaked, (uintmax_t)seen.grown);
}

/* A machine that has much else to do may need longer until there is anything to judge. */
static bool is_idle(void) {
    return !tally.writes || !tally.proofs;
}

void soak_run(const struct soak_options *options) {
    uint64_t begin = now(), end = begin + setting("VMIBUS_SOAK_SECONDS", options->seconds) * UINT64_C(1000000000);
    uint64_t events = setting("VMIBUS_SOAK_EVENTS", 0);

    others = options->others;
    n_clients = setting("VMIBUS_SOAK_CLIENTS", 42);
    n_vms = (unsigned)setting("VMIBUS_SOAK_VMS", options->n_vms);
    ck_assert_uint_le(n_clients, CLIENTS_MAX);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned i = 0; i < n_clients; i++)
        clients[i] = (struct client){.temper = temper_of(i), .number = i, .uid = uid_of(i), .fd = -1, .kept_fd = -1};
    start();
    for (unsigned i = 0; now() < end || tally.events < events || (is_idle() && now() < end + PATIENCE_NS); i++)
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
    ck_assert_uint_gt(tally.proofs, 0);
}
