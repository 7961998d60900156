/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A bus goes on as another one: nobody is told anything twice, out of order or not at all, and nothing that is damaged is taken. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/names.h>

#include "bus/claim.h"
#include "bus/handover.h"
#include "bus/stage.h"
#include "bus/watch.h"
#include "harness.h"
#include "util/lies.h"

#define CONTROLS 3
#define TAG_BUS 1
#define TAG_CONTROL 2 /* in the order of the controls */

static struct fake_control controls[CONTROLS];
static struct fake_sensor sensor;
static struct endpoint *vm;

/* --- handing over ------------------------------------------------------------------------------- */

static void open_scene(void) {
    stage_open_default();
    fake_sensor_open(&sensor, "host", GROUPS_ALL, 0);
    vm = fake_offer_as(&sensor, "web", 1, 0, GROUPS_ALL);
    ck_assert_ptr_nonnull(vm);
    for (unsigned i = 0; i < CONTROLS; i++)
        fake_control_open(&controls[i], i + 1);
}

static int write_state(void) {
    static const uint8_t token[HANDOVER_TOKEN];
    struct handover_writer writer = {};
    struct bus_handover handover;
    int state;

    bus_settle_begin(stage.bus);
    bus_settle(stage.bus);
    ck_assert(bus_is_settled(stage.bus));
    bus_handover_init(&handover, stage.bus);
    handover_begin(&writer, TAG_BUS);
    bus_handover_save(&handover, &writer);
    handover_end(&writer);
    for (unsigned i = 0; i < CONTROLS; i++) {
        handover_begin(&writer, (uint16_t)(TAG_CONTROL + i));
        control_handover_save(&handover, &writer, &controls[i].control);
        handover_end(&writer);
    }
    bus_handover_deinit(&handover);
    state = handover_seal(&writer, token, "test");
    ck_assert_int_ge(state, 0);
    ck_assert_uint_eq(writer.n_fds, 0);
    handover_writer_deinit(&writer);
    return state;
}

static void close_scene(void) {
    for (unsigned i = 0; i < CONTROLS; i++)
        fake_control_close(&controls[i]);
    if (sensor.opened)
        fake_sensor_close(&sensor);
    sensor.opened = false;
    stage_close();
}

/* Makes everything anew from a state, on a stage that was opened. @param n_controls that there are then */
static int read_state(struct handover *whole, unsigned *n_controls) {
    struct handover_record record;
    struct bus_handover handover;

    *n_controls = 0;
    bus_handover_init(&handover, stage.bus);
    if (!handover_find(handover_all(whole), TAG_BUS, &record))
        (void)handover_wrong(whole, -EBADMSG);
    else
        (void)bus_handover_restore(&handover, handover_in(&record));
    for (unsigned i = 0; i < CONTROLS && !whole->error; i++) {
        if (!handover_find(handover_all(whole), (uint16_t)(TAG_CONTROL + i), &record)) {
            (void)handover_wrong(whole, -EBADMSG);
            break;
        }
        ck_assert_int_eq(fake_control_take_over(&controls[i], i + 1), 0);
        ++*n_controls;
        (void)control_handover_restore(&handover, &controls[i].control, handover_in(&record));
        controls[i].delivery = controls[i].control.outbox.sequence;
    }
    (void)bus_handover_check(&handover, whole);
    bus_handover_deinit(&handover);
    return whole->error;
}

/* What the bus is after a restart, its sensor not there yet. */
static void restart(void) {
    int state = write_state();
    struct handover whole;
    uint32_t slot = vm->slot;
    unsigned n;

    close_scene();
    stage_open_default();
    ck_assert_int_eq(handover_open(&whole, state, NULL, 0), 0);
    ck_assert_int_eq(read_state(&whole, &n), 0);
    handover_close(&whole);
    close(state);
    bus_handover_go_on(stage.bus);
    vm = stage.bus->endpoints[slot];
    ck_assert_ptr_nonnull(vm);
}

static void sensor_comes_back(void) {
    struct endpoint *again;

    fake_sensor_open(&sensor, "host", GROUPS_ALL, 0);
    again = fake_offer_as(&sensor, "web", 1, 0, GROUPS_ALL);
    ck_assert_ptr_eq(again, vm);
}

/* --- what is told ------------------------------------------------------------------------------- */

static void happen(void) {
    (void)fake_subscribe(&controls[0], "*", KINDS_ALL);
    (void)fake_subscribe(&controls[1], "web", BIT(VMIBUS_KIND_LIFECYCLE) | BIT(VMIBUS_KIND_LEASE));
    fake_control_take_all(&controls[0]);
    fake_control_take_all(&controls[1]);
    for (unsigned i = 0; i < 10; i++)
        fake_lifecycle(&sensor, vm, i % 2 ? VMIBUS_VM_STATE_RUNNING : VMIBUS_VM_STATE_PAUSED);
    (void)fake_hold(&controls[2], vm, VMIBUS_LEASE_CLASS_POWER);
    /* More than there is room for: a gap and a replay are due. */
    for (unsigned i = 0; i < 2000; i++)
        fake_lifecycle(&sensor, vm, i % 2 ? VMIBUS_VM_STATE_RUNNING : VMIBUS_VM_STATE_PAUSED);
    for (unsigned i = 0; i < 20; i++)
        (void)fake_control_take(&controls[0]);
}

struct told {
    uint16_t kind;
    uint64_t publication, delivery, count;
};

static size_t collect(struct fake_control *control, struct told *told, size_t room) {
    const struct entry *entry;
    size_t n = 0;

    while (n < room && (entry = fake_control_take(control)))
        told[n++] = (struct told){.kind = entry->frame.header.kind,
                                  .publication = entry->frame.header.publication,
                                  .delivery = entry->frame.header.delivery,
                                  .count = entry->frame.header.kind == VMIBUS_KIND_GAP ? entry->frame.gap.count : 0};
    return n;
}

/* The same frames in the same order, gaps and replays too, as if nothing had happened in between. */
TEST(test_p07_restart_changes_nothing_that_is_told) {
    static struct told plain[CONTROLS][4096], restarted[CONTROLS][4096];
    size_t n[CONTROLS];

    open_scene();
    happen();
    for (unsigned i = 0; i < CONTROLS; i++)
        n[i] = collect(&controls[i], plain[i], 4096);
    close_scene();

    open_scene();
    happen();
    for (unsigned i = 0; i < 3; i++)
        restart();
    for (unsigned i = 0; i < CONTROLS; i++) {
        ck_assert_uint_eq(collect(&controls[i], restarted[i], 4096), n[i]);
        ck_assert_mem_eq(restarted[i], plain[i], n[i] * sizeof(struct told));
        ck_assert(n[i] > 100 || i == 2); /* which subscribes to nothing */
    }
    close_scene();
}

/* A sensor that offers its VM again is a change for nobody. */
TEST(sensor_that_comes_back_is_no_news) {
    open_scene();
    happen();
    restart();
    fake_control_forget(&controls[0]);
    sensor_comes_back();
    ck_assert_ptr_null(fake_control_next_of(&controls[0], VMIBUS_KIND_ROSTER));
    ck_assert_ptr_eq(endpoint_provider(vm, VMIBUS_GROUP_POWER), &sensor.sensor);
    ck_assert(list_is_empty(&vm->claims));
    close_scene();
}

/* Another sensor, another VM, another process: none of them is the one that is waited for. */
TEST(test_p12_what_is_another_vm_claims_nothing) {
    struct fake_sensor other;

    open_scene();
    restart();
    fake_sensor_open(&other, "other", GROUPS_ALL, 0);
    ck_assert_ptr_ne(fake_offer_as(&other, "web", 2, 0, GROUPS_ALL), vm);
    fake_sensor_open(&sensor, "host", GROUPS_ALL, 0);
    ck_assert_ptr_ne(fake_offer_as(&sensor, "web2", 0, 0, GROUPS_ALL), vm);
    ck_assert(!list_is_empty(&vm->claims));
    ck_assert_ptr_eq(fake_offer_as(&sensor, "web", 1, 0, GROUPS_ALL), vm);
    ck_assert(list_is_empty(&vm->claims));
    fake_sensor_close(&other);
    close_scene();
}

/* Who is preferred does not depend on who comes back first. */
TEST(sensors_keep_their_order_over_a_restart) {
    struct fake_sensor other;

    open_scene();
    fake_sensor_open(&other, "other", GROUPS_ALL, 0);
    ck_assert_ptr_eq(fake_offer_as(&other, "web", 1, 0, GROUPS_ALL), vm);
    fake_sensor_close(&other);
    for (unsigned i = 0; i < 2; i++) {
        restart();
        fake_sensor_open(&other, "other", GROUPS_ALL, 0);
        ck_assert_ptr_eq(fake_offer_as(&other, "web", 1, 0, GROUPS_ALL), vm);
        sensor_comes_back();
        ck_assert_ptr_eq(endpoint_provider(vm, VMIBUS_GROUP_POWER), &sensor.sensor);
        fake_sensor_close(&other);
    }
    close_scene();
}

TEST(vm_that_nobody_offers_again_goes) {
    const struct vmibus_frame *frame;

    open_scene();
    (void)fake_subscribe(&controls[0], "*", KINDS_ALL);
    restart();
    fake_control_forget(&controls[0]);
    ck_assert(loop_timer_is_armed(&stage.bus->claims));
    claims_time_out(&stage.bus->claims);
    frame = fake_control_next_of(&controls[0], VMIBUS_KIND_ROSTER);
    ck_assert_ptr_nonnull(frame);
    ck_assert_uint_eq(frame->roster.change, VMIBUS_ROSTER_CHANGE_REMOVED);
    ck_assert_uint_eq(frame->roster.reason, VMIBUS_REASON_RESTARTED);
    vm = NULL;
    close_scene();
}

/* The sensor alone is started anew: it says so, and ends. */
static void sensor_restarts(void) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_SENSOR_ANNOUNCE},
                                 .sensor_announce = {.state = VMIBUS_SENSOR_STATE_RESTARTING, .groups = GROUPS_ALL}};

    memcpy(frame.sensor_announce.name, "host", 4);
    sensor_hear(&sensor.sensor, &frame, NULL, NULL);
    fake_sensor_close(&sensor);
    sensor.opened = false;
}

/* What it had begun is answered, and what comes meanwhile waits. */
TEST(vm_stays_while_its_sensor_is_started_anew) {
    uint64_t token, begun, waits, generation;
    const struct vmibus_frame *frame;

    open_scene();
    generation = vm->generation;
    (void)fake_subscribe(&controls[0], "*", KINDS_ALL);
    token = fake_hold(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER);
    begun = fake_power(&controls[0], vm, token, VMIBUS_POWER_OPERATION_RESET);
    sensor_restarts();
    ck_assert_ptr_eq(bus_endpoint(stage.bus, vm->slot, generation), vm);
    assert_ack(&controls[0], begun, GONE, RESTARTED);
    waits = fake_power(&controls[0], vm, token, VMIBUS_POWER_OPERATION_RESET);
    ck_assert_ptr_null(fake_control_ack(&controls[0], waits));
    fake_control_forget(&controls[0]);
    sensor_comes_back();
    frame = fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_POWER);
    ck_assert_ptr_nonnull(frame);
    fake_complete(&sensor, frame, VMIBUS_ERROR_OK);
    assert_ack(&controls[0], waits, OK, NONE);
    close_scene();
}

TEST(vm_whose_sensor_does_not_come_again_goes) {
    const struct vmibus_frame *frame;

    open_scene();
    (void)fake_subscribe(&controls[0], "*", KINDS_ALL);
    sensor_restarts();
    fake_control_forget(&controls[0]);
    ck_assert(loop_timer_is_armed(&stage.bus->claims));
    claims_time_out(&stage.bus->claims);
    frame = fake_control_next_of(&controls[0], VMIBUS_KIND_ROSTER);
    ck_assert_ptr_nonnull(frame);
    ck_assert_uint_eq(frame->roster.change, VMIBUS_ROSTER_CHANGE_REMOVED);
    vm = NULL;
    close_scene();
}

/* --- leases and commands ------------------------------------------------------------------------ */

TEST(test_p05_leases_go_on_and_waiters_keep_their_places) {
    uint64_t token, first, second;

    open_scene();
    token = fake_hold(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER);
    first = fake_acquire(&controls[2], vm, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_QUEUE, 0);
    second = fake_acquire(&controls[1], vm, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_QUEUE, 0);
    restart();
    sensor_comes_back();
    assert_ack(&controls[0], fake_renew(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER, token, 0), OK, NONE);
    ck_assert_ptr_null(fake_control_ack(&controls[2], first));
    assert_ack(&controls[0], fake_release(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER, token), OK, NONE);
    assert_ack(&controls[2], first, OK, NONE);
    ck_assert_uint_gt(fake_control_ack(&controls[2], first)->token, token);
    ck_assert_ptr_null(fake_control_ack(&controls[1], second));
    assert_ack(&controls[0], fake_renew(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER, token, 0), STALE_TOKEN, REVOKED);
    close_scene();
}

/* It was to end at a time: it ends then, by the same clock. */
TEST(test_p05_lease_expires_at_its_time) {
    uint64_t command, expires;

    open_scene();
    command = fake_acquire(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_FAIL, 3600 * 1000);
    expires = fake_control_ack(&controls[0], command)->value;
    restart();
    ck_assert_uint_eq(vm->leases[VMIBUS_LEASE_CLASS_POWER - 1].expires, expires);
    ck_assert(loop_timer_is_armed(&vm->leases[VMIBUS_LEASE_CLASS_POWER - 1].timer));
    ck_assert_uint_eq(vm->leases[VMIBUS_LEASE_CLASS_POWER - 1].timer.deadline, expires);
    close_scene();
}

TEST(test_p05_numbers_go_on) {
    uint64_t token, generation;

    open_scene();
    token = fake_hold(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER);
    generation = vm->generation;
    restart();
    sensor_comes_back();
    ck_assert_uint_eq(vm->generation, generation);
    ck_assert_uint_gt(fake_hold(&controls[0], vm, VMIBUS_LEASE_CLASS_INPUT), token);
    ck_assert_uint_gt(fake_offer_as(&sensor, "db", 9, 0, GROUPS_ALL)->generation, generation);
    close_scene();
}

/* What needs the sensor waits until it is there, and is executed once. */
TEST(command_waits_for_its_sensor) {
    const struct vmibus_frame *sent;
    uint64_t token, command;

    open_scene();
    token = fake_hold(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER);
    restart();
    command = fake_power(&controls[0], vm, token, VMIBUS_POWER_OPERATION_RESET);
    ck_assert_ptr_null(fake_control_ack(&controls[0], command));
    restart(); /* and over one more */
    ck_assert_ptr_null(fake_control_ack(&controls[0], command));
    sensor_comes_back();
    sent = fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_POWER);
    ck_assert_ptr_nonnull(sent);
    ck_assert_uint_eq(sent->cmd_power.token, token);
    fake_complete(&sensor, sent, VMIBUS_ERROR_OK);
    assert_ack(&controls[0], command, OK, NONE);
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_POWER));
    close_scene();
}

TEST(command_whose_sensor_does_not_come_is_answered) {
    uint64_t token, command;

    open_scene();
    token = fake_hold(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER);
    restart();
    command = fake_power(&controls[0], vm, token, VMIBUS_POWER_OPERATION_RESET);
    claims_time_out(&stage.bus->claims);
    assert_ack(&controls[0], command, GONE, WITHDRAWN);
    close_scene();
}

TEST(command_at_its_sensor_is_answered) {
    uint64_t token, command;

    open_scene();
    token = fake_hold(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER);
    command = fake_power(&controls[0], vm, token, VMIBUS_POWER_OPERATION_RESET);
    restart();
    assert_ack(&controls[0], command, GONE, RESTARTED);
    close_scene();
}

/* A disk that takes its time: the intent never becomes durable. */
static struct list parked;

static enum audit_answer never_durable(void *context, const struct vmibus_audit_record *record, struct audit_waiter *waiter,
                                       int *error) {
    (void)context;
    (void)record;
    (void)error;
    list_append(&parked, &waiter->link);
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

/* What was not recorded as policy wants it is executed by nobody: the next process would not ask again. */
TEST(test_p05_command_that_waits_for_its_record_is_not_handed_over) {
    static const struct audit_ops slow_disk = {.keep = keep_nothing, .require = never_durable, .count = count_nothing};
    uint64_t token, command;

    open_scene();
    list_init(&parked);
    token = fake_hold(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER);
    stage.audit.ops = &slow_disk;
    stage.audit.strict = true;
    command = fake_power(&controls[0], vm, token, VMIBUS_POWER_OPERATION_RESET);
    ck_assert(!list_is_empty(&parked));
    ck_assert(!bus_is_settled(stage.bus));
    bus_settle(stage.bus);
    ck_assert(list_is_empty(&parked));
    ck_assert(bus_is_settled(stage.bus));
    stage.audit.ops = NULL;
    stage.audit.strict = false;
    restart();
    assert_ack(&controls[0], command, GONE, RESTARTED);
    sensor_comes_back();
    ck_assert_ptr_null(fake_sensor_next_of(&sensor, VMIBUS_KIND_CMD_POWER));
    close_scene();
}

/* --- other versions, and damage ------------------------------------------------------------------ */

static const char *fixture(char *path, size_t size) {
    const char *top = getenv("top_srcdir");

    snprintf(path, size, "%s/tests/fixtures/handover/bus-1", top ? top : ".");
    return path;
}

static uint8_t *read_file(const char *path, size_t *size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *octets;
    struct stat st;

    if (fd < 0)
        test_skip("%s is not there: set top_srcdir", path);
    ck_assert_int_eq(fstat(fd, &st), 0);
    *size = (size_t)st.st_size;
    octets = malloc(*size);
    ck_assert_int_eq(read(fd, octets, *size), *size);
    close(fd);
    return octets;
}

/*
 * What the first version of the format wrote, for ever. VMIBUS_WRITE_FIXTURE=PATH writes one as the current version would: for
 * another file beside it, never in the place of one that is there.
 */
TEST(first_version_is_read) {
    const char *write_to = getenv("VMIBUS_WRITE_FIXTURE");
    struct handover whole;
    const struct vmibus_frame *frame;
    char path[4096];
    uint8_t *octets;
    size_t size;
    unsigned n;

    if (write_to) {
        uint8_t buffer[65536];
        int state, fd;
        ssize_t length;

        open_scene();
        (void)fake_subscribe(&controls[0], "*", KINDS_ALL);
        (void)fake_hold(&controls[0], vm, VMIBUS_LEASE_CLASS_POWER);
        (void)fake_acquire(&controls[1], vm, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_QUEUE, 0);
        fake_lifecycle(&sensor, vm, VMIBUS_VM_STATE_RUNNING);
        state = write_state();
        length = pread(state, buffer, sizeof(buffer), 0);
        fd = open(write_to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        ck_assert_int_eq(write(fd, buffer, (size_t)length), length);
        close(fd);
        close(state);
        close_scene();
    }
    octets = read_file(fixture(path, sizeof(path)), &size);
    stage_open_default();
    ck_assert_int_eq(handover_open_octets(&whole, octets, size, NULL, 0), 0);
    ck_assert_int_eq(read_state(&whole, &n), 0);
    handover_close(&whole);
    free(octets);
    bus_handover_go_on(stage.bus);
    ck_assert_ptr_nonnull(stage.bus->endpoints[1]);
    vm = stage.bus->endpoints[1];
    ck_assert_str_eq(vm->name, "web");
    ck_assert_uint_eq(vm->generation, UINT64_C(7) << 32 | 1);
    ck_assert_uint_eq(vm->leases[VMIBUS_LEASE_CLASS_POWER - 1].token, UINT64_C(7) << 32 | 1);
    ck_assert_ptr_eq(vm->leases[VMIBUS_LEASE_CLASS_POWER - 1].holder, &controls[0].control);
    ck_assert_uint_eq(vm->leases[VMIBUS_LEASE_CLASS_POWER - 1].n_waiters, 1);
    frame = fake_control_next_of(&controls[0], VMIBUS_KIND_LIFECYCLE);
    ck_assert_ptr_nonnull(frame);
    ck_assert_uint_eq(frame->lifecycle.state, VMIBUS_VM_STATE_RUNNING);
    close_scene();
}

/* Whatever a file says, it is taken whole or refused, and nothing is left of one that is refused. */
static bool is_taken(const uint8_t *octets, size_t size) {
    struct handover whole;
    unsigned n;
    int r;

    stage_open_default();
    r = handover_open_octets(&whole, octets, size, NULL, 0);
    ck_assert_int_eq(r, 0);
    r = read_state(&whole, &n);
    handover_close(&whole);
    if (r == 0) {
        bus_handover_go_on(stage.bus);
        for (unsigned i = 0; i < n; i++)
            fake_control_take_all(&controls[i]);
    }
    for (unsigned i = 0; i < n; i++)
        fake_control_close(&controls[i]);
    stage_close();
    return r == 0;
}

/* A bus amidst everything: leases and who waits for one, a command that waits for its sensor, a gap, events that wait. */
static uint8_t *sample(size_t *size) {
    int state;

    open_scene();
    happen();
    (void)fake_acquire(&controls[1], vm, VMIBUS_LEASE_CLASS_POWER, VMIBUS_LEASE_MODE_QUEUE, 0);
    (void)fake_hold(&controls[0], vm, VMIBUS_LEASE_CLASS_INPUT);
    restart();
    (void)fake_power(&controls[2], vm, vm->leases[VMIBUS_LEASE_CLASS_POWER - 1].token, VMIBUS_POWER_OPERATION_RESET);
    fake_control_take_all(&controls[0]);
    while (controls[1].control.outbox.n_events > 3)
        (void)fake_control_take(&controls[1]);
    state = write_state();
    close_scene();
    return lies_read_consume_fd(state, size);
}

/* Each octet of it: lengths, tags, numbers, references. */
TEST(test_p12_lies_are_taken_whole_or_not_at_all, .timeout = 300) {
    size_t size;
    uint8_t *octets = sample(&size);
    struct lies lies = lies_tell(octets, size, harness_is_full() ? 1 : 7, is_taken);

    ck_assert_uint_gt(lies.n_refused, 10);
    ck_assert_uint_gt(lies.n_taken, 10);
    free(octets);
}

HARNESS_SUITE("handing a bus over", HARNESS_QUICK)
