/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Storms of connections, for as long as VMIBUS_SOAK_SECONDS says: after each storm all that was charged is
 * released, and over the storms the daemon neither grows nor gathers descriptors.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"
#include "stub/stub_map.h"

#define SECONDS 3
#define STORM 60                    /* connections at once */
#define WARM_UP 8                   /* storms after which everything was in use once */
#define GROWTH_KIB 512              /* of its own memory, over all storms after that */
#define EVERYTHING                                                                                                        \
    (VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER) | VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE) | VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) | \
     VMIBUS_KIND_BIT(VMIBUS_KIND_LEASE))

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

static uint64_t seconds_now(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec;
}

static size_t resident_kib(void) {
    char path[64], line[128];
    size_t kib = 0;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/%d/status", d->pid);
    file = fopen(path, "re");
    ck_assert_ptr_nonnull(file);
    while (fgets(line, sizeof(line), file))
        if (sscanf(line, "RssAnon: %zu", &kib) == 1)
            break;
    fclose(file);
    ck_assert_uint_gt(kib, 0);
    return kib;
}

/* What one connection of a storm does before it is dropped, without waiting for any answer. */
static void use(int fd, const struct wire_endpoint *vm, unsigned how) {
    struct vmibus_frame frame = wire_command(VMIBUS_KIND_CMD_LEASE, vm);

    frame.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    frame.cmd_lease.lease_class = (uint8_t)(1 + how % 3);
    frame.cmd_lease.mode = VMIBUS_LEASE_MODE_QUEUE;
    switch (how % 6) {
    case 0:
        break; /* half a handshake */
    case 1:
        (void)wire_write(fd, &frame, 40); /* half a frame */
        break;
    case 2:
        wire_subscribe(fd, "stub-*", EVERYTHING);
        break;
    case 3:
        ck_assert(wire_send(fd, &frame, NULL, 0));
        break;
    case 4:
        frame = wire_command(VMIBUS_KIND_MEM_ATTACH, vm);
        ck_assert(wire_send(fd, &frame, NULL, 0));
        break;
    case 5:
        frame = wire_command(VMIBUS_KIND_CMD_MEMWRITE, vm);
        frame.header.tail_length = 100000;
        (void)wire_write(fd, &frame, sizeof(frame));
        (void)wire_write(fd, &frame, 100); /* the beginning of a long tail */
        break;
    }
}

static void storm(const struct wire_endpoint *vm, unsigned number) {
    int fds[STORM];

    for (unsigned i = 0; i < STORM; i++) {
        fds[i] = (i + number) % 6 ? wire_open(d->path, NULL) : wire_connect(d->path);
        use(fds[i], vm, i + number);
    }
    for (unsigned i = 0; i < STORM; i++)
        close(fds[(i * 7 + number) % STORM]);
}

TEST(test_p08_connection_storms_leave_nothing_behind, .timeout = 7200) {
    const char *text = getenv("VMIBUS_SOAK_SECONDS");
    uint64_t until = seconds_now() + (text && *text ? strtoull(text, NULL, 10) : SECONDS);
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_SUBSCRIBE);
    size_t warm = 0, last = 0;
    struct wire_endpoint vm;
    unsigned n = 0;

    daemon_start(d, NULL);
    vm = wire_find(d->bystander, "stub-0");
    ck_assert_uint_eq(wire_ask(d->bystander, &frame, "stub-0", 6).ack.error, VMIBUS_ERROR_OK);
    while (n <= WARM_UP || seconds_now() < until) {
        storm(&vm, n++);
        daemon_await_idle(d);
        last = resident_kib();
        if (n == WARM_UP)
            warm = last;
    }
    fprintf(stderr, "%u storms of %u connections; %zu KiB of its own memory resident, %zu KiB after warming up\n", n, STORM, last,
            warm);
#ifndef VMIBUS_SANITIZED /* a sanitizer keeps what was freed */
    ck_assert_uint_le(last, warm + GROWTH_KIB);
#endif
    daemon_stop(d);
}

HARNESS_SUITE("soak", HARNESS_QUICK)
