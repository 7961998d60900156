/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* CMD_MONITOR: a command to a sensor as such. */
#include "harness.h"

#include <errno.h>
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

/* Whoever takes the name of another gets nothing that is meant for that one. */
TEST(test_p09_name_that_two_have_means_neither, .setup = begin, .teardown = end) {
    struct fake_sensor double_;
    uint64_t command;

    fake_sensor_open(&double_, "qemu", GROUPS_ALL, 0);
    command = add("web=/run/web.qmp");
    ck_assert_uint_eq(fake_control_ack(&alice, command)->value, 2);
    assert_ack(&alice, command, VALIDATION, SENSOR_NAME);
    ck_assert_ptr_null(fake_sensor_next(&sensor));
    ck_assert_ptr_null(fake_sensor_next(&double_));
    fake_sensor_close(&double_);
    add("web=/run/web.qmp");
    ck_assert_ptr_nonnull(fake_sensor_next(&sensor));
}

/* --- audit ----------------------------------------------------------------------------------- */

TEST(test_record_tells_what_is_followed, .setup = begin, .teardown = end) {
    struct vmibus_audit_record record;

    add("web=/run/a-folder-with-a-long-name/and-another-one-below-that/web.qmp");
    ck_assert_int_eq(vmibus_audit_read(stage.audit.header, stage.audit.header->written, &record), 1);
    ck_assert_uint_eq(record.kind, VMIBUS_KIND_CMD_MONITOR);
    ck_assert_uint_eq(record.detail, VMIBUS_MONITOR_OPERATION_ADD);
    ck_assert_str_eq(record.name, "web=/run/a-folder-with-a-long-name/and-another-one-below-that/w");
}

/* Also what fails was begun: a sensor may have done half of it. */
TEST(test_p05_record_tells_what_was_passed_on, .setup = begin, .teardown = end) {
    const struct vmibus_audit_record *record;

    add("web=/run/web.qmp");
    record = &stage.audit.records[stage.audit.header->written - 1];
    ck_assert_uint_eq(record->flags & VMIBUS_AUDIT_BEGUN, VMIBUS_AUDIT_BEGUN);
    fake_complete(&sensor, &fake_sensor_next(&sensor)->frame, VMIBUS_ERROR_UNSUPPORTED);
    ck_assert_uint_eq(record->flags & VMIBUS_AUDIT_BEGUN, VMIBUS_AUDIT_BEGUN);
    ck_assert_uint_eq(record->error, VMIBUS_ERROR_UNSUPPORTED);
    fake_sensor_close(&sensor);
    add("web=/run/web.qmp");
    record = &stage.audit.records[stage.audit.header->written - 1];
    ck_assert_uint_eq(record->flags & VMIBUS_AUDIT_BEGUN, 0);
    fake_sensor_open(&sensor, "qemu", GROUPS_ALL, 0);
}

/* A disk that takes its time. */
static struct audit_waiter *parked;

static enum audit_answer park(void *context, const struct vmibus_audit_record *record, struct audit_waiter *waiter, int *error) {
    (void)context;
    (void)record;
    (void)error;
    parked = waiter;
    return AUDIT_WAIT;
}

static void keep_nothing(void *context, struct vmibus_audit_record *record) {
    (void)context;
    (void)record;
}

static void count_nothing(void *context, struct audit_counters *counters) {
    (void)context;
    *counters = (struct audit_counters){};
}

static const struct audit_ops slow_disk = {.keep = keep_nothing, .require = park, .count = count_nothing};

static uint64_t add_strictly(void) {
    stage.audit.ops = &slow_disk;
    stage.audit.strict = true;
    return add("web=/run/web.qmp");
}

static void is_durable(int error) {
    stage.audit.ops = NULL;
    stage.audit.strict = false;
    parked->recorded(parked, error);
}

TEST(test_p05_strict_waits_for_the_disk, .setup = begin, .teardown = end) {
    uint64_t command = add_strictly();

    ck_assert_ptr_null(fake_sensor_next(&sensor));
    ck_assert_ptr_null(fake_control_ack(&alice, command));
    is_durable(0);
    ck_assert_str_eq(fake_sensor_next(&sensor)->tail, "web=/run/web.qmp");
}

TEST(test_p05_what_cannot_be_recorded_is_not_done, .setup = begin, .teardown = end) {
    uint64_t command = add_strictly();

    is_durable(-ENOSPC);
    assert_ack(&alice, command, IO, NOT_RECORDED);
    ck_assert_ptr_null(fake_sensor_next(&sensor));
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 0);
}

/* What was checked at receipt is checked again. */
TEST(test_p01_what_changes_meanwhile_counts, .setup = begin, .teardown = end) {
    uint64_t command = add_strictly();

    stage_new_policy();
    stage_allow(1, "*", VMIBUS_CAP_OBSERVE, 0);
    stage_apply_policy();
    is_durable(0);
    assert_ack(&alice, command, DENIED, NO_CAPABILITY);
    ck_assert_ptr_null(fake_sensor_next(&sensor));
    stage_new_policy();
    stage_allow(1, "*", CAPABILITIES_ALL, 0);
    stage_apply_policy();
    command = add_strictly();
    fake_sensor_close(&sensor);
    sensor.opened = false;
    is_durable(0);
    assert_ack(&alice, command, UNSUPPORTED, NO_PROVIDER);
}

HARNESS_SUITE("commands to sensors", HARNESS_QUICK)
