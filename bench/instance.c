/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "instance.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ARGUMENTS 32
#define PATIENCE_MS 10000

static void run(const struct instance *instance, const char *build, const char *preload, const char *const *arguments) {
    char program[512], modules[512], state[128], log[128];
    const char *line[ARGUMENTS] = {program, "--socket",           instance->socket, "--state-directory",
                                   state,   "--sensor-directory", modules};
    size_t n = 7;
    int fd;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    snprintf(program, sizeof(program), "%s/vmibusd", build);
    snprintf(modules, sizeof(modules), "%s/bench/modules", build);
    snprintf(state, sizeof(state), "%s/state", instance->directory);
    snprintf(log, sizeof(log), "%s/log", instance->directory);
    while (*arguments && n < ARGUMENTS - 1)
        line[n++] = *arguments++;
    fd = open(log, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    if (fd >= 0)
        dup2(fd, STDERR_FILENO);
    if (preload)
        setenv("LD_PRELOAD", preload, 1);
    execv(program, (char *const *)line);
    _exit(127);
}

static void pause_ms(long ms) {
    const struct timespec time = {.tv_nsec = ms * 1000000};

    nanosleep(&time, NULL);
}

static int wait_until_served(struct instance *instance) {
    for (int i = 0; i < PATIENCE_MS / 10; i++) {
        struct vmibus *bus;

        if (vmibus_connect(&bus, instance->socket, "bench") == 0) {
            vmibus_free(bus);
            return 0;
        }
        if (waitpid(instance->pid, NULL, WNOHANG) == instance->pid) {
            instance->pid = 0;
            return -ECHILD;
        }
        pause_ms(10);
    }
    return -ETIMEDOUT;
}

static void show_log(const struct instance *instance) {
    char path[128], text[4096];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "%s/log", instance->directory);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd >= 0 ? read(fd, text, sizeof(text)) : -1;
    if (n > 0)
        fprintf(stderr, "vmibusd: %.*s", (int)n, text);
    if (fd >= 0)
        close(fd);
}

int instance_start(struct instance *instance, const char *build, const char *preload, const char *const *arguments) {
    char state[128];
    int r;

    *instance = (struct instance){.directory = "/tmp/vmibus-bench-XXXXXX"};
    if (!mkdtemp(instance->directory)) {
        instance->directory[0] = '\0';
        return -errno;
    }
    snprintf(instance->socket, sizeof(instance->socket), "%s/socket", instance->directory);
    snprintf(state, sizeof(state), "%s/state", instance->directory);
    if (mkdir(state, 0700) < 0)
        return -errno;
    instance->pid = fork();
    if (instance->pid < 0)
        return -errno;
    if (instance->pid == 0)
        run(instance, build, preload, arguments);
    r = wait_until_served(instance);
    if (r < 0) {
        show_log(instance);
        instance_stop(instance);
    }
    return r;
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *where) {
    (void)status;
    (void)type;
    (void)where;
    return remove(path);
}

void instance_stop(struct instance *instance) {
    if (instance->pid > 0) {
        kill(instance->pid, SIGTERM);
        waitpid(instance->pid, NULL, 0);
    }
    if (instance->directory[0])
        nftw(instance->directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    *instance = (struct instance){};
}

int instance_connect(const struct instance *instance, struct vmibus **busp) {
    int r = vmibus_connect(busp, instance->socket, "bench");

    return r > 0 ? -EACCES : r;
}

/* --- finding ------------------------------------------------------------------------------------- */

struct search {
    const char *name;
    struct vmibus_endpoint *endpoint;
    uint64_t epoch;
    bool found;
};

static void hear(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    const struct vmibus_header *header = &message->frame.header;
    struct search *search = userdata;

    (void)bus;
    if (header->kind == VMIBUS_KIND_ROSTER && message->frame.roster.change == VMIBUS_ROSTER_CHANGE_ADDED &&
        header->tail_length == strlen(search->name) && memcmp(message->tail, search->name, header->tail_length) == 0) {
        *search->endpoint = (struct vmibus_endpoint){.slot = header->slot, .generation = header->generation};
        search->found = true;
    }
    if (header->kind == VMIBUS_KIND_MEMCTX && search->found && header->slot == search->endpoint->slot &&
        message->frame.memctx.state == VMIBUS_MEMCTX_STATE_READY)
        search->epoch = message->frame.memctx.epoch;
}

int instance_find(struct vmibus *bus, const char *name, struct vmibus_endpoint *endpoint, uint64_t *epoch) {
    struct search search = {.name = name, .endpoint = endpoint};
    int r;

    vmibus_set_handler(bus, hear, &search);
    r = vmibus_subscribe(bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX));
    while (r == 0 && (!search.found || (epoch && !search.epoch)))
        r = vmibus_wait(bus, 60000);
    if (r == 0)
        r = vmibus_subscribe(bus, "*", 0);
    if (r == 0)
        r = vmibus_dispatch(bus);
    vmibus_set_handler(bus, NULL, NULL);
    if (epoch)
        *epoch = search.epoch;
    return r > 0 ? -EACCES : r;
}
