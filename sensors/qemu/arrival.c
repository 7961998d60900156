/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watch for a path.  Rule: the watch stands before anybody looks whether the path exists, so that
 * nothing is missed; and it moves down as directories appear.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "arrival.h"

VMIBUS_SYSCALLS("inotify_add_watch inotify_init1 inotify_rm_watch")

struct arrival {
    const struct vmibus_sensor_api *api;
    void (*callback)(void *userdata);
    void *userdata;
    char *path;
    uint32_t also;
    int fd;
    int watch;
    struct vmibus_sensor_source *source;
};

/* Watches the nearest existing directory above the path. How many levels above it is is told by @a levels. */
static int watch_once(struct arrival *arrival, unsigned int *levels) {
    const uint32_t mask = IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | arrival->also;
    char *directory = strdup(arrival->path);
    int watch = -1;

    if (!directory)
        return -ENOMEM;
    errno = EINVAL;
    for (*levels = 0;; ++*levels) {
        char *slash = strrchr(directory, '/');

        if (!slash)
            break;
        slash[slash == directory] = 0; /* "/" keeps its slash */
        watch = inotify_add_watch(arrival->fd, directory, mask);
        if (watch >= 0 || (errno != ENOENT && errno != ENOTDIR) || slash == directory)
            break;
    }
    watch = watch < 0 ? -errno : watch;
    free(directory);
    if (watch < 0)
        return watch;

    if (arrival->watch >= 0 && arrival->watch != watch)
        inotify_rm_watch(arrival->fd, arrival->watch);
    arrival->watch = watch;

    return 0;
}

/* What came into being while the watch was being set has no event: the same is found once more before it counts. */
static int watch_nearest(struct arrival *arrival) {
    unsigned int levels, again;
    int r = watch_once(arrival, &levels);

    for (; r == 0 && levels; levels = again) {
        r = watch_once(arrival, &again);
        if (r || again == levels)
            break;
    }

    return r;
}

static void on_inotify(void *userdata, uint32_t events) {
    struct arrival *arrival = userdata;
    char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));

    (void)events;
    while (read(arrival->fd, buffer, sizeof(buffer)) > 0)
        ;
    watch_nearest(arrival);
    arrival->callback(arrival->userdata);
}

int arrival_new(struct arrival **arrivalp, const struct vmibus_sensor_api *api,
                struct vmibus_sensor_host *host, const char *path, uint32_t also,
                void (*callback)(void *userdata), void *userdata) {
    struct arrival *arrival = calloc(1, sizeof(*arrival));
    int r;

    if (!arrival)
        return -ENOMEM;
    arrival->api = api;
    arrival->callback = callback;
    arrival->userdata = userdata;
    arrival->watch = -1;
    arrival->also = also;
    arrival->path = strdup(path);
    arrival->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (!arrival->path || arrival->fd < 0) {
        r = arrival->path ? -errno : -ENOMEM;
        arrival_free(arrival);
        return r;
    }
    r = watch_nearest(arrival);
    if (r >= 0)
        r = api->watch_fd(host, arrival->fd, EPOLLIN, on_inotify, arrival, &arrival->source);
    if (r < 0) {
        arrival_free(arrival);
        return r;
    }
    *arrivalp = arrival;

    return 0;
}

struct arrival *arrival_free(struct arrival *arrival) {
    if (!arrival)
        return NULL;
    arrival->api->unwatch_fd(arrival->source);
    if (arrival->fd >= 0)
        close(arrival->fd);
    free(arrival->path);
    free(arrival);

    return NULL;
}
