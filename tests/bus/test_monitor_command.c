/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CMD_MONITOR: a command to a sensor as such. */
#include "harness.h"

#include <string.h>

#include <vmibus/names.h>

#include "bus/stage.h"

static struct fake_control alice;
static struct fake_sensor sensor, other;

static void begin(void) {
    stage_open_default();
    fake_control_open(&alice, 1);
    fake_sensor_open(&other, "other", GROUPS_ALL, 0);
    fake_sensor_open(&sensor, "qemu", GROUPS_ALL, 0);
}

static void end(void) {
    fake_control_close(&alice);
    if (sensor.opened)
        fake_sensor_close(&sensor);
    fake_sensor_close(&other);
    stage_close();
}

static uint64_t submit(const char *name, uint8_t operation, uint32_t slot, const char *text, size_t length) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_CMD_MONITOR, .slot = slot},
        .cmd_monitor = {.operation = operation},
    };

    memcpy(frame.cmd_monitor.sensor, name, strlen(name));
    return fake_control_submit(&alice, &frame, text, length);
}

#define add(text) submit("qemu", VMIBUS_MONITOR_OPERATION_ADD, 0, text, strlen(text))

TEST(test_goes_to_the_sensor_of_that_name, .setup = begin, .teardown = end) {
    uint64_t command = add("web=/run/web.qmp");
    const struct entry *entry = fake_sensor_next(&sensor);

    ck_assert_uint_eq(entry->frame.header.kind, VMIBUS_KIND_CMD_MONITOR);
    ck_assert_uint_eq(entry->frame.header.slot, 0);
    ck_assert_str_eq(entry->tail, "web=/run/web.qmp");
    ck_assert_ptr_null(fake_sensor_next(&other));
    ck_assert_ptr_null(fake_control_ack(&alice, command));
    fake_complete(&sensor, &entry->frame, VMIBUS_ERROR_BUSY);
    assert_ack(&alice, command, BUSY, NONE);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 0);
}

TEST(test_p01_needs_its_capability, .setup = begin, .teardown = end) {
    stage_new_policy();
    stage_allow(1, "*", CAPABILITIES_ALL & ~(uint32_t)VMIBUS_CAP_ADMIN, 0);
    stage_apply_policy();
    assert_ack(&alice, add("web=/run/web.qmp"), DENIED, NO_CAPABILITY);
    /* All that there is on some VMs is not that. */
    stage_new_policy();
    stage_allow(1, "web*", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    assert_ack(&alice, add("web=/run/other.qmp"), DENIED, NO_CAPABILITY);
    ck_assert_ptr_null(fake_sensor_next(&sensor));
}

TEST(test_p09_nonsense_reaches_no_sensor, .setup = begin, .teardown = end) {
    assert_ack(&alice, submit("nobody", VMIBUS_MONITOR_OPERATION_ADD, 0, "a=/b", 4), UNSUPPORTED, NO_PROVIDER);
    assert_ack(&alice, submit("", VMIBUS_MONITOR_OPERATION_ADD, 0, "a=/b", 4), UNSUPPORTED, NO_PROVIDER);
    assert_ack(&alice, submit("qemu", 0, 0, "a=/b", 4), VALIDATION, BAD_FIELD);
    assert_ack(&alice, submit("qemu", 3, 0, "a=/b", 4), VALIDATION, BAD_FIELD);
    assert_ack(&alice, submit("qemu", VMIBUS_MONITOR_OPERATION_REMOVE, 1, "a", 1), VALIDATION, BAD_FIELD);
    assert_ack(&alice, submit("qemu", VMIBUS_MONITOR_OPERATION_ADD, 0, "a=/b\0c", 6), VALIDATION, BAD_FIELD);
    ck_assert_ptr_null(fake_sensor_next(&sensor));
}

TEST(test_p07_is_answered_when_the_sensor_goes, .setup = begin, .teardown = end) {
    uint64_t command = add("web=/run/web.qmp");

    fake_sensor_close(&sensor);
    sensor.opened = false;
    assert_ack(&alice, command, GONE, WITHDRAWN);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 0);
}

/* Whoever asked is gone: the sensor is told, and what it says then is nobody's. */
TEST(test_is_cancelled_with_its_control, .setup = begin, .teardown = end) {
    const struct vmibus_frame *frame;

    add("web=/run/web.qmp");
    frame = fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_MONITOR);
    fake_control_close(&alice);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&sensor, VMIBUS_KIND_CANCEL));
    fake_complete(&sensor, frame, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 0);
    fake_control_open(&alice, 1);
}

HARNESS_SUITE("commands to sensors", HARNESS_QUICK)
