/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * One stream of events to many controls, in bursts and paced, against D-Bus signals with a body of the
 * same size to as many receivers.
 *
 * A burst is BURST events published at once; its sample is the time until the last receiver has the
 * last one.  Paced, a sample is the time from an event's publication to its arrival at one receiver.
 *
 * A command begins each burst; what recording it costs is another question (audit.c), so nothing is recorded.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "audience.h"
#include "bench.h"
#include "pingpong.h"

#define BURST 1000
#define PACED 400
#define PACE_NS 1000000
#define CONFIG "/tmp/vmibus-bench-fanout.XXXXXX"

struct setup {
    struct instance instance;
    char config[sizeof(CONFIG)];
    struct dbus_broker broker;
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    uint64_t token;
    int publisher;              /* of the signals, -1: there is no broker */
    uint32_t serial;
    struct audience events, signals;
};

/* --- publishing ----------------------------------------------------------------------------------- */

static int command(struct setup *setup, enum vmibus_vm_operation operation) {
    int r = vmibus_control_vm(setup->bus, &setup->endpoint, setup->token, operation, NULL);

    return r > 0 ? -EREMOTEIO : r;
}

static int sample_burst_events(void *context, uint64_t *samples, size_t n) {
    struct setup *setup = context;

    for (size_t i = 0; i < n; i++) {
        uint64_t begun;
        int r;

        audience_expect(&setup->events, BURST);
        begun = bench_now();
        r = command(setup, VMIBUS_VM_OPERATION_PAUSE);
        if (r == 0)
            r = audience_wait(&setup->events);
        if (r < 0)
            return r;
        samples[i] = bench_now() - begun;
    }
    return 0;
}

/* The publisher gives as many at once as one write takes, which is the best it can do for the broker. */
static int publish_signals(struct setup *setup, size_t n) {
    static uint8_t buffer[65536];
    size_t length = 0;

    for (size_t i = 0; i < n; i++) {
        struct dbus_message message;
        uint64_t now = bench_now();

        dbus_make_signal(&message, ++setup->serial);
        memcpy(message.octets + message.length - sizeof(now), &now, sizeof(now));
        memcpy(buffer + length, message.octets, message.length);
        length += message.length;
        if (i + 1 == n || length + message.length > sizeof(buffer)) {
            int r = write_whole(setup->publisher, buffer, length);

            if (r < 0)
                return r;
            length = 0;
        }
    }
    return 0;
}

static int sample_burst_signals(void *context, uint64_t *samples, size_t n) {
    struct setup *setup = context;

    for (size_t i = 0; i < n; i++) {
        uint64_t begun;
        int r;

        audience_expect(&setup->signals, BURST);
        begun = bench_now();
        r = publish_signals(setup, BURST);
        if (r == 0)
            r = audience_wait(&setup->signals);
        if (r < 0)
            return r;
        samples[i] = bench_now() - begun;
    }
    return 0;
}

static int pace_signals(struct setup *setup) {
    const struct itimerspec every = {.it_interval = {.tv_nsec = PACE_NS}, .it_value = {.tv_nsec = PACE_NS}};
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), r = fd < 0 ? -errno : 0;
    uint64_t expirations;

    if (r == 0 && timerfd_settime(fd, 0, &every, NULL) < 0)
        r = -errno;
    for (size_t i = 0; r == 0 && i < PACED; i++)
        r = read(fd, &expirations, sizeof(expirations)) < 0 ? -errno : publish_signals(setup, 1);
    if (fd >= 0)
        close(fd);
    return r;
}

static void take_latencies(const struct audience *audience, uint64_t *samples, size_t n) {
    for (size_t i = 0; i < n; i++)
        samples[i] = audience->shared->receivers[i / PACED % audience->n].latencies[i % PACED];
}

static int sample_paced_events(void *context, uint64_t *samples, size_t n) {
    struct setup *setup = context;
    int r;

    audience_expect(&setup->events, PACED);
    r = command(setup, VMIBUS_VM_OPERATION_RESUME);
    if (r == 0)
        r = audience_wait(&setup->events);
    take_latencies(&setup->events, samples, n);
    return r;
}

static int sample_paced_signals(void *context, uint64_t *samples, size_t n) {
    struct setup *setup = context;
    int r;

    audience_expect(&setup->signals, PACED);
    r = pace_signals(setup);
    if (r == 0)
        r = audience_wait(&setup->signals);
    take_latencies(&setup->signals, samples, n);
    return r;
}

/* --- comparing ------------------------------------------------------------------------------------ */

static int make_config(struct setup *setup) {
    int fd;

    strcpy(setup->config, CONFIG);
    fd = mkstemp(setup->config);
    if (fd < 0)
        return -errno;
    dprintf(fd, "[daemon]\naudit = off\n");
    close(fd);
    return 0;
}

static int set_up(struct setup *setup, struct bench *bench) {
    const char *const arguments[] = {"--config",
                                     setup->config,
                                     "--sensor=burst:paced=400",
                                     "--sensor=burst:burst=1000",
                                     "--sensor=burst:pace_us=1000",
                                     NULL};
    char name[DBUS_NAME];
    int r = make_config(setup), none;

    if (r == 0)
        r = instance_start(&setup->instance, bench->build, NULL, arguments);
    if (r == 0)
        r = instance_connect(&setup->instance, &setup->bus);
    if (r == 0)
        r = instance_find(setup->bus, "burst-0", &setup->endpoint, NULL);
    if (r == 0)
        r = vmibus_lease_acquire(setup->bus, &setup->endpoint, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_FAIL, 0, &setup->token,
                                 NULL);
    none = dbus_broker_start(&setup->broker);
    setup->publisher = none == 0 ? dbus_connect(&setup->broker, name) : none;
    if (setup->publisher < 0)
        bench_skip(bench, "D-Bus signals", strerror(-setup->publisher));
    return r > 0 ? -EACCES : r;
}

static void tear_down(struct setup *setup) {
    if (setup->publisher >= 0)
        close(setup->publisher);
    dbus_broker_stop(&setup->broker);
    vmibus_free(setup->bus);
    instance_stop(&setup->instance);
    unlink(setup->config);
}

static int burst(struct bench *bench, const char *mode, struct setup *setup, size_t n_lanes) {
    struct bench_lane lanes[] = {
        {.name = "events", .sample = sample_burst_events, .context = setup},
        {.name = "signals", .sample = sample_burst_signals, .context = setup},
    };
    size_t n = setup->events.n;
    int r = bench_interleave(lanes, n_lanes, bench->quick ? 7 : 15, 5);

    for (size_t i = 0; r == 0 && i < n_lanes; i++) {
        double time = bench_median(lanes[i].p50, lanes[i].n_blocks);

        bench_tell(bench, (double)(n * BURST) / time * 1e3, "M/s", BENCH_TOLD, 0, "%s, burst to %zu, %s delivered", mode, n,
                   lanes[i].name);
    }
    if (r == 0 && n_lanes == 2)
        bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], false), "x", n == 32 ? BENCH_AT_LEAST : BENCH_TOLD, 10,
                   "%s, burst to %zu, deliveries per second over D-Bus's", mode, n);
    bench_lanes_free(lanes, 2);
    return r;
}

static int paced(struct bench *bench, const char *mode, struct setup *setup, size_t n_lanes) {
    struct bench_lane lanes[] = {
        {.name = "paced event", .sample = sample_paced_events, .context = setup},
        {.name = "paced signal", .sample = sample_paced_signals, .context = setup},
    };
    int r = bench_interleave(lanes, n_lanes, bench->quick ? 9 : 25, setup->events.n * PACED);

    if (r == 0 && n_lanes == 2) {
        bench_tell(bench, bench_ratio(&lanes[0], &lanes[1], false), "x", BENCH_BELOW, 1,
                   "%s, paced to 32, latency over D-Bus's p50", mode);
        bench_tell(bench, bench_ratio(&lanes[0], &lanes[1], true), "x", BENCH_BELOW, 1, "%s, paced to 32, latency over D-Bus's p99",
                   mode);
    }
    if (r == 0)
        bench_tell_lanes(bench, mode, lanes, n_lanes);
    bench_lanes_free(lanes, 2);
    return r;
}

static int measure_with(struct bench *bench, const char *mode, struct setup *setup, size_t n) {
    size_t n_lanes = setup->publisher >= 0 ? 2 : 1;
    int r = audience_start(&setup->events, n, &setup->instance, NULL);

    if (r == 0 && n_lanes == 2)
        r = audience_start(&setup->signals, n, NULL, &setup->broker);
    if (r == 0)
        r = burst(bench, mode, setup, n_lanes);
    if (r == 0 && n == 32)
        r = paced(bench, mode, setup, n_lanes);
    if (r == 0)
        bench_tell(bench, (double)audience_lost(&setup->events), "", BENCH_AT_MOST, 0, "%s, to %zu, events lost or out of order",
                   mode, n);
    audience_stop(&setup->events);
    audience_stop(&setup->signals);
    return r;
}

static int measure(struct bench *bench, bool pinned) {
    static const size_t sizes[] = {1, 8, 32};
    const char *mode = pinned ? "pinned" : "unpinned";
    struct setup setup = {.publisher = -1};
    int r = bench_place(pinned);

    if (r == 0)
        r = set_up(&setup, bench);
    for (size_t i = 0; r == 0 && i < 3; i++)
        r = measure_with(bench, mode, &setup, sizes[i]);
    tear_down(&setup);
    return r;
}

int main(int argc, char **argv) {
    return bench_pinned_and_not("fanout", argc, argv, measure);
}
