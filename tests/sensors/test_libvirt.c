/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The libvirt sensor against a libvirt that the test plays: one that hangs in the middle of a call, dies and comes
 * back, talks garbage, and tells of things early or late.
 */
#include "harness.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>
#include <linux/input-event-codes.h>

#include "fake_libvirt.h"
#include "libvirt/identity.h"
#include "libvirt/keys.h"
#include "libvirt/module.h"
#include "libvirt/options.h"
#include "libvirt/passage.h"
#include "mock_host.h"

#define NS_PER_MS UINT64_C(1000000)
#define WAIT_MS 20000

static struct mock_host *host;
static struct vmibus_sensor_endpoint *one;

/* --- helpers --------------------------------------------------------------------------------------- */

static void start_with(const char *option) {
    const char *const options[] = {fake_libvirt_option(), option, NULL};

    host = mock_host_new(&vmibus_libvirt_sensor);
    mock_host_own_time(host);
    ck_assert_int_eq(mock_host_start(host, options), 0);
}

static bool is_up(void *name) {
    return mock_host_endpoint(host, name) != NULL;
}

static struct vmibus_sensor_endpoint *wait_endpoint(const char *name) {
    ck_assert_msg(mock_host_wait(host, is_up, (void *)name, WAIT_MS), "no endpoint %s", name);

    return mock_host_endpoint(host, name);
}

static const struct vmibus_lifecycle *last_lifecycle(const struct vmibus_sensor_endpoint *endpoint) {
    const struct mock_record *record = mock_host_last_of(host, MOCK_PUBLISH, endpoint);

    return record ? &record->frame.lifecycle : NULL;
}

struct told {
    const struct vmibus_sensor_endpoint *endpoint;
    enum vmibus_vm_state state;
    enum vmibus_lifecycle_cause cause;
    bool by_bus;
};

static bool is_told(void *data) {
    const struct told *told = data;
    const struct vmibus_lifecycle *last = last_lifecycle(told->endpoint);

    return last && last->state == told->state && last->cause == told->cause &&
           ((last->flags & VMIBUS_LIFECYCLE_BY_BUS) != 0) == told->by_bus;
}

static void wait_told(const struct vmibus_sensor_endpoint *endpoint, enum vmibus_vm_state state, enum vmibus_lifecycle_cause cause,
                      bool by_bus) {
    struct told told = {endpoint, state, cause, by_bus};
    const struct vmibus_lifecycle *last;

    if (mock_host_wait(host, is_told, &told, WAIT_MS))
        return;
    last = last_lifecycle(endpoint);
    ck_abort_msg("wanted state %d cause %d by_bus %d, last is %d %d %x", state, cause, by_bus, last ? last->state : -1,
                 last ? last->cause : -1, last ? last->flags : 0);
}

static bool is_answered(void *data) {
    return mock_host_ack(host, *(uint64_t *)data) != NULL;
}

static struct vmibus_ack wait_answer(uint64_t id) {
    ck_assert_msg(mock_host_wait(host, is_answered, &id, WAIT_MS), "the command is not answered");

    return *mock_host_ack(host, id);
}

static uint64_t send_vm(struct vmibus_sensor_endpoint *endpoint, enum vmibus_vm_operation operation) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_VM, .cmd_vm.operation = (uint8_t)operation};

    return mock_host_execute(host, endpoint, &frame, NULL, 0);
}

static uint64_t send_power(struct vmibus_sensor_endpoint *endpoint, enum vmibus_power_operation operation) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_POWER, .cmd_power.operation = (uint8_t)operation};

    return mock_host_execute(host, endpoint, &frame, NULL, 0);
}

static bool hangs(void *data) {
    (void)data;

    return fake_libvirt_hangs();
}

static bool is_in_state(void *data) {
    const struct mock_record *last = mock_host_last(host, MOCK_ANNOUNCE);

    return last && last->state == *(enum vmibus_sensor_state *)data;
}

static const char *wait_state(enum vmibus_sensor_state state) {
    ck_assert_msg(mock_host_wait(host, is_in_state, &state, WAIT_MS), "the sensor is not %d", state);

    return mock_host_last(host, MOCK_ANNOUNCE)->message;
}

static bool is_withdrawn(void *endpoint) {
    return ((struct vmibus_sensor_endpoint *)endpoint)->gone;
}

/* Waits for what no descriptor tells: what other threads do. */
static bool wait_for(bool (*condition)(void *data), void *data) {
    for (int i = 0; i < WAIT_MS / 10 && !condition(data); i++)
        mock_host_iterate(host, 10);

    return condition(data);
}

/* Time goes on, and threads have some of it. */
static void pass(unsigned int ms) {
    for (unsigned int i = 0; i < ms; i += 20) {
        mock_host_advance(host, 20 * NS_PER_MS);
        mock_host_iterate(host, 5);
    }
}

static void begin(void) {
    fake_libvirt_begin();
    fake_libvirt_add("one", 0x11);
    fake_libvirt_add("two", 0x22);
}

static void start_both(const char *option) {
    begin();
    start_with(option);
    one = wait_endpoint("one");
    wait_endpoint("two");
    wait_told(one, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
}

/* Without monitors, of which these domains have none that says anything. */
static void start(void) {
    start_both("monitor=no");
}

static void end(void) {
    host = mock_host_free(host);
    ck_assert_uint_eq(fake_libvirt_left(), 0);
    fake_libvirt_end();
}

static void tell_lifecycle(const char *name, int event, int detail) {
    fake_libvirt_tell(name, VIR_DOMAIN_EVENT_ID_LIFECYCLE, event, detail);
}

/* --- domains come and go ---------------------------------------------------------------------------- */

TEST(test_a_domain_is_introduced) {
    uint8_t uuid[16];

    memset(uuid, 0x11, sizeof(uuid));
    start_both(NULL);
    ck_assert_mem_eq(one->uuid, uuid, sizeof(uuid));
    ck_assert_uint_eq(one->pid, (uint32_t)fake_libvirt_pid("one"));
    ck_assert_uint_ne(one->start_time, 0);
    ck_assert_uint_eq(one->groups, VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER | VMIBUS_GROUP_INPUT | VMIBUS_GROUP_MEMORY |
                                       VMIBUS_GROUP_REGISTERS);
    end();
}

TEST(test_a_domain_that_starts_is_introduced_with_its_cause, .iterations = 4) {
    static const struct {
        int detail;
        enum vmibus_lifecycle_cause cause;
    } starts[] = {
        {VIR_DOMAIN_EVENT_STARTED_BOOTED, VMIBUS_LIFECYCLE_CAUSE_STARTED},
        {VIR_DOMAIN_EVENT_STARTED_MIGRATED, VMIBUS_LIFECYCLE_CAUSE_MIGRATED},
        {VIR_DOMAIN_EVENT_STARTED_RESTORED, VMIBUS_LIFECYCLE_CAUSE_FROM_SNAPSHOT},
        {VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT, VMIBUS_LIFECYCLE_CAUSE_FROM_SNAPSHOT},
    };

    fake_libvirt_begin();
    start_with("monitor=no");
    wait_state(VMIBUS_SENSOR_STATE_READY);
    fake_libvirt_add("one", 0x11);
    tell_lifecycle("one", VIR_DOMAIN_EVENT_STARTED, starts[_i].detail);
    one = wait_endpoint("one");
    wait_told(one, VMIBUS_VM_STATE_RUNNING, starts[_i].cause, false);
    end();
}

TEST(test_an_end_is_told_with_its_cause, .iterations = 7) {
    static const struct {
        int detail;
        enum vmibus_vm_state state;
        enum vmibus_lifecycle_cause cause;
        enum vmibus_reason reason;
    } ends[] = {
        {VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN, VMIBUS_VM_STATE_SHUTDOWN, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, VMIBUS_REASON_EXIT},
        {VIR_DOMAIN_EVENT_STOPPED_DESTROYED, VMIBUS_VM_STATE_SHUTDOWN, VMIBUS_LIFECYCLE_CAUSE_SHUTDOWN, VMIBUS_REASON_EXIT},
        {VIR_DOMAIN_EVENT_STOPPED_CRASHED, VMIBUS_VM_STATE_CRASHED, VMIBUS_LIFECYCLE_CAUSE_CRASHED, VMIBUS_REASON_EXIT},
        {VIR_DOMAIN_EVENT_STOPPED_FAILED, VMIBUS_VM_STATE_CRASHED, VMIBUS_LIFECYCLE_CAUSE_CRASHED, VMIBUS_REASON_EXIT},
        {VIR_DOMAIN_EVENT_STOPPED_MIGRATED, VMIBUS_VM_STATE_SHUTDOWN, VMIBUS_LIFECYCLE_CAUSE_MIGRATED, VMIBUS_REASON_MIGRATED},
        {VIR_DOMAIN_EVENT_STOPPED_SAVED, VMIBUS_VM_STATE_SHUTDOWN, VMIBUS_LIFECYCLE_CAUSE_SAVED, VMIBUS_REASON_EXIT},
        {VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT, VMIBUS_VM_STATE_SHUTDOWN, VMIBUS_LIFECYCLE_CAUSE_FROM_SNAPSHOT,
         VMIBUS_REASON_EXIT},
    };

    start();
    fake_libvirt_shut_off("one");
    tell_lifecycle("one", VIR_DOMAIN_EVENT_STOPPED, ends[_i].detail);
    ck_assert(mock_host_wait(host, is_withdrawn, one, WAIT_MS));
    ck_assert_int_eq(last_lifecycle(one)->state, ends[_i].state);
    ck_assert_int_eq(last_lifecycle(one)->cause, ends[_i].cause);
    ck_assert_int_eq(mock_host_last_of(host, MOCK_WITHDRAW, one)->reason, ends[_i].reason);
    end();
}

TEST(test_a_stop_is_told_with_its_cause, .iterations = 6) {
    static const struct {
        int detail;
        enum vmibus_lifecycle_cause cause;
    } stops[] = {
        {VIR_DOMAIN_EVENT_SUSPENDED_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED},
        {VIR_DOMAIN_EVENT_SUSPENDED_IOERROR, VMIBUS_LIFECYCLE_CAUSE_IO_ERROR},
        {VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG, VMIBUS_LIFECYCLE_CAUSE_WATCHDOG},
        {VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT, VMIBUS_LIFECYCLE_CAUSE_FROM_SNAPSHOT},
        {VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED, VMIBUS_LIFECYCLE_CAUSE_MIGRATED},
        {999, VMIBUS_LIFECYCLE_CAUSE_PAUSED},
    };

    start();
    fake_libvirt_set_state("one", VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER);
    tell_lifecycle("one", VIR_DOMAIN_EVENT_SUSPENDED, stops[_i].detail);
    wait_told(one, VMIBUS_VM_STATE_PAUSED, stops[_i].cause, false);
    fake_libvirt_set_state("one", VIR_DOMAIN_RUNNING, 0);
    tell_lifecycle("one", VIR_DOMAIN_EVENT_RESUMED, VIR_DOMAIN_EVENT_RESUMED_UNPAUSED);
    wait_told(one, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, false);
    end();
}

TEST(test_p06_another_process_is_another_endpoint) {
    start();
    fake_libvirt_restart("one");
    /* The end was lost: only the start is told. */
    tell_lifecycle("one", VIR_DOMAIN_EVENT_STARTED, VIR_DOMAIN_EVENT_STARTED_BOOTED);
    ck_assert(mock_host_wait(host, is_withdrawn, one, WAIT_MS));
    ck_assert_uint_eq(wait_endpoint("one")->pid, (uint32_t)fake_libvirt_pid("one"));
    end();
}

TEST(test_p10_what_was_missed_is_looked_at) {
    start();
    fake_libvirt_set_state("one", VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER);
    /* More than are kept: what is dropped is not lost. */
    for (size_t i = 0; i < 3 * EXCHANGE_NOTICES_BOUND; i++)
        fake_libvirt_tell("two", VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, 0, 0);
    while (!fake_libvirt_is_drained())
        usleep(1000);
    wait_told(one, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, false);
    end();
}

/* --- who paused --------------------------------------------------------------------------------------- */

TEST(test_p11_a_stop_of_ours_is_told_once, .iterations = 2) {
    size_t told;

    start();
    fake_libvirt_order(_i ? FAKE_EVENT_BEFORE : FAKE_EVENT_LATER);
    for (int round = 0; round < 3; round++) {
        told = mock_host_count(host, MOCK_PUBLISH);
        ck_assert_int_eq(wait_answer(send_vm(one, VMIBUS_VM_OPERATION_HOLD)).error, VMIBUS_ERROR_OK);
        ck_assert_int_eq(fake_libvirt_state("one"), VIR_DOMAIN_PAUSED);
        wait_told(one, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, true);
        ck_assert_int_eq(wait_answer(send_vm(one, VMIBUS_VM_OPERATION_LET_GO)).error, VMIBUS_ERROR_OK);
        wait_told(one, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, true);
        ck_assert_uint_eq(mock_host_count(host, MOCK_PUBLISH), told + 2);
    }
    /* Echoes of long ago are none of somebody else's stops. */
    told = mock_host_count(host, MOCK_PUBLISH);
    fake_libvirt_deliver();
    tell_lifecycle("two", VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG);
    wait_told(mock_host_endpoint(host, "two"), VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_WATCHDOG, false);
    ck_assert_uint_eq(mock_host_count(host, MOCK_PUBLISH), told + 1);
    /* What comes after them is. */
    tell_lifecycle("one", VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_PAUSED);
    wait_told(one, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, false);
    end();
}

TEST(test_p11_nobody_elses_pause_is_resumed, .iterations = 2) {
    start();
    fake_libvirt_set_state("one", VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER);
    if (_i) {
        tell_lifecycle("one", VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_PAUSED);
        wait_told(one, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, false);
    }
    /* Otherwise libvirt knows of the stop already, and its event is still to come. */
    ck_assert_int_eq(wait_answer(send_vm(one, VMIBUS_VM_OPERATION_HOLD)).error, _i ? VMIBUS_ERROR_OK : VMIBUS_ERROR_BUSY);
    wait_answer(send_vm(one, VMIBUS_VM_OPERATION_LET_GO));
    ck_assert_int_eq(fake_libvirt_state("one"), VIR_DOMAIN_PAUSED);
    ck_assert_uint_eq(fake_libvirt_calls("virDomainResume"), 0);
    end();
}

TEST(test_p11_the_end_of_the_sensor_lets_a_guest_go_on) {
    start();
    ck_assert_int_eq(wait_answer(send_vm(one, VMIBUS_VM_OPERATION_PAUSE)).error, VMIBUS_ERROR_OK);
    ck_assert_int_eq(fake_libvirt_state("one"), VIR_DOMAIN_PAUSED);
    mock_host_stop(host);
    ck_assert_int_eq(fake_libvirt_state("one"), VIR_DOMAIN_RUNNING);
    end();
}

static bool one_runs(void *data) {
    (void)data;
    return fake_libvirt_state("one") == VIR_DOMAIN_RUNNING;
}

/* The next instance goes on with the hold, if the bus still has the endpoint; otherwise it ends it. */
TEST(test_p11_hold_is_kept_over_a_restart, .iterations = 2) {
    static uint8_t octets[8192];
    struct vmibus_sensor_saved state, kept;
    bool is_kept = _i == 0;

    start();
    ck_assert_uint_ne(one->pid, 0);
    ck_assert_int_eq(wait_answer(send_vm(one, VMIBUS_VM_OPERATION_HOLD)).error, VMIBUS_ERROR_OK);
    ck_assert_int_eq(vmibus_libvirt_sensor.save(mock_host_instance(host), &state), 0);
    ck_assert_uint_le(state.n_octets, sizeof(octets));
    memcpy(octets, state.octets, state.n_octets);
    kept = (struct vmibus_sensor_saved){.octets = octets, .n_octets = state.n_octets};
    host = mock_host_free(host);
    ck_assert_int_eq(fake_libvirt_state("one"), VIR_DOMAIN_PAUSED);
    host = mock_host_new(&vmibus_libvirt_sensor);
    mock_host_own_time(host);
    mock_host_give(host, &kept);
    ck_assert_int_eq(mock_host_start(host, (const char *const[]){fake_libvirt_option(), "monitor=no", NULL}), 0);
    one = wait_endpoint("one");
    mock_host_accept(host, one, is_kept);
    wait_told(one, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    if (is_kept) {
        ck_assert_int_eq(fake_libvirt_state("one"), VIR_DOMAIN_PAUSED);
        ck_assert_int_eq(wait_answer(send_vm(one, VMIBUS_VM_OPERATION_LET_GO)).error, VMIBUS_ERROR_OK);
    }
    ck_assert(mock_host_wait(host, one_runs, NULL, WAIT_MS));
    end();
}

TEST(test_power_is_libvirts, .iterations = 4) {
    static const struct {
        enum vmibus_power_operation operation;
        const char *function;
    } powers[] = {
        {VMIBUS_POWER_OPERATION_RESET, "virDomainReset"},
        {VMIBUS_POWER_OPERATION_POWERDOWN, "virDomainShutdownFlags"},
        {VMIBUS_POWER_OPERATION_QUIT, "virDomainDestroyFlags"},
        {VMIBUS_POWER_OPERATION_WAKEUP, "virDomainPMWakeup"},
    };

    start();
    ck_assert_int_eq(wait_answer(send_power(one, powers[_i].operation)).error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(fake_libvirt_calls(powers[_i].function), 1);
    if (powers[_i].operation == VMIBUS_POWER_OPERATION_RESET) {
        fake_libvirt_tell("one", VIR_DOMAIN_EVENT_ID_REBOOT, 0, 0);
        wait_told(one, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESET, true);
    }
    end();
}

TEST(test_an_end_that_comes_before_its_answer_is_a_success) {
    uint64_t quit;

    start();
    fake_libvirt_hang("virDomainDestroyFlags", "one");
    quit = send_power(one, VMIBUS_POWER_OPERATION_QUIT);
    ck_assert(wait_for(hangs, NULL));
    tell_lifecycle("one", VIR_DOMAIN_EVENT_STOPPED, VIR_DOMAIN_EVENT_STOPPED_DESTROYED);
    ck_assert_int_eq(wait_answer(quit).error, VMIBUS_ERROR_OK);
    ck_assert(last_lifecycle(one)->flags & VMIBUS_LIFECYCLE_BY_BUS);
    fake_libvirt_go_on();
    end();
}

/* --- a libvirt that hangs, dies, talks nonsense --------------------------------------------------------- */

TEST(test_p09_a_call_that_hangs_disturbs_no_other_domain) {
    struct vmibus_sensor_endpoint *two;
    uint64_t stuck;

    start();
    two = mock_host_endpoint(host, "two");
    fake_libvirt_hang("virDomainReset", "one");
    stuck = send_power(one, VMIBUS_POWER_OPERATION_RESET);
    ck_assert(wait_for(hangs, NULL));
    ck_assert_int_eq(wait_answer(send_power(two, VMIBUS_POWER_OPERATION_RESET)).error, VMIBUS_ERROR_OK);
    ck_assert_ptr_null(mock_host_ack(host, stuck));

    mock_host_advance(host, 6000 * NS_PER_MS);
    ck_assert_int_eq(wait_answer(stuck).error, VMIBUS_ERROR_IO);
    ck_assert_msg(strstr(wait_state(VMIBUS_SENSOR_STATE_DEGRADED), "one:"), "the domain is not named");
    wait_told(one, VMIBUS_VM_STATE_UNKNOWN, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    /* What is given meanwhile is not done later. */
    ck_assert_int_eq(wait_answer(send_power(one, VMIBUS_POWER_OPERATION_QUIT)).error, VMIBUS_ERROR_IO);

    fake_libvirt_go_on();
    wait_told(one, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    wait_state(VMIBUS_SENSOR_STATE_READY);
    ck_assert_uint_eq(fake_libvirt_calls("virDomainDestroyFlags"), 0);
    ck_assert(!one->gone);
    end();
}

TEST(test_p09_what_waited_behind_a_call_that_hangs_is_not_done) {
    uint64_t first, second;

    start();
    fake_libvirt_hang("virDomainReset", "one");
    first = send_power(one, VMIBUS_POWER_OPERATION_RESET);
    second = send_power(one, VMIBUS_POWER_OPERATION_POWERDOWN);
    ck_assert(wait_for(hangs, NULL));
    mock_host_advance(host, 6000 * NS_PER_MS);
    ck_assert_int_eq(wait_answer(first).error, VMIBUS_ERROR_IO);
    ck_assert_int_eq(wait_answer(second).error, VMIBUS_ERROR_IO);
    fake_libvirt_go_on();
    wait_told(one, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    ck_assert_uint_eq(fake_libvirt_calls("virDomainShutdownFlags"), 0);
    end();
}

TEST(test_p09_the_sensor_ends_while_a_call_hangs, .iterations = 3) {
    static const char *const functions[] = {"virDomainReset", "virConnectOpen", "virConnectListAllDomains"};

    begin();
    if (_i > 0)
        fake_libvirt_hang(functions[_i], NULL);
    start_with("monitor=no");
    if (_i == 0) {
        one = wait_endpoint("one");
        fake_libvirt_hang(functions[_i], NULL);
        send_power(one, VMIBUS_POWER_OPERATION_RESET);
    }
    ck_assert(wait_for(hangs, NULL));
    mock_host_stop(host);
    /* The thread comes back to nothing, and cleans up after itself. */
    fake_libvirt_go_on();
    for (int i = 0; i < 2000 && (fake_libvirt_left() || fake_libvirt_hangs()); i++)
        usleep(10000);
    ck_assert(!fake_libvirt_hangs());
    end();
}

TEST(test_p10_a_libvirtd_that_is_silent_is_told_and_waited_for) {
    begin();
    fake_libvirt_hang("virConnectOpen", NULL);
    start_with("monitor=no");
    ck_assert(wait_for(hangs, NULL));
    mock_host_advance(host, 6000 * NS_PER_MS);
    ck_assert(strstr(wait_state(VMIBUS_SENSOR_STATE_DEGRADED), "does not answer"));
    fake_libvirt_go_on();
    wait_endpoint("one");
    wait_state(VMIBUS_SENSOR_STATE_READY);
    end();
}

static void restart_service(void) {
    fake_libvirt_kill();
    ck_assert(strstr(wait_state(VMIBUS_SENSOR_STATE_DEGRADED), "until libvirtd answers"));
    wait_told(one, VMIBUS_VM_STATE_UNKNOWN, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    for (int i = 0; i < 5; i++)
        mock_host_advance(host, 1000 * NS_PER_MS);
    ck_assert(!one->gone);
    fake_libvirt_revive();
}

static bool is_in_sight(void *data) {
    const struct vmibus_lifecycle *last = last_lifecycle(one);

    (void)data;
    mock_host_advance(host, 1000 * NS_PER_MS);

    return last->state == VMIBUS_VM_STATE_RUNNING;
}

TEST(test_p06_the_endpoint_stays_while_libvirtd_restarts) {
    start();
    restart_service();
    ck_assert(wait_for(is_in_sight, NULL));
    wait_state(VMIBUS_SENSOR_STATE_READY);
    ck_assert(!one->gone);
    ck_assert_ptr_eq(mock_host_endpoint(host, "one"), one);
    end();
}

TEST(test_p10_libvirtd_dies_in_the_middle_of_a_call) {
    uint64_t reset;

    start();
    fake_libvirt_hang("virDomainReset", "one");
    reset = send_power(one, VMIBUS_POWER_OPERATION_RESET);
    ck_assert(wait_for(hangs, NULL));
    restart_service();
    ck_assert_int_eq(wait_answer(reset).error, VMIBUS_ERROR_IO);
    ck_assert(wait_for(is_in_sight, NULL));
    ck_assert(!one->gone);
    ck_assert_int_eq(wait_answer(send_power(one, VMIBUS_POWER_OPERATION_RESET)).error, VMIBUS_ERROR_OK);
    end();
}

TEST(test_p06_a_process_that_ends_while_libvirtd_is_away_is_gone) {
    start();
    fake_libvirt_kill();
    wait_state(VMIBUS_SENSOR_STATE_DEGRADED);
    fake_libvirt_shut_off("one");
    for (int i = 0; i < 2000 && !one->gone; i++) {
        mock_host_advance(host, NS_PER_MS);
        mock_host_iterate(host, 10);
    }
    ck_assert(one->gone);
    end();
}

static const char *const garbage[] = {
    "", "x", "{", "[]", "null", "42", "{\"return\":", "{\"return\":{}}", "{\"return\":null}", "{\"error\":{}}", "{\"error\":[]}",
    "{\"return\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}",
    "{\"return\":\"\\u0000\"}", "\377\376",
};

static int garbage_index;

static const char *answer_garbage(const char *command, bool human) {
    (void)command;
    (void)human;

    return garbage[garbage_index];
}

TEST(test_p12_garbage_makes_no_layout, .iterations = 14) {
    garbage_index = _i;
    fake_libvirt_answers(answer_garbage);
    start_both(NULL);
    pass(2000);
    ck_assert_uint_gt(fake_libvirt_calls("virDomainQemuMonitorCommand"), 0);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 0);
    ck_assert_int_eq(wait_answer(send_power(one, VMIBUS_POWER_OPERATION_RESET)).error, VMIBUS_ERROR_OK);
    end();
}

/* --- the monitor ----------------------------------------------------------------------------------------- */

TEST(test_p01_a_forbidden_monitor_is_not_touched, .iterations = 2) {
    const struct vmibus_frame registers = {.header.kind = VMIBUS_KIND_REGISTERS};

    begin();
    start_with(_i ? "monitor.t?o=yes" : "monitor=no");
    if (_i) {
        mock_host_free(host);
        start_with("monitor.o*=no");
    }
    one = wait_endpoint("one");
    wait_told(one, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    ck_assert_uint_eq(one->groups, VMIBUS_GROUP_LIFECYCLE | VMIBUS_GROUP_POWER | VMIBUS_GROUP_INPUT);
    wait_answer(send_vm(one, VMIBUS_VM_OPERATION_HOLD));
    wait_answer(send_vm(one, VMIBUS_VM_OPERATION_LET_GO));
    ck_assert_int_ne(wait_answer(mock_host_execute(host, one, &registers, NULL, 0)).error, VMIBUS_ERROR_OK);
    if (!_i)
        ck_assert_uint_eq(fake_libvirt_calls("virDomainQemuMonitorCommand"), 0);
    else
        ck_assert_uint_ne(wait_endpoint("two")->groups & VMIBUS_GROUP_MEMORY, 0);
    end();
}

TEST(test_the_first_pattern_decides) {
    const struct vmibus_sensor_option given[] = {
        {"monitor.web-1", "yes"}, {"monitor.web-*", "no"}, {"monitor", "yes"}, {"uri", "qemu:///session?socket=/a/b/libvirt-sock"}};
    struct options options;

    ck_assert_int_eq(options_take(&options, given, 4), 0);
    ck_assert(options_allow_monitor(&options, "web-1"));
    ck_assert(!options_allow_monitor(&options, "web-2"));
    ck_assert(options_allow_monitor(&options, "db"));
    ck_assert_str_eq(options.pid_directory, "/a/b/qemu/run");
    options_deinit(&options);
}

TEST(test_bad_options_are_explained, .iterations = 7) {
    static const struct vmibus_sensor_option bad[] = {
        {"uri", "qemu+ssh://elsewhere/system"}, {"uri", "xen:///system"}, {"monitor", "perhaps"}, {"monitor.", "no"},
        {"state-directory", "here"},            {"pid-directory", "here"}, {"nonsense", "yes"},
    };
    struct options options;

    ck_assert_int_eq(options_take(&options, &bad[_i], 1), -EINVAL);
    ck_assert_msg(strstr(options.message, bad[_i].key), "%s", options.message);
    options_deinit(&options);
}

TEST(test_p12_answers_are_checked) {
    json_object *value;
    bool failed;

    ck_assert(passage_parse("{\"return\":{\"a\":1},\"id\":\"libvirt-7\"}", &value, &failed));
    ck_assert(!failed && json_object_is_type(value, json_type_object));
    json_object_put(value);
    ck_assert(passage_parse("{\"error\":{\"class\":\"A\",\"desc\":\"b\"}}", &value, &failed));
    ck_assert(failed);
    json_object_put(value);
    for (size_t i = 0; i < sizeof(garbage) / sizeof(*garbage); i++) {
        bool is = passage_parse(garbage[i], &value, &failed);

        ck_assert_msg(is == (i == 7 || i == 8 || i == 9 || i == 12), "%s", garbage[i]);
        json_object_put(value);
    }
}

/* --- identity ---------------------------------------------------------------------------------------------- */

TEST(test_p12_only_the_arguments_of_uuid_count) {
    uint8_t uuid[16];

    memset(uuid, 0x11, sizeof(uuid));
    ck_assert(identity_has_uuid("q\0-uuid\00011111111-1111-1111-1111-111111111111\0-S", 48, uuid));
    ck_assert(!identity_has_uuid("q\0-name\00011111111-1111-1111-1111-111111111111\0-S", 48, uuid));
    ck_assert(!identity_has_uuid("q\0-uuid\00021111111-1111-1111-1111-111111111111\0-S", 48, uuid));
    ck_assert(!identity_has_uuid("q\0-uuid\00011111111-1111-1111-1111-111111111111", 44, uuid));
    ck_assert(!identity_has_uuid("", 0, uuid));
    ck_assert(!identity_has_uuid("-uuid", 5, uuid));
}

TEST(test_p12_a_process_without_proof_has_no_layout) {
    struct process process;
    uint8_t uuid[16];
    char path[128], directory[96];
    FILE *file;

    begin();
    memset(uuid, 0x11, sizeof(uuid));
    snprintf(directory, sizeof(directory), "%s", strchr(fake_libvirt_option(), '/'));
    snprintf(directory, sizeof(directory), "%s", strstr(fake_libvirt_option(), "=/tmp") + 1);
    strcpy(strrchr(directory, '/'), "/qemu/run");
    identity_find(directory, "one", uuid, &process);
    ck_assert_uint_eq(process.pid, (uint32_t)fake_libvirt_pid("one"));
    process_deinit(&process);
    identity_find(directory, "two", uuid, &process); /* another's UUID */
    ck_assert_uint_eq(process.pid, 0);
    identity_find(directory, "../run/one", uuid, &process);
    ck_assert_uint_eq(process.pid, 0);
    identity_find(NULL, "one", uuid, &process);
    ck_assert_uint_eq(process.pid, 0);
    /* A number in the file that is nobody's, or no number. */
    snprintf(path, sizeof(path), "%s/one.pid", directory);
    for (int i = 0; i < 4; i++) {
        static const char *const texts[] = {"1\n", "-1\n", "99999999999\n", "1234abc\n"};

        file = fopen(path, "w");
        fputs(texts[i], file);
        fclose(file);
        identity_find(directory, "one", uuid, &process);
        ck_assert_uint_eq(process.pid, 0);
    }
    unlink(path);
    ck_assert_int_eq(symlink("two.pid", path), 0);
    identity_find(directory, "one", uuid, &process);
    ck_assert_uint_eq(process.pid, 0);
    fake_libvirt_end();
}

/* --- keys ------------------------------------------------------------------------------------------------------ */

static struct vmibus_input_event key(uint16_t code, int32_t value) {
    return (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = code, .value = value};
}

TEST(test_keys_become_chords) {
    const struct vmibus_input_event events[] = {
        key(KEY_LEFTSHIFT, 1), key(KEY_A, 1), key(KEY_A, 2), key(KEY_A, 0), key(KEY_B, 1), key(KEY_B, 0), key(KEY_LEFTSHIFT, 0),
        key(KEY_C, 1),         key(KEY_C, 0), key(KEY_LEFTMETA, 1), key(KEY_LEFTMETA, 0),
    };
    const struct vmibus_input_event motion = {.type = VMIBUS_INPUT_TYPE_RELATIVE};
    struct chord chords[16];
    struct keys keys;
    size_t n;

    keys_init(&keys);
    ck_assert_uint_eq(keys_take(&keys, events, 11, chords, &n), 11);
    ck_assert_uint_eq(n, 4);
    ck_assert(chords[0].n_keys == 2 && chords[0].keys[0] == KEY_LEFTSHIFT && chords[0].keys[1] == KEY_A);
    ck_assert(chords[1].n_keys == 2 && chords[1].keys[1] == KEY_B);
    ck_assert(chords[2].n_keys == 1 && chords[2].keys[0] == KEY_C);
    ck_assert(chords[3].n_keys == 1 && chords[3].keys[0] == KEY_LEFTMETA);
    ck_assert_uint_eq(keys.n_held, 0);
    ck_assert_uint_eq(keys_take(&keys, &motion, 1, chords, &n), 0);
    for (uint16_t i = 1; i <= KEYS_HELD_BOUND; i++) {
        const struct vmibus_input_event down = key(i, 1);

        ck_assert_uint_eq(keys_take(&keys, &down, 1, chords, &n), 1);
    }
    ck_assert_uint_eq(keys_take(&keys, &(struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 99, .value = 1}, 1,
                                chords, &n),
                      0);
    keys_deinit(&keys);
}

TEST(test_keys_are_sent) {
    struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_INPUT, .cmd_input.count = 2};
    struct vmibus_ack ack;

    start();
    frame.cmd_input.events[0] = key(KEY_A, 1);
    frame.cmd_input.events[1] = key(KEY_A, 0);
    ack = wait_answer(mock_host_execute(host, one, &frame, NULL, 0));
    ck_assert_int_eq(ack.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(ack.count, 2);
    ck_assert_uint_eq(fake_libvirt_calls("virDomainSendKey"), 1);
    frame.cmd_input.events[1].type = VMIBUS_INPUT_TYPE_RELATIVE;
    ck_assert_int_eq(wait_answer(mock_host_execute(host, one, &frame, NULL, 0)).error, VMIBUS_ERROR_UNSUPPORTED);
    frame.cmd_input.events[1] = key(KEY_A, 0);
    /* QEMU drops the keys of a guest that stands still, and says that it pressed them. */
    fake_libvirt_set_state("one", VIR_DOMAIN_PAUSED, VIR_DOMAIN_PAUSED_USER);
    tell_lifecycle("one", VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_PAUSED);
    wait_told(one, VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, false);
    ck_assert_int_eq(wait_answer(mock_host_execute(host, one, &frame, NULL, 0)).error, VMIBUS_ERROR_BUSY);
    ck_assert_uint_eq(fake_libvirt_calls("virDomainSendKey"), 1);
    end();
}

/* --- memory that is being copied -------------------------------------------------------------------------------- */

TEST(test_p04_memory_is_busy_while_it_is_copied, .iterations = 2) {
    const struct mock_record *busy;

    start();
    fake_libvirt_tell("one", VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION, 0, 0);
    wait_told(one, VMIBUS_VM_STATE_MIGRATING, VMIBUS_LIFECYCLE_CAUSE_MIGRATION, false);
    busy = mock_host_last_of(host, MOCK_MEMORY_BUSY, one);
    ck_assert(busy && busy->busy);
    if (_i == 0) {
        fake_libvirt_tell("one", VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, 0, 0);
    } else {
        /* An internal snapshot: the guest stands still, goes on, and nothing tells of the end. */
        tell_lifecycle("one", VIR_DOMAIN_EVENT_SUSPENDED, VIR_DOMAIN_EVENT_SUSPENDED_PAUSED);
        tell_lifecycle("one", VIR_DOMAIN_EVENT_RESUMED, VIR_DOMAIN_EVENT_RESUMED_UNPAUSED);
    }
    wait_told(one, VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_MIGRATION, false);
    ck_assert(!mock_host_last_of(host, MOCK_MEMORY_BUSY, one)->busy);
    end();
}

/* --- calls that fail ------------------------------------------------------------------------------------------------ */

static const int codes[] = {VIR_ERR_INTERNAL_ERROR, VIR_ERR_NO_DOMAIN, VIR_ERR_OPERATION_INVALID};

#define N_CODES ((int)(sizeof(codes) / sizeof(codes[0])))

static uint64_t send_key(void) {
    struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_INPUT, .cmd_input.count = 2};

    frame.cmd_input.events[0] = key(KEY_A, 1);
    frame.cmd_input.events[1] = key(KEY_A, 0);
    return mock_host_execute(host, one, &frame, NULL, 0);
}

/* Whatever libvirt says instead of doing it: it is told, once, and not that it was done; the VM stays, and the next is done. */
TEST(test_each_call_that_fails_is_told, .iterations = N_CODES, .timeout = 60) {
    static const struct {
        const char *function;
        uint8_t power, vm;
    } calls[] = {
        {"virDomainReset", VMIBUS_POWER_OPERATION_RESET, 0},  {"virDomainShutdownFlags", VMIBUS_POWER_OPERATION_POWERDOWN, 0},
        {"virDomainPMWakeup", VMIBUS_POWER_OPERATION_WAKEUP, 0}, {"virDomainSuspend", 0, VMIBUS_VM_OPERATION_PAUSE},
        {"virDomainDestroyFlags", VMIBUS_POWER_OPERATION_QUIT, 0}, {"virDomainSendKey", 0, 0},
    };

    start();
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        struct vmibus_ack ack;
        uint64_t id;

        fake_libvirt_fail(calls[i].function, codes[_i]);
        if (calls[i].power)
            id = send_power(one, calls[i].power);
        else
            id = calls[i].vm ? send_vm(one, calls[i].vm) : send_key();
        ack = wait_answer(id);
        ck_assert_msg(fake_libvirt_failed(), "%s is not called: %d", calls[i].function, ack.error);
        ck_assert_msg(ack.error != VMIBUS_ERROR_OK, "%s: code %d is told as success", calls[i].function, codes[_i]);
    }
    ck_assert(!one->gone);
    ck_assert_int_eq(wait_answer(send_key()).error, VMIBUS_ERROR_OK);
    end();
}

/* A call that fails once as domains are looked for delays them, and loses none. */
TEST(test_p10_each_call_that_fails_in_the_beginning, .iterations = 5, .timeout = 60) {
    static const char *const functions[] = {"virConnectOpen", "virConnectListAllDomains", "virConnectDomainEventRegisterAny",
                                            "virDomainGetState", "virDomainLookupByUUID"};

    begin();
    fake_libvirt_fail(functions[_i], VIR_ERR_INTERNAL_ERROR);
    start_with("monitor=no");
    for (int i = 0; i < 300 && !(is_up((void *)"one") && is_up((void *)"two")); i++)
        pass(200);
    ck_assert(is_up((void *)"one"));
    ck_assert(is_up((void *)"two"));
    end();
}

HARNESS_SUITE("libvirt: the sensor", HARNESS_QUICK)
