/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A command's round trip, control to bus to stub sensor to ACK, against the raw ping-pong of as many
 * octets, and beside a method call through a D-Bus broker.
 *
 * Two controls: one is the library, one writes and reads frames itself, so that what the library costs
 * shows.  CMD_INPUT under a lease, with the audit log on.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bench.h"
#include "dbus.h"
#include "instance.h"
#include "pingpong.h"
#include "syscalls.h"

#define COUNTED 1000

/* One control with the INPUT lease of one VM. */
struct sender {
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    struct vmibus_frame frame;
    int fd; /* for the one that does without the library */
};

struct setup {
    struct instance instance;
    struct pingpong pingpong;
    struct dbus_broker broker;
    struct dbus_echo echo;
    struct sender library, raw;
};

static int sender_open(struct sender *sender, const struct instance *instance, const char *name) {
    uint64_t token = 0;
    int r = instance_connect(instance, &sender->bus);

    if (r == 0)
        r = instance_find(sender->bus, name, &sender->endpoint, NULL);
    if (r == 0)
        r = vmibus_lease_acquire(sender->bus, &sender->endpoint, VMIBUS_LEASE_CLASS_INPUT, VMIBUS_LEASE_MODE_FAIL, 0, &token, NULL);
    if (r)
        return r > 0 ? -EACCES : r;
    vmibus_command_init(&sender->frame, VMIBUS_KIND_CMD_INPUT, &sender->endpoint);
    sender->frame.cmd_input.token = token;
    sender->frame.cmd_input.count = 1;
    sender->frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_RELATIVE, .value = 1};
    sender->frame.header.version = VMIBUS_PROTOCOL_VERSION;
    sender->fd = vmibus_dup_fd(sender->bus);
    return sender->fd < 0 ? sender->fd : 0;
}

static void sender_close(struct sender *sender) {
    if (sender->bus)
        close(sender->fd);
    sender->bus = vmibus_free(sender->bus);
}

static int sample_library(void *context, uint64_t *samples, size_t n) {
    struct sender *sender = context;

    for (size_t i = 0; i < n; i++) {
        uint64_t begun = bench_now();
        int r = vmibus_call(sender->bus, &sender->frame, NULL, 0, NULL);

        samples[i] = bench_now() - begun;
        if (r)
            return r > 0 ? -EREMOTEIO : r;
    }
    return 0;
}

static int sample_raw(void *context, uint64_t *samples, size_t n) {
    struct sender *sender = context;

    for (size_t i = 0; i < n; i++) {
        struct vmibus_frame answer;
        uint64_t begun = bench_now();
        int r;

        sender->frame.header.correlation = i;
        sender->frame.header.timestamp = begun;
        r = write_whole(sender->fd, &sender->frame, sizeof(sender->frame));
        if (r == 0)
            r = read_whole(sender->fd, &answer, sizeof(answer));
        samples[i] = bench_now() - begun;
        if (r < 0)
            return r;
        if (answer.header.kind != VMIBUS_KIND_ACK || answer.ack.error || answer.header.correlation != i)
            return -EREMOTEIO;
    }
    return 0;
}

static int set_up(struct setup *setup, const struct bench *bench) {
    const char *const arguments[] = {"--stub=2", NULL};
    int r = instance_start(&setup->instance, bench->build, NULL, arguments);

    if (r == 0)
        r = pingpong_start(&setup->pingpong, -1, 0);
    if (r == 0)
        r = sender_open(&setup->library, &setup->instance, "stub-0");
    if (r == 0)
        r = sender_open(&setup->raw, &setup->instance, "stub-1");
    return r;
}

static void tear_down(struct setup *setup) {
    dbus_echo_stop(&setup->echo);
    dbus_broker_stop(&setup->broker);
    sender_close(&setup->library);
    sender_close(&setup->raw);
    pingpong_stop(&setup->pingpong);
    instance_stop(&setup->instance);
}

static void compare(struct bench *bench, const char *mode, bool pinned, const struct bench_lane *lanes, bool dbus) {
    enum bench_relation at_most = pinned ? BENCH_AT_MOST : BENCH_TOLD;

    bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], false), "x", at_most, 1.3, "%s, round trip / ping-pong p50", mode);
    bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], true), "x", at_most, 2, "%s, round trip / ping-pong p99", mode);
    bench_tell(bench, bench_ratio(&lanes[2], &lanes[0], false), "x", BENCH_TOLD, 0, "%s, without the library / ping-pong p50",
               mode);
    bench_tell(bench, bench_ratio(&lanes[2], &lanes[0], true), "x", BENCH_TOLD, 0, "%s, without the library / ping-pong p99", mode);
    if (dbus) {
        bench_tell(bench, bench_ratio(&lanes[3], &lanes[0], false), "x", BENCH_TOLD, 0, "%s, D-Bus call / ping-pong p50", mode);
        bench_tell(bench, bench_ratio(&lanes[3], &lanes[1], false), "x", BENCH_TOLD, 0, "%s, D-Bus call / round trip p50", mode);
    }
}

/* How many system calls a message costs at each end, counted while nothing is timed. */
static void count_calls(struct bench *bench, struct setup *setup) {
    const size_t n = COUNTED;
    struct syscalls daemon, control;
    uint64_t samples[COUNTED];
    int r = syscalls_begin(&daemon, setup->instance.pid);

    if (r < 0) {
        bench_skip(bench, "system calls per message", strerror(-r));
        return;
    }
    if (syscalls_begin(&control, getpid()) == 0) {
        uint64_t of_control = syscalls_read(&control), of_daemon = syscalls_read(&daemon);
        int failed = sample_library(&setup->library, samples, n);

        /* Reading the counters themselves costs the control some. */
        of_daemon = syscalls_read(&daemon) - of_daemon;
        of_control = syscalls_read(&control) - of_control - control.n - daemon.n * 2;
        if (!failed) {
            bench_tell(bench, (double)of_daemon / (double)n, "", BENCH_TOLD, 0, "system calls per command, vmibusd");
            bench_tell(bench, (double)of_control / (double)n, "", BENCH_TOLD, 0, "system calls per command, control");
        }
        syscalls_end(&control);
    }
    syscalls_end(&daemon);
}

static int measure(struct bench *bench, bool pinned) {
    const char *mode = pinned ? "pinned" : "unpinned";
    struct setup setup = {};
    struct bench_lane lanes[] = {
        {.name = "raw ping-pong", .sample = pingpong_sample, .context = &setup.pingpong},
        {.name = "round trip", .sample = sample_library, .context = &setup.library},
        {.name = "without the library", .sample = sample_raw, .context = &setup.raw},
        {.name = "D-Bus call", .sample = dbus_echo_sample, .context = &setup.echo},
    };
    size_t n_lanes = 3;
    int r = bench_place(pinned);

    if (r == 0)
        r = set_up(&setup, bench);
    if (r == 0) {
        int none = dbus_broker_start(&setup.broker);

        if (none == 0)
            none = dbus_echo_start(&setup.echo, &setup.broker);
        if (none == 0)
            n_lanes = 4;
        else
            bench_skip(bench, "D-Bus call", strerror(-none));
    }
    if (r == 0)
        r = bench_interleave(lanes, n_lanes, bench->quick ? 21 : 61, bench->quick ? 1000 : 2000);
    if (r == 0) {
        compare(bench, mode, pinned, lanes, n_lanes == 4);
        bench_tell_lanes(bench, mode, lanes, n_lanes);
        if (n_lanes == 4)
            printf("roundtrip: the D-Bus broker is %s\n", setup.broker.name);
    }
    if (r == 0 && pinned)
        count_calls(bench, &setup);
    bench_lanes_free(lanes, 4);
    tear_down(&setup);
    return r;
}

int main(int argc, char **argv) {
    return bench_pinned_and_not("roundtrip", argc, argv, measure);
}
