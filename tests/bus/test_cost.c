/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What an event costs: no allocation, and work that does not grow with the number of endpoints.  Work is
 * counted, not timed: as allocations, and as instructions, by stepping through them.
 */
#include "harness.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bus/stage.h"

#ifndef VMIBUS_SANITIZED

/* --- counting allocations ---------------------------------------------------------------------- */

static size_t n_allocations;

void *malloc(size_t size) {
    static void *(*next)(size_t);

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "malloc");
    n_allocations++;
    return next(size);
}

void *realloc(void *pointer, size_t size) {
    static void *(*next)(void *, size_t);

    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "realloc");
    n_allocations++;
    return next(pointer, size);
}

/* dlsym() itself may call calloc: it is served from here until the next one is known. */
void *calloc(size_t n, size_t size) {
    static void *(*next)(size_t, size_t);
    static _Alignas(16) char early[4096];
    static size_t used;
    static bool asking;

    if (!next && asking) {
        void *memory = early + used;

        used += (n * size + 15) & ~(size_t)15;
        return used <= sizeof(early) ? memory : NULL;
    }
    if (!next) {
        asking = true;
        *(void **)&next = dlsym(RTLD_NEXT, "calloc");
        asking = false;
    }
    n_allocations++;
    return next(n, size);
}

#endif

static void need_plain_build(void) {
#ifdef VMIBUS_SANITIZED
    test_skip("a sanitizer allocates for itself and adds instructions of its own");
#endif
}

static size_t allocations(void) {
#ifdef VMIBUS_SANITIZED
    return 0;
#else
    return n_allocations;
#endif
}

/* --- the scene --------------------------------------------------------------------------------- */

#define MANY 250

static struct fake_control alice;
static struct fake_sensor sensor;
static struct endpoint *endpoint;
static uint64_t token;

static void discard(struct sensor *to, const struct vmibus_frame *frame, const void *tail) {
    struct vmibus_frame ack = {.header = {.kind = VMIBUS_KIND_ACK, .correlation = frame->header.correlation}};

    (void)tail;
    if (frame->header.kind == VMIBUS_KIND_CMD_INPUT)
        sensor_hear(to, &ack, NULL, NULL);
}

static const struct sensor_ops discarding = {.send = discard};

/* So many endpoints, and one that is worked with. */
static void open_scene(uint32_t n_endpoints) {
    stage_open(&(struct stage_options){.n_endpoints = n_endpoints});
    fake_sensor_open(&sensor, "fake", GROUPS_ALL, 0);
    fake_control_open(&alice, 1);
    fake_subscribe(&alice, "*", KINDS_RETAINED);
    sensor.answers = true;
    while (stage.bus->n_present < n_endpoints)
        endpoint = fake_offer(&sensor, "vm", GROUPS_ALL);
    token = fake_hold(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT);
    fake_control_forget(&alice);
    sensor.sensor.ops = &discarding;
}

static void close_scene(void) {
    fake_control_close(&alice);
    sensor.sensor.ops = &discarding;
    fake_sensor_close(&sensor);
    stage_close();
}

static void take_without_log(void) {
    struct control_item item;

    while (control_take(&alice.control, &item))
        control_item_deinit(&item);
}

static void event_once(void) {
    fake_lifecycle(&sensor, endpoint, VMIBUS_VM_STATE_RUNNING);
    take_without_log();
}

static void command_once(void) {
    fake_input(&alice, endpoint, token, 30);
    take_without_log();
}

static void expired_timer_once(void) {
    fake_renew(&alice, endpoint, VMIBUS_LEASE_CLASS_INPUT, token, 1000);
    take_without_log();
}

TEST(test_event_path_allocates_nothing) {
    void (*paths[])(void) = {event_once, command_once, expired_timer_once};
    size_t before;

    need_plain_build();
    open_scene(4);
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        paths[i]();
        before = allocations();
        for (int j = 0; j < 1000; j++)
            paths[i]();
        ck_assert_uint_eq(allocations(), before);
    }
    /* The count counts. */
    free(calloc(1, (size_t)_i + 1));
    ck_assert_uint_gt(allocations(), before);
    close_scene();
}

/* --- counting instructions --------------------------------------------------------------------- */

/* How many instructions work() takes in a process of its own, on a scene of so many endpoints. */
static unsigned long instructions(uint32_t n_endpoints, void (*work)(void)) {
    unsigned long n = 0;
    pid_t pid = fork();
    int status;

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        open_scene(n_endpoints);
        work();
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
            _exit(1);
        raise(SIGSTOP);
        work();
        _exit(0);
    }
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 1)
        test_skip("processes may not be traced here");
    ck_assert(WIFSTOPPED(status));
    while (WIFSTOPPED(status)) {
        if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) < 0) {
            kill(pid, SIGKILL);
            waitpid(pid, &status, 0);
            test_skip("instructions cannot be stepped through here: %s", strerror(errno));
        }
        n++;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    }
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return n;
}

static void check_independent(void (*work)(void)) {
    unsigned long few, many;

    need_plain_build();
    few = instructions(1, work);
    many = instructions(MANY, work);
    /* One pass over the endpoints would add several for each. */
    ck_assert_msg(many < few + MANY, "%lu instructions with 1 endpoint, %lu with %d", few, many, MANY);
}

TEST(test_event_costs_the_same_however_many_endpoints) {
    check_independent(event_once);
}

TEST(test_command_costs_the_same_however_many_endpoints) {
    check_independent(command_once);
}

HARNESS_SUITE("cost", HARNESS_QUICK)
