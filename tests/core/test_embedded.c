/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libvmibus-core as an embedder uses it: the public headers only, the example sensor and the example control. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vmibus/client.h>
#include <vmibus/core.h>

#include "example/watcher.h"
#include "harness.h"

static struct vmibus_core *new_core(void) {
    const struct vmibus_core_options options = {.struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1};
    struct vmibus_core *core;

    ck_assert_int_eq(vmibus_core_new(&core, &options), 0);
    return core;
}

static const char *module_path(const char *file) {
    static char path[PATH_MAX];
    const char *directory = getenv("VMIBUS_SENSOR_DIR");

    if (!directory)
        test_skip("VMIBUS_SENSOR_DIR does not tell where the built sensors are");
    snprintf(path, sizeof(path), "%s/%s", directory, file);
    return path;
}

static void load_heartbeat(struct vmibus_core *core) {
    const struct vmibus_sensor_option option = {"interval_ms", "1"};

    ck_assert_int_eq(vmibus_core_load_sensor(core, module_path("heartbeat.so"), &option, 1), 0);
}

static void find_endpoint(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    struct vmibus_endpoint *endpoint = userdata;

    (void)bus;
    endpoint->slot = message->frame.header.slot;
    endpoint->generation = message->frame.header.generation;
}

/* The example's VM sleeps until it is woken; then its heart beats a few times. */
static void wake_heartbeat(struct vmibus_core *core) {
    struct vmibus_endpoint endpoint = {};
    struct vmibus *bus;
    uint64_t token;

    ck_assert_int_eq(vmibus_core_connect(core, &bus, "waker"), 0);
    vmibus_set_handler(bus, find_endpoint, &endpoint);
    ck_assert_int_eq(vmibus_subscribe(bus, "heartbeat", VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER)), 0);
    ck_assert_int_eq(vmibus_dispatch(bus), 0);
    ck_assert_int_eq(vmibus_lease_acquire(bus, &endpoint, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_FAIL, 0, &token, NULL), 0);
    ck_assert_int_eq(vmibus_power(bus, &endpoint, token, VMIBUS_POWER_OPERATION_WAKEUP, NULL), 0);
    vmibus_free(bus);
}

/* --- both examples, in one process -------------------------------------------------------------- */

static void watch(int output) {
    struct vmibus_core *core = new_core();
    struct vmibus *bus;

    dup2(output, STDOUT_FILENO);
    load_heartbeat(core);
    wake_heartbeat(core);
    if (vmibus_core_connect(core, &bus, "watcher") == 0)
        watcher_run(bus);
    _exit(1);
}

TEST(test_example_control_runs_in_process) {
    int ends[2];
    pid_t child;
    FILE *lines;
    char line[128];
    unsigned n_roster = 0, n_states = 0;

    module_path("heartbeat.so");
    ck_assert_int_eq(pipe(ends), 0);
    child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0)
        watch(ends[1]);
    close(ends[1]);
    lines = fdopen(ends[0], "r");
    while (n_states < 3 && fgets(line, sizeof(line), lines)) {
        n_roster += strstr(line, "ADDED heartbeat") != NULL;
        n_states += strstr(line, "RUNNING") != NULL || strstr(line, "SUSPENDED") != NULL;
    }
    fclose(lines);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    ck_assert_uint_eq(n_roster, 1);
    ck_assert_uint_eq(n_states, 3);
}

/* --- somebody else's event loop ----------------------------------------------------------------- */

static void count(struct vmibus *bus, struct vmibus_message *message, void *userdata) {
    unsigned *n = userdata;

    (void)bus;
    *n += message->frame.header.kind == VMIBUS_KIND_LIFECYCLE;
}

/* Every wakeup is a descriptor: an embedder that does nothing but poll misses nothing. */
TEST(test_p02_descriptors_are_enough) {
    struct vmibus_core *core = new_core();
    struct vmibus *bus;
    unsigned n = 0;

    load_heartbeat(core);
    ck_assert_int_eq(vmibus_core_connect(core, &bus, "poller"), 0);
    vmibus_set_handler(bus, count, &n);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE)), 0);
    wake_heartbeat(core);
    while (n < 4) {
        struct pollfd fds[] = {
            {.fd = vmibus_core_get_fd(core), .events = POLLIN},
            {.fd = vmibus_get_fd(bus), .events = vmibus_get_poll_events(bus)},
        };

        ck_assert_int_gt(poll(fds, 2, -1), 0);
        if (fds[0].revents)
            ck_assert_int_ge(vmibus_core_dispatch(core, 0), 0);
        if (fds[1].revents)
            ck_assert_int_eq(vmibus_dispatch(bus), 0);
    }
    vmibus_free(bus);
    vmibus_core_free(core);
}

/* --- sensors that cannot be had ----------------------------------------------------------------- */

static int refuse_to_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                           const struct vmibus_sensor_option *options, size_t n_options, void **instancep) {
    const struct vmibus_sensor_offer offer = {.name = "half", .groups = VMIBUS_GROUP_POWER};
    struct vmibus_sensor_endpoint *endpoint;

    (void)options;
    (void)n_options;
    (void)instancep;
    /* What it introduced before it failed must not stay. */
    ck_assert_int_eq(api->offer(host, &offer, NULL, &endpoint), 0);
    return -EHOSTDOWN;
}

static void never_stopped(void *instance) {
    (void)instance;
    ck_abort_msg("a sensor that did not start is stopped");
}

TEST(test_p10_sensor_that_cannot_be_had_disturbs_nobody) {
    const struct vmibus_sensor_module broken = {
        .struct_size = sizeof(broken),
        .abi = VMIBUS_SENSOR_ABI,
        .name = "broken",
        .groups = VMIBUS_GROUP_POWER,
        .start = refuse_to_start,
        .stop = never_stopped,
    };
    struct vmibus_sensor_module other = broken;
    struct vmibus_core *core = new_core();
    struct vmibus_message reply;
    struct vmibus *bus;
    unsigned n = 0;

    ck_assert_int_eq(vmibus_core_connect(core, &bus, "bystander"), 0);
    ck_assert_int_eq(vmibus_core_load_sensor(core, "/nonexistent/sensor.so", NULL, 0), -ELIBACC);
    ck_assert_int_eq(vmibus_core_load_sensor(core, "libm.so.6", NULL, 0), -ELIBBAD);
    ck_assert_int_eq(vmibus_core_add_sensor(core, &broken, NULL, 0), -EHOSTDOWN);
    other.abi = VMIBUS_SENSOR_ABI + 1;
    ck_assert_int_eq(vmibus_core_add_sensor(core, &other, NULL, 0), -ELIBBAD);
    other = broken;
    other.struct_size = sizeof(other) - 8;
    ck_assert_int_eq(vmibus_core_add_sensor(core, &other, NULL, 0), -ELIBBAD);
    load_heartbeat(core);
    vmibus_set_handler(bus, count, &n);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_LIFECYCLE)), 0);
    while (n == 0)
        ck_assert_int_eq(vmibus_wait(bus, -1), 0);
    ck_assert_int_eq(vmibus_query(bus, NULL, VMIBUS_QUERY_SENSORS, &reply), 0);
    ck_assert_uint_eq(reply.frame.ack.count, 1);
    vmibus_message_deinit(&reply);
    vmibus_free(bus);
    vmibus_core_free(core);
}

HARNESS_SUITE("embedded", HARNESS_QUICK)
