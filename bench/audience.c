/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audience.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define PATIENCE_MS 30000
#define READ_SIZE 65536

/* What one receiver's process knows. */
struct ear {
    struct audience_shared *shared;
    struct receiver *receiver;
    int here;
    uint64_t delivery; /* last number, 0: none yet */
};

static void say_here(const struct ear *ear) {
    if (write(ear->here, "", 1) != 1)
        _exit(1);
}

static void hear(struct ear *ear, uint64_t published) {
    struct receiver *receiver = ear->receiver;
    uint64_t latency = bench_now() - published;

    if (receiver->heard < AUDIENCE_LATENCIES)
        receiver->latencies[receiver->heard] = latency > UINT32_MAX ? UINT32_MAX : (uint32_t)latency;
    receiver->heard++;
    receiver->heard_ever++;
    if (receiver->heard == atomic_load_explicit(&ear->shared->expected, memory_order_acquire))
        say_here(ear);
}

/* --- vmibus --------------------------------------------------------------------------------------- */

static void hear_frame(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    const struct vmibus_header *header = &message->frame.header;
    struct ear *ear = userdata;

    (void)bus;
    if (header->flags & VMIBUS_FRAME_RETAINED)
        return;
    if (ear->delivery && header->delivery != ear->delivery + 1)
        ear->receiver->holes++;
    ear->delivery = header->delivery;
    if (header->kind == VMIBUS_KIND_LIFECYCLE)
        hear(ear, header->timestamp);
    else
        ear->receiver->gaps++;
}

static void listen_to_vmibus(struct ear *ear, const struct instance *instance) {
    struct vmibus *bus;

    if (instance_connect(instance, &bus) < 0)
        _exit(1);
    vmibus_set_handler(bus, hear_frame, ear);
    if (vmibus_subscribe(bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE)) || vmibus_dispatch(bus) < 0)
        _exit(1);
    say_here(ear);
    while (vmibus_wait(bus, -1) == 0)
        ;
}

/* --- D-Bus ---------------------------------------------------------------------------------------- */

static void listen_to_dbus(struct ear *ear, const struct dbus_broker *broker) {
    static uint8_t buffer[READ_SIZE];
    size_t have = 0, at, length;
    char name[DBUS_NAME];
    int fd = dbus_connect(broker, name);

    if (fd < 0 || dbus_add_match(fd) < 0)
        _exit(1);
    say_here(ear);
    for (;;) {
        ssize_t n = read(fd, buffer + have, sizeof(buffer) - have);

        if (n <= 0)
            return;
        have += (size_t)n;
        for (at = 0; (length = dbus_length(buffer + at, have - at)) && length <= have - at; at += length) {
            const uint8_t *body;
            uint64_t published;

            if (!dbus_is_signal(buffer + at, length, &body)) {
                ear->receiver->gaps++;
                continue;
            }
            memcpy(&published, body + DBUS_BODY - sizeof(published), sizeof(published));
            hear(ear, published);
        }
        memmove(buffer, buffer + at, have - at);
        have -= at;
    }
}

/* --- the audience --------------------------------------------------------------------------------- */

static int await_all(struct audience *audience) {
    struct pollfd poll_fd = {.fd = audience->here, .events = POLLIN};
    char octets[AUDIENCE_MAXIMUM];

    for (size_t left = audience->n; left;) {
        ssize_t n;

        if (poll(&poll_fd, 1, PATIENCE_MS) != 1)
            break;
        n = read(audience->here, octets, left);
        if (n <= 0)
            return -ECONNRESET;
        left -= (size_t)n;
        if (left == 0)
            return 0;
    }
    for (size_t i = 0; i < audience->n; i++)
        if (audience->shared->receivers[i].lost)
            return -ECONNRESET;
    return -ETIMEDOUT;
}

int audience_start(struct audience *audience, size_t n, const struct instance *instance, const struct dbus_broker *broker) {
    int fds[2];

    *audience = (struct audience){.n = 0};
    audience->shared = mmap(NULL, sizeof(*audience->shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (audience->shared == MAP_FAILED || pipe2(fds, O_CLOEXEC) < 0)
        return -errno;
    audience->here = fds[0];
    for (; audience->n < n; audience->n++) {
        struct ear ear = {.shared = audience->shared, .receiver = &audience->shared->receivers[audience->n], .here = fds[1]};
        pid_t pid = fork();

        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            if (instance)
                listen_to_vmibus(&ear, instance);
            else
                listen_to_dbus(&ear, broker);
            ear.receiver->lost = true;
            _exit(0);
        }
        audience->pids[audience->n] = pid;
    }
    close(fds[1]);
    return await_all(audience);
}

void audience_stop(struct audience *audience) {
    if (!audience->shared)
        return;
    for (size_t i = 0; i < audience->n; i++) {
        kill(audience->pids[i], SIGKILL);
        waitpid(audience->pids[i], NULL, 0);
    }
    close(audience->here);
    munmap(audience->shared, sizeof(*audience->shared));
    *audience = (struct audience){};
}

void audience_expect(struct audience *audience, uint64_t events) {
    for (size_t i = 0; i < audience->n; i++)
        audience->shared->receivers[i].heard = 0;
    atomic_store_explicit(&audience->shared->expected, events, memory_order_release);
}

int audience_wait(struct audience *audience) {
    return await_all(audience);
}

uint64_t audience_lost(const struct audience *audience) {
    uint64_t lost = 0;

    for (size_t i = 0; i < audience->n; i++)
        lost += audience->shared->receivers[i].holes + audience->shared->receivers[i].gaps;
    return lost;
}
