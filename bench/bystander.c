/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an attack costs somebody else: the round trip of a bystander while users of other uids do their
 * worst, over the same round trip when nobody does.
 *
 * Daemon and bystander share one CPU, so that what the daemon spends on the attackers shows; the attackers have the
 * others.  Each attack comes from USERS uids; some of them with many connections.  Blocks with
 * and without the attackers running take turns.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bench.h"
#include "instance.h"
#include "pingpong.h"

#define USERS 4
#define FIRST_UID 60001
#define PEERS 24            /* of each attacking user, where many connections are the attack */
#define STUBS 16
#define TAIL (1u << 20)
#define TARGET 2.0

static const char config_text[] = "[rule everybody]\neverybody = yes\ncapabilities = all\n";

struct setup {
    struct instance instance;
    struct vmibus *bus;
    struct vmibus_frame ping;
    int fd;
    cpu_set_t everywhere;
};

/* --- attackers ------------------------------------------------------------------------------------- */

/* An attacker: has connected PEERS times or once, and goes on until it is killed. */
struct attacker {
    const char *socket;
    struct vmibus_endpoint endpoint;
    uint64_t epoch;
    unsigned user;
};

typedef void (*attack_fn)(const struct attacker *attacker);

static int dial(const struct attacker *attacker) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", attacker->socket);
    while (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        if (errno != EAGAIN && errno != EINTR)
            _exit(1);
    return fd;
}

static struct vmibus_frame frame_of(enum vmibus_kind kind) {
    return (struct vmibus_frame){.header = {.kind = (uint16_t)kind,
                                            .direction = VMIBUS_DIRECTION_DOWN,
                                            .priority = VMIBUS_PRIORITY_NORMAL,
                                            .version = VMIBUS_PROTOCOL_VERSION}};
}

static struct vmibus_frame command_of(const struct attacker *attacker, enum vmibus_kind kind) {
    struct vmibus_frame frame = frame_of(kind);

    frame.header.slot = attacker->endpoint.slot;
    frame.header.generation = attacker->endpoint.generation;
    return frame;
}

static int hello(const struct attacker *attacker) {
    struct vmibus_frame frame = frame_of(VMIBUS_KIND_HELLO);
    int fd = dial(attacker);

    frame.hello.magic = VMIBUS_MAGIC;
    frame.hello.version_min = frame.hello.version_max = VMIBUS_PROTOCOL_VERSION;
    frame.hello.role = VMIBUS_ROLE_CONTROL;
    frame.hello.channel = VMIBUS_CHANNEL_BUS;
    if (write_whole(fd, &frame, sizeof(frame)) < 0 || read_whole(fd, &frame, sizeof(frame)) < 0 ||
        frame.header.kind != VMIBUS_KIND_WELCOME)
        _exit(1);
    return fd;
}

/* Throws away what has come; descriptors are closed with it. */
static void drain(int fd) {
    static char octets[1 << 18];
    char control[1024];
    struct iovec piece = {.iov_base = octets, .iov_len = sizeof(octets)};
    ssize_t n;

    do {
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};

        n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        for (struct cmsghdr *header = n > 0 ? CMSG_FIRSTHDR(&message) : NULL; header; header = CMSG_NXTHDR(&message, header))
            for (size_t i = 0; i < (header->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
                int taken;

                memcpy(&taken, CMSG_DATA(header) + i * sizeof(taken), sizeof(taken));
                close(taken);
            }
    } while (n > 0);
    if (n == 0)
        _exit(0);
}

/* Sends the same octets over and over on some connections, and reads what comes if it is asked to. */
static void flood(const struct attacker *attacker, size_t n_peers, const void *octets, size_t length, bool reads) {
    struct pollfd peers[PEERS];
    size_t done[PEERS] = {};

    for (size_t i = 0; i < n_peers; i++) {
        peers[i] = (struct pollfd){.fd = hello(attacker), .events = (short)(POLLOUT | (reads ? POLLIN : 0))};
        (void)fcntl(peers[i].fd, F_SETFL, O_NONBLOCK);
    }
    while (poll(peers, n_peers, -1) > 0)
        for (size_t i = 0; i < n_peers; i++) {
            ssize_t n = 0;

            if (peers[i].revents & POLLIN)
                drain(peers[i].fd);
            if (peers[i].revents & POLLOUT)
                n = write(peers[i].fd, (const char *)octets + done[i], length - done[i]);
            if (n > 0)
                done[i] = (done[i] + (size_t)n) % length;
            else if (peers[i].revents & (POLLHUP | POLLERR))
                _exit(0);
        }
}

/* As many of one frame as fill a big write. */
#define BURST 256
static const void *burst(const struct vmibus_frame *frame, const void *tail, size_t *length) {
    size_t tail_length = frame->header.tail_length, each = sizeof(*frame) + tail_length;
    char *octets = malloc(BURST * each);

    for (size_t i = 0; octets && i < BURST; i++) {
        memcpy(octets + i * each, frame, sizeof(*frame));
        if (tail_length)
            memcpy(octets + i * each + sizeof(*frame), tail, tail_length);
    }
    *length = BURST * each;
    return octets ? octets : (_exit(1), NULL);
}

static void attack_with(const struct attacker *attacker, size_t n_peers, const struct vmibus_frame *frame, const void *tail,
                        bool reads) {
    size_t length;
    const void *octets = burst(frame, tail, &length);

    flood(attacker, n_peers, octets, length, reads);
}

static void attack_connections(const struct attacker *attacker) {
    for (;;)
        close(dial(attacker));
}

static void attack_sessions(const struct attacker *attacker) {
    for (;;)
        close(hello(attacker));
}

static void attack_half_open(const struct attacker *attacker) {
    int fds[PEERS];

    for (size_t n = 0;; n++) {
        int fd = dial(attacker);

        (void)!write(fd, "half", n % 4);
        if (n >= PEERS)
            close(fds[n % PEERS]);
        fds[n % PEERS] = fd;
    }
}

/* One octet at a time, so that each costs a wakeup. */
static void attack_dribble(const struct attacker *attacker) {
    struct vmibus_frame frame = frame_of(VMIBUS_KIND_QUERY);
    int fds[PEERS];

    frame.query.query = VMIBUS_QUERY_GRANT;
    for (size_t i = 0; i < PEERS; i++)
        fds[i] = hello(attacker);
    for (size_t at = 0;; at = (at + 1) % sizeof(frame))
        for (size_t i = 0; i < PEERS; i++) {
            if (write(fds[i], (const char *)&frame + at, 1) != 1)
                _exit(0);
            if (at == 0)
                drain(fds[i]);
        }
}

static void attack_queries(const struct attacker *attacker) {
    struct vmibus_frame frame = frame_of(VMIBUS_KIND_QUERY);

    frame.query.query = VMIBUS_QUERY_STATS;
    attack_with(attacker, PEERS, &frame, NULL, true);
}

static void attack_unread(const struct attacker *attacker) {
    struct vmibus_frame frame = frame_of(VMIBUS_KIND_QUERY);

    frame.query.query = VMIBUS_QUERY_STATS;
    attack_with(attacker, PEERS, &frame, NULL, false);
}

static void attack_refusals(const struct attacker *attacker) {
    struct vmibus_frame frame = command_of(attacker, VMIBUS_KIND_CMD_INPUT);

    attack_with(attacker, 1, &frame, NULL, true);
}

static void attack_patterns(const struct attacker *attacker) {
    struct vmibus_frame frame = frame_of(VMIBUS_KIND_SUBSCRIBE);
    char pattern[255];

    for (size_t i = 0; i < sizeof(pattern); i++)
        pattern[i] = i % 2 ? 's' + (char)(i / 2 % 2) : '*';
    frame.subscribe.kinds = UINT64_MAX;
    frame.header.tail_length = sizeof(pattern);
    attack_with(attacker, 4, &frame, pattern, true);
}

static void attack_replays(const struct attacker *attacker) {
    struct vmibus_frame frames[4] = {frame_of(VMIBUS_KIND_SUBSCRIBE), {}, frame_of(VMIBUS_KIND_SUBSCRIBE), {}};
    char octets[2 * (VMIBUS_FRAME_SIZE + 1)];

    frames[0].header.tail_length = frames[2].header.tail_length = 1;
    frames[0].subscribe.kinds = UINT64_MAX;
    memcpy(octets, &frames[0], sizeof(frames[0]));
    octets[VMIBUS_FRAME_SIZE] = '*';
    memcpy(octets + VMIBUS_FRAME_SIZE + 1, &frames[2], sizeof(frames[2]));
    octets[2 * VMIBUS_FRAME_SIZE + 1] = '*';
    flood(attacker, 4, octets, sizeof(octets), true);
}

static void attack_leases(const struct attacker *attacker) {
    struct vmibus_frame frame = command_of(attacker, VMIBUS_KIND_CMD_LEASE);

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_POWER;
    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_QUEUE;
    attack_with(attacker, PEERS, &frame, NULL, true);
}

static void attack_attachments(const struct attacker *attacker) {
    struct vmibus_frame frames[2] = {command_of(attacker, VMIBUS_KIND_MEM_ATTACH), command_of(attacker, VMIBUS_KIND_MEM_RELEASE)};

    frames[0].mem_attach.epoch = frames[1].mem_release.epoch = attacker->epoch;
    flood(attacker, 4, frames, sizeof(frames), true);
}

/* One writes whole ones, the others dribble. */
static void attack_tails(const struct attacker *attacker) {
    struct vmibus_frame frame = command_of(attacker, VMIBUS_KIND_CMD_MEMWRITE);
    static char octets[sizeof(frame) + TAIL];
    size_t done[PEERS] = {};
    int fds[PEERS];

    frame.cmd_memwrite.len = TAIL;
    frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_PAYLOAD;
    frame.header.tail_length = TAIL;
    memcpy(octets, &frame, sizeof(frame));
    for (size_t i = 0; i < PEERS; i++)
        fds[i] = hello(attacker);
    for (;;)
        for (size_t i = 0; i < PEERS; i++) {
            size_t left = sizeof(octets) - done[i];
            ssize_t n = write(fds[i], octets + done[i], i > 0 && done[i] > sizeof(frame) ? 1 : left < 65536 ? left : 65536);

            if (n < 0)
                _exit(0);
            done[i] = (done[i] + (size_t)n) % sizeof(octets);
            if (done[i] == 0)
                drain(fds[i]);
        }
}

static const struct attack {
    const char *name;
    attack_fn run;
} attacks[] = {
    {"connections", attack_connections}, {"sessions", attack_sessions}, {"half-open handshakes", attack_half_open},
    {"frames by the octet", attack_dribble}, {"queries", attack_queries}, {"queries, answers unread", attack_unread},
    {"refused commands", attack_refusals}, {"patterns", attack_patterns}, {"replays", attack_replays},
    {"lease queues", attack_leases},
    {"attachments", attack_attachments}, {"tails", attack_tails},
};

/* --- the bystander --------------------------------------------------------------------------------- */

static int ping(void *context, uint64_t *samples, size_t n) {
    struct setup *setup = context;

    for (size_t i = 0; i < n; i++) {
        struct vmibus_frame answer;
        uint64_t begun = bench_now();
        int r;

        setup->ping.header.correlation = i;
        setup->ping.header.timestamp = begun;
        r = write_whole(setup->fd, &setup->ping, sizeof(setup->ping));
        if (r == 0)
            r = read_whole(setup->fd, &answer, sizeof(answer));
        samples[i] = bench_now() - begun;
        if (r < 0)
            return r;
        if (answer.header.kind != VMIBUS_KIND_ACK || answer.ack.error || answer.header.correlation != i)
            return -EREMOTEIO;
    }
    return 0;
}

static int write_config(char *path) {
    int fd = mkstemp(path);
    int r = fd < 0 ? -errno : write_whole(fd, config_text, sizeof(config_text) - 1);

    if (fd >= 0)
        close(fd);
    return r;
}

static int set_up(struct setup *setup, const struct bench *bench, const char *config, uint64_t *epoch,
                  struct vmibus_endpoint *target) {
    char stubs[32];
    const char *const arguments[] = {"--config", config, stubs, NULL};
    struct vmibus_endpoint endpoint;
    uint64_t token = 0;
    int r;

    snprintf(stubs, sizeof(stubs), "--stub=%d", STUBS);
    r = instance_start(&setup->instance, bench->build, NULL, arguments);
    if (r == 0)
        r = instance_connect(&setup->instance, &setup->bus);
    if (r == 0)
        r = instance_find(setup->bus, "stub-0", &endpoint, NULL);
    if (r == 0)
        r = instance_find(setup->bus, "stub-1", target, epoch);
    if (r == 0)
        r = vmibus_subscribe(setup->bus, "*", 0);
    if (r == 0)
        r = vmibus_lease_acquire(setup->bus, &endpoint, VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_FAIL, 0, &token, NULL);
    if (r)
        return r > 0 ? -EACCES : r;
    vmibus_command_init(&setup->ping, VMIBUS_KIND_CMD_INPUT, &endpoint);
    setup->ping.cmd_input.token = token;
    setup->ping.cmd_input.count = 1;
    setup->ping.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_RELATIVE, .value = 1};
    setup->ping.header.version = VMIBUS_PROTOCOL_VERSION;
    setup->fd = vmibus_dup_fd(setup->bus);
    return setup->fd < 0 ? setup->fd : 0;
}

/* A process of its own uid, on the other CPUs. */
static pid_t start_attacker(const struct setup *setup, const struct attacker *attacker, attack_fn run) {
    pid_t pid = fork();
    cpu_set_t ours, others = setup->everywhere;

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)signal(SIGPIPE, SIG_IGN);
    sched_getaffinity(0, sizeof(ours), &ours);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &ours))
            CPU_CLR(i, &others);
    if (CPU_COUNT(&others) > 0)
        sched_setaffinity(0, sizeof(others), &others);
    if (setgroups(0, NULL) < 0 || setgid(FIRST_UID + attacker->user) < 0 || setuid(FIRST_UID + attacker->user) < 0)
        _exit(1);
    run(attacker);
    _exit(0);
}

static void each(const pid_t *pids, int signal) {
    for (size_t i = 0; i < USERS; i++)
        if (pids[i] > 0)
            kill(pids[i], signal);
}

/* Blocks under attack and blocks of quiet in turns. */
static int measure(struct bench *bench, struct setup *setup, const struct attacker *target, const struct attack *attack) {
    size_t n = bench->quick ? 2000 : 5000, blocks = bench->quick ? 7 : 21;
    double p50[21], p99[21], quiet50[21], attacked50[21];
    uint64_t *samples = calloc(n, sizeof(*samples));
    pid_t pids[USERS];
    int r = samples ? 0 : -ENOMEM;

    for (unsigned i = 0; i < USERS; i++) {
        struct attacker attacker = *target;

        attacker.user = i;
        pids[i] = start_attacker(setup, &attacker, attack->run);
    }
    usleep(200000); /* they get going; what is measured does not depend on it */
    for (size_t i = 0; r == 0 && i < blocks; i++) {
        double quiet, quiet_tail;

        each(pids, SIGSTOP);
        r = ping(setup, samples, 500);
        if (r == 0)
            r = ping(setup, samples, n);
        quiet = quiet50[i] = bench_percentile(samples, n, 50);
        quiet_tail = bench_percentile(samples, n, 99);
        each(pids, SIGCONT);
        if (r == 0)
            r = ping(setup, samples, 500);
        if (r == 0)
            r = ping(setup, samples, n);
        attacked50[i] = bench_percentile(samples, n, 50);
        p50[i] = attacked50[i] / quiet;
        p99[i] = bench_percentile(samples, n, 99) / quiet_tail;
    }
    each(pids, SIGKILL);
    for (size_t i = 0; i < USERS; i++) {
        int status = 0;

        /* Whoever has ended before has not attacked. */
        if (pids[i] > 0 && waitpid(pids[i], &status, 0) == pids[i] && !WIFSIGNALED(status)) {
            bench_skip(bench, attack->name, "an attacker could not go on");
            n = 0;
        }
    }
    if (r == 0 && n > 0) {
        bench_tell(bench, bench_median(p50, blocks), "x", BENCH_AT_MOST, TARGET, "%s, bystander's p50 / quiet", attack->name);
        bench_tell(bench, bench_median(p99, blocks), "x", BENCH_TOLD, 0, "%s, bystander's p99 / quiet", attack->name);
        bench_tell(bench, bench_median(attacked50, blocks) / 1000, "us", BENCH_TOLD, 0, "%s, bystander's p50", attack->name);
        bench_tell(bench, bench_median(quiet50, blocks) / 1000, "us", BENCH_TOLD, 0, "%s, quiet p50", attack->name);
    }
    free(samples);
    return r;
}

int main(int argc, char **argv) {
    char config[] = "/tmp/vmibus-bystander-XXXXXX";
    struct attacker target = {};
    struct setup setup = {.fd = -1};
    struct bench bench;
    int r = bench_begin(&bench, "bystander", argc, argv);

    if (r)
        return r;
    if (geteuid() != 0) {
        bench_skip(&bench, "attackers of other uids", "needs root");
        return bench_end(&bench, 0);
    }
    sched_getaffinity(0, sizeof(setup.everywhere), &setup.everywhere);
    r = write_config(config);
    if (r == 0)
        r = bench_place(true);
    if (r == 0)
        r = set_up(&setup, &bench, config, &target.epoch, &target.endpoint);
    if (r == 0 && (chmod(setup.instance.directory, 0711) < 0 || chmod(setup.instance.socket, 0666) < 0))
        r = -errno;
    target.socket = setup.instance.socket;
    for (size_t i = 0; r == 0 && i < sizeof(attacks) / sizeof(attacks[0]); i++)
        if (!getenv("ATTACK") || strcmp(getenv("ATTACK"), attacks[i].name) == 0)
            r = measure(&bench, &setup, &target, &attacks[i]);
    if (setup.bus)
        close(setup.fd);
    setup.bus = vmibus_free(setup.bus);
    instance_stop(&setup.instance);
    unlink(config);
    return bench_end(&bench, r);
}
