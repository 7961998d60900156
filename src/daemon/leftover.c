/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "daemon/leftover.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/clock.h"
#include "util/fds.h"
#include "util/loop.h"

VMIBUS_SYSCALLS("getdents64 inotify_add_watch inotify_init1 openat")

#define PREFIX "pause-"

struct waiting {
    const struct config *config;
    struct loop *loop;
    struct loop_source source;
    struct loop_timer timer;
};

/* Where a sensor keeps its state: see give_state_directory() in sensor_module.c. */
static void directory_of(const struct config *config, const struct config_sensor *sensor, char *path, size_t size) {
    snprintf(path, size, "%s/sensor-%s", config->state_directory, sensor->name);
    for (size_t i = 0; i < sensor->n_options; i++)
        if (strcmp(sensor->options[i].key, "state-directory") == 0)
            snprintf(path, size, "%s", sensor->options[i].value);
}

/* A guest whose process has ended needs nothing any more. */
static bool is_left(const char *name) {
    long pid;
    char *end;

    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 || strstr(name, ".next"))
        return false;
    errno = 0;
    pid = strtol(name + strlen(PREFIX), &end, 10);
    return *end == '-' && !errno && pid > 0 && pid <= INT_MAX && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
}

static unsigned count_in(const char *path) {
    DIR *directory = opendir(path);
    const struct dirent *entry;
    unsigned n = 0;

    while (directory && (entry = readdir(directory)))
        n += is_left(entry->d_name);
    if (directory)
        closedir(directory);
    return n;
}

unsigned leftover_count(const struct config *config) {
    const struct config_sensor *sensor;
    char path[PATH_MAX];
    unsigned n = 0;

    list_for_each(sensor, &config->sensors, link) {
        directory_of(config, sensor, path, sizeof(path));
        n += count_in(path);
    }
    return n;
}

static void stop_if_done(const struct waiting *waiting) {
    if (leftover_count(waiting->config) == 0)
        loop_stop(waiting->loop, 0);
}

static void changed(struct loop_source *source, uint32_t events) {
    char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

    (void)events;
    while (read(source->fd, buffer, sizeof(buffer)) > 0)
        ;
    stop_if_done(container_of(source, struct waiting, source));
}

static void too_late(struct loop_timer *timer) {
    loop_stop(container_of(timer, struct waiting, timer)->loop, 0);
}

static int watch(const struct config *config, int fd) {
    const struct config_sensor *sensor;
    char path[PATH_MAX];

    list_for_each(sensor, &config->sensors, link) {
        directory_of(config, sensor, path, sizeof(path));
        if (inotify_add_watch(fd, path, IN_DELETE) < 0 && errno != ENOENT)
            return -errno;
    }
    return 0;
}

int leftover_wait(const struct config *config, struct loop *loop) {
    struct waiting waiting = {.config = config, .loop = loop};
    int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    int r;

    if (fd < 0)
        return -errno;
    loop_timer_init(&waiting.timer, loop, too_late);
    r = watch(config, fd);
    if (r == 0)
        r = loop_source_init(&waiting.source, loop, fd, EPOLLIN, changed);
    if (r < 0) {
        fd_close(fd);
        return r;
    }
    r = loop_timer_set(&waiting.timer, clock_now() + LEFTOVER_MS * NS_PER_MS);
    /* What was removed before the watch began is not told. */
    if (r == 0 && leftover_count(config))
        r = loop_run(loop);
    loop_timer_cancel(&waiting.timer);
    loop_source_deinit(&waiting.source);
    fd_close(fd);
    return r < 0 ? r : (int)leftover_count(config);
}
