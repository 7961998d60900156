/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Fuzz target: the QMP client.  The first octet chooses: bit 0, whether a greeting precedes the
 * input; bit 1, whether the input comes in pieces; the rest is what the monitor sends.  Every
 * command that was accepted is answered exactly once, and nothing is left behind.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz/target.h"
#include "qemu/qmp.h"

#define GREETING "{\"QMP\": {\"version\": {}}}\r\n{\"return\": {}, \"id\": 1}\r\n"
#define PIECE 7

/* --- a host of one descriptor and one timer -------------------------------------------------- */

static struct {
    void (*callback)(void *userdata, uint32_t events);
    void *userdata;
} source;
static void (*timer_callback)(void *userdata);
static void *timer_userdata;
static uint64_t now_ns;
static unsigned int given, answered;
static bool failed;
static struct qmp *client;

static int watch_fd(struct vmibus_sensor_host *host, int fd, uint32_t events,
                    void (*callback)(void *, uint32_t), void *userdata,
                    struct vmibus_sensor_source **sourcep) {
    (void)host;
    (void)fd;
    (void)events;
    source.callback = callback;
    source.userdata = userdata;
    *sourcep = (void *)&source;

    return 0;
}

static int change_fd(struct vmibus_sensor_source *which, uint32_t events) {
    (void)which;
    (void)events;

    return 0;
}

static void unwatch_fd(struct vmibus_sensor_source *which) {
    if (which)
        source.callback = NULL;
}

static int timer_new(struct vmibus_sensor_host *host, void (*callback)(void *), void *userdata,
                     struct vmibus_sensor_timer **timerp) {
    (void)host;
    timer_callback = callback;
    timer_userdata = userdata;
    *timerp = (void *)&timer_callback;

    return 0;
}

static void timer_set(struct vmibus_sensor_timer *timer, uint64_t delay_ns) {
    (void)timer;
    (void)delay_ns;
}

static void timer_free(struct vmibus_sensor_timer *timer) {
    (void)timer;
    timer_callback = NULL;
}

static uint64_t now(void) {
    return now_ns;
}

static const struct vmibus_sensor_api api = {
    .watch_fd = watch_fd,
    .change_fd = change_fd,
    .unwatch_fd = unwatch_fd,
    .timer_new = timer_new,
    .timer_set = timer_set,
    .timer_free = timer_free,
    .now = now,
};

/* --- the client ------------------------------------------------------------------------------ */

static void on_reply(void *userdata, const struct monitor_reply *reply) {
    size_t len;

    (void)userdata;
    answered++;
    monitor_text(reply, &len);
}

static void on_ready(void *userdata) {
    (void)userdata;
    given += qmp_execute(client, "query-status", NULL, on_reply, NULL) == 0;
    given += qmp_execute_human(client, "info mtree -f", on_reply, NULL) == 0;
}

static void on_waiting(void *userdata) {
    (void)userdata;
}

static void on_event(void *userdata, const char *name, json_object *data) {
    bool value;

    (void)userdata;
    if (strlen(name) && data)
        monitor_boolean(data, "guest", &value);
}

static void on_failed(void *userdata, enum qmp_failure failure, const char *message) {
    (void)userdata;
    if (!failure || !*message)
        abort();
    failed = true;
    client = qmp_free(client);
}

static const struct qmp_callbacks callbacks = {on_ready, on_waiting, on_event, on_failed};

static int listener = -1;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static void clean(void) {
    unlink(address.sun_path);
}

static void listen_once(void) {
    if (listener >= 0)
        return;
    snprintf(address.sun_path, sizeof(address.sun_path), "/tmp/fuzz-qmp-%d", getpid());
    unlink(address.sun_path);
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, 1) < 0)
        abort();
    atexit(clean);
}

static void deliver(int peer, const void *octets, size_t len) {
    const char *at = octets;
    char sink[4096];

    while (len && !failed) {
        ssize_t n = send(peer, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && errno != EAGAIN)
            return;
        if (n > 0) {
            at += n;
            len -= (size_t)n;
        }
        if (source.callback)
            source.callback(source.userdata, EPOLLIN | EPOLLOUT);
        while (recv(peer, sink, sizeof(sink), MSG_DONTWAIT) > 0)
            ;
    }
}

FUZZ_TARGET(qmp) {
    size_t piece;
    int peer;

    if (!size)
        return 0;
    listen_once();
    failed = false;
    given = answered = 0;
    if (qmp_new(&client, &api, NULL, address.sun_path, &callbacks, NULL) != 0)
        abort();
    peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (data[0] & 1)
        deliver(peer, GREETING, sizeof(GREETING) - 1);
    for (size_t i = 1; i < size; i += piece) {
        piece = data[0] & 2 && size - i > PIECE ? PIECE : size - i;
        deliver(peer, data + i, piece);
    }
    close(peer);
    while (!failed && source.callback)
        source.callback(source.userdata, EPOLLIN | EPOLLHUP);
    if (!failed || given != answered || timer_callback || source.callback)
        abort();

    return 0;
}
