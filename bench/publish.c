/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How long it takes until the memory context of a booted guest is published, beyond waiting for the
 * monitor: with 512 MiB, and with 8 GiB that are mostly hole.  A guest that somebody else stops and
 * lets go on gets another epoch, from the beginning; that is done again and again.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bed/bed.h"
#include "bench.h"
#include "instance.h"
#include "meter_monitor.h"

#define BOOT_MS 240000
#define READY_MS 30000
#define NS_PER_MS 1e6
#define SAMPLES 256

/* A guest, and a daemon for it alone. */
struct subject {
    const char *name;
    struct bed_options options;
    struct bed *bed;
    struct instance instance;
    struct vmibus *bus;
    char path[64]; /* of the meter's file */
    struct monitor_meter *meter;
    struct vmibus_memctx memctx; /* the last that was told */
    double all[SAMPLES], monitor[SAMPLES], commands[SAMPLES];
    size_t n;
};

static void hear(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct subject *subject = userdata;

    (void)bus;
    if (message->frame.header.kind == VMIBUS_KIND_MEMCTX)
        subject->memctx = message->frame.memctx;
    else if (message->frame.header.kind == VMIBUS_KIND_MEMCTX_INVALIDATED)
        subject->memctx.state = VMIBUS_MEMCTX_STATE_NONE;
}

static int wait_ready(struct subject *subject) {
    uint64_t until = bench_now() + (uint64_t)(READY_MS * NS_PER_MS);
    int r = 0;

    while (r >= 0 && subject->memctx.state != VMIBUS_MEMCTX_STATE_READY) {
        if (bench_now() > until)
            return -ETIMEDOUT;
        r = vmibus_wait(subject->bus, 1000);
        if (r == -ETIMEDOUT)
            r = 0;
    }
    return r;
}

/* Lets what the stop and the sample before have begun come to its end. */
static int stop(struct subject *subject) {
    int r = bed_qmp(subject->bed, "stop", NULL, NULL);

    usleep(50000);
    return r;
}

static int measure_once(struct subject *subject, uint64_t *sample) {
    uint64_t waited, commands, begun;
    int r = stop(subject);

    if (r == 0)
        r = vmibus_dispatch(subject->bus);
    waited = atomic_load(&subject->meter->waited);
    commands = atomic_load(&subject->meter->commands);
    begun = bench_now();
    if (r == 0)
        r = bed_qmp(subject->bed, "cont", NULL, NULL);
    /* It has not ended until that is heard. */
    for (uint64_t epoch = subject->memctx.epoch; r >= 0 && epoch == subject->memctx.epoch &&
                                                 subject->memctx.state == VMIBUS_MEMCTX_STATE_READY;)
        r = vmibus_wait(subject->bus, READY_MS);
    if (r >= 0)
        r = wait_ready(subject);
    if (r < 0)
        return r;
    begun = bench_now() - begun;
    waited = atomic_load(&subject->meter->waited) - waited;
    commands = atomic_load(&subject->meter->commands) - commands;
    /* The sensor reads the layout at least: the meter does not see how it speaks to the monitor. */
    if (!commands || !waited)
        return -ENODATA;
    *sample = begun > waited ? begun - waited : 0;
    if (subject->n < SAMPLES) {
        subject->all[subject->n] = (double)begun / NS_PER_MS;
        subject->monitor[subject->n] = (double)waited / NS_PER_MS;
        subject->commands[subject->n++] = (double)commands;
    }
    return 0;
}

static int sample(void *context, uint64_t *samples, size_t n) {
    int r = 0;

    for (size_t i = 0; i < n && r == 0; i++)
        r = measure_once(context, &samples[i]);
    return r;
}

static int meter_open(struct subject *subject) {
    int fd, r = 0;

    snprintf(subject->path, sizeof(subject->path), "/tmp/vmibus-bench-meter-XXXXXX");
    fd = mkstemp(subject->path);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, sizeof(*subject->meter)) < 0)
        r = -errno;
    subject->meter = mmap(NULL, sizeof(*subject->meter), PROT_READ, MAP_SHARED, fd, 0);
    if (subject->meter == MAP_FAILED) {
        subject->meter = NULL;
        r = -errno;
    }
    close(fd);
    setenv("VMIBUS_BENCH_MONITOR", subject->path, 1);
    return r;
}

static int serve(struct subject *subject, const char *build) {
    char argument[PATH_MAX], preload[PATH_MAX];
    int r = meter_open(subject);

    snprintf(argument, sizeof(argument), "--qmp=guest=%s", subject->bed->qmp);
    snprintf(preload, sizeof(preload), "%s/bench/.libs/meter_monitor.so", build);
    if (r == 0)
        r = instance_start(&subject->instance, build, preload, (const char *const[]){argument, NULL});
    if (r == 0)
        r = instance_connect(&subject->instance, &subject->bus);
    if (r < 0)
        return r;
    vmibus_set_handler(subject->bus, hear, subject);
    r = vmibus_subscribe(subject->bus, "*",
                         VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) |
                             VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX_INVALIDATED));
    return r > 0 ? -EACCES : r < 0 ? r : wait_ready(subject);
}

static int boot(struct subject *subject) {
    int r = bed_start(&subject->bed, &subject->options);

    if (r == 0)
        r = bed_wait_serial(subject->bed, "READY", BOOT_MS, NULL);
    if (r < 0)
        fprintf(stderr, "%s: %s\n", subject->name, bed_error(subject->bed));
    return r;
}

static void end(struct subject *subject) {
    vmibus_free(subject->bus);
    instance_stop(&subject->instance);
    if (subject->meter)
        munmap(subject->meter, sizeof(*subject->meter));
    if (*subject->path)
        unlink(subject->path);
    bed_stop(subject->bed);
}

static void tell(struct bench *bench, struct subject *subject, const struct bench_lane *lane) {
    bench_tell(bench, bench_median(lane->p50, lane->n_blocks) / NS_PER_MS, "ms", BENCH_AT_MOST, 25,
               "%s: until READY, beyond waiting for the monitor", subject->name);
    bench_tell(bench, bench_median(subject->all, subject->n), "ms", BENCH_TOLD, 0, "%s: until READY", subject->name);
    bench_tell(bench, bench_median(subject->monitor, subject->n), "ms", BENCH_TOLD, 0, "%s: waiting for the monitor",
               subject->name);
    bench_tell(bench, bench_median(subject->commands, subject->n), "", BENCH_TOLD, 0, "%s: commands to the monitor",
               subject->name);
}

static int compare(struct bench *bench, struct subject *subjects) {
    struct bench_lane lanes[] = {
        {.name = subjects[0].name, .sample = sample, .context = &subjects[0]},
        {.name = subjects[1].name, .sample = sample, .context = &subjects[1]},
    };
    int r = bench_interleave(lanes, 2, 9, 5);

    if (r == 0) {
        bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], false), "", BENCH_AT_MOST, 1.5,
                   "beyond the monitor: 8 GiB / 512 MiB");
        tell(bench, &subjects[0], &lanes[0]);
        tell(bench, &subjects[1], &lanes[1]);
    }
    bench_lanes_free(lanes, 2);
    return r;
}

static int measure(struct bench *bench) {
    struct subject subjects[] = {
        {.name = "512 MiB", .options = {.memory = "512M"}},
        {.name = "8 GiB", .options = {.memory = "8G"}},
    };
    int r = bench_place(false);

    for (size_t i = 0; i < 2 && r == 0; i++)
        r = boot(&subjects[i]);
    for (size_t i = 0; i < 2 && r == 0; i++)
        r = serve(&subjects[i], bench->build);
    if (r == 0)
        r = compare(bench, subjects);
    for (size_t i = 0; i < 2; i++)
        end(&subjects[i]);
    return r;
}

int main(int argc, char **argv) {
    const char *reason = "boots guests: --full does";
    struct bench bench;
    int r = bench_begin(&bench, "publish", argc, argv);

    if (r)
        return r;
    if (bench.qemu && bed_available(false, &reason))
        r = measure(&bench);
    else
        bench_skip(&bench, "publishing a memory context", reason);
    return bench_end(&bench, r);
}
