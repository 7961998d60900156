/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What it costs to notice that a process starts: a look of the sensor for Linux at 100 processes of a synthetic kernel in a memory
 * file, where nothing has changed and where something has, against a memcpy of the octets that are read.  Ten looks a second are
 * a share of a processor.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "guest_lib/task_image.h"
#include "linux/processes.h"

#define PROCESSES 100u
#define LOOKS_PER_SECOND 10

/* Octets of a task_struct up to the last member that is read. */
#define TASK_SPAN (TASK_EXECUTIONS + 8)

struct rig {
    struct image *image;
    struct vmibus_guest_ram *ram;
    int fd;
    uint64_t tasks[PROCESSES];
    struct processes processes;
    struct events events;
    uint64_t forks;
    uint8_t copy[TASK_SPAN];
};

static struct rig rig = {.fd = -1};

/* What the thread used: what else runs meanwhile is nobody's cost. */
static uint64_t cpu_now(void) {
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static int look(uint64_t *sample, size_t expected) {
    uint64_t begin = cpu_now();
    int r = processes_look(&rig.processes, &rig.image->kernel, &rig.events);

    *sample = cpu_now() - begin;
    if (r == 0 && rig.events.n != expected)
        r = -EIO;
    events_clear(&rig.events);
    return r;
}

static int sample_still(void *context, uint64_t *samples, size_t n) {
    int r = 0;

    (void)context;
    for (size_t i = 0; r == 0 && i < n; i++)
        r = look(&samples[i], 0);
    return r;
}

/* A process executes a program, and the counter of forks moves: the whole list is read and compared, one event comes of it. */
static int sample_changed(void *context, uint64_t *samples, size_t n) {
    uint64_t settling;
    int r = 0;

    (void)context;
    for (size_t i = 0; r == 0 && i < n; i++) {
        uint64_t gpa = rig.tasks[i % PROCESSES] - IMAGE_BASE + TASK_EXECUTIONS, value = ++rig.forks;

        if (pwrite(rig.fd, &value, sizeof(value), (off_t)gpa) != sizeof(value) ||
            pwrite(rig.fd, &value, sizeof(value), (off_t)(rig.image->counters - IMAGE_BASE)) != sizeof(value))
            return -EIO;
        r = look(&samples[i], 1);
        if (r == 0)
            r = look(&settling, 0);
    }
    return r;
}

static void copy_at(uint64_t gva, size_t len) {
    memcpy(rig.copy, rig.image->memory + (gva - IMAGE_BASE), len);
    __asm__ volatile("" : : "r"(rig.copy) : "memory");
}

static int sample_copy(uint64_t *samples, size_t n, uint64_t offset, size_t len) {
    for (size_t i = 0; i < n; i++) {
        uint64_t begin = cpu_now();

        copy_at(rig.image->counters, 16);
        for (size_t j = 0; j < PROCESSES; j++)
            copy_at(rig.tasks[j] + offset, len);
        samples[i] = cpu_now() - begin;
    }
    return 0;
}

static int sample_copy_numbers(void *context, uint64_t *samples, size_t n) {
    (void)context;
    return sample_copy(samples, n, TASK_EXECUTIONS, 8);
}

static int sample_copy_tasks(void *context, uint64_t *samples, size_t n) {
    (void)context;
    return sample_copy(samples, n, 0, TASK_SPAN);
}

/* The image becomes what the authority hands out: a sealed memory file, read as sensors read it. */
static int make_ram(void) {
    const struct vmibus_ram_range range = {.len = IMAGE_LEN};
    int r;

    rig.fd = image_memfd(rig.image);
    if (rig.fd < 0)
        return rig.fd;
    r = vmibus_guest_ram_new_unmapped(&rig.ram, &range, 1, &rig.fd, 1, -1);
    if (r == 0)
        rig.image->kernel.reader = vmibus_guest_ram_reader(rig.ram);
    return r;
}

static int build(void) {
    rig.image = image_new();
    if (!rig.image)
        return -ENOMEM;
    for (uint32_t i = 0; i < PROCESSES; i++)
        rig.tasks[i] = image_process(rig.image, i + 1, i / 3, "a process");
    return make_ram();
}

/* All of them are told of, and the looks after that find nothing to do. */
static int settle(void) {
    uint64_t ignored;
    int r = look(&ignored, PROCESSES);

    for (unsigned int i = 0; r == 0 && i < 3; i++)
        r = look(&ignored, 0);
    return r;
}

static void tell(struct bench *bench, const struct bench_lane *look_lane, const struct bench_lane *copy_lane, const char *what) {
    double ns = bench_median(look_lane->p50, look_lane->n_blocks);

    bench_tell(bench, ns * LOOKS_PER_SECOND / 1e7, "%", BENCH_AT_MOST, 1, "of a processor, %s", what);
    bench_tell(bench, bench_ratio(look_lane, copy_lane, false), "x", BENCH_TOLD, 0, "%s / memcpy of the octets", what);
}

static int measure(struct bench *bench) {
    struct bench_lane lanes[] = {
        {.name = "nothing changed", .sample = sample_still},
        {.name = "memcpy of numbers", .sample = sample_copy_numbers},
        {.name = "one changed", .sample = sample_changed},
        {.name = "memcpy of tasks", .sample = sample_copy_tasks},
    };
    size_t n_lanes = sizeof(lanes) / sizeof(lanes[0]);
    int r = bench_interleave(lanes, n_lanes, bench->quick ? 9 : 31, 100);

    if (r == 0) {
        tell(bench, &lanes[0], &lanes[1], "10 looks a second, nothing changed");
        tell(bench, &lanes[2], &lanes[3], "10 looks a second, one changed each time");
        bench_tell_lanes(bench, "processor time of a look at 100 processes", lanes, n_lanes);
    }
    bench_lanes_free(lanes, n_lanes);
    return r;
}

int main(int argc, char **argv) {
    struct bench bench;
    int r = bench_begin(&bench, "processes", argc, argv);

    if (r)
        return r;
    r = bench_place(true);
    if (r == 0)
        r = build();
    if (r == 0)
        r = settle();
    if (r == 0)
        r = measure(&bench);
    processes_clear(&rig.processes);
    vmibus_guest_ram_free(rig.ram);
    image_free(rig.image);
    if (rig.fd >= 0)
        close(rig.fd);
    return bench_end(&bench, r);
}
