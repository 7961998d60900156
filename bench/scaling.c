/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an event and a command cost with 1, 16 and 256 endpoints, and what they allocate.
 *
 * A burst of events of one endpoint, a burst of events of all endpoints in turns, and a command to the
 * endpoint that came last, to one control that has subscribed to all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "audience.h"
#include "bench.h"

#define BURST 1000
#define COUNTED 20
#define SIZES 3
#define KINDS 3

static const unsigned sizes[SIZES] = {1, 16, 256};

struct scale {
    struct instance instance;
    struct vmibus *bus;
    struct vmibus_endpoint first, last;
    uint64_t token_first, token_last;
    struct audience audience;
};

static int finish(int r) {
    return r > 0 ? -EREMOTEIO : r;
}

static int publish_one(struct scale *scale) {
    return finish(vmibus_control_vm(scale->bus, &scale->first, scale->token_first, VMIBUS_VM_OPERATION_PAUSE, NULL));
}

static int publish_all(struct scale *scale) {
    return finish(vmibus_power(scale->bus, &scale->first, scale->token_first, VMIBUS_POWER_OPERATION_RESET, NULL));
}

static int burst(struct scale *scale, int (*publish)(struct scale *scale), uint64_t *samples, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint64_t begun;
        int r;

        audience_expect(&scale->audience, BURST);
        begun = bench_now();
        r = publish(scale);
        if (r == 0)
            r = audience_wait(&scale->audience);
        if (r < 0)
            return r;
        samples[i] = bench_now() - begun;
    }
    return 0;
}

static int sample_one(void *context, uint64_t *samples, size_t n) {
    return burst(context, publish_one, samples, n);
}

static int sample_all(void *context, uint64_t *samples, size_t n) {
    return burst(context, publish_all, samples, n);
}

static int sample_command(void *context, uint64_t *samples, size_t n) {
    struct scale *scale = context;

    for (size_t i = 0; i < n; i++) {
        uint64_t begun = bench_now();
        int r = finish(vmibus_power(scale->bus, &scale->last, scale->token_last, VMIBUS_POWER_OPERATION_POWERDOWN, NULL));

        samples[i] = bench_now() - begun;
        if (r < 0)
            return r;
    }
    return 0;
}

static int open_endpoint(struct scale *scale, const char *name, struct vmibus_endpoint *endpoint, uint64_t *token) {
    int r = instance_find(scale->bus, name, endpoint, NULL);

    return r < 0 ? r
                 : finish(vmibus_lease_acquire(scale->bus, endpoint, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_FAIL, 0, token,
                                               NULL));
}

static int scale_open(struct scale *scale, const struct bench *bench, unsigned vms, const char *preload) {
    char option[64], last[32];
    const char *const arguments[] = {option, NULL};
    int r;

    snprintf(option, sizeof(option), "--sensor=burst:vms=%u", vms);
    snprintf(last, sizeof(last), "burst-%u", vms - 1);
    r = instance_start(&scale->instance, bench->build, preload, arguments);
    if (r == 0)
        r = instance_connect(&scale->instance, &scale->bus);
    if (r == 0)
        r = open_endpoint(scale, "burst-0", &scale->first, &scale->token_first);
    scale->last = scale->first;
    scale->token_last = scale->token_first;
    if (r == 0 && vms > 1)
        r = open_endpoint(scale, last, &scale->last, &scale->token_last);
    return r < 0 ? r : audience_start(&scale->audience, 1, &scale->instance, NULL);
}

static void scale_close(struct scale *scale) {
    audience_stop(&scale->audience);
    vmibus_free(scale->bus);
    instance_stop(&scale->instance);
}

/* --- cost ----------------------------------------------------------------------------------------- */

static int measure_cost(struct bench *bench) {
    static const struct {
        const char *name;
        bench_sample_fn sample;
        size_t n, of;
    } kinds[KINDS] = {
        {"event of one endpoint", sample_one, 10, BURST},
        {"event of each in turns", sample_all, 10, BURST},
        {"command to the last one", sample_command, 500, 1},
    };
    struct scale scales[SIZES] = {};
    int r = bench_place(true);

    for (size_t i = 0; r == 0 && i < SIZES; i++)
        r = scale_open(&scales[i], bench, sizes[i], NULL);
    for (size_t k = 0; r == 0 && k < KINDS; k++) {
        struct bench_lane lanes[SIZES] = {};

        for (size_t i = 0; i < SIZES; i++)
            lanes[i] = (struct bench_lane){.name = kinds[k].name, .sample = kinds[k].sample, .context = &scales[i]};
        r = bench_interleave(lanes, SIZES, bench->quick ? 15 : 41, kinds[k].n);
        for (size_t i = 1; r == 0 && i < SIZES; i++)
            bench_tell(bench, bench_ratio(&lanes[i], &lanes[0], false), "x", i == SIZES - 1 ? BENCH_AT_MOST : BENCH_TOLD, 1.2,
                       "pinned, %s, %u endpoints over 1", kinds[k].name, sizes[i]);
        for (size_t i = 0; r == 0 && i < SIZES; i++)
            bench_tell(bench, bench_median(lanes[i].p50, lanes[i].n_blocks) / (double)kinds[k].of, "ns", BENCH_TOLD, 0,
                       "pinned, %s, %u endpoints", kinds[k].name, sizes[i]);
        bench_lanes_free(lanes, SIZES);
    }
    for (size_t i = 0; i < SIZES; i++)
        scale_close(&scales[i]);
    return r;
}

/* --- allocations ---------------------------------------------------------------------------------- */

static int count(struct bench *bench, struct scale *scale, const volatile uint64_t *counter) {
    uint64_t samples[COUNTED], before;
    int r = sample_all(scale, samples, COUNTED); /* what is touched for the first time is touched now */

    if (r == 0)
        r = sample_command(scale, samples, COUNTED);
    before = *counter;
    if (r == 0)
        r = sample_all(scale, samples, COUNTED);
    if (r == 0)
        bench_tell(bench, (double)(*counter - before), "", BENCH_AT_MOST, 0,
                   "allocations of vmibusd for %u events and their bursts' commands", COUNTED * BURST);
    before = *counter;
    if (r == 0)
        r = sample_command(scale, samples, COUNTED);
    if (r == 0)
        bench_tell(bench, (double)(*counter - before), "", BENCH_AT_MOST, 0, "allocations of vmibusd for %u commands", COUNTED);
    return r;
}

static int measure_allocations(struct bench *bench) {
    char library[512], path[] = "/tmp/vmibus-allocations-XXXXXX";
    struct scale scale = {};
    int fd = mkstemp(path), r = fd < 0 || ftruncate(fd, sizeof(uint64_t)) < 0 ? -errno : 0;
    const uint64_t *counter = MAP_FAILED;

    snprintf(library, sizeof(library), "%s/bench/.libs/count_allocations.so", bench->build);
    if (r == 0)
        counter = mmap(NULL, sizeof(*counter), PROT_READ, MAP_SHARED, fd, 0);
    if (r == 0 && counter == MAP_FAILED)
        r = -errno;
    if (r == 0 && access(library, R_OK) < 0)
        r = -errno;
    setenv("VMIBUS_BENCH_ALLOCATIONS", path, 1);
    if (r == 0)
        r = scale_open(&scale, bench, 16, library);
    if (r == 0 && *counter == 0)
        bench_skip(bench, "allocations", "the preloaded library counts nothing");
    else if (r == 0)
        r = count(bench, &scale, counter);
    scale_close(&scale);
    if (fd >= 0) {
        unlink(path);
        close(fd);
    }
    return r;
}

int main(int argc, char **argv) {
    struct bench bench;
    int r = bench_begin(&bench, "scaling", argc, argv);

    if (r)
        return r;
    r = measure_cost(&bench);
    if (r == 0)
        r = measure_allocations(&bench);
    return bench_end(&bench, r);
}
