/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* vmibus-memd among a bus, controls and sensors, of whom each may lie. */
#include <check.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/memd.h"
#include "harness.h"

#define TOKEN (UINT64_C(7) << 32 | 1)
#define OTHER_UID 12345

static const uint8_t CONTROL[16] = {0xc0, 1}, SENSOR[16] = {0x5e, 2}, STRANGER[16] = {0x57, 3};

static struct memd memd;
static int bus, control, sensor, ram;
static uint64_t epoch;

/* All that a bus tells of one VM. */
static void tell_table(bool fence) {
    bus_session(bus, CONTROL, geteuid(), VMIBUS_ROLE_CONTROL);
    bus_session(bus, SENSOR, geteuid(), VMIBUS_ROLE_SENSOR);
    bus_opened(bus, 1, "vm", 0);
    if (fence)
        bus_issue(bus, 1, CONTROL, TOKEN);
}

static void begin(const char *config) {
    struct vmibus_ack ack;

    wire_be_sensor();
    memd_start(&memd, config);
    bus = memd_link(&memd);
    tell_table(true);
    bus_synced(bus);
    control = memd_channel(&memd, VMIBUS_ROLE_CONTROL, CONTROL);
    sensor = memd_channel(&memd, VMIBUS_ROLE_SENSOR, SENSOR);
    ram = memd_ram();
    ack = sensor_propose(sensor, 1, "vm", 0, ram, true);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    epoch = ack.epoch;
}

static void end(void) {
    close(control);
    close(sensor);
    close(bus);
    close(ram);
    memd_stop(&memd);
}

static void expect_write(uint64_t token, enum vmibus_error error, enum vmibus_reason reason) {
    struct vmibus_ack ack = control_write(control, 1, token, epoch);

    ck_assert_msg(ack.error == error && ack.reason == reason, "error %u, reason %u, instead of error %u, reason %u", ack.error,
                  ack.reason, error, reason);
}

/* Whether the link was lost, as memd sees it, nobody is told: a write says it. */
static void await_suspension(void) {
    while (control_write(control, 1, TOKEN, epoch).reason != VMIBUS_REASON_NO_LINK)
        continue;
}

static uint64_t octets_written(void) {
    uint64_t octets;

    ck_assert_int_eq(pread(ram, &octets, sizeof(octets), 4096), sizeof(octets));
    return octets;
}

/* --- leases ------------------------------------------------------------------------------------ */

TEST(test_write_through_a_channel_of_its_own) {
    begin("");
    expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(octets_written(), TOKEN);
    expect_write(TOKEN + 1, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_NONE);
    end();
}

TEST(test_p05_tokens_are_suspended_until_a_link_has_told_all) {
    begin("");
    close(bus);
    await_suspension();
    bus = memd_link(&memd);
    tell_table(true);
    expect_write(TOKEN, VMIBUS_ERROR_BUSY, VMIBUS_REASON_NO_LINK);
    bus_synced(bus);
    expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    end();
}

TEST(test_p05_token_that_is_not_told_again_is_revoked) {
    begin("");
    close(bus);
    bus = memd_link(&memd);
    tell_table(false);
    bus_synced(bus);
    expect_write(TOKEN, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_REVOKED);
    bus_issue(bus, 1, CONTROL, TOKEN);
    expect_write(TOKEN, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_REVOKED);
    end();
}

/* Whoever was told of a revocation, or of a lease, finds that the authority has heard of it. */
TEST(test_p05_the_link_is_heard_before_clients) {
    begin("");
    for (uint64_t token = TOKEN + 1; token < TOKEN + 500; token++) {
        bus_issue(bus, 1, CONTROL, token);
        expect_write(token, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
        bus_revoke(bus, 1, token);
        expect_write(token, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_REVOKED);
    }
    end();
}

TEST(test_p05_revocation_over_the_link_is_answered) {
    struct vmibus_frame drained;

    begin("");
    bus_revoke(bus, 1, TOKEN);
    drained = wire_await(bus, VMIBUS_KIND_FENCE_DRAINED);
    ck_assert_uint_eq(drained.fence_drained.token, TOKEN);
    /* Asked again after the link was lost, it is answered again. */
    close(bus);
    bus = memd_link(&memd);
    tell_table(false);
    bus_revoke(bus, 1, TOKEN);
    drained = wire_await(bus, VMIBUS_KIND_FENCE_DRAINED);
    ck_assert_uint_eq(drained.fence_drained.token, TOKEN);
    end();
}

TEST(test_p05_token_of_another_session) {
    int other;

    begin("");
    bus_session(bus, STRANGER, geteuid(), VMIBUS_ROLE_CONTROL);
    other = memd_channel(&memd, VMIBUS_ROLE_CONTROL, STRANGER);
    ck_assert_uint_eq(control_write(other, 1, TOKEN, epoch).reason, VMIBUS_REASON_NOT_RIGHTS_HOLDER);
    close(other);
    end();
}

/* --- sessions ---------------------------------------------------------------------------------- */

TEST(test_p01_session_of_another_user_is_no_use) {
    int fd;

    begin("[rule a]\neverybody = yes\nendpoints = *\ncapabilities = all\n");
    fd = memd_say_hello(&memd, OTHER_UID, VMIBUS_ROLE_CONTROL, VMIBUS_CHANNEL_MEMORY, CONTROL);
    wire_expect_end(fd, VMIBUS_ERROR_DENIED, VMIBUS_REASON_BAD_SESSION);
    close(fd);
    expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    end();
}

TEST(test_p01_session_in_another_role_is_no_use) {
    int fd;

    begin("");
    fd = memd_say_hello(&memd, geteuid(), VMIBUS_ROLE_SENSOR, VMIBUS_CHANNEL_MEMORY, CONTROL);
    wire_expect_end(fd, VMIBUS_ERROR_DENIED, VMIBUS_REASON_BAD_SESSION);
    close(fd);
    fd = memd_say_hello(&memd, geteuid(), VMIBUS_ROLE_CONTROL, VMIBUS_CHANNEL_BUS, CONTROL);
    wire_expect_end(fd, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NOT_BUILT);
    close(fd);
    end();
}

TEST(test_p01_session_that_is_unknown_waits_and_is_refused) {
    int fd;

    begin("[daemon]\nhello-timeout-ms = 200\n");
    fd = memd_say_hello(&memd, geteuid(), VMIBUS_ROLE_CONTROL, VMIBUS_CHANNEL_MEMORY, STRANGER);
    wire_expect_end(fd, VMIBUS_ERROR_DENIED, VMIBUS_REASON_BAD_SESSION);
    close(fd);
    end();
}

TEST(test_hello_that_outran_the_bus_is_welcomed) {
    int fd;

    begin("");
    fd = memd_say_hello(&memd, geteuid(), VMIBUS_ROLE_CONTROL, VMIBUS_CHANNEL_MEMORY, STRANGER);
    expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE); /* it has been read by now */
    bus_session(bus, STRANGER, geteuid(), VMIBUS_ROLE_CONTROL);
    (void)wire_await(fd, VMIBUS_KIND_WELCOME);
    close(fd);
    end();
}

TEST(test_p05_session_that_was_closed) {
    int fd;

    begin("[daemon]\nhello-timeout-ms = 200\n");
    bus_closed(bus, CONTROL);
    wire_expect_end(control, VMIBUS_ERROR_GONE, VMIBUS_REASON_BAD_SESSION);
    fd = memd_say_hello(&memd, geteuid(), VMIBUS_ROLE_CONTROL, VMIBUS_CHANNEL_MEMORY, CONTROL);
    wire_expect_end(fd, VMIBUS_ERROR_DENIED, VMIBUS_REASON_BAD_SESSION);
    close(fd);
    end();
}

TEST(test_p05_bus_hears_that_a_channel_closed) {
    struct vmibus_frame lost;
    int second;

    begin("");
    second = memd_channel(&memd, VMIBUS_ROLE_CONTROL, CONTROL);
    close(control);
    control = second;
    expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE); /* with the first of two nothing is lost */
    close(control);
    lost = wire_await(bus, VMIBUS_KIND_SESSION_LOST);
    ck_assert_mem_eq(lost.session_lost.session, CONTROL, sizeof(CONTROL));
    control = memd_channel(&memd, VMIBUS_ROLE_CONTROL, CONTROL);
    end();
}

TEST(test_sessions_and_endpoints_that_are_not_told_again_are_over) {
    begin("");
    close(bus);
    await_suspension();
    bus = memd_link(&memd);
    bus_session(bus, SENSOR, geteuid(), VMIBUS_ROLE_SENSOR);
    bus_synced(bus);
    wire_expect_end(control, VMIBUS_ERROR_GONE, VMIBUS_REASON_BAD_SESSION);
    ck_assert_uint_eq(sensor_propose(sensor, 1, "vm", 0, ram, true).error, VMIBUS_ERROR_GONE);
    end();
}

TEST(test_p06_contexts_are_published_again) {
    struct vmibus_frame frame = wire_frame(VMIBUS_KIND_MEM_END), told;

    begin("");
    close(bus);
    await_suspension();
    frame.header.direction = VMIBUS_DIRECTION_UP;
    frame.header.slot = 1;
    frame.header.generation = memd_generation(1);
    frame.mem_end.reason = VMIBUS_REASON_RESET;
    ck_assert_uint_eq(wire_ask(sensor, &frame, NULL, 0).ack.error, VMIBUS_ERROR_OK);
    bus = memd_link(&memd);
    tell_table(true);
    bus_synced(bus);
    told = wire_await(bus, VMIBUS_KIND_MEMCTX_INVALIDATED);
    ck_assert_uint_eq(told.memctx_invalidated.epoch, epoch);
    ck_assert_uint_eq(told.memctx_invalidated.reason, VMIBUS_REASON_RESET);
    expect_write(TOKEN, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_RESET);
    end();
}

/* --- links that are none ----------------------------------------------------------------------- */

TEST(test_p09_bus_of_another_user_is_none) {
    int fd;

    begin("[daemon]\nbus-user = 0\n[rule a]\neverybody = yes\nendpoints = *\ncapabilities = all\n");
    fd = memd_say_hello(&memd, OTHER_UID, VMIBUS_ROLE_BUS, VMIBUS_CHANNEL_LINK, NULL);
    wire_expect_end(fd, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_GRANT);
    close(fd);
    expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    end();
}

TEST(test_p09_second_bus_is_refused) {
    int fd;

    begin("");
    fd = memd_say_hello(&memd, geteuid(), VMIBUS_ROLE_BUS, VMIBUS_CHANNEL_LINK, NULL);
    wire_expect_end(fd, VMIBUS_ERROR_BUSY, VMIBUS_REASON_HELD);
    close(fd);
    expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    end();
}

TEST(test_p09_control_that_speaks_as_the_bus) {
    struct vmibus_frame issue = wire_frame(VMIBUS_KIND_FENCE_ISSUE);

    begin("");
    issue.header.slot = 1;
    issue.header.generation = memd_generation(1);
    issue.fence_issue.token = TOKEN + 5;
    memcpy(issue.fence_issue.session, CONTROL, sizeof(CONTROL));
    wire_expect(control, &issue, NULL, 0, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_KIND);
    expect_write(TOKEN + 5, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_NONE);
    end();
}

TEST(test_p09_link_that_ends_amidst_a_frame) {
    struct vmibus_frame issue = wire_frame(VMIBUS_KIND_FENCE_ISSUE);

    begin("");
    for (unsigned i = 0; i < 20; i++) {
        ck_assert(wire_write(bus, &issue, 1 + i * 6));
        close(bus);
        await_suspension();
        bus = memd_link(&memd);
        tell_table(true);
        bus_synced(bus);
        expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    }
    end();
}

TEST(test_p09_half_a_frame_on_the_link_has_a_deadline) {
    struct vmibus_frame issue = wire_frame(VMIBUS_KIND_FENCE_ISSUE);

    begin("[daemon]\nframe-timeout-ms = 200\n");
    ck_assert(wire_write(bus, &issue, 60));
    (void)wire_await_end(bus);
    await_suspension();
    end();
}

TEST(test_p09_noise_on_the_link_ends_it) {
    struct vmibus_frame write = control_write_frame(1, TOKEN, 0);

    begin("");
    ck_assert(wire_send(bus, &write, NULL, 0)); /* known, and no bus says it */
    (void)wire_await_end(bus);
    await_suspension();
    end();
}

/* --- who the VM is ----------------------------------------------------------------------------- */

static void expect_identity(uint8_t uuid_of_bus, const char *name, uint8_t uuid, bool identify, int64_t value) {
    struct vmibus_ack ack;

    bus_opened(bus, 2, "web", uuid_of_bus);
    ack = sensor_propose(sensor, 2, name, uuid, ram, identify);
    if (value >= 0) {
        ck_assert_uint_eq(ack.error, VMIBUS_ERROR_DENIED);
        ck_assert_uint_eq(ack.reason, VMIBUS_REASON_OTHER_IDENTITY);
    } else {
        ck_assert_uint_eq(ack.error, VMIBUS_ERROR_OK);
    }
}

TEST(test_p12_bus_that_lies_about_a_name) {
    begin("");
    expect_identity(0, "db", 0, true, 1);
    expect_identity(0, "db", 9, true, 1);
    expect_identity(0, "we", 0, true, 1);
    expect_identity(0, "web2", 0, true, 1);
    expect_identity(0, "web", 0, false, 0);
    expect_identity(0, "web", 0, true, -1);
    end();
}

TEST(test_p12_bus_that_lies_about_a_uuid) {
    begin("");
    expect_identity(8, "web", 9, true, 2);
    expect_identity(8, "web", 8, true, -1);
    end();
}

/* By one UUID it is one VM, and what may be done in its memory is decided by the name that its sensor says. */
TEST(test_p01_policy_goes_by_the_sensors_name) {
    begin("[rule a]\nuser = 0\nendpoints = vm\ncapabilities = all\n"
          "[rule b]\nuser = 0\nendpoints = web\ncapabilities = OBSERVE MEM_WRITE WRITE_PHYSICAL\n");
    expect_identity(8, "secret", 8, true, -1);
    bus_issue(bus, 2, CONTROL, TOKEN + 1);
    ck_assert_uint_eq(control_write(control, 2, TOKEN + 1, epoch + 1).error, VMIBUS_ERROR_DENIED);
    end();
}

/* A UUID that only the bus says gives nobody anything, whether it says it before the sensor or after. */
TEST(test_p01_policy_goes_by_the_sensors_uuid, .iterations = 2) {
    const uint8_t said = _i ? 8 : 0;

    begin("[rule a]\nuser = 0\nendpoints = vm\ncapabilities = all\n"
          "[rule b]\nuser = 0\nendpoints = uuid:08000000-0000-0000-0000-000000000000\ncapabilities = all\n");
    expect_identity(8, "web", said, true, -1);
    bus_opened(bus, 2, "web", 8);
    bus_issue(bus, 2, CONTROL, TOKEN + 1);
    if (said)
        ck_assert_uint_ne(control_write(control, 2, TOKEN + 1, epoch + 1).error, VMIBUS_ERROR_DENIED);
    else
        ck_assert_uint_eq(control_write(control, 2, TOKEN + 1, epoch + 1).error, VMIBUS_ERROR_DENIED);
    end();
}

/* --- peers ------------------------------------------------------------------------------------- */

TEST(test_p09_channel_that_is_never_read) {
    struct vmibus_frame query = wire_frame(VMIBUS_KIND_MEM_QUERY);
    int deaf;

    begin("");
    query.mem_query.query = VMIBUS_MEMORY_QUERY_COUNTERS;
    bus_session(bus, STRANGER, geteuid(), VMIBUS_ROLE_CONTROL);
    deaf = memd_channel(&memd, VMIBUS_ROLE_CONTROL, STRANGER);
    while (send(deaf, &query, sizeof(query), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(query))
        continue;
    for (unsigned i = 0; i < 100; i++)
        expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    close(deaf);
    end();
}

TEST(test_p09_control_gives_no_descriptors) {
    struct vmibus_frame query = wire_frame(VMIBUS_KIND_MEM_QUERY);

    begin("");
    query.mem_query.query = VMIBUS_MEMORY_QUERY_COUNTERS;
    ck_assert(wire_send_fds(control, &query, sizeof(query), &ram, 1));
    wire_expect_end(control, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FDS);
    end();
}

TEST(test_counters_of_the_authority) {
    struct vmibus_frame query = wire_frame(VMIBUS_KIND_MEM_QUERY), answer;
    struct vmibus_counter_value values[WIRE_TAIL / sizeof(struct vmibus_counter_value)];
    uint64_t writes = 0;

    begin("");
    expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    query.mem_query.query = VMIBUS_MEMORY_QUERY_COUNTERS;
    ck_assert(wire_send(control, &query, NULL, 0));
    answer = wire_answer(control, query.header.correlation, values);
    ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    for (size_t i = 0; i < answer.ack.count; i++)
        if (values[i].counter == VMIBUS_COUNTER_MEMWRITES)
            writes = values[i].value;
    ck_assert_uint_eq(writes, 1);
    end();
}

/* --- the process ------------------------------------------------------------------------------- */

TEST(test_p06_epochs_of_another_start_are_others) {
    uint64_t before;

    begin("");
    before = epoch;
    memd_kill(&memd);
    close(bus);
    close(control);
    close(sensor);
    memd_restart(&memd);
    bus = memd_link(&memd);
    tell_table(true);
    bus_synced(bus);
    control = memd_channel(&memd, VMIBUS_ROLE_CONTROL, CONTROL);
    sensor = memd_channel(&memd, VMIBUS_ROLE_SENSOR, SENSOR);
    expect_write(TOKEN, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE);
    epoch = sensor_propose(sensor, 1, "vm", 0, ram, true).epoch;
    ck_assert_uint_gt(epoch >> 32, before >> 32);
    expect_write(TOKEN, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    end();
}

/* The socket outlives it: who connects while nobody is there is served by the next one, which begins anew after a kill. */
TEST(socket_of_a_service_manager_is_served, .timeout = 60) {
    struct vmibus_frame hello = wire_hello(), frame;
    struct memd activated;
    int link, early;

    memd_start_activated(&activated, "");
    link = memd_link(&activated);
    close(link);
    memd_kill(&activated);
    early = wire_connect(activated.path);
    hello.hello.role = VMIBUS_ROLE_BUS;
    hello.hello.channel = VMIBUS_CHANNEL_LINK;
    ck_assert(wire_send(early, &hello, NULL, 0));
    memd_restart(&activated);
    do
        ck_assert(wire_receive(early, &frame, NULL));
    while (frame.header.kind != VMIBUS_KIND_WELCOME);
    close(early);
    memd_stop(&activated);
}

HARNESS_SUITE("memd", HARNESS_QUICK)
