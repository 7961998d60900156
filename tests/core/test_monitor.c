/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The bus's watch over itself: asked or subscribed to only, exact about descriptors, and it sees a leak. */
#include <check.h>
#include <fcntl.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmibus/client.h>
#include <vmibus/core.h>

#include "bus/bus.h"
#include "bus/endpoint.h"
#include "bus/sensor.h"
#include "core/core.h"
#include "core/monitor.h"
#include "core/process_usage.h"
#include "harness.h"

#define RESOURCES VMIBUS_KIND_BIT(VMIBUS_KIND_RESOURCES)
#define MIB (UINT64_C(1) << 20)

static struct vmibus_core *core;

static void open_core(void) {
    const struct vmibus_core_options options = {.struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1};

    ck_assert_int_eq(vmibus_core_new(&core, &options), 0);
}

static void close_core(void) {
    core = vmibus_core_free(core);
}

static struct bus_process_counters count(void) {
    struct bus_process_counters counters;

    ck_assert(monitor_count(&core->monitor, &counters));
    return counters;
}

static struct vmibus *connect_control(void) {
    struct vmibus *bus;

    ck_assert_int_eq(vmibus_core_connect(core, &bus, "test"), 0);
    return bus;
}

/* A child that waits to be killed. */
static pid_t fork_sleeper(void) {
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    while (pid == 0)
        pause();
    return pid;
}

static void end_child(pid_t pid) {
    kill(pid, SIGKILL);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* --- demand ------------------------------------------------------------------------------------ */

TEST(test_p02_nothing_is_looked_at_unasked, .setup = open_core, .teardown = close_core) {
    struct vmibus *bus = connect_control();

    ck_assert_int_eq(vmibus_subscribe(bus, "*", ~RESOURCES), 0);
    ck_assert(!loop_timer_is_armed(&core->monitor.timer));
    ck_assert_int_eq(vmibus_subscribe(bus, "*", RESOURCES), 0);
    ck_assert(loop_timer_is_armed(&core->monitor.timer));
    ck_assert_int_eq(vmibus_subscribe(bus, "*", 0), 0);
    ck_assert(!loop_timer_is_armed(&core->monitor.timer));
    ck_assert_int_eq(vmibus_subscribe(bus, "*", RESOURCES), 0);
    vmibus_free(bus);
    ck_assert(!loop_timer_is_armed(&core->monitor.timer));
}

/* --- accounts ---------------------------------------------------------------------------------- */

TEST(test_p08_descriptors_are_accounted_for_exactly, .setup = open_core, .teardown = close_core) {
    struct bus_process_counters before = count(), with;
    struct vmibus *buses[20];
    int leaked[5];

    ck_assert_uint_eq(before.fds_unaccounted, 0);
    for (size_t i = 0; i < 20; i++)
        buses[i] = connect_control();
    with = count();
    ck_assert_uint_eq(with.fds_open, before.fds_open + 20);
    ck_assert_uint_eq(with.fds_unaccounted, 0);
    for (size_t i = 0; i < 5; i++)
        leaked[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    with = count();
    ck_assert_uint_eq(with.fds_unaccounted, 5);
    for (size_t i = 0; i < 20; i++)
        vmibus_free(buses[i]);
    with = count();
    ck_assert_uint_eq(with.fds_open, before.fds_open + 5);
    ck_assert_uint_eq(with.fds_unaccounted, 5);
    for (size_t i = 0; i < 5; i++)
        close(leaked[i]);
    ck_assert_uint_eq(count().fds_unaccounted, 0);
}

static unsigned n_drifts;
static struct monitor_drift last_drift;

static void note_drift(void *context, const struct monitor_drift *drift) {
    (void)context;
    last_drift = *drift;
    n_drifts++;
}

TEST(test_p08_leak_shows_and_is_told_once, .setup = open_core, .teardown = close_core) {
    void *leak;

    core->monitor.drift = note_drift;
    monitor_start(&core->monitor);
    ck_assert_uint_lt(count().resident_unaccounted, 8 * MIB);
    ck_assert_uint_eq(n_drifts, 0);
    leak = mmap(NULL, 64 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ck_assert_ptr_ne(leak, MAP_FAILED);
    memset(leak, 1, 64 * MIB);
    ck_assert_uint_ge(count().resident_unaccounted, 56 * MIB);
    (void)count();
    ck_assert_uint_eq(n_drifts, 1);
    ck_assert(last_drift.beyond && last_drift.subject == MONITOR_RESIDENT);
    ck_assert_int_gt(last_drift.unaccounted, last_drift.bound);
    munmap(leak, 64 * MIB);
    ck_assert_uint_lt(count().resident_unaccounted, 8 * MIB);
    ck_assert_uint_eq(n_drifts, 2);
    ck_assert(!last_drift.beyond);
}

/* What peers make us hold is explained: it is no leak, however much it is. */
TEST(test_p08_memory_for_peers_is_accounted_for, .setup = open_core, .teardown = close_core) {
    struct account *account;
    struct region region;
    void *object;

    ck_assert_int_eq(ledger_ref_account(&core->ledger, 4321, core->policy->limits, &account), 0);
    region_init(&region, &core->bus->regions, account);
    monitor_start(&core->monitor);
    while (region.n_blocks < 12 * MIB / REGION_BLOCK) {
        ck_assert_int_eq(region_take(&region, 8192, &object), 0);
        memset(object, 1, 8192);
    }
    ck_assert_uint_lt(count().resident_unaccounted, 4 * MIB);
    region_deinit(&region);
    ck_assert_uint_lt(count().resident_unaccounted, 4 * MIB);
    account_unref(account);
}

/* --- processes --------------------------------------------------------------------------------- */

TEST(test_process_usage_is_of_the_process_that_is_meant) {
    struct process_usage usage, again;
    pid_t child = fork_sleeper();

    ck_assert_int_eq(process_usage_read(&usage, (uint32_t)child, 0), 0);
    ck_assert_uint_gt(usage.resident, 0);
    ck_assert_uint_gt(usage.fds, 0);
    ck_assert_int_eq(process_usage_read(&again, (uint32_t)child, usage.start_time), 0);
    ck_assert_int_eq(process_usage_read(&again, (uint32_t)child, usage.start_time + 1), -ESRCH);
    end_child(child);
    ck_assert_int_eq(process_usage_read(&again, (uint32_t)child, usage.start_time), -ESRCH);
}

TEST(test_process_usage_counts_what_others_opened) {
    struct process_usage before, after;
    int fd;

    ck_assert_int_eq(process_usage_read(&before, 0, 0), 0);
    fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(process_usage_read(&after, 0, 0), 0);
    ck_assert_uint_eq(after.fds, before.fds + 1);
    ck_assert_uint_ge(after.cpu, before.cpu);
    close(fd);
}

static void ignore(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    (void)sensor;
    (void)frame;
    (void)tail;
}

struct heard {
    unsigned own, vm;
    struct vmibus_resources last_own, last_vm;
};

static void hear(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct heard *heard = userdata;

    (void)bus;
    if (message->frame.header.kind != VMIBUS_KIND_RESOURCES)
        return;
    ck_assert_uint_eq(message->frame.header.priority, VMIBUS_PRIORITY_BULK);
    if (message->frame.header.slot) {
        heard->vm++;
        heard->last_vm = message->frame.resources;
    } else {
        heard->own++;
        heard->last_own = message->frame.resources;
    }
}

TEST(test_resources_tell_of_the_bus_and_of_each_process, .setup = open_core, .teardown = close_core, .timeout = 60) {
    static const struct sensor_ops ops = {.send = ignore};
    struct endpoint_identity identity = {.name = "vm"};
    struct process_usage usage;
    struct endpoint *endpoint;
    struct heard heard = {};
    struct sensor sensor;
    struct vmibus *bus = connect_control();

    identity.pid = (uint32_t)fork_sleeper();
    ck_assert_int_eq(process_usage_read(&usage, identity.pid, 0), 0);
    identity.start_time = usage.start_time;
    ck_assert_int_eq(sensor_init(&sensor, core->bus, &ops), 0);
    ck_assert_int_eq(endpoint_new(&endpoint, core->bus, &identity, &sensor, VMIBUS_GROUP_LIFECYCLE, 0), 0);
    vmibus_set_handler(bus, hear, &heard);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", RESOURCES), 0);
    while (heard.own < 2 || heard.vm < 2) {
        ck_assert_int_ge(vmibus_core_dispatch(core, -1), 0);
        ck_assert_int_eq(vmibus_dispatch(bus), 0);
    }
    ck_assert_uint_eq(heard.last_own.pid, (uint32_t)getpid());
    ck_assert_int_eq(heard.last_own.fds_unaccounted, 0);
    ck_assert_uint_gt(heard.last_own.resident, 0);
    ck_assert_uint_eq(heard.last_vm.pid, identity.pid);
    ck_assert_uint_gt(heard.last_vm.resident, 0);
    ck_assert_int_eq(heard.last_vm.fds_unaccounted, 0);
    /* A process that has gone is nobody's: the number may be another's. */
    end_child((pid_t)identity.pid);
    heard.vm = heard.own = 0;
    while (heard.own < 1) {
        ck_assert_int_ge(vmibus_core_dispatch(core, -1), 0);
        ck_assert_int_eq(vmibus_dispatch(bus), 0);
    }
    ck_assert_uint_eq(heard.vm, 0);
    vmibus_free(bus);
    sensor_deinit(&sensor);
}

HARNESS_SUITE("monitor", HARNESS_QUICK)
