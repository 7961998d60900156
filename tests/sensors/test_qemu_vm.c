/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The QEMU sensor as a whole, against monitors that the test plays and a host that it plays too.
 * Time is the test's.
 */
#include "harness.h"

#include <errno.h>
#include <linux/input-event-codes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_qemu.h"
#include "mock_host.h"
#include "qemu/qemu.h"
#include "qemu/qmp.h"

#define NS_PER_MS UINT64_C(1000000)
#define LONG_MODE                                                                                  \
    "CPU#0\r\nCR0=80050033 CR2=0 CR3=0000000000200000 CR4=00350ef0\r\nEFER=0000000000000d01\r\n"

static struct fake_qemu *fake, *other;
static struct mock_host *host;
static struct vmibus_sensor_endpoint *vm;

static void settle(void) {
    bool busy;

    do {
        mock_host_settle(host);
        busy = fake_serve(fake);
        busy |= other && fake_serve(other);
    } while (busy);
}

/* Moves the time on in small steps, so that the monitors answer in between. */
static void pass(unsigned int ms) {
    for (unsigned int i = 0; i < ms; i += 10) {
        mock_host_advance(host, 10 * NS_PER_MS);
        settle();
    }
}

static void start(void) {
    char one[128], two[128];
    const char *const options[] = {one, other ? two : NULL, NULL};

    snprintf(one, sizeof(one), "monitor.one=%s", fake->path);
    if (other)
        snprintf(two, sizeof(two), "monitor.two=%s", other->path);
    host = mock_host_new(&vmibus_qemu_sensor);
    mock_host_own_time(host);
    ck_assert_int_eq(mock_host_start(host, options), 0);
    pass(20);
    vm = mock_host_endpoint(host, "one");
}

static void begin(void) {
    fake = fake_new();
}

static void begin_two(void) {
    begin();
    other = fake_new();
}

static void end(void) {
    host = mock_host_free(host);
    fake = fake_free(fake);
    if (other)
        other = fake_free(other);
}

static const struct vmibus_lifecycle *last_lifecycle(void) {
    const struct mock_record *record = mock_host_last_of(host, MOCK_PUBLISH, vm);

    return record ? &record->frame.lifecycle : NULL;
}

static void expect_lifecycle(enum vmibus_vm_state state, enum vmibus_lifecycle_cause cause,
                             bool by_bus) {
    const struct vmibus_lifecycle *body = last_lifecycle();

    ck_assert_ptr_nonnull(body);
    ck_assert_int_eq(body->state, state);
    ck_assert_int_eq(body->cause, cause);
    ck_assert_int_eq(body->flags, by_bus ? VMIBUS_LIFECYCLE_BY_BUS : 0);
}

static void event(const char *name, const char *data) {
    fake_event(fake, name, data);
    settle();
}

/* --- introduction ---------------------------------------------------------------------------- */

TEST(test_a_vm_is_introduced, .setup = begin, .teardown = end) {
    const struct mock_layout *layout;

    start();
    ck_assert_ptr_nonnull(vm);
    ck_assert_uint_eq(vm->pid, (uint32_t)getpid());
    ck_assert_uint_ne(vm->start_time, 0);
    ck_assert_uint_eq(vm->uuid[1], 0x11);
    ck_assert_uint_eq(vm->uuid[15], 0xff);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);

    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    layout = &mock_host_last(host, MOCK_LAYOUT)->layout;
    ck_assert_uint_eq(layout->n_ranges, 3);
    ck_assert_uint_eq(layout->ranges[0].len, 0xa0000);
    ck_assert_uint_eq(layout->ranges[1].flags, VMIBUS_RANGE_READ_ONLY);
    ck_assert_uint_eq(layout->ranges[2].gpa, 0x100000);
    ck_assert_uint_eq(layout->ranges[2].location, fake->hva + 0x100000);
    ck_assert_int_eq(mock_host_last(host, MOCK_ROOT)->root.reason, VMIBUS_REASON_BOOTING);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_READY);
}

TEST(test_options, .setup = begin, .teardown = end) {
    static const char *const bad[] = {"monitor.=/x", "monitor.a=relative", "nonsense=1",
                                      "state-directory=relative"};

    host = mock_host_new(&vmibus_qemu_sensor);
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        const char *const options[] = {bad[i], NULL};

        ck_assert_int_eq(mock_host_start(host, options), -EINVAL);
        ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_FAILED);
    }
    ck_assert_int_eq(
        mock_host_start(host, (const char *const[]){"monitor.a=/x", "monitor.a=/y", NULL}),
        -EINVAL);
}

/* By what protects the machine, whatever its kind, or by QEMU's own word for one kind. */
TEST(test_p12_confidential_guest_is_refused, .setup = begin, .teardown = end, .iterations = 2) {
    if (_i)
        fake->sev = true;
    else
        fake->machine = "/objects/tdx0";
    fake->registers = LONG_MODE;
    start();
    pass(5000);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 0);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ATTACH), 0);
    ck_assert_uint_eq(fake_count(fake, "gpa2hva"), 0);
    ck_assert_uint_eq(fake_count(fake, "info registers"), 0);
    ck_assert_uint_eq(mock_host_last(host, MOCK_ROOT)->root.cr3, 0);
    ck_assert_int_eq(mock_host_last(host, MOCK_ROOT)->root.reason, VMIBUS_REASON_CONFIDENTIAL);
}

TEST(test_p12_lying_monitor_gets_no_layout, .setup = begin, .teardown = end) {
    fake->mtree = "FlatView #0\r\n AS \"memory\", root: system\r\n Root memory region: system\r\n"
                  "  0000000000000000-00000000020fffff (prio 0, ram): ram0\r\n";
    start();
    pass(30000);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 0);
    /* And it is not asked for ever. */
    ck_assert_uint_le(fake_count(fake, "mtree"), 20);

    fake->mtree = "nonsense";
    event("DEVICE_DELETED", NULL);
    ck_assert_int_eq(mock_host_last(host, MOCK_ROOT)->root.reason, VMIBUS_REASON_LAYOUT_UNPROVEN);
}

TEST(test_p12_a_range_in_two_pieces_gets_no_layout, .setup = begin, .teardown = end) {
    fake->torn = 0x800000;
    start();
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 0);
    ck_assert_int_eq(mock_host_last(host, MOCK_ROOT)->root.reason, VMIBUS_REASON_LAYOUT_UNPROVEN);
}

#define VIEW "FlatView #0\r\n AS \"memory\", root: system\r\n Root memory region: system\r\n"

/* What is refused is said, with what would help; and no more when it is as it should be. */
TEST(test_p12_refusals_are_explained, .setup = begin, .teardown = end) {
    static const struct {
        const char *mtree, *memdevs, *devices, *remedy;
    } machines[] = {
        {NULL, "[]", "[]", "memory-backend=ram0"},
        {NULL, "[{\"id\": \"unused\", \"size\": 4096}]", "[]", "memory-backend=ram0"},
        {NULL, "[{\"id\": 7, \"size\": -1}]", "7", "memory-backend=ram0"},
        {NULL, "{}", "[]", "from 7.2 on"},
        {NULL, NULL, "{}", "from 7.2 on"},
        {"nonsense", NULL, NULL, "from 7.2 on"},
        {NULL, "[{\"id\": \"ram0\", \"size\": 4096}]", NULL, "give it another id"},
        {VIEW "  0000000000000000-000000000009ffff (prio 0, ram): ram0\r\n"
              "  0000000000100000-00000000001fffff (prio 0, ram): ram0 @0000000000200000\r\n",
         NULL, NULL, "give it another id"},
        {NULL, NULL, "[{\"type\": \"nvdimm\", \"data\": {\"memdev\": \"/objects/ram0\"}}]", "memory-backend=ram0"},
        {VIEW "  0000000000000000-00000000000fffff (prio 0, nv-ram): ram0\r\n", NULL, NULL, "memory-backend=ram0"},
        {VIEW "  0000000000000000-00000000000fffff (prio 1, ram): ram0\r\n", NULL, NULL, "memory-backend=ram0"},
    };
    const char *mtree = fake->mtree, *memdevs = fake->memdevs, *devices = fake->devices;

    fake->mtree = "nonsense";
    start();
    for (size_t i = 0; i < sizeof(machines) / sizeof(*machines); i++) {
        const struct mock_record *said;

        fake->mtree = machines[i].mtree ? machines[i].mtree : mtree;
        fake->memdevs = machines[i].memdevs ? machines[i].memdevs : memdevs;
        fake->devices = machines[i].devices ? machines[i].devices : devices;
        event("DEVICE_DELETED", NULL);
        ck_assert_int_eq(mock_host_last(host, MOCK_ROOT)->root.reason, VMIBUS_REASON_LAYOUT_UNPROVEN);
        said = mock_host_last(host, MOCK_ANNOUNCE);
        ck_assert_int_eq(said->state, VMIBUS_SENSOR_STATE_DEGRADED);
        ck_assert_msg(strstr(said->message, "one: no RAM layout: ") == said->message && strstr(said->message, machines[i].remedy),
                      "machine %zu: %s", i, said->message);
    }
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 0);
    fake->mtree = mtree;
    fake->memdevs = memdevs;
    fake->devices = devices;
    event("DEVICE_DELETED", NULL);
    pass(100);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_READY);
}

/* --- absence, monitors in use, silence ------------------------------------------------------- */

TEST(test_a_vm_that_comes_later, .setup = begin, .teardown = end) {
    size_t woken;

    fake_close(fake);
    start();
    ck_assert_ptr_null(vm);
    pass(20000);
    /* Nothing asks any more: only the directory's watch is left. */
    woken = mock_host_sources(host);
    ck_assert_uint_eq(woken, 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_READY);
    fake_listen(fake);
    settle();
    pass(20);
    ck_assert_ptr_nonnull(mock_host_endpoint(host, "one"));
}

TEST(test_monitor_in_use_is_said_plainly, .setup = begin, .teardown = end) {
    fake->greeting = NULL;
    start();
    pass(1500);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_DEGRADED);
    ck_assert_ptr_nonnull(
        strstr(mock_host_last(host, MOCK_ANNOUNCE)->message, "in use by another client"));
    fake_send(fake, FAKE_GREETING "\r\n", sizeof(FAKE_GREETING "\r\n") - 1);
    settle();
    ck_assert_ptr_nonnull(mock_host_endpoint(host, "one"));
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_READY);
}

TEST(test_p09_one_hanging_qemu_disturbs_no_other, .setup = begin_two, .teardown = end) {
    struct vmibus_sensor_endpoint *two;
    uint64_t epoch;

    start();
    two = mock_host_endpoint(host, "two");
    ck_assert_ptr_nonnull(two);
    epoch = two->epoch;
    fake->silent = true;
    event("DEVICE_DELETED", NULL);
    pass(6000);
    ck_assert_int_eq(mock_host_last(host, MOCK_ANNOUNCE)->state, VMIBUS_SENSOR_STATE_DEGRADED);
    ck_assert_ptr_nonnull(strstr(mock_host_last(host, MOCK_ANNOUNCE)->message, "not answered"));
    expect_lifecycle(VMIBUS_VM_STATE_UNKNOWN, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    ck_assert_int_eq(mock_host_last_of(host, MOCK_END_EPOCH, vm)->reason, VMIBUS_REASON_WITHDRAWN);
    ck_assert_ptr_null(mock_host_last_of(host, MOCK_END_EPOCH, two));
    ck_assert_uint_eq(two->epoch, epoch);

    /* It comes to itself: the same endpoint, a new epoch. */
    fake->silent = false;
    fake_hang_up(fake);
    pass(20000);
    ck_assert_ptr_eq(mock_host_endpoint(host, "one"), vm);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_OBSERVED, false);
    ck_assert_uint_ne(vm->epoch, 0);
}

/* --- events ---------------------------------------------------------------------------------- */

TEST(test_p06_resets_in_a_row_are_one, .setup = begin, .teardown = end) {
    size_t published, ended;

    start();
    published = mock_host_count(host, MOCK_PUBLISH);
    ended = mock_host_count(host, MOCK_END_EPOCH);
    event("RESET", "{\"guest\": false, \"reason\": \"host-qmp-system-reset\"}");
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), ended + 1);
    pass(100);
    event("RESET", "{\"guest\": true, \"reason\": \"guest-reset\"}");
    event("RESET", "{\"guest\": true, \"reason\": \"guest-reset\"}");
    pass(500);
    ck_assert_uint_eq(mock_host_count(host, MOCK_PUBLISH), published + 1);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), ended + 1);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESET, false);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 2);
    /* One later is another. */
    event("RESET", "{\"guest\": true, \"reason\": \"guest-reset\"}");
    ck_assert_uint_eq(mock_host_count(host, MOCK_PUBLISH), published + 2);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), ended + 2);
}

/* A reset while a verdict is awaited: what was proposed before it does not become an epoch. */
TEST(test_p06_reset_overtakes_a_verdict, .setup = begin, .teardown = end) {
    fake_close(fake);
    start();
    mock_host_behaviour(host)->answer_layout = false;
    fake_listen(fake);
    settle();
    pass(20);
    vm = mock_host_endpoint(host, "one");
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    event("RESET", "{\"guest\": true}");
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    mock_host_answer_layout(host, vm, 77, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    settle();
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 2);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ROOT), 0);
    pass(500);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 2);
}

TEST(test_run_states, .setup = begin, .teardown = end) {
    start();
    event("STOP", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, false);
    event("RESUME", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, false);
    event("BLOCK_IO_ERROR", "{\"action\": \"report\"}");
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, false);
    event("BLOCK_IO_ERROR", "{\"action\": \"stop\"}");
    event("STOP", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_IO_ERROR, false);
    event("RESUME", NULL);
    event("WATCHDOG", "{\"action\": \"none\"}");
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, false);
    event("WATCHDOG", "{\"action\": \"pause\"}");
    event("STOP", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_WATCHDOG, false);
    event("RESUME", NULL);
    event("STOP", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, false);
    event("RESUME", NULL);
    event("SUSPEND", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_SUSPENDED, VMIBUS_LIFECYCLE_CAUSE_SUSPENDED, false);
    event("WAKEUP", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_WAKEUP, false);
    event("POWERDOWN", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_POWERDOWN, false);
    event("GUEST_PANICKED", "{\"action\": \"run\"}");
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_PANICKED, false);
    event("GUEST_PANICKED", "{\"action\": \"pause\"}");
    event("STOP", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_CRASHED, VMIBUS_LIFECYCLE_CAUSE_PANICKED, false);
    event("SHUTDOWN", "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_SHUTDOWN);
}

/* Nothing that an event lacks, or has of another type, does harm. */
TEST(test_p09_malformed_events, .setup = begin, .teardown = end) {
    static const char *const names[] = {
        "STOP",           "RESUME",         "RESET",     "SHUTDOWN",
        "GUEST_PANICKED", "BLOCK_IO_ERROR", "MIGRATION", "JOB_STATUS_CHANGE",
        "DEVICE_DELETED", "WATCHDOG",       "NO_SUCH_EVENT"};
    static const char *const data[] = {
        NULL,
        "null",
        "[]",
        "17",
        "{}",
        "{\"guest\": \"no\", \"status\": 5, \"action\": []}",
        "{\"guest\": null, \"status\": \"\", \"action\": \"\\u0000\"}"};

    start();
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        for (size_t k = 0; k < sizeof(data) / sizeof(*data); k++)
            event(names[i], data[k]);
    pass(1000);
    ck_assert_ptr_eq(mock_host_endpoint(host, "one"), vm);
}

TEST(test_migration, .setup = begin, .teardown = end) {
    const struct mock_record *busy;

    start();
    event("MIGRATION", "{\"status\": \"setup\"}");
    event("MIGRATION", "{\"status\": \"active\"}");
    expect_lifecycle(VMIBUS_VM_STATE_MIGRATING, VMIBUS_LIFECYCLE_CAUSE_MIGRATION, false);
    busy = mock_host_last(host, MOCK_MEMORY_BUSY);
    ck_assert(busy->busy && busy->reason == VMIBUS_REASON_MIGRATION);
    event("MIGRATION", "{\"status\": \"cancelling\"}");
    ck_assert(mock_host_last(host, MOCK_MEMORY_BUSY)->busy);
    event("MIGRATION", "{\"status\": \"cancelled\"}");
    ck_assert(!mock_host_last(host, MOCK_MEMORY_BUSY)->busy);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);

    event("MIGRATION", "{\"status\": \"setup\"}");
    event("MIGRATION", "{\"status\": \"active\"}");
    event("STOP", NULL);
    event("MIGRATION", "{\"status\": \"completed\"}");
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_MIGRATED);
    ck_assert(!mock_host_last(host, MOCK_MEMORY_BUSY)->busy);
    /* Saved to a file, and resumed here after all. */
    event("RESUME", NULL);
    pass(200);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 2);
}

TEST(test_background_snapshot, .setup = begin, .teardown = end) {
    fake->capabilities = "[{\"capability\": \"events\", \"state\": true}, {\"capability\": "
                         "\"background-snapshot\", \"state\": true}]";
    start();
    event("MIGRATION", "{\"status\": \"setup\"}");
    ck_assert_int_eq(mock_host_last(host, MOCK_MEMORY_BUSY)->reason, VMIBUS_REASON_SNAPSHOT);
    event("MIGRATION", "{\"status\": \"completed\"}");
    ck_assert(!mock_host_last(host, MOCK_MEMORY_BUSY)->busy);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
}

TEST(test_p06_snapshot_job_ends_the_epoch, .setup = begin, .teardown = end) {
    fake->jobs = "[{\"id\": \"j\", \"type\": \"snapshot-load\", \"status\": \"concluded\"}]";
    start();
    event("JOB_STATUS_CHANGE", "{\"id\": \"j\", \"status\": \"created\"}");
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
    event("JOB_STATUS_CHANGE", "{\"id\": \"j\", \"status\": \"concluded\"}");
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RELOADED);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 2);
}

/* A guest that ran tells of it by its RESUME, and the job again, twice: one end. */
TEST(test_p06_snapshot_job_of_a_running_guest_ends_one_epoch, .setup = begin, .teardown = end) {
    fake->jobs = "[{\"id\": \"j\", \"type\": \"snapshot-load\", \"status\": \"concluded\"}]";
    start();
    event("JOB_STATUS_CHANGE", "{\"id\": \"j\", \"status\": \"created\"}");
    fake_event(fake, "JOB_STATUS_CHANGE", "{\"id\": \"j\", \"status\": \"running\"}");
    fake_event(fake, "STOP", NULL);
    event("RESUME", NULL);
    pass(500);
    ck_assert_uint_ne(vm->epoch, 0);
    event("JOB_STATUS_CHANGE", "{\"id\": \"j\", \"status\": \"concluded\"}");
    pass(500);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RELOADED);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 2);
    /* The next one is another. */
    event("JOB_STATUS_CHANGE", "{\"id\": \"j\", \"status\": \"created\"}");
    event("JOB_STATUS_CHANGE", "{\"id\": \"j\", \"status\": \"concluded\"}");
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 2);
}

/* Nothing tells a pause from a loadvm. */
TEST(test_p06_resume_by_somebody_else_ends_the_epoch, .setup = begin, .teardown = end) {
    uint64_t epoch;

    start();
    epoch = vm->epoch;
    event("STOP", NULL);
    pass(100);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
    event("RESUME", NULL);
    pass(100);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RELOADED);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 2);
    ck_assert_uint_ne(vm->epoch, epoch);
}

/* The guest is stopped, and nobody says why: until the monitor answers it may be saved or loaded. */
TEST(test_p06_stop_by_somebody_else_is_busy_until_it_is_known, .setup = begin, .teardown = end) {
    size_t count;

    start();
    count = mock_host_count(host, MOCK_MEMORY_BUSY);
    fake->hold = "query-status";
    event("STOP", NULL);
    ck_assert_uint_eq(mock_host_count(host, MOCK_MEMORY_BUSY), count + 1);
    ck_assert(mock_host_last(host, MOCK_MEMORY_BUSY)->busy);
    ck_assert_int_eq(mock_host_last(host, MOCK_MEMORY_BUSY)->reason, VMIBUS_REASON_SNAPSHOT);
    event("RESUME", NULL);
    ck_assert(!mock_host_last(host, MOCK_MEMORY_BUSY)->busy);

    /* A plain pause. */
    fake->hold = NULL;
    fake->status = "paused";
    count = mock_host_count(host, MOCK_MEMORY_BUSY);
    event("STOP", NULL);
    ck_assert_uint_eq(mock_host_count(host, MOCK_MEMORY_BUSY), count + 2);
    ck_assert(!mock_host_last(host, MOCK_MEMORY_BUSY)->busy);
    event("RESUME", NULL);

    /* A dump that runs by itself. */
    fake->status = "save-vm";
    event("STOP", NULL);
    pass(100);
    ck_assert(mock_host_last(host, MOCK_MEMORY_BUSY)->busy);
    event("RESUME", NULL);
    ck_assert(!mock_host_last(host, MOCK_MEMORY_BUSY)->busy);
}

/* savevm looks like a migration that never is active: the guest has not left. */
TEST(test_p06_saved_guest_has_not_left, .setup = begin, .teardown = end) {
    start();
    event("STOP", NULL);
    event("MIGRATION", "{\"status\": \"setup\"}");
    ck_assert(mock_host_last(host, MOCK_MEMORY_BUSY)->busy);
    event("MIGRATION", "{\"status\": \"completed\"}");
    ck_assert(!mock_host_last(host, MOCK_MEMORY_BUSY)->busy);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
    event("RESUME", NULL);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RELOADED);
}

TEST(test_p06_changed_layout_is_a_new_epoch, .setup = begin, .teardown = end) {
    start();
    event("ACPI_DEVICE_OST", "{\"info\": {}}");
    pass(200);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    fake->hva += 0x1000000;
    event("ACPI_DEVICE_OST", "{\"info\": {}}");
    pass(200);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_HOTPLUG);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 2);
}

/* Nothing tells of it: it is looked for while somebody wants to know, and only then. */
TEST(test_p06_what_changes_without_an_event, .setup = begin, .teardown = end) {
    const char *before = fake->mtree;
    size_t asked;

    start();
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    pass(1000);
    asked = fake_count(fake, "info mtree");
    fake->mtree = VIEW "  0000000000000000-00000000000bffff (prio 0, ram): ram0\r\n";
    pass(10000);
    ck_assert_uint_eq(fake_count(fake, "info mtree"), asked);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);

    mock_host_demand(host, vm, VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX));
    pass(2000);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_HOTPLUG);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 2);
    ck_assert_uint_eq(mock_host_last(host, MOCK_LAYOUT)->layout.ranges[0].len, 0xc0000);
    fake->mtree = before;
    pass(2000);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 3);
    pass(5000);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 3);

    mock_host_demand(host, vm, 0);
    pass(2000);
    asked = fake_count(fake, "info mtree");
    pass(10000);
    ck_assert_uint_eq(fake_count(fake, "info mtree"), asked);
}

/* Memory that is gone is found out by one look, before all the questions of another reading. */
TEST(test_p06_memory_that_is_gone_ends_the_epoch_first, .setup = begin, .teardown = end) {
    start();
    fake->mtree = VIEW "  0000000000000000-000000000009ffff (prio 0, ram): ram0\r\n";
    fake->hold = "query-sev";
    event("DEVICE_DELETED", NULL);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_HOTPLUG);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
}

/* A device's memory that moves is a reason to look, and none to end anything. */
TEST(test_p06_a_moving_bar_ends_nothing, .setup = begin, .teardown = end) {
    size_t asked;

    start();
    mock_host_demand(host, vm, VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX));
    pass(3000);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    asked = fake_count(fake, "gpa2hva");
    fake->mtree = VIEW "  0000000000000000-000000000009ffff (prio 0, ram): ram0\r\n"
                       "  00000000000c0000-00000000000fffff (prio 0, rom): ram0 @00000000000c0000\r\n"
                       "  0000000000100000-0000000000ffffff (prio 0, ram): ram0 @0000000000100000\r\n"
                       "  00000000e0000000-00000000e0ffffff (prio 1, ram): vga.vram\r\n";
    pass(3000);
    ck_assert_uint_eq(fake_count(fake, "gpa2hva"), asked + 6);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
}

/* A layout that never stands still is refused in the end, and so is what was known of it before. */
TEST(test_p12_a_layout_that_goes_on_changing, .setup = begin, .teardown = end) {
    start();
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    fake->mtree = VIEW "  0000000000000000-00000000000fffff (prio 0, ram): ram0\r\n"
                       "  0000000002000000-00000000020fffff (prio 0, ram): ram0 @0000000000100000\r\n";
    event("DEVICE_DELETED", NULL);
    pass(30000);
    ck_assert_uint_eq(mock_host_count(host, MOCK_LAYOUT), 1);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_ROOT)->root.reason, VMIBUS_REASON_LAYOUT_UNPROVEN);
    ck_assert_ptr_nonnull(strstr(mock_host_last(host, MOCK_ANNOUNCE)->message, "contradicts the flat view; wait"));
}

/* --- root ------------------------------------------------------------------------------------ */

TEST(test_p02_a_guest_without_a_kernel_is_not_asked_for_ever, .setup = begin, .teardown = end) {
    size_t asked;

    start();
    pass(1000);
    ck_assert_uint_gt(fake_count(fake, "info registers"), 2);
    for (unsigned int i = 0; i < 200; i++) {
        mock_host_advance(host, 2000 * NS_PER_MS);
        settle();
    }
    asked = fake_count(fake, "info registers");
    for (unsigned int i = 0; i < 20; i++) {
        mock_host_advance(host, 60000 * NS_PER_MS);
        settle();
    }
    ck_assert_uint_eq(fake_count(fake, "info registers"), asked);
    /* Somebody wants to know: it goes on. */
    mock_host_demand(host, vm, VMIBUS_KIND_BIT(VMIBUS_KIND_MEMCTX));
    settle();
    ck_assert_uint_gt(fake_count(fake, "info registers"), asked);
}

TEST(test_p02_a_paused_guest_is_not_asked_again, .setup = begin, .teardown = end) {
    size_t asked;

    fake->status = "paused";
    start();
    pass(1000);
    asked = fake_count(fake, "info registers");
    pass(10000);
    ck_assert_uint_eq(fake_count(fake, "info registers"), asked);
}

/* RAM without a kernel in it. */
static void give_empty_ram(void) {
    const struct vmibus_ram_range range = {.gpa = 0, .len = 1 << 24};
    int fd = memfd_create("ram", MFD_CLOEXEC);
    const struct vmibus_sensor_ram ram = {
        .epoch = vm->epoch, .ranges = &range, .n_ranges = 1, .fds = &fd, .n_fds = 1, .pagemap_fd = -1};

    ck_assert_int_eq(ftruncate(fd, 1 << 24), 0);
    mock_host_answer_attach(host, vm, &ram, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    close(fd);
    settle();
}

TEST(test_p08_ram_is_given_back, .setup = begin, .teardown = end) {
    fake->registers = LONG_MODE;
    start();
    ck_assert_uint_eq(mock_host_count(host, MOCK_ATTACH), 1);
    give_empty_ram();
    ck_assert_uint_eq(mock_host_count(host, MOCK_DETACH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_ROOT)->root.reason, VMIBUS_REASON_BOOTING);
    pass(150);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ATTACH), 2);
    /* The epoch ends before the answer comes. */
    event("RESET", NULL);
    give_empty_ram();
    pass(1000);
    ck_assert_uint_eq(mock_host_count(host, MOCK_ATTACH), mock_host_count(host, MOCK_DETACH) + 1);
}

TEST(test_attach_refused, .setup = begin, .teardown = end) {
    fake->registers = LONG_MODE;
    start();
    mock_host_answer_attach(host, vm, NULL, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NAMED_FILE);
    settle();
    ck_assert_int_eq(mock_host_last(host, MOCK_ROOT)->root.reason, VMIBUS_REASON_NAMED_FILE);
}

/* --- commands -------------------------------------------------------------------------------- */

static uint64_t command_vm(enum vmibus_vm_operation operation) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_VM,
                                       .cmd_vm.operation = (uint8_t)operation};
    uint64_t id = mock_host_execute(host, vm, &frame, NULL, 0);

    settle();

    return id;
}

static uint64_t command_power(uint8_t operation) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_POWER,
                                       .cmd_power.operation = operation};
    uint64_t id = mock_host_execute(host, vm, &frame, NULL, 0);

    settle();

    return id;
}

static uint64_t command_input(const struct vmibus_input_event *events, uint16_t count) {
    struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_INPUT, .cmd_input.count = count};

    if (count <= 6)
        memcpy(frame.cmd_input.events, events, count * sizeof(*events));

    return mock_host_execute(host, vm, &frame, count > 6 ? events : NULL,
                             count > 6 ? count * sizeof(*events) : 0);
}

static uint64_t command_release(void) {
    const struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_INPUT_RELEASE};

    return mock_host_execute(host, vm, &frame, NULL, 0);
}

static void expect_ack(uint64_t id, enum vmibus_error error, enum vmibus_reason reason,
                       uint64_t count) {
    const struct vmibus_ack *ack = mock_host_ack(host, id);

    ck_assert_ptr_nonnull(ack);
    ck_assert_int_eq(ack->error, error);
    ck_assert_int_eq(ack->reason, reason);
    ck_assert_uint_eq(ack->count, count);
}

TEST(test_power_operations, .setup = begin, .teardown = end) {
    start();
    expect_ack(command_power(VMIBUS_POWER_OPERATION_POWERDOWN), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE,
               1);
    ck_assert_uint_eq(fake_count(fake, "system_powerdown"), 1);
    event("POWERDOWN", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_POWERDOWN, true);
    event("POWERDOWN", NULL);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_POWERDOWN, false);
    expect_ack(command_power(VMIBUS_POWER_OPERATION_RESET), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    expect_ack(command_power(99), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    fake->refuse = "system_wakeup";
    expect_ack(command_power(VMIBUS_POWER_OPERATION_WAKEUP), VMIBUS_ERROR_IO,
               VMIBUS_REASON_SENSOR_FAILED, 0);
}

TEST(test_p11_pause_of_somebody_else_is_not_ours, .setup = begin, .teardown = end) {
    start();
    fake->status = "paused";
    event("STOP", NULL);
    expect_ack(command_vm(VMIBUS_VM_OPERATION_PAUSE), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    ck_assert_uint_eq(fake_count(fake, "\"stop\""), 0);
    mock_host_stop(host);
    ck_assert_uint_eq(fake_count(fake, "\"cont\""), 0);
    fake_serve(fake);
    ck_assert_uint_eq(fake_count(fake, "\"cont\""), 0);
}

TEST(test_p11_explicit_resume_ends_any_pause, .setup = begin, .teardown = end) {
    start();
    fake->status = "paused";
    event("STOP", NULL);
    expect_ack(command_vm(VMIBUS_VM_OPERATION_RESUME), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, true);
    /* What he did meanwhile nobody knows. */
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RELOADED);
}

TEST(test_p06_snapshot_loaded_into_a_pause_of_ours, .setup = begin, .teardown = end) {
    start();
    command_vm(VMIBUS_VM_OPERATION_PAUSE);
    fake->registers = "CPU#0\r\nCR0=80050033 CR2=0 CR3=0000000000300000 CR4=00350ef0\r\n"
                      "EFER=0000000000000d01\r\n";
    expect_ack(command_vm(VMIBUS_VM_OPERATION_RESUME), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, true);
    pass(100);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 1);
    ck_assert_int_eq(mock_host_last(host, MOCK_END_EPOCH)->reason, VMIBUS_REASON_RELOADED);
}

TEST(test_p11_pause_is_labelled, .setup = begin, .teardown = end) {
    start();
    expect_ack(command_vm(VMIBUS_VM_OPERATION_PAUSE), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    expect_lifecycle(VMIBUS_VM_STATE_PAUSED, VMIBUS_LIFECYCLE_CAUSE_PAUSED, true);
    expect_ack(command_vm(VMIBUS_VM_OPERATION_RESUME), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 1);
    expect_lifecycle(VMIBUS_VM_STATE_RUNNING, VMIBUS_LIFECYCLE_CAUSE_RESUMED, true);
    ck_assert_uint_eq(mock_host_count(host, MOCK_END_EPOCH), 0);
    expect_ack(command_vm(99), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
}

TEST(test_commands_to_a_lost_monitor, .setup = begin, .teardown = end) {
    const struct vmibus_input_event key = {1, KEY_A, 1};
    uint64_t power, input;

    start();
    fake->silent = true;
    power = command_power(VMIBUS_POWER_OPERATION_POWERDOWN);
    input = command_input(&key, 1);
    settle();
    pass(6000);
    expect_ack(power, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, 0);
    expect_ack(input, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, 0);
    expect_ack(command_power(VMIBUS_POWER_OPERATION_RESET), VMIBUS_ERROR_IO,
               VMIBUS_REASON_SENSOR_FAILED, 0);
    expect_ack(command_input(&key, 1), VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, 0);
}

/* --- input ----------------------------------------------------------------------------------- */

#define EVENTS 30
static struct vmibus_input_event typed[EVENTS];

static void type(void) {
    for (size_t i = 0; i < EVENTS; i++)
        typed[i] =
            (struct vmibus_input_event){1, (uint16_t)(KEY_Q + i / 6 * 2 + i % 2), i / 2 % 2 == 0};
}

TEST(test_input_is_sent_in_batches_and_counted, .setup = begin, .teardown = end) {
    uint64_t id;

    type();
    start();
    id = command_input(typed, EVENTS);
    ck_assert_uint_eq(fake_count(fake, "input-send-event"), 0);
    settle();
    expect_ack(id, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, EVENTS);
    ck_assert_uint_ge(fake_count(fake, "input-send-event"), EVENTS / 4);
}

TEST(test_input_counts_only_what_was_acknowledged, .setup = begin, .teardown = end) {
    uint64_t first, second;

    type();
    start();
    first = command_input(typed, EVENTS);
    second = command_input(typed, 2);
    for (int i = 0; i < 3; i++) {
        mock_host_settle(host);
        fake_serve(fake);
    }
    fake->hold = "input-send-event";
    settle();
    ck_assert_ptr_null(mock_host_ack(host, first));
    /* The guest stops while a batch is unanswered: it does not count, and nothing more is sent. */
    event("STOP", NULL);
    ck_assert_ptr_null(mock_host_ack(host, first));
    pass(6000);
    ck_assert_ptr_nonnull(mock_host_ack(host, first));
    ck_assert_uint_gt(mock_host_ack(host, first)->count, 0);
    ck_assert_uint_lt(mock_host_ack(host, first)->count, EVENTS);
    ck_assert_uint_eq(mock_host_ack(host, second)->count, 0);
}

TEST(test_input_to_a_guest_that_stops_meanwhile, .setup = begin, .teardown = end) {
    const struct vmibus_input_event key = {1, KEY_A, 1};
    const char *answer;
    char line[64];
    uint64_t id;

    start();
    fake->hold = "input-send-event";
    id = command_input(&key, 1);
    settle();
    fake_event(fake, "STOP", NULL);
    answer = strstr(fake->commands[fake->n_commands - 1], "\"id\":");
    snprintf(line, sizeof(line), "{\"return\": {}, %s\r\n", answer);
    fake_send(fake, line, strlen(line));
    settle();
    expect_ack(id, VMIBUS_ERROR_BUSY, VMIBUS_REASON_GUEST_PAUSED, 0);
}

TEST(test_input_is_checked_as_a_whole, .setup = begin, .teardown = end) {
    struct vmibus_frame frame = {.header.kind = VMIBUS_KIND_CMD_INPUT, .cmd_input.count = 8};
    uint64_t id;

    type();
    start();
    typed[9].code = KEY_RESERVED;
    id = command_input(typed, 10);
    settle();
    expect_ack(id, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, 0);
    ck_assert_uint_eq(mock_host_ack(host, id)->value, 9);
    ck_assert_uint_eq(fake_count(fake, "input-send-event"), 0);

    expect_ack(command_input(typed, 0), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, 0);
    expect_ack(mock_host_execute(host, vm, &frame, NULL, 0), VMIBUS_ERROR_VALIDATION,
               VMIBUS_REASON_BAD_LENGTH, 0);
    expect_ack(mock_host_execute(host, vm, &frame, typed, 7 * sizeof(*typed)),
               VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, 0);
}

TEST(test_p05_release_lets_go_of_everything, .setup = begin, .teardown = end) {
    static const struct vmibus_input_event held[] = {
        {1, KEY_A, 1},        {1, KEY_B, 1},    {1, KEY_B, 0},
        {1, KEY_LEFTCTRL, 1}, {1, BTN_LEFT, 1}, {1, KEY_F1, 1},
    };
    uint64_t waiting, release;

    start();
    command_input(held, 6);
    settle();
    fake->hold = "input-send-event";
    waiting = command_input(held, 6);
    mock_host_settle(host);
    /* What waits is given up; then the five that are down are let go, once each. */
    release = command_release();
    ck_assert_ptr_null(mock_host_ack(host, release));
    fake->hold = NULL;
    settle();
    expect_ack(waiting, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, 2);
    ck_assert_int_eq(mock_host_ack(host, release)->error, VMIBUS_ERROR_OK);
    ck_assert_uint_ge(mock_host_ack(host, release)->count, 4);
    release = command_release();
    settle();
    expect_ack(release, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
}

TEST(test_p05_release_is_owed_to_a_paused_guest, .setup = begin, .teardown = end) {
    const struct vmibus_input_event key = {1, KEY_A, 1};
    size_t sent;

    start();
    command_input(&key, 1);
    settle();
    event("STOP", NULL);
    sent = fake_count(fake, "input-send-event");
    expect_ack(command_release(), VMIBUS_ERROR_BUSY, VMIBUS_REASON_GUEST_PAUSED, 0);
    settle();
    ck_assert_uint_eq(fake_count(fake, "input-send-event"), sent);
    event("RESUME", NULL);
    ck_assert_uint_eq(fake_count(fake, "input-send-event"), sent + 1);
    ck_assert_uint_eq(fake_count(fake, "\"down\":false"), 1);
}

TEST(test_cancelled_input, .setup = begin, .teardown = end) {
    uint64_t first, second;

    type();
    start();
    first = command_input(typed, EVENTS);
    second = command_input(typed, EVENTS);
    mock_host_cancel(host, vm, second);
    expect_ack(second, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, 0);
    mock_host_cancel(host, vm, first);
    settle();
    ck_assert_int_eq(mock_host_ack(host, first)->reason, VMIBUS_REASON_CANCELLED);
    ck_assert_uint_lt(mock_host_ack(host, first)->count, EVENTS);
}

TEST(test_refused_input_holds_nothing, .setup = begin, .teardown = end) {
    const struct vmibus_input_event button = {1, BTN_LEFT, 1};
    uint64_t id;

    start();
    fake->refuse = "input-send-event";
    id = command_input(&button, 1);
    settle();
    expect_ack(id, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_SENSOR_FAILED, 0);
    fake->refuse = NULL;
    id = command_release();
    settle();
    expect_ack(id, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0);
}

HARNESS_SUITE("qemu: the sensor", HARNESS_QUICK)
