/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Commands that need no lease, and that a sensor answers with data. */
#include "harness.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/names.h>

#include "bus/stage.h"

#define GROUPS (GROUPS_ALL | VMIBUS_GROUP_SCREEN | VMIBUS_GROUP_REGISTERS)

static struct fake_control alice;
static struct fake_sensor sensor;
static struct endpoint *endpoint;

static void open_with(const struct stage_options *options) {
    stage_open(options);
    fake_sensor_open(&sensor, "fake", GROUPS, 0);
    fake_control_open(&alice, 1);
    endpoint = fake_offer(&sensor, "vm", GROUPS);
}

static void open_stage(void) {
    open_with(&(struct stage_options){});
}

static void close_stage(void) {
    fake_control_close(&alice);
    if (sensor.opened)
        fake_sensor_close(&sensor);
    stage_close();
}

static uint64_t ask(enum vmibus_kind kind) {
    struct vmibus_frame frame = {
        .header = {.kind = (uint16_t)kind, .slot = endpoint->slot, .generation = endpoint->generation}};

    if (kind == VMIBUS_KIND_SCREENSHOT)
        frame.screenshot.format = VMIBUS_IMAGE_FORMAT_PNG;
    return fake_control_submit(&alice, &frame, NULL, 0);
}

static int picture(void) {
    int fd = memfd_create("picture", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, "a picture", 9), 9);
    return fd;
}

/* --- who may ask whom -------------------------------------------------------------------------- */

TEST(test_each_goes_to_the_provider_of_its_group, .setup = open_stage, .teardown = close_stage) {
    struct fake_sensor second;

    fake_sensor_open(&second, "second", VMIBUS_GROUP_SCREEN, 0);
    ck_assert(fake_join(&second, endpoint, VMIBUS_GROUP_SCREEN));
    ask(VMIBUS_KIND_SCREENSHOT);
    ask(VMIBUS_KIND_REGISTERS);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&sensor, VMIBUS_KIND_SCREENSHOT));
    ck_assert_ptr_nonnull(fake_sensor_next_of(&sensor, VMIBUS_KIND_REGISTERS));
    ck_assert_ptr_null(fake_sensor_next_of(&second, VMIBUS_KIND_SCREENSHOT));
    fake_sensor_close(&sensor);
    sensor.opened = false;
    ask(VMIBUS_KIND_SCREENSHOT);
    ck_assert_ptr_nonnull(fake_sensor_next_of(&second, VMIBUS_KIND_SCREENSHOT));
    assert_ack(&alice, ask(VMIBUS_KIND_REGISTERS), UNSUPPORTED, NO_PROVIDER);
    fake_sensor_close(&second);
}

TEST(test_p01_each_needs_its_capability, .setup = open_stage, .teardown = close_stage) {
    static const struct {
        enum vmibus_kind kind;
        uint32_t capability;
    } cases[] = {{VMIBUS_KIND_SCREENSHOT, VMIBUS_CAP_SCREEN}, {VMIBUS_KIND_REGISTERS, VMIBUS_CAP_REGISTERS}};

    sensor.answers = true;
    for (size_t i = 0; i < 2; i++) {
        uint64_t command;

        stage_new_policy();
        stage_allow(1, "*", CAPABILITIES_ALL & ~cases[i].capability, 0);
        stage_apply_policy();
        command = ask(cases[i].kind);
        assert_ack(&alice, command, DENIED, NO_CAPABILITY);
        ck_assert_uint_eq(fake_control_ack(&alice, command)->value, cases[i].capability);
        ck_assert_ptr_null(fake_sensor_next_of(&sensor, cases[i].kind));
        stage_new_policy();
        stage_allow(1, "*", cases[i].capability, 0);
        stage_apply_policy();
        assert_ack(&alice, ask(cases[i].kind), OK, NONE);
        ck_assert_ptr_nonnull(fake_sensor_next_of(&sensor, cases[i].kind));
    }
}

TEST(test_they_are_audited_bounded_and_charged) {
    struct vmibus_audit_record record;
    uint64_t command;

    open_with(&(struct stage_options){.commands = 3});
    command = ask(VMIBUS_KIND_SCREENSHOT);
    ck_assert_int_eq(vmibus_audit_read(stage.audit.header, stage.audit.header->written, &record), 1);
    ck_assert_uint_eq(record.kind, VMIBUS_KIND_SCREENSHOT);
    ck_assert_uint_eq(record.error, VMIBUS_AUDIT_PENDING);
    ask(VMIBUS_KIND_REGISTERS);
    ask(VMIBUS_KIND_REGISTERS);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 3);
    assert_ack(&alice, ask(VMIBUS_KIND_REGISTERS), QUOTA, LIMIT_COMMANDS);
    fake_complete(&sensor, fake_sensor_next_of(&sensor, VMIBUS_KIND_SCREENSHOT), VMIBUS_ERROR_OK);
    assert_ack(&alice, command, OK, NONE);
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 2);
    close_stage();
}

TEST(test_they_are_cancelled_with_their_control_and_answered_gone_with_their_vm, .setup = open_stage, .teardown = close_stage) {
    const struct vmibus_frame *sent;
    uint64_t id;

    ask(VMIBUS_KIND_SCREENSHOT);
    id = fake_sensor_next_of(&sensor, VMIBUS_KIND_SCREENSHOT)->header.correlation;
    fake_control_close(&alice);
    sent = fake_sensor_next_of(&sensor, VMIBUS_KIND_CANCEL);
    ck_assert_ptr_nonnull(sent);
    ck_assert_uint_eq(sent->header.correlation, id);
    fake_control_open(&alice, 1);
    /* Its answer finds nobody; what came along is dropped. */
    {
        int fd = picture();

        fake_answer(&sensor, sent, &(struct vmibus_ack){}, "tail", 4, &fd, 1);
        close(fd);
    }
    ck_assert_uint_eq(stage_used(RESOURCE_COMMANDS), 0);
    id = ask(VMIBUS_KIND_SCREENSHOT);
    fake_withdraw(&sensor, endpoint);
    assert_ack(&alice, id, GONE, WITHDRAWN);
}

/* --- data -------------------------------------------------------------------------------------- */

static struct control_item take_answer(uint64_t command) {
    struct control_item item;

    while (control_take(&alice.control, &item)) {
        alice.delivery++;
        if (item.frame.header.kind == VMIBUS_KIND_ACK && item.frame.header.correlation == command)
            return item;
        control_item_deinit(&item);
    }
    ck_abort_msg("command %ju was not answered", (uintmax_t)command);
}

TEST(test_p08_tail_and_descriptors_reach_who_asked_and_are_charged_to_them, .setup = open_stage, .teardown = close_stage) {
    uint64_t command = ask(VMIBUS_KIND_SCREENSHOT);
    int fds[] = {picture(), picture()};
    struct control_item item;
    char octets[16];

    fake_answer(&sensor, fake_sensor_next_of(&sensor, VMIBUS_KIND_SCREENSHOT), &(struct vmibus_ack){.count = 9, .value = 5},
                "what is in the tail", 19, fds, 2);
    close(fds[0]);
    close(fds[1]);
    ck_assert_uint_eq(alice.control.account->used[RESOURCE_FDS], 2);
    ck_assert_uint_gt(alice.control.account->used[RESOURCE_ANSWERS], 0);
    item = take_answer(command);
    ck_assert_uint_eq(item.frame.ack.error, 0);
    ck_assert_uint_eq(item.frame.ack.count, 9);
    ck_assert_uint_eq(item.frame.ack.value, 5);
    ck_assert_uint_eq(item.frame.header.tail_length, 19);
    ck_assert_mem_eq(item.tail->data, "what is in the tail", 19);
    ck_assert_uint_eq(item.frame.header.fd_count, 2);
    ck_assert_int_eq(pread(item.fds->fds[1], octets, sizeof(octets), 0), 9);
    ck_assert(fcntl(item.fds->fds[0], F_GETFD) & FD_CLOEXEC);
    control_item_deinit(&item);
    ck_assert_uint_eq(stage_used(RESOURCE_FDS), 0);
    ck_assert_uint_eq(stage_used(RESOURCE_ANSWERS), 0);
}

TEST(test_p08_what_may_not_be_had_is_refused_by_name) {
    uint64_t limits[N_RESOURCES], command;
    int fd = picture();

    for (int i = 0; i < N_RESOURCES; i++)
        limits[i] = 100;
    limits[RESOURCE_BYTES] = 16 << 20;
    limits[RESOURCE_FDS] = 0;
    open_with(&(struct stage_options){.limits = limits});
    command = ask(VMIBUS_KIND_SCREENSHOT);
    fake_answer(&sensor, fake_sensor_next_of(&sensor, VMIBUS_KIND_SCREENSHOT), &(struct vmibus_ack){.count = 9}, NULL, 0, &fd, 1);
    assert_ack(&alice, command, QUOTA, LIMIT_FDS);
    command = ask(VMIBUS_KIND_REGISTERS);
    {
        const char tail[4096] = "";

        fake_answer(&sensor, fake_sensor_next_of(&sensor, VMIBUS_KIND_REGISTERS), &(struct vmibus_ack){.count = 1}, tail,
                    sizeof(tail), NULL, 0);
    }
    assert_ack(&alice, command, QUOTA, LIMIT_ANSWERS);
    ck_assert_uint_eq(stage_used(RESOURCE_ANSWERS), 0);
    close(fd);
    close_stage();
}

TEST(test_an_error_brings_no_data, .setup = open_stage, .teardown = close_stage) {
    uint64_t command = ask(VMIBUS_KIND_SCREENSHOT);
    const struct vmibus_ack failed = {.error = VMIBUS_ERROR_IO, .reason = VMIBUS_REASON_SENSOR_FAILED};
    struct control_item item;
    int fd = picture();

    fake_answer(&sensor, fake_sensor_next_of(&sensor, VMIBUS_KIND_SCREENSHOT), &failed, "tail", 4, &fd, 1);
    close(fd);
    item = take_answer(command);
    ck_assert_uint_eq(item.frame.ack.error, VMIBUS_ERROR_IO);
    ck_assert_uint_eq(item.frame.header.tail_length, 0);
    ck_assert_uint_eq(item.frame.header.fd_count, 0);
    control_item_deinit(&item);
}

HARNESS_SUITE("answer", HARNESS_QUICK)
