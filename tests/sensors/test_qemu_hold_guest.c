/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * HOLD and LET_GO of the QEMU sensor against a real QEMU (TCG, firmware only): the sensor is a process that
 * holds and lets go without a pause, and is killed at random moments; the test's own monitor says what
 * became of the guest.
 */
#include "harness.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "bed/bed.h"
#include "mock_host.h"
#include "qemu/qemu.h"

#define WAIT_MS 20000
#define ROUNDS 20
#define KILL_WITHIN_US 60000

static struct bed *bed;
static struct mock_host *host;
static struct vmibus_sensor_endpoint *vm;

static void boot(void) {
    const struct bed_options options = {.firmware_only = true};
    const char *reason;

    if (!bed_available(true, &reason))
        test_skip("%s", reason);
    ck_assert_int_eq(bed_start(&bed, &options), 0);
}

static void finish(void) {
    host = mock_host_free(host);
    bed_stop(bed);
}

static bool has_endpoint(void *data) {
    (void)data;
    vm = mock_host_endpoint(host, "guest");

    return vm != NULL;
}

/* What the instance before gave. */
static uint8_t kept_octets[8192];
static struct vmibus_sensor_saved kept;

static void start_sensor(void) {
    char monitor[256], state[256];
    const char *const options[] = {monitor, state, NULL};

    snprintf(monitor, sizeof(monitor), "monitor.guest=%s", bed->qmp);
    snprintf(state, sizeof(state), "state-directory=%s", bed->directory);
    host = mock_host_new(&vmibus_qemu_sensor);
    mock_host_give(host, kept.octets ? &kept : NULL);
    ck_assert_int_eq(mock_host_start(host, options), 0);
    ck_assert(mock_host_wait(host, has_endpoint, NULL, WAIT_MS));
}

static bool is_answered(void *data) {
    return mock_host_ack(host, *(uint64_t *)data) != NULL;
}

static const struct vmibus_ack *command(enum vmibus_vm_operation operation) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_VM,
                                       .cmd_vm.operation = (uint8_t)operation};
    uint64_t id = mock_host_execute(host, vm, &frame, NULL, 0);

    ck_assert(mock_host_wait(host, is_answered, &id, WAIT_MS));

    return mock_host_ack(host, id);
}

static bool guest_is(const char *wanted) {
    json_object *status = NULL, *member = NULL;
    bool is;

    ck_assert_int_eq(bed_qmp(bed, "query-status", NULL, &status), 0);
    is = json_object_object_get_ex(status, "status", &member) &&
         strcmp(json_object_get_string(member), wanted) == 0;
    json_object_put(status);

    return is;
}

static bool runs(void *data) {
    (void)data;
    return guest_is("running");
}

/* Holds and lets go until it is killed. */
static void run_child(int told) {
    start_sensor();
    for (;;) {
        command(VMIBUS_VM_OPERATION_HOLD);
        if (write(told, "x", 1) != 1)
            _exit(1);
        command(VMIBUS_VM_OPERATION_LET_GO);
    }
}

static unsigned int number_below(unsigned int bound) {
    unsigned int number;

    ck_assert_int_eq(getrandom(&number, sizeof(number), 0), sizeof(number));

    return number % bound;
}

/* One round; returns whether the guest was paused when the sensor died. */
static bool kill_once(void) {
    unsigned int moment = number_below(KILL_WITHIN_US);
    int told[2];
    bool was_paused;
    pid_t child;
    char c;

    ck_assert_int_eq(pipe(told), 0);
    child = fork();
    if (child == 0) {
        close(told[0]);
        run_child(told[1]);
    }
    close(told[1]);
    ck_assert_int_eq(read(told[0], &c, 1), 1);
    usleep(moment); /* what is looked for is a moment, not an event */
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    close(told[0]);
    was_paused = guest_is("paused");

    return was_paused;
}

/* @param is_kept as the bus answers the offer: it still has the endpoint */
static void restart_sensor(bool is_kept) {
    struct vmibus_sensor_saved state;

    ck_assert_int_eq(vmibus_qemu_sensor.save(mock_host_instance(host), &state), 0);
    ck_assert_uint_le(state.n_octets, sizeof(kept_octets));
    memcpy(kept_octets, state.octets, state.n_octets);
    kept = (struct vmibus_sensor_saved){.octets = kept_octets, .n_octets = state.n_octets};
    host = mock_host_free(host);
    start_sensor();
    mock_host_accept(host, vm, is_kept);
    mock_host_settle(host);
}

TEST(test_p11_guest_is_held_over_restarts_of_the_sensor, .timeout = 180) {
    boot();
    start_sensor();
    for (int i = 0; i < 3; i++) {
        ck_assert_uint_eq(command(VMIBUS_VM_OPERATION_HOLD)->error, VMIBUS_ERROR_OK);
        restart_sensor(true);
        restart_sensor(true);
        ck_assert(guest_is("paused"));
        ck_assert_uint_eq(command(VMIBUS_VM_OPERATION_LET_GO)->error, VMIBUS_ERROR_OK);
        ck_assert(guest_is("running"));
    }
    ck_assert_uint_eq(command(VMIBUS_VM_OPERATION_HOLD)->error, VMIBUS_ERROR_OK);
    restart_sensor(false);
    ck_assert(mock_host_wait(host, runs, NULL, WAIT_MS));
    finish();
}

TEST(test_p11_killed_at_random_a_guest_that_ran_runs, .timeout = 180) {
    size_t paused = 0;

    boot();
    for (int i = 0; i < ROUNDS; i++) {
        paused += kill_once();
        start_sensor();
        ck_assert(mock_host_wait(host, runs, NULL, WAIT_MS));
        mock_host_stop(host);
        ck_assert(guest_is("running"));
        host = mock_host_free(host);
    }
    printf("killed %d times, %zu of them with the guest held still\n", ROUNDS, paused);
    finish();
}

static bool is_introduced(void *data) {
    (void)data;
    return mock_host_count(host, MOCK_LAYOUT) > 0;
}

TEST(test_p11_killed_at_random_a_guest_that_was_paused_is, .timeout = 180) {
    boot();
    ck_assert_int_eq(bed_qmp(bed, "stop", NULL, NULL), 0);
    for (int i = 0; i < ROUNDS; i++) {
        ck_assert(kill_once());
        start_sensor();
        ck_assert(mock_host_wait(host, is_introduced, NULL, WAIT_MS));
        ck_assert_uint_eq(command(VMIBUS_VM_OPERATION_LET_GO)->error, VMIBUS_ERROR_OK);
        mock_host_stop(host);
        ck_assert(guest_is("paused"));
        host = mock_host_free(host);
    }
    finish();
}

/* The sensor ends in order in the middle of letting go: QEMU drops what it has not read when its client closes. */
TEST(test_p11_end_in_order_while_it_lets_go, .timeout = 180) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_VM,
                                       .cmd_vm.operation = VMIBUS_VM_OPERATION_LET_GO};

    boot();
    for (int i = 0; i < ROUNDS; i++) {
        start_sensor();
        ck_assert_uint_eq(command(VMIBUS_VM_OPERATION_HOLD)->error, VMIBUS_ERROR_OK);
        mock_host_execute(host, vm, &frame, NULL, 0);
        mock_host_stop(host);
        ck_assert(guest_is("running"));
        host = mock_host_free(host);
    }
    finish();
}

HARNESS_SUITE("qemu: holding a real guest still", HARNESS_QUICK)
