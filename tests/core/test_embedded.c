/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libvmibus-core as an embedder uses it: the public headers only, the example sensor and the example control. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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
    other.struct_size = offsetof(struct vmibus_sensor_module, retired) - 8;
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

/* --- a sensor that holds RAM -------------------------------------------------------------------- */

/* Offers a VM whose RAM it owns, attaches to it as a sensor that looks into guests does, and withdraws it all the same. */
static struct holder {
    const struct vmibus_sensor_api *api;
    struct vmibus_sensor_endpoint *endpoint;
    uint64_t epoch, retired;
    bool withdraws;
    bool has_ram;
    int ram;
} holder;

static int holder_start(struct vmibus_sensor_host *host, const struct vmibus_sensor_api *api,
                        const struct vmibus_sensor_option *options, size_t n_options, void **instancep) {
    const struct vmibus_sensor_offer offer = {.name = "held", .groups = VMIBUS_GROUP_MEMORY};
    const struct vmibus_layout_range range = {.len = 1 << 20};
    const struct vmibus_sensor_layout layout = {.ranges = &range, .n_ranges = 1, .fds = &holder.ram, .n_fds = 1};

    (void)options;
    (void)n_options;
    *instancep = &holder;
    holder.api = api;
    holder.ram = memfd_create("held", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(holder.ram, 1 << 20), 0);
    ck_assert_int_eq(api->offer(host, &offer, &holder, &holder.endpoint), 0);
    return api->layout(holder.endpoint, &layout);
}

static void holder_stop(void *instance) {
    (void)instance;
    close(holder.ram);
}

static int holder_execute(void *instance, void *userdata, const struct vmibus_sensor_command *command) {
    (void)instance;
    (void)userdata;
    (void)command;
    return -EOPNOTSUPP;
}

static void holder_layout_result(void *instance, void *userdata, uint64_t epoch, enum vmibus_error error,
                                 enum vmibus_reason reason) {
    (void)instance;
    (void)userdata;
    (void)reason;
    ck_assert_int_eq(error, VMIBUS_ERROR_OK);
    holder.epoch = epoch;
    ck_assert_int_eq(holder.api->attach(holder.endpoint, epoch), 0);
}

static void holder_attached(void *instance, void *userdata, const struct vmibus_sensor_ram *ram, enum vmibus_error error,
                            enum vmibus_reason reason) {
    (void)instance;
    (void)userdata;
    (void)reason;
    ck_assert_int_eq(error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ram->n_fds, 1); /* the RAM and no epoch page */
    holder.has_ram = true;
    if (holder.withdraws)
        holder.api->withdraw(holder.endpoint, VMIBUS_REASON_EXIT);
    else
        ck_assert_int_eq(holder.api->end_epoch(holder.endpoint, VMIBUS_REASON_RESET), 0);
}

static void holder_retired(void *instance, void *userdata, uint64_t epoch) {
    (void)instance;
    (void)userdata;
    holder.retired = epoch;
}

static uint64_t counter(struct vmibus *bus, enum vmibus_counter which) {
    const struct vmibus_counter_value *values;
    struct vmibus_message reply;
    uint64_t value = UINT64_MAX;

    ck_assert_int_eq(vmibus_query(bus, NULL, VMIBUS_QUERY_STATS, &reply), 0);
    values = reply.tail;
    for (size_t i = 0; i < reply.frame.ack.count; i++)
        if (values[i].counter == which)
            value = values[i].value;
    vmibus_message_deinit(&reply);
    return value;
}

/* Its own hold keeps its epoch from retiring until it lets go; a handle that it gives up lets go by itself. */
TEST(test_p06_sensor_that_holds_its_own_epoch, .iterations = 2) {
    const struct vmibus_sensor_module module = {
        .struct_size = sizeof(module),
        .abi = VMIBUS_SENSOR_ABI,
        .name = "holder",
        .groups = VMIBUS_GROUP_MEMORY,
        .start = holder_start,
        .stop = holder_stop,
        .execute = holder_execute,
        .layout_result = holder_layout_result,
        .attached = holder_attached,
        .retired = holder_retired,
    };
    struct vmibus_core *core = new_core();
    struct vmibus *bus;

    holder = (struct holder){.withdraws = _i == 1};
    ck_assert_int_eq(vmibus_core_connect(core, &bus, "watcher"), 0);
    ck_assert_int_eq(vmibus_core_add_sensor(core, &module, NULL, 0), 0);
    while (!holder.has_ram)
        ck_assert_int_ge(vmibus_core_dispatch(core, -1), 0);
    if (_i == 0) {
        ck_assert_uint_eq(counter(bus, VMIBUS_COUNTER_EPOCHS_RETIRING), 1);
        ck_assert_uint_eq(holder.retired, 0);
        ck_assert_int_eq(holder.api->detach(holder.endpoint, holder.epoch), 0);
        while (!holder.retired)
            ck_assert_int_ge(vmibus_core_dispatch(core, -1), 0);
        ck_assert_uint_eq(holder.retired, holder.epoch);
    }
    ck_assert_uint_eq(counter(bus, VMIBUS_COUNTER_EPOCHS_RETIRING), 0);
    ck_assert_uint_eq(counter(bus, VMIBUS_COUNTER_ATTACHMENTS), 0);
    vmibus_free(bus);
    vmibus_core_free(core);
}

/* --- answers with data --------------------------------------------------------------------------- */

TEST(test_a_picture_comes_by_a_descriptor_in_process_too) {
    struct vmibus_core *core = new_core();
    struct vmibus_endpoint endpoint = {};
    struct vmibus_message reply;
    struct vmibus_frame frame;
    char head[8];
    struct vmibus *bus;

    ck_assert_int_eq(vmibus_core_load_sensor(core, module_path("stub.so"), NULL, 0), 0);
    ck_assert_int_eq(vmibus_core_connect(core, &bus, "viewer"), 0);
    vmibus_set_handler(bus, find_endpoint, &endpoint);
    ck_assert_int_eq(vmibus_subscribe(bus, "stub-0", VMIBUS_KIND_BIT(VMIBUS_KIND_ROSTER)), 0);
    ck_assert_int_eq(vmibus_dispatch(bus), 0);
    vmibus_command_init(&frame, VMIBUS_KIND_SCREENSHOT, &endpoint);
    frame.screenshot.format = VMIBUS_IMAGE_FORMAT_PNG;
    ck_assert_int_eq(vmibus_call(bus, &frame, NULL, 0, &reply), 0);
    ck_assert_uint_eq(reply.frame.header.fd_count, 1);
    ck_assert_int_eq(pread(reply.fds[0], head, sizeof(head), 0), (ssize_t)sizeof(head));
    ck_assert_mem_eq(head, "\x89PNG\r\n\x1a\n", sizeof(head));
    vmibus_message_deinit(&reply);
    vmibus_command_init(&frame, VMIBUS_KIND_REGISTERS, &endpoint);
    frame.registers.vcpu = UINT32_MAX;
    ck_assert_int_eq(vmibus_call(bus, &frame, NULL, 0, &reply), 0);
    ck_assert_uint_eq(reply.frame.header.tail_length, sizeof(struct vmibus_vcpu_registers));
    vmibus_message_deinit(&reply);
    vmibus_free(bus);
    vmibus_core_free(core);
}

HARNESS_SUITE("embedded", HARNESS_QUICK)
