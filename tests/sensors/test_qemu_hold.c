/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * HOLD and LET_GO of the QEMU sensor, against a monitor that the test plays.  In the tests of crashes the
 * sensor is a process of its own, which is killed at each command that it gives.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "mock_host.h"
#include "qemu/qemu.h"

#define NS_PER_MS UINT64_C(1000000)
#define WAIT_MS 20000
#define LONG_MODE                                                                                  \
    "CPU#0\r\nCR0=80050033 CR2=0 CR3=0000000000200000 CR4=00350ef0\r\nEFER=0000000000000d01\r\n"
#define ELSEWHERE                                                                                  \
    "CPU#0\r\nCR0=80050033 CR2=0 CR3=0000000000300000 CR4=00350ef0\r\nEFER=0000000000000d01\r\n"

static struct fake_qemu *fake;
static struct mock_host *host;
static struct vmibus_sensor_endpoint *vm;
static char state_directory[64];

static void settle(void) {
    bool busy;

    do {
        mock_host_settle(host);
        busy = fake_serve(fake);
    } while (busy);
}

static void pass(unsigned int ms) {
    for (unsigned int i = 0; i < ms; i += 10) {
        mock_host_advance(host, 10 * NS_PER_MS);
        settle();
    }
}

static void begin(void) {
    fake = fake_new();
    fake->registers = LONG_MODE;
    snprintf(state_directory, sizeof(state_directory), "/tmp/vmibus-hold-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(state_directory));
}

static size_t intents(void) {
    DIR *directory = opendir(state_directory);
    struct dirent *entry;
    size_t n = 0;

    while ((entry = readdir(directory)))
        n += entry->d_name[0] != '.';
    closedir(directory);

    return n;
}

static void end(void) {
    host = mock_host_free(host);
    fake = fake_free(fake);
    ck_assert_int_eq(rmdir(state_directory), 0); /* nothing is left in it */
}

static void make_host_with(const struct vmibus_sensor_saved *saved) {
    char monitor[128], state[96];
    const char *const options[] = {monitor, state, NULL};

    snprintf(monitor, sizeof(monitor), "monitor.one=%s", fake->path);
    snprintf(state, sizeof(state), "state-directory=%s", state_directory);
    host = mock_host_new(&vmibus_qemu_sensor);
    mock_host_own_time(host);
    mock_host_give(host, saved);
    ck_assert_int_eq(mock_host_start(host, options), 0);
}

static void make_host(void) {
    make_host_with(NULL);
}

static void start(void) {
    make_host();
    pass(20);
    vm = mock_host_endpoint(host, "one");
    ck_assert_ptr_nonnull(vm);
}

static uint64_t send_vm(enum vmibus_vm_operation operation) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_VM,
                                       .cmd_vm.operation = (uint8_t)operation};

    return mock_host_execute(host, vm, &frame, NULL, 0);
}

static uint64_t command(enum vmibus_vm_operation operation) {
    uint64_t id = send_vm(operation);

    settle();

    return id;
}

#define HOLD VMIBUS_VM_OPERATION_HOLD
#define LET_GO VMIBUS_VM_OPERATION_LET_GO
#define PAUSE VMIBUS_VM_OPERATION_PAUSE
#define RESUME VMIBUS_VM_OPERATION_RESUME

static void expect(uint64_t id, enum vmibus_error error, uint64_t count) {
    const struct vmibus_ack *ack = mock_host_ack(host, id);

    ck_assert_ptr_nonnull(ack);
    ck_assert_int_eq(ack->error, error);
    ck_assert_uint_eq(ack->count, count);
}

#define expect_ok(operation, count) expect(command(operation), VMIBUS_ERROR_OK, count)

/* Somebody at another monitor. */
static void somebody(const char *event, const char *status) {
    fake->status = status;
    fake_event(fake, event, NULL);
    settle();
}

static size_t stops(void) {
    return fake_count(fake, "\"stop\"");
}

static size_t conts(void) {
    return fake_count(fake, "\"cont\"");
}

/* --- what a hold does ------------------------------------------------------------------------ */

TEST(test_p11_hold_stops_and_goes_on, .setup = begin, .teardown = end) {
    const struct vmibus_lifecycle *body;

    start();
    expect_ok(HOLD, 1);
    ck_assert_str_eq(fake->status, "paused");
    ck_assert_uint_eq(intents(), 1);
    body = &mock_host_last_of(host, MOCK_PUBLISH, vm)->frame.lifecycle;
    ck_assert_int_eq(body->state, VMIBUS_VM_STATE_PAUSED);
    ck_assert_int_eq(body->flags, VMIBUS_LIFECYCLE_BY_BUS);
    expect_ok(LET_GO, 1);
    ck_assert_str_eq(fake->status, "running");
    ck_assert_uint_eq(intents(), 0);
    body = &mock_host_last_of(host, MOCK_PUBLISH, vm)->frame.lifecycle;
    ck_assert_int_eq(body->state, VMIBUS_VM_STATE_RUNNING);
    ck_assert_int_eq(body->flags, VMIBUS_LIFECYCLE_BY_BUS);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
}

TEST(test_p11_hold_of_a_paused_guest_resumes_nothing, .setup = begin, .teardown = end) {
    start();
    somebody("STOP", "paused");
    expect_ok(HOLD, 0);
    expect_ok(LET_GO, 0);
    ck_assert_uint_eq(stops() + conts(), 0);
    ck_assert_uint_eq(intents(), 0);
    ck_assert_str_eq(fake->status, "paused");
}

/* It stood still already, and nobody has said why: nothing proves that it stays so, and the stop is not ours. */
TEST(test_p11_pause_that_nobody_told_of, .setup = begin, .teardown = end) {
    start();
    fake->status = "paused";
    expect(command(HOLD), VMIBUS_ERROR_BUSY, 0);
    ck_assert_uint_eq(intents(), 0);
    fake_event(fake, "STOP", NULL);
    settle();
    expect_ok(LET_GO, 0);
    ck_assert_uint_eq(conts(), 0);
    ck_assert_str_eq(fake->status, "paused");
}

TEST(test_p11_pause_under_a_hold_remains, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    expect_ok(PAUSE, 1);
    expect_ok(LET_GO, 0);
    ck_assert_str_eq(fake->status, "paused");
    ck_assert_uint_eq(intents(), 1); /* the pause is ours, and survives no crash of ours */
    expect_ok(RESUME, 1);
    ck_assert_str_eq(fake->status, "running");
}

TEST(test_p11_resume_under_a_hold_waits_for_its_end, .setup = begin, .teardown = end) {
    start();
    expect_ok(PAUSE, 1);
    expect_ok(HOLD, 0);
    expect_ok(RESUME, 1);
    ck_assert_str_eq(fake->status, "paused");
    expect_ok(LET_GO, 1);
    ck_assert_str_eq(fake->status, "running");
}

TEST(test_p11_resume_of_a_foreign_pause_under_a_hold, .setup = begin, .teardown = end) {
    start();
    somebody("STOP", "paused");
    expect_ok(HOLD, 0);
    expect_ok(RESUME, 1);
    ck_assert_str_eq(fake->status, "paused");
    expect_ok(LET_GO, 1);
    ck_assert_str_eq(fake->status, "running");
}

TEST(test_p11_pause_after_resume_under_a_hold, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    expect_ok(RESUME, 1);
    expect_ok(PAUSE, 1);
    expect_ok(LET_GO, 0);
    ck_assert_str_eq(fake->status, "paused");
    expect_ok(RESUME, 1);
}

/* Somebody lets it run and pauses it: known by the events, and his. */
TEST(test_p11_guest_that_was_let_run_meanwhile, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    somebody("RESUME", "running");
    ck_assert_uint_eq(intents(), 0);
    somebody("STOP", "paused");
    expect_ok(LET_GO, 0);
    ck_assert_uint_eq(conts(), 0);
    ck_assert_str_eq(fake->status, "paused");
}

TEST(test_p11_guest_that_left_is_not_let_go, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    fake->status = "postmigrate";
    expect_ok(LET_GO, 0);
    ck_assert_uint_eq(conts(), 0);
    ck_assert_uint_eq(intents(), 0);
}

TEST(test_hold_of_a_guest_that_sleeps_is_refused, .setup = begin, .teardown = end) {
    start();
    somebody("SUSPEND", "suspended");
    expect(command(HOLD), VMIBUS_ERROR_BUSY, 0);
    expect_ok(LET_GO, 0);
    ck_assert_uint_eq(stops() + conts(), 0);
}

TEST(test_hold_that_the_monitor_refuses, .setup = begin, .teardown = end) {
    start();
    fake->refuse = "\"stop\"";
    expect(command(HOLD), VMIBUS_ERROR_IO, 0);
    ck_assert_uint_eq(intents(), 0);
    ck_assert_str_eq(fake->status, "running");
}

TEST(test_let_go_that_fails_can_be_repeated, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    fake->refuse = "\"cont\"";
    expect(command(LET_GO), VMIBUS_ERROR_IO, 0);
    ck_assert_uint_eq(intents(), 1);
    fake->refuse = NULL;
    fake->status = "save-vm";
    expect(command(LET_GO), VMIBUS_ERROR_BUSY, 0);
    fake->status = "paused";
    expect_ok(LET_GO, 1);
    ck_assert_str_eq(fake->status, "running");
    ck_assert_uint_eq(intents(), 0);
}

/* None of them meets the guest half-way through another. */
TEST(test_commands_of_the_run_state_do_not_interleave, .setup = begin, .teardown = end) {
    uint64_t ids[5];

    start();
    ids[0] = send_vm(HOLD);
    ids[1] = send_vm(LET_GO);
    ids[2] = send_vm(PAUSE);
    ids[3] = send_vm(HOLD);
    ids[4] = send_vm(LET_GO);
    settle();
    for (size_t i = 0; i < 4; i++)
        expect(ids[i], VMIBUS_ERROR_OK, i != 3);
    expect(ids[4], VMIBUS_ERROR_OK, 0);
    ck_assert_str_eq(fake->status, "paused");
    expect_ok(RESUME, 1);
    ck_assert_uint_eq(stops(), 2);
    ck_assert_uint_eq(conts(), 2);
}

TEST(test_p11_end_in_order_ends_a_hold, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    mock_host_stop(host);
    fake_serve(fake);
    ck_assert_str_eq(fake->status, "running");
    fake_hang_up(fake);
    host = mock_host_free(host);
    start(); /* the intent of a guest that runs is only removed */
    ck_assert_uint_eq(conts(), 1);
    ck_assert_uint_eq(intents(), 0);
}

TEST(test_p11_hold_survives_the_loss_of_the_monitor, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    fake_hang_up(fake);
    settle();
    expect(command(LET_GO), VMIBUS_ERROR_IO, 0);
    pass(2000);
    ck_assert_str_eq(fake->status, "paused"); /* a start resumes what a crash left, not what is held */
    expect_ok(LET_GO, 1);
    ck_assert_str_eq(fake->status, "running");
    ck_assert_uint_eq(intents(), 0);
}

/* --- restarts -------------------------------------------------------------------------------- */

static uint8_t kept_octets[8192];
static struct vmibus_sensor_saved kept;

static void end_for_a_restart(void) {
    struct vmibus_sensor_saved state;

    ck_assert_int_eq(vmibus_qemu_sensor.save(mock_host_instance(host), &state), 0);
    ck_assert_uint_le(state.n_octets, sizeof(kept_octets));
    memcpy(kept_octets, state.octets, state.n_octets);
    kept = (struct vmibus_sensor_saved){.octets = kept_octets, .n_octets = state.n_octets};
    host = mock_host_free(host);
    fake_hang_up(fake);
}

static void start_next(bool is_kept) {
    make_host_with(&kept);
    pass(20);
    vm = mock_host_endpoint(host, "one");
    ck_assert_ptr_nonnull(vm);
    mock_host_accept(host, vm, is_kept);
    settle();
}

static void restart(bool is_kept) {
    end_for_a_restart();
    start_next(is_kept);
}

TEST(test_p11_hold_is_kept_over_a_restart, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    restart(true);
    restart(true);
    ck_assert_str_eq(fake->status, "paused");
    ck_assert_uint_eq(conts(), 0);
    ck_assert_uint_eq(intents(), 1);
    expect_ok(LET_GO, 1);
    ck_assert_str_eq(fake->status, "running");
    ck_assert_uint_eq(stops(), 1);
    ck_assert_uint_eq(intents(), 0);
}

TEST(test_p11_pause_is_kept_over_a_restart, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    expect_ok(PAUSE, 1);
    restart(true);
    expect_ok(LET_GO, 0);
    ck_assert_str_eq(fake->status, "paused");
    restart(true);
    expect_ok(HOLD, 0);
    expect_ok(RESUME, 1);
    restart(true);
    ck_assert_str_eq(fake->status, "paused");
    expect_ok(LET_GO, 1);
    ck_assert_str_eq(fake->status, "running");
}

/* Whether the guest ran before is still known. */
TEST(test_p11_foreign_pause_under_a_hold_is_kept_over_a_restart, .setup = begin, .teardown = end) {
    start();
    somebody("STOP", "paused");
    expect_ok(HOLD, 0);
    restart(true);
    expect_ok(LET_GO, 0);
    ck_assert_str_eq(fake->status, "paused");
    ck_assert_uint_eq(conts(), 0);
}

TEST(test_p11_hold_that_nobody_wants_after_a_restart_ends, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    restart(false);
    ck_assert_str_eq(fake->status, "running");
    ck_assert_uint_eq(intents(), 0);
}

/* Also where the bus answers before the monitor does. */
TEST(test_p11_hold_that_nobody_wants_is_refused_early, .setup = begin, .teardown = end) {
    start();
    expect_ok(PAUSE, 1);
    end_for_a_restart();
    fake->hold = "info registers -a";
    start_next(false);
    ck_assert_str_eq(fake->status, "paused");
    fake->hold = NULL;
    fake_hang_up(fake);
    pass(2000);
    ck_assert_str_eq(fake->status, "running");
    ck_assert_uint_eq(intents(), 0);
}

/* Nothing follows: whoever starts the sensor without what was saved ends the stop, as after a crash. */
TEST(test_p11_hold_whose_state_is_lost_ends, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    end_for_a_restart();
    kept = (struct vmibus_sensor_saved){};
    start_next(true);
    ck_assert_str_eq(fake->status, "running");
    ck_assert_uint_eq(intents(), 0);
}

/* Somebody let it run while nobody looked, and stopped it again: that pause is his. */
TEST(test_p11_guest_that_ran_over_a_restart_is_not_let_go, .setup = begin, .teardown = end, .iterations = 2) {
    start();
    expect_ok(HOLD, 1);
    end_for_a_restart();
    fake->registers = ELSEWHERE;
    start_next(_i == 0);
    expect_ok(LET_GO, 0);
    ck_assert_str_eq(fake->status, "paused");
    ck_assert_uint_eq(conts(), 0);
    ck_assert_uint_eq(intents(), 0);
}

TEST(test_p11_guest_that_runs_after_a_restart_is_not_held, .setup = begin, .teardown = end) {
    start();
    expect_ok(HOLD, 1);
    end_for_a_restart();
    fake->status = "running";
    start_next(true);
    ck_assert_uint_eq(intents(), 0);
    expect_ok(HOLD, 1);
    expect_ok(LET_GO, 1);
    ck_assert_str_eq(fake->status, "running");
}

/* Who let it run, or loaded a snapshot into it, while nobody looked ends the epoch that the bus has kept. */
TEST(test_p06_stop_that_did_not_last_over_a_restart, .setup = begin, .teardown = end, .iterations = 3) {
    start();
    expect_ok(HOLD, 1);
    end_for_a_restart();
    if (_i == 1)
        fake->registers = ELSEWHERE;
    else if (_i == 2)
        fake->status = "running";
    start_next(true);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), _i > 0);
    if (_i > 0)
        ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RELOADED);
    (void)command(LET_GO);
}

static void send_key(uint16_t code, int32_t value) {
    const struct vmibus_frame frame = {
        .header.kind = VMIBUS_KIND_CMD_INPUT,
        .cmd_input = {.count = 1, .events = {{.type = VMIBUS_INPUT_TYPE_KEY, .code = code, .value = value}}}};
    uint64_t id = mock_host_execute(host, vm, &frame, NULL, 0);

    settle();
    expect(id, VMIBUS_ERROR_OK, 1);
}

static uint64_t release(void) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_INPUT_RELEASE};
    uint64_t id = mock_host_execute(host, vm, &frame, NULL, 0);

    settle();
    return id;
}

TEST(test_p05_keys_are_kept_over_a_restart, .setup = begin, .teardown = end) {
    start();
    send_key(30, 1);
    send_key(48, 1);
    send_key(48, 0);
    restart(true);
    ck_assert_uint_eq(fake_count(fake, "false"), 1);
    expect(release(), VMIBUS_ERROR_OK, 1);
    ck_assert_uint_eq(fake_count(fake, "false"), 2);
}

TEST(test_p05_keys_that_nobody_wants_after_a_restart_are_released, .setup = begin, .teardown = end) {
    start();
    send_key(30, 1);
    restart(false);
    ck_assert_uint_eq(fake_count(fake, "false"), 1);
    expect(release(), VMIBUS_ERROR_OK, 0);
}

TEST(test_p05_end_in_order_releases_keys, .setup = begin, .teardown = end) {
    start();
    send_key(30, 1);
    mock_host_stop(host);
    fake_serve(fake);
    ck_assert_uint_eq(fake_count(fake, "false"), 1);
}

/* Octets of another version, or of nobody's. */
TEST(test_p12_what_was_saved_is_checked, .setup = begin, .teardown = end, .timeout = 120) {
    struct vmibus_sensor_saved ignored;
    uint8_t octets[sizeof(kept_octets)];
    size_t n;

    start();
    send_key(30, 1);
    expect_ok(HOLD, 1);
    end_for_a_restart();
    n = kept.n_octets;
    memcpy(octets, kept_octets, n);
    for (size_t i = 0; i < 2 * n; i++) {
        memcpy(kept_octets, octets, n);
        kept.n_octets = i < n ? i : n;
        if (i >= n)
            kept_octets[i - n] ^= 0xff;
        make_host_with(&kept);
        pass(20);
        /* So that the end of this one undoes nothing. */
        ck_assert_int_eq(vmibus_qemu_sensor.save(mock_host_instance(host), &ignored), 0);
        host = mock_host_free(host);
        fake_hang_up(fake);
    }
    memcpy(kept_octets, octets, n);
    kept.n_octets = n;
    start_next(false);
    ck_assert_str_eq(fake->status, "running");
    ck_assert_uint_eq(intents(), 0);
}

/* --- crashes --------------------------------------------------------------------------------- */

static pid_t child;
static int order[2], done[2];   /* the child is told to go on, and tells that it has */
static size_t seen, kill_at;    /* moments of commands after the introduction */
#define WHILE_HELD SIZE_MAX     /* kill_at: once HOLD is answered */
static bool armed;

static void crash(void) {
    ck_assert_int_eq(kill(child, SIGKILL), 0);
    ck_assert_int_eq(waitpid(child, NULL, 0), child);
    child = 0;
}

/* Two moments of each command: it has arrived, and it has been executed but not answered. */
static void watch(const char *text, bool executed) {
    (void)text;
    (void)executed;
    if (armed && child && seen++ == kill_at)
        crash();
}

static bool has_endpoint(void *data) {
    (void)data;
    vm = mock_host_endpoint(host, "one");

    return vm && mock_host_count(host, MOCK_LAYOUT) > 0;
}

static bool is_answered(void *data) {
    return mock_host_ack(host, *(uint64_t *)data) != NULL;
}

static void tell(int fd) {
    ck_assert_int_eq(write(fd, "x", 1), 1);
}

/* The sensor's process: holds and lets go, a step for each order. */
static void run_child(void) {
    char monitor[128], state[96], c;
    const char *const options[] = {monitor, state, NULL};
    const enum vmibus_vm_operation steps[] = {HOLD, LET_GO};

    snprintf(monitor, sizeof(monitor), "monitor.one=%s", fake->path);
    snprintf(state, sizeof(state), "state-directory=%s", state_directory);
    host = mock_host_new(&vmibus_qemu_sensor);
    ck_assert_int_eq(mock_host_start(host, options), 0);
    ck_assert(mock_host_wait(host, has_endpoint, NULL, WAIT_MS));
    for (size_t i = 0; i < 2; i++) {
        uint64_t id;

        tell(done[1]);
        if (read(order[0], &c, 1) != 1)
            _exit(1);
        id = send_vm(steps[i]);
        ck_assert(mock_host_wait(host, is_answered, &id, WAIT_MS));
    }
    tell(done[1]);
    pause();
    _exit(1);
}

/* Plays the monitor until the child has said that it is ready, or is dead. */
static void serve(void) {
    struct pollfd ready = {.fd = done[0], .events = POLLIN};
    char c;

    while (child && poll(&ready, 1, 1) == 0)
        fake_serve(fake);
    if (child)
        ck_assert_int_eq(read(done[0], &c, 1), 1);
}

/* Lets the sensor hold and let go, and kills it at a moment; false: it came through alive. */
static bool run_until(size_t moment) {
    ck_assert_int_eq(pipe(order), 0);
    ck_assert_int_eq(pipe(done), 0);
    seen = 0;
    kill_at = moment;
    fake->watch = watch;
    armed = false;
    child = fork();
    if (child == 0)
        run_child();
    serve();
    armed = true;
    for (size_t i = 0; child && i < 2; i++) {
        tell(order[1]);
        serve();
        if (child && (seen++ == kill_at || kill_at == WHILE_HELD))
            crash(); /* between the answers and what comes next */
    }
    armed = false;
    for (int i = 0; i < 2; i++) {
        close(order[i]);
        close(done[i]);
    }
    if (child) {
        crash();
        fake_hang_up(fake);
        return false;
    }
    fake_serve(fake);
    fake_hang_up(fake);

    return true;
}

/* Kills at each moment in turn; a start afterwards must leave the guest as somebody wants it. */
static void kill_everywhere(const char *before, size_t least) {
    size_t moment;

    for (moment = 0;; moment++) {
        bool died;

        fake->status = before;
        died = run_until(moment);
        start();
        pass(100);
        ck_assert_msg(strcmp(fake->status, before) == 0, "killed at moment %zu the guest is %s", moment, fake->status);
        ck_assert_uint_eq(intents(), 0);
        mock_host_stop(host);
        host = mock_host_free(host);
        fake_hang_up(fake);
        ck_assert_str_eq(fake->status, before);
        if (!died)
            break;
    }
    ck_assert_uint_ge(moment, least);
}

/* stop, registers, held; registers, status, cont, let go: with two moments each. */
TEST(test_p11_crash_at_any_moment_leaves_it_running, .setup = begin, .teardown = end, .timeout = 60) {
    kill_everywhere("running", 12);
}

TEST(test_p11_crash_at_any_moment_leaves_it_paused, .setup = begin, .teardown = end, .timeout = 60) {
    kill_everywhere("paused", 2);
}

/* It ran after our crash, and somebody paused it then. */
TEST(test_p11_pause_after_a_crash_is_not_ours, .setup = begin, .teardown = end, .timeout = 60) {
    fake->status = "running";
    ck_assert(run_until(WHILE_HELD));
    ck_assert_str_eq(fake->status, "paused");
    ck_assert_uint_eq(intents(), 1);
    fake->registers = ELSEWHERE;
    start();
    pass(100);
    ck_assert_str_eq(fake->status, "paused");
    ck_assert_uint_eq(conts(), 0);
    ck_assert_uint_eq(intents(), 0);
}

/* A second crash, at each moment of the recovery. */
TEST(test_p11_crash_while_a_crash_is_made_good, .setup = begin, .teardown = end, .timeout = 60) {
    for (size_t moment = 0; moment < 40; moment++) {
        fake->status = "running";
        ck_assert(run_until(WHILE_HELD));
        ck_assert_str_eq(fake->status, "paused");
        ck_assert_int_eq(pipe(order), 0);
        ck_assert_int_eq(pipe(done), 0);
        seen = 0;
        kill_at = moment;
        armed = true;
        child = fork();
        if (child == 0)
            run_child();
        serve();
        if (child)
            crash();
        armed = false;
        for (int i = 0; i < 2; i++) {
            close(order[i]);
            close(done[i]);
        }
        fake_serve(fake);
        fake_hang_up(fake);
        start();
        pass(100);
        ck_assert_str_eq(fake->status, "running");
        ck_assert_uint_eq(intents(), 0);
        mock_host_stop(host);
        host = mock_host_free(host);
        fake_hang_up(fake);
    }
}

HARNESS_SUITE("qemu: holding still", HARNESS_QUICK)
