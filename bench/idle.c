/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Idle: 64 endpoints, 64 connected controls that have subscribed to everything, ten seconds, no system
 * call; and what the daemon holds resident.  That none of its threads ran at all is shown beside it by
 * their context switches, which needs no privilege.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bench.h"
#include "instance.h"
#include "syscalls.h"

#define ENDPOINTS "64"
#define CONTROLS 64
#define ALL_BUT_RESOURCES (~VMIBUS_KIND_BIT(VMIBUS_KIND_RESOURCES)) /* which would be told every second */
#define SECONDS 10
#define SETTLE_MS 2000

static int connect_all(const struct instance *instance, struct vmibus **controls) {
    int r = 0;

    for (size_t i = 0; r == 0 && i < CONTROLS; i++) {
        struct vmibus_endpoint endpoint;

        r = instance_connect(instance, &controls[i]);
        if (r == 0)
            r = instance_find(controls[i], "stub-0", &endpoint, NULL);
        if (r == 0)
            r = vmibus_subscribe(controls[i], "*", ALL_BUT_RESOURCES);
    }
    return r > 0 ? -EACCES : r;
}

/* Takes whatever still comes. */
static int settle(struct vmibus **controls) {
    for (uint64_t end = bench_now() + SETTLE_MS * UINT64_C(1000000); bench_now() < end;) {
        const struct timespec time = {.tv_nsec = 10000000};

        for (size_t i = 0; i < CONTROLS; i++) {
            int r = vmibus_dispatch(controls[i]);

            if (r < 0)
                return r;
        }
        nanosleep(&time, NULL);
    }
    return 0;
}

/* A number of a /proc file, found by the word before it. */
static uint64_t read_number(const char *path, const char *word) {
    FILE *file = fopen(path, "re");
    uint64_t value = 0;
    char line[256];

    while (file && fgets(line, sizeof(line), file))
        if (strncmp(line, word, strlen(word)) == 0)
            value = strtoull(line + strlen(word), NULL, 10);
    if (file)
        fclose(file);
    return value;
}

static uint64_t context_switches(pid_t pid) {
    char path[300];
    const struct dirent *entry;
    uint64_t sum = 0;
    DIR *threads;

    snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
    threads = opendir(path);
    while (threads && (entry = readdir(threads))) {
        snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)pid, entry->d_name);
        if (entry->d_name[0] != '.')
            sum += read_number(path, "voluntary_ctxt_switches:") + read_number(path, "nonvoluntary_ctxt_switches:");
    }
    if (threads)
        closedir(threads);
    return sum;
}

static void observe(struct bench *bench, pid_t pid) {
    const struct timespec time = {.tv_sec = SECONDS};
    struct syscalls syscalls;
    int r = syscalls_begin(&syscalls, pid);
    uint64_t switches = context_switches(pid);
    char path[64];

    nanosleep(&time, NULL);
    if (r == 0) {
        bench_tell(bench, (double)syscalls_read(&syscalls), "", BENCH_AT_MOST, 0, "idle, system calls in %d s", SECONDS);
        syscalls_end(&syscalls);
    } else {
        bench_skip(bench, "system calls", strerror(-r));
    }
    bench_tell(bench, (double)(context_switches(pid) - switches), "", BENCH_AT_MOST, 0, "idle, context switches in %d s", SECONDS);
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    bench_tell(bench, (double)read_number(path, "VmRSS:") / 1024, "MiB", BENCH_BELOW, 8, "idle, resident memory");
    bench_tell(bench, (double)read_number(path, "RssAnon:") / 1024, "MiB", BENCH_TOLD, 0, "idle, of it anonymous");
    bench_tell(bench, (double)read_number(path, "RssFile:") / 1024, "MiB", BENCH_TOLD, 0, "idle, of it mapped files");
    bench_tell(bench, (double)read_number(path, "RssShmem:") / 1024, "MiB", BENCH_TOLD, 0, "idle, of it shared memory");
}

int main(int argc, char **argv) {
    const char *const arguments[] = {"--stub=" ENDPOINTS, NULL};
    static struct vmibus *controls[CONTROLS];
    struct instance instance = {};
    struct bench bench;
    int r = bench_begin(&bench, "idle", argc, argv);

    if (r)
        return r;
    r = instance_start(&instance, bench.build, NULL, arguments);
    if (r == 0)
        r = connect_all(&instance, controls);
    if (r == 0)
        r = settle(controls);
    if (r == 0)
        observe(&bench, instance.pid);
    for (size_t i = 0; i < CONTROLS; i++)
        vmibus_free(controls[i]);
    instance_stop(&instance);
    return bench_end(&bench, r);
}
