/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What it costs that the memory authority has a process of its own: the round trip of a write of 8 octets, to vmibus-memd by
 * the socket of its own, against the same in one process.  And what it spares: a command to a sensor, with the sensor apart,
 * against the same in one process.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <vmibus/client.h>

#include "bench.h"
#include "instance.h"

/* A bus, with the two that have processes of their own, or without. */
struct topology {
    struct instance instance;
    pid_t memory, sensor;
    char socket[96];
};

/* A control with a lease of one VM, and its command. */
struct sender {
    struct vmibus *bus;
    struct vmibus_frame frame;
};

struct setup {
    struct topology here, apart;
    struct sender write_here, write_apart, input_here, input_apart;
};

static pid_t start(const struct instance *instance, const char *build, const char *name, const char *const *arguments) {
    char program[512];
    const char *line[12] = {program};
    pid_t pid = fork();
    int fd;

    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(program, sizeof(program), "%s/%s", build, name);
    for (size_t i = 0; arguments[i]; i++)
        line[i + 1] = arguments[i];
    snprintf(program + 256, 256, "%s/log.%s", instance->directory, name);
    fd = open(program + 256, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0)
        dup2(fd, STDERR_FILENO);
    execv(program, (char *const *)line);
    _exit(127);
}

static int start_apart(struct topology *topology, const char *build) {
    char state[128], modules[512];
    const char *const bus[] = {"--memory", topology->socket, NULL};
    const char *const memory[] = {"--socket", topology->socket, "--state-directory", state, NULL};
    const char *const sensor[] = {"--socket", topology->instance.socket, "--sensor-directory", modules, "stub", NULL};
    int r;

    /* The bus is told the name before it has a directory. */
    snprintf(topology->socket, sizeof(topology->socket), "/tmp/vmibus-bench-memory-%d", (int)getpid());
    r = instance_start(&topology->instance, build, NULL, bus);
    if (r < 0)
        return r;
    snprintf(state, sizeof(state), "%s/memory", topology->instance.directory);
    snprintf(modules, sizeof(modules), "%s/bench/modules", build);
    topology->memory = start(&topology->instance, build, "vmibus-memd", memory);
    topology->sensor = start(&topology->instance, build, "vmibus-sensord", sensor);
    return topology->memory < 0 || topology->sensor < 0 ? -ECHILD : 0;
}

static void stop(pid_t pid) {
    if (pid <= 0)
        return;
    kill(pid, SIGTERM);
    waitpid(pid, NULL, 0);
}

static void topology_stop(struct topology *topology) {
    stop(topology->sensor);
    stop(topology->memory);
    instance_stop(&topology->instance);
}

static int sender_open(struct sender *sender, const struct topology *topology, enum vmibus_lease_class lease_class) {
    struct vmibus_endpoint endpoint;
    uint64_t token = 0, epoch = 0;
    int r = instance_connect(&topology->instance, &sender->bus);

    if (r == 0)
        r = instance_find(sender->bus, "stub-0", &endpoint, &epoch);
    if (r == 0)
        r = vmibus_lease_acquire(sender->bus, &endpoint, lease_class, VMIBUS_LEASE_MODE_FAIL, 0, &token, NULL);
    if (r)
        return r > 0 ? -EACCES : r;
    if (lease_class == VMIBUS_LEASE_CLASS_INPUT) {
        vmibus_command_init(&sender->frame, VMIBUS_KIND_CMD_INPUT, &endpoint);
        sender->frame.cmd_input.token = token;
        sender->frame.cmd_input.count = 1;
        sender->frame.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_RELATIVE, .value = 1};
        return 0;
    }
    vmibus_command_init(&sender->frame, VMIBUS_KIND_CMD_MEMWRITE, &endpoint);
    sender->frame.cmd_memwrite.gva = 0x100000;
    sender->frame.cmd_memwrite.len = 8;
    sender->frame.cmd_memwrite.flags = VMIBUS_MEMWRITE_PHYSICAL;
    sender->frame.cmd_memwrite.token = token;
    sender->frame.cmd_memwrite.epoch = epoch;
    return 0;
}

static int sample(void *context, uint64_t *samples, size_t n) {
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

static int set_up(struct setup *setup, const struct bench *bench) {
    const char *const stub[] = {"--stub=2", NULL};
    int r = instance_start(&setup->here.instance, bench->build, NULL, stub);

    if (r == 0)
        r = start_apart(&setup->apart, bench->build);
    if (r == 0)
        r = sender_open(&setup->write_here, &setup->here, VMIBUS_LEASE_CLASS_MEMWRITE);
    if (r == 0)
        r = sender_open(&setup->write_apart, &setup->apart, VMIBUS_LEASE_CLASS_MEMWRITE);
    if (r == 0)
        r = sender_open(&setup->input_here, &setup->here, VMIBUS_LEASE_CLASS_INPUT);
    if (r == 0)
        r = sender_open(&setup->input_apart, &setup->apart, VMIBUS_LEASE_CLASS_INPUT);
    return r;
}

static void tear_down(struct setup *setup) {
    vmibus_free(setup->write_here.bus);
    vmibus_free(setup->write_apart.bus);
    vmibus_free(setup->input_here.bus);
    vmibus_free(setup->input_apart.bus);
    topology_stop(&setup->apart);
    topology_stop(&setup->here);
}

static int measure(struct bench *bench, bool pinned) {
    const char *mode = pinned ? "pinned" : "unpinned";
    struct setup setup = {};
    struct bench_lane lanes[] = {
        {.name = "write, one process", .sample = sample, .context = &setup.write_here},
        {.name = "write, apart", .sample = sample, .context = &setup.write_apart},
        {.name = "input, one process", .sample = sample, .context = &setup.input_here},
        {.name = "input, apart", .sample = sample, .context = &setup.input_apart},
    };
    int r = bench_place(pinned);

    if (r == 0)
        r = set_up(&setup, bench);
    if (r == 0)
        r = bench_interleave(lanes, 4, bench->quick ? 5 : 20, bench->quick ? 200 : 2000);
    if (r == 0) {
        for (size_t i = 0; i < 4; i++)
            bench_tell(bench, bench_median(lanes[i].p50, lanes[i].n_blocks) / 1000, "us", BENCH_TOLD, 0, "%s, %s, p50", mode,
                       lanes[i].name);
        bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], false), "x", BENCH_TOLD, 0,
                   "%s, write apart / in one process p50", mode);
        bench_tell(bench, bench_ratio(&lanes[1], &lanes[0], true), "x", BENCH_TOLD, 0,
                   "%s, write apart / in one process p99", mode);
        bench_tell(bench, bench_ratio(&lanes[3], &lanes[2], false), "x", BENCH_TOLD, 0,
                   "%s, input apart / in one process p50", mode);
    }
    bench_lanes_free(lanes, 4);
    tear_down(&setup);
    return r;
}

int main(int argc, char **argv) {
    return bench_pinned_and_not("apart", argc, argv, measure);
}
