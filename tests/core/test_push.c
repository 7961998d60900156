/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Sensors that push, on a whole bus with synthetic VMs: the watch sensor, and the one for Linux where there is none. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/client.h>
#include <vmibus/core.h>

#include "harness.h"
#include "stub/stub_map.h"

#define WAIT_MS 30000
#define CHANGES 64

static struct vmibus_core *core;
static struct vmibus *bus, *writer;
static struct vmibus_endpoint endpoint;
static struct vmibus_memctx memctx;
static struct vmibus_watch_changed changes[CHANGES];
static uint8_t last_tail[8192];
static size_t n_changes, n_gaps, n_processes, n_degraded;
static uint64_t token, power;
static uint8_t picture[8]; /* of the beginning of the buffer, by what was told of it */

static void hear(struct vmibus *from, struct vmibus_message *message, void *userdata) {
    const struct vmibus_frame *frame = &message->frame;

    (void)from;
    (void)userdata;
    switch (frame->header.kind) {
    case VMIBUS_KIND_MEMCTX:
        endpoint = (struct vmibus_endpoint){.slot = frame->header.slot, .generation = frame->header.generation};
        memctx = frame->memctx;
        break;
    case VMIBUS_KIND_WATCH_CHANGED:
        ck_assert_uint_lt(n_changes, CHANGES);
        changes[n_changes++] = frame->watch_changed;
        if (frame->header.tail_length)
            memcpy(last_tail, message->tail, frame->header.tail_length);
        for (uint64_t i = 0; i < frame->header.tail_length / 2; i++)
            if (frame->watch_changed.address + i - STUB_BUFFER_GVA < sizeof(picture))
                picture[frame->watch_changed.address + i - STUB_BUFFER_GVA] = last_tail[frame->header.tail_length / 2 + i];
        break;
    case VMIBUS_KIND_GAP:
        n_gaps++;
        break;
    case VMIBUS_KIND_PROCESS:
        n_processes++;
        break;
    case VMIBUS_KIND_SENSOR:
        n_degraded += frame->sensor.state == VMIBUS_SENSOR_STATE_DEGRADED;
        break;
    default:
        break;
    }
}

static void load(const char *name, const struct vmibus_sensor_option *option) {
    const char *modules = getenv("VMIBUS_SENSOR_DIR");
    char path[PATH_MAX];

    if (!modules)
        test_skip("VMIBUS_SENSOR_DIR does not tell where the built sensors are");
    snprintf(path, sizeof(path), "%s/%s.so", modules, name);
    ck_assert_int_eq(vmibus_core_load_sensor(core, path, option, option ? 1 : 0), 0);
}

static void wait_ready(void) {
    while (memctx.state != VMIBUS_MEMCTX_STATE_READY)
        ck_assert_int_eq(vmibus_wait(bus, WAIT_MS), 0);
}

static uint64_t take(enum vmibus_lease_class class) {
    uint64_t taken;

    ck_assert_int_eq(vmibus_lease_acquire(writer, &endpoint, class, VMIBUS_LEASE_MODE_FAIL, 0, &taken, NULL), 0);
    return taken;
}

static void open_bus(void) {
    const struct vmibus_core_options options = {
        .struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1, .queue_depth = 32};
    const struct vmibus_sensor_option option = {"vms", "1"}, interval = {"interval-ms", "1"};

    ck_assert_int_eq(vmibus_core_new(&core, &options), 0);
    load("stub", &option);
    load("watch", &interval);
    load("linux", NULL);
    ck_assert_int_eq(vmibus_core_connect(core, &bus, "watcher"), 0);
    vmibus_set_handler(bus, hear, NULL);
    ck_assert_int_eq(vmibus_subscribe(bus, "*", VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX)), 0);
    wait_ready();
    ck_assert_int_eq(vmibus_core_connect(core, &writer, "writer"), 0);
    token = take(VMIBUS_LEASE_CLASS_MEMWRITE);
    power = take(VMIBUS_LEASE_CLASS_POWER);
}

/* The core asserts that its ledgers are zero. */
static void close_bus(void) {
    vmibus_free(bus);
    vmibus_free(writer);
    vmibus_core_free(core);
}

#define WITH_BUS .setup = open_bus, .teardown = close_bus

static struct vmibus_watch in_process(uint64_t gva, uint32_t len) {
    return (struct vmibus_watch){.cr3 = stub_process_cr3(0, 0),
                                 .address = gva,
                                 .len = len,
                                 .epoch = memctx.epoch,
                                 .operation = VMIBUS_WATCH_OPERATION_ADD};
}

static int call(const struct vmibus_watch *watch, struct vmibus_message *reply) {
    struct vmibus_frame frame;

    vmibus_command_init(&frame, VMIBUS_KIND_WATCH, &endpoint);
    frame.watch = *watch;
    return vmibus_call(bus, &frame, NULL, 0, reply);
}

static uint32_t begin(const struct vmibus_watch *watch) {
    struct vmibus_message reply;
    uint32_t number;

    ck_assert_int_eq(call(watch, &reply), 0);
    number = (uint32_t)reply.frame.ack.value;
    ck_assert_uint_eq(reply.frame.ack.epoch, memctx.epoch);
    vmibus_message_deinit(&reply);
    return number;
}

static void put(uint64_t gva, const void *data, uint32_t len) {
    const struct vmibus_write write = {
        .cr3 = stub_process_cr3(0, 0), .gva = gva, .data = data, .len = len, .token = token, .epoch = memctx.epoch};

    ck_assert_int_eq(vmibus_memwrite(writer, &endpoint, &write, NULL), 0);
}

static void wait_changes(size_t n) {
    while (n_changes < n)
        ck_assert_int_eq(vmibus_wait(bus, WAIT_MS), 0);
}

/* --- watches ------------------------------------------------------------------------------------------------------ */

TEST(test_a_write_is_seen, WITH_BUS) {
    const struct vmibus_watch watch = in_process(STUB_BUFFER_GVA + 0xff8, 16);
    uint32_t number = begin(&watch);

    put(STUB_BUFFER_GVA + 0xffe, "\xff\xee\xdd", 3);
    wait_changes(1);
    ck_assert_uint_eq(changes[0].watch, number);
    ck_assert_uint_eq(changes[0].address, STUB_BUFFER_GVA + 0xffe);
    ck_assert_uint_eq(changes[0].len, 3);
    ck_assert_uint_eq(changes[0].epoch, memctx.epoch);
    for (size_t i = 0; i < 3; i++)
        ck_assert_uint_eq(last_tail[i], stub_buffer_octet(0, 0xffe + i));
    ck_assert_mem_eq(last_tail + 3, "\xff\xee\xdd", 3);
}

TEST(test_what_does_not_translate_is_refused_with_the_address, WITH_BUS) {
    struct vmibus_watch watch = in_process(STUB_BUFFER_GVA + STUB_BUFFER_SIZE - 4, 8);
    struct vmibus_message reply;

    ck_assert_int_eq(call(&watch, &reply), VMIBUS_ERROR_TRANSLATION);
    ck_assert_uint_eq(reply.frame.ack.reason, VMIBUS_REASON_NOT_PRESENT);
    ck_assert_uint_eq(reply.frame.ack.value, STUB_BUFFER_GVA + STUB_BUFFER_SIZE);
    vmibus_message_deinit(&reply);
    watch = in_process(STUB_RESERVED_GVA, 8);
    ck_assert_int_eq(call(&watch, NULL), VMIBUS_ERROR_TRANSLATION);
    watch = in_process(STUB_NON_CANONICAL_GVA, 8);
    ck_assert_int_eq(call(&watch, NULL), VMIBUS_ERROR_VALIDATION);
}

/* A control that does not read keeps one event waiting for each watch, whatever the guest does: nothing is dropped. */
TEST(test_p09_a_slow_control_gets_fewer_events, WITH_BUS) {
    const struct vmibus_watch watch = in_process(STUB_BUFFER_GVA, sizeof(picture));
    uint32_t looks = 0;

    (void)begin(&watch);
    for (uint64_t i = 0; i < 300; i++) {
        uint8_t octets[sizeof(picture)];

        memset(octets, (int)i + 1, sizeof(octets));
        put(STUB_BUFFER_GVA, octets, sizeof(octets));
        ck_assert_int_ge(vmibus_core_dispatch(core, 1), 0);
    }
    while (picture[0] != (uint8_t)300)
        ck_assert_int_eq(vmibus_wait(bus, WAIT_MS), 0);
    for (size_t i = 0; i < n_changes; i++)
        looks += changes[i].looks;
    ck_assert_uint_le(n_changes, 2);
    ck_assert_uint_gt(looks, n_changes);
    ck_assert_uint_eq(n_gaps, 0);
}

TEST(test_p06_a_watch_ends_with_its_epoch, WITH_BUS) {
    const struct vmibus_watch watch = in_process(STUB_DATA_GVA, 8);
    uint32_t number = begin(&watch);
    uint64_t epoch = memctx.epoch;

    ck_assert_int_eq(vmibus_power(writer, &endpoint, power, VMIBUS_POWER_OPERATION_RESET, NULL), 0);
    wait_changes(1);
    ck_assert_uint_eq(changes[0].watch, number);
    ck_assert_uint_eq(changes[0].epoch, epoch);
    ck_assert_uint_eq(changes[0].flags, VMIBUS_WATCH_CHANGE_ENDED);
    ck_assert_int_eq(call(&watch, NULL), VMIBUS_ERROR_STALE_EPOCH);
    while (memctx.epoch == epoch || memctx.state != VMIBUS_MEMCTX_STATE_READY)
        ck_assert_int_eq(vmibus_wait(bus, WAIT_MS), 0);
    (void)begin(&(struct vmibus_watch){.address = STUB_FREE_GPA,
                                       .len = 8,
                                       .flags = VMIBUS_WATCH_PHYSICAL,
                                       .operation = VMIBUS_WATCH_OPERATION_ADD});
}

/* Whoever goes leaves nothing: the core's ledgers are looked at when it ends, and the memory is held by nobody. */
TEST(test_p08_nothing_is_left_of_a_session, WITH_BUS) {
    struct vmibus_watch watch = in_process(STUB_DATA_GVA, 8);
    struct vmibus *other = bus;

    for (unsigned int i = 0; i < 8; i++) {
        watch.address += 8;
        (void)begin(&watch);
    }
    ck_assert_int_eq(vmibus_core_connect(core, &bus, "another"), 0);
    vmibus_free(other);
    for (unsigned int i = 0; i < 10; i++)
        ck_assert_int_ge(vmibus_core_dispatch(core, 5), 0);
}

TEST(test_removing_ends_it, WITH_BUS) {
    struct vmibus_watch watch = in_process(STUB_BUFFER_GVA, 8);
    uint32_t number = begin(&watch);

    watch = (struct vmibus_watch){.watch = number, .operation = VMIBUS_WATCH_OPERATION_REMOVE};
    ck_assert_int_eq(call(&watch, NULL), 0);
    ck_assert_int_eq(call(&watch, NULL), VMIBUS_ERROR_VALIDATION);
    put(STUB_BUFFER_GVA, "changed!", 8);
    for (unsigned int i = 0; i < 10; i++)
        ck_assert_int_ge(vmibus_core_dispatch(core, 2), 0);
    ck_assert_int_eq(vmibus_dispatch(bus), 0);
    ck_assert_uint_eq(n_changes, 0);
}

/* Nothing happens to the VM after the sensor has come: it is told of what is there all the same. */
TEST(test_a_sensor_that_comes_late) {
    const struct vmibus_core_options options = {.struct_size = sizeof(options), .incarnation = 1, .audit_fd = -1};
    const struct vmibus_sensor_option option = {"vms", "1"};

    ck_assert_int_eq(vmibus_core_new(&core, &options), 0);
    load("stub", &option);
    ck_assert_int_eq(vmibus_core_connect(core, &bus, "watcher"), 0);
    vmibus_set_handler(bus, hear, NULL);
    ck_assert_int_eq(vmibus_subscribe(bus, "*",
                                      VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX) | VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS) |
                                          VMIBUS_KIND_BIT(VMIBUS_KIND_SENSOR)),
                     0);
    wait_ready();
    n_degraded = 0;
    /* It joins the VM, whose place in the roster is newer than its memory context from then on. */
    load("watch", NULL);
    for (unsigned int i = 0; i < 5; i++)
        ck_assert_int_ge(vmibus_core_dispatch(core, 1), 0);
    load("linux", NULL);
    while (n_degraded == 0)
        ck_assert_int_eq(vmibus_wait(bus, WAIT_MS), 0);
    vmibus_free(bus);
    vmibus_core_free(core);
}

/* --- Linux ------------------------------------------------------------------------------------------------------- */

/* The synthetic kernel has a note and no symbols: the sensor says so, and nothing else comes of it. */
TEST(test_p12_a_kernel_without_symbols_is_told_of, WITH_BUS) {
    ck_assert_int_eq(vmibus_subscribe(bus, "*",
                                      VMIBUS_KIND_BIT(VMIBUS_KIND_PROCESS) | VMIBUS_KIND_BIT(VMIBUS_KIND_MODULE) |
                                          VMIBUS_KIND_BIT(VMIBUS_KIND_SENSOR)),
                     0);
    while (n_degraded == 0)
        ck_assert_int_eq(vmibus_wait(bus, WAIT_MS), 0);
    ck_assert_uint_eq(n_processes, 0);
}

HARNESS_SUITE("push", HARNESS_QUICK)
