/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The example sensor against the mock host: what people copy must be right. */
#include "harness.h"

#include <errno.h>
#include <string.h>

#include "mock_host.h"

#define NS_PER_MS UINT64_C(1000000)

extern const struct vmibus_sensor_module vmibus_sensor_module;

static struct mock_host *start(const char *const *options) {
    struct mock_host *host = mock_host_new(&vmibus_sensor_module);

    mock_host_own_time(host);
    ck_assert_int_eq(mock_host_start(host, options), 0);
    return host;
}

static uint64_t power(struct mock_host *host, enum vmibus_power_operation operation) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_CMD_POWER},
                                 .cmd_power = {.operation = (uint8_t)operation}};

    return mock_host_execute(host, mock_host_endpoint(host, "heartbeat"), &frame, NULL, 0);
}

static void check_last(struct mock_host *host, enum vmibus_vm_state state,
                       enum vmibus_lifecycle_cause cause) {
    const struct mock_record *record = mock_host_last(host, MOCK_PUBLISH);

    ck_assert_ptr_nonnull(record);
    ck_assert_int_eq(record->frame.lifecycle.state, state);
    ck_assert_int_eq(record->frame.lifecycle.cause, cause);
}

TEST(test_sleeps_until_it_is_woken) {
    struct mock_host *host = start(NULL);

    check_last(host, VMIBUS_VM_STATE_SUSPENDED, VMIBUS_LIFECYCLE_CAUSE_OBSERVED);
    mock_host_advance(host, 3600000 * NS_PER_MS);
    ck_assert_uint_eq(mock_host_count(host, MOCK_PUBLISH), 1);
    ck_assert_uint_eq(mock_host_ack(host, power(host, VMIBUS_POWER_OPERATION_WAKEUP))->count, 1);
    check_last(host, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_WAKEUP);
    ck_assert_uint_eq(mock_host_ack(host, power(host, VMIBUS_POWER_OPERATION_WAKEUP))->count, 0);
    mock_host_advance(host, 4000 * NS_PER_MS);
    check_last(host, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED);
    mock_host_advance(host, 1000 * NS_PER_MS);
    check_last(host, VMIBUS_VM_STATE_SUSPENDED, VMIBUS_LIFECYCLE_CAUSE_SUSPENDED);
    ck_assert_uint_eq(mock_host_count(host, MOCK_PUBLISH), 7);
    mock_host_free(host);
}

TEST(test_other_commands_are_unsupported) {
    struct mock_host *host = start(NULL);

    ck_assert_int_eq(mock_host_ack(host, power(host, VMIBUS_POWER_OPERATION_RESET))->error,
                     VMIBUS_ERROR_UNSUPPORTED);
    mock_host_free(host);
}

TEST(test_interval) {
    struct mock_host *host = start((const char *const[]){"interval_ms=10", NULL});

    power(host, VMIBUS_POWER_OPERATION_WAKEUP);
    mock_host_advance(host, 50 * NS_PER_MS);
    check_last(host, VMIBUS_VM_STATE_SUSPENDED, VMIBUS_LIFECYCLE_CAUSE_SUSPENDED);
    mock_host_free(host);
}

TEST(test_bad_options) {
    static const char *const wrong[] = {"interval_ms=0", "interval_ms=x",
                                        "interval_ms=", "interval_ms=3600001", "interval=1"};
    struct mock_host *host;
    size_t i;

    for (i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        host = mock_host_new(&vmibus_sensor_module);
        ck_assert_int_eq(mock_host_start(host, (const char *const[]){wrong[i], NULL}), -EINVAL);
        ck_assert_ptr_nonnull(strstr(mock_host_last(host, MOCK_ANNOUNCE)->message, "interval_ms"));
        mock_host_free(host);
    }
}

TEST(test_refused_offer_fails_the_start) {
    struct mock_host *host = mock_host_new(&vmibus_sensor_module);

    mock_host_behaviour(host)->results[MOCK_OFFER] = -ENOSPC;
    ck_assert_int_eq(mock_host_start(host, NULL), -ENOSPC);
    mock_host_free(host);
}

HARNESS_SUITE("heartbeat", HARNESS_QUICK)
