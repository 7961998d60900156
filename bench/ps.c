/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What it costs to read the processes of a guest, once its symbols and layouts are there: 100 processes of a synthetic kernel in a
 * memory file, against a memcpy of the octets that are read of their task_structs.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "guest_lib/task_image.h"

#define PROCESSES 100u
#define THREADS_EACH 4u

/* Octets of a task_struct up to the last member that is read. */
#define TASK_SPAN (TASK_SIGNAL + 8)

struct rig {
    struct image *image;
    struct vmibus_guest_ram *ram;
    int fd;
    bool threads;
    size_t n;           /* tasks that a visit must see */
    size_t seen;
    uint64_t tasks[PROCESSES * THREADS_EACH];
    uint8_t copy[TASK_SPAN];
};

static struct rig rig;

static bool see(void *context, const struct vmibus_linux_task *task) {
    (void)context;
    rig.seen += task->cr3 != 0;
    return true;
}

static int sample_visit(void *context, uint64_t *samples, size_t n) {
    (void)context;
    for (size_t i = 0; i < n; i++) {
        struct vmibus_linux_picture picture;
        uint64_t begin = bench_now();
        int r;

        rig.seen = 0;
        r = vmibus_linux_visit_tasks(&rig.image->kernel, rig.threads, see, NULL, &picture);
        samples[i] = bench_now() - begin;
        if (r || rig.seen != rig.n || picture.flags != (VMIBUS_LINUX_ENDED | VMIBUS_LINUX_STEADY))
            return -EIO;
    }
    return 0;
}

static int sample_copy(void *context, uint64_t *samples, size_t n) {
    (void)context;
    for (size_t i = 0; i < n; i++) {
        uint64_t begin = bench_now();

        for (size_t j = 0; j < rig.n; j++) {
            memcpy(rig.copy, rig.image->memory + (rig.tasks[j] - IMAGE_BASE), TASK_SPAN);
            __asm__ volatile("" : : "r"(rig.copy) : "memory");
        }
        samples[i] = bench_now() - begin;
    }
    return 0;
}

static int sample_find(void *context, uint64_t *samples, size_t n) {
    (void)context;
    for (size_t i = 0; i < n; i++) {
        struct vmibus_linux_task task;
        uint64_t begin = bench_now();
        int r = vmibus_linux_find_task(&rig.image->kernel, PROCESSES, &task);

        samples[i] = bench_now() - begin;
        if (r)
            return -EIO;
    }
    return 0;
}

/* The image becomes what the authority hands out: a sealed memory file, read by its descriptor. */
static int make_ram(void) {
    const struct vmibus_ram_range range = {.len = IMAGE_LEN};
    int r;

    rig.fd = image_memfd(rig.image);
    if (rig.fd < 0)
        return rig.fd;
    r = vmibus_guest_ram_new(&rig.ram, &range, 1, &rig.fd, 1);
    if (r == 0)
        rig.image->kernel.reader = vmibus_guest_ram_reader(rig.ram);
    return r;
}

static int build(void) {
    size_t n = 0;

    rig.image = image_new();
    if (!rig.image)
        return -ENOMEM;
    for (uint32_t i = 0; i < PROCESSES; i++) {
        uint64_t leader = rig.tasks[n] = image_process(rig.image, i + 1, i / 3, "a process");

        n++;
        for (uint32_t j = 1; j < THREADS_EACH; j++)
            rig.tasks[n++] = image_thread(rig.image, leader, 10000 + i * THREADS_EACH + j, "a thread");
    }
    return make_ram();
}

static int measure(struct bench *bench, bool threads, const char *what) {
    struct bench_lane lanes[] = {
        {.name = "visit", .sample = sample_visit},
        {.name = "memcpy", .sample = sample_copy},
        {.name = "find the last", .sample = sample_find},
    };
    size_t n_lanes = sizeof(lanes) / sizeof(lanes[0]);
    uint64_t one;
    int r;

    rig.threads = threads;
    rig.n = threads ? PROCESSES * THREADS_EACH : PROCESSES;
    r = sample_visit(NULL, &one, 1);
    if (r == 0)
        r = bench_interleave(lanes, n_lanes, bench->quick ? 9 : 31, 100);
    if (r == 0) {
        bench_tell(bench, bench_median(lanes[0].p50, lanes[0].n_blocks) / 1e6, "ms", threads ? BENCH_TOLD : BENCH_AT_MOST, 2, "%s",
                   what);
        bench_tell(bench, bench_ratio(&lanes[0], &lanes[1], false), "x", BENCH_TOLD, 0, "%s / memcpy of the task_structs", what);
        bench_tell_lanes(bench, what, lanes, n_lanes);
    }
    bench_lanes_free(lanes, n_lanes);
    return r;
}

int main(int argc, char **argv) {
    struct bench bench;
    int r = bench_begin(&bench, "ps", argc, argv);

    if (r)
        return r;
    rig.fd = -1;
    r = bench_place(true);
    if (r == 0)
        r = build();
    if (r == 0)
        r = measure(&bench, false, "100 processes");
    if (r == 0)
        r = measure(&bench, true, "100 processes with 400 threads");
    vmibus_guest_ram_free(rig.ram);
    image_free(rig.image);
    if (rig.fd >= 0)
        close(rig.fd);
    return bench_end(&bench, r);
}
