/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Waiting for the disk: who, how long, and what policy says where it is full, fails or does not answer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fake_disk.h"
#include "harness.h"
#include "scene.h"
#include "util/clock.h"

static struct scene scene_under_test;
static struct scene *const s = &scene_under_test;

#define UNTOLD 12345

struct command {
    struct audit_waiter waiter;
    uint64_t sequence;
    int told;       /* UNTOLD, or what recorded() was told */
    unsigned turn;
};

static unsigned turns;

static void recorded(struct audit_waiter *waiter, int error) {
    struct command *command = container_of(waiter, struct command, waiter);

    ck_assert_int_eq(command->told, UNTOLD);
    command->told = error;
    command->turn = ++turns;
}

static enum audit_answer begin_within(struct command *command, uint64_t deadline, struct vmibus_ack *ack) {
    *ack = (struct vmibus_ack){};
    *command = (struct command){.waiter = {.recorded = recorded, .deadline = deadline}, .told = UNTOLD};
    command->sequence = scene_intent(s, 1);
    return audit_require(&s->audit, command->sequence, &command->waiter, ack);
}

static enum audit_answer begin(struct command *command) {
    struct vmibus_ack ack;

    return begin_within(command, UINT64_MAX, &ack);
}

static void finish(const struct command *command) {
    audit_finish(&s->audit, command->sequence, &(struct vmibus_ack){.finished = clock_now()});
}

/* One round of the loop, in which what is due begins. */
static void go_round(void) {
    ck_assert_int_ge(loop_dispatch(s->loop, 0), 0);
}

/* START and the header are on the disk. */
static void begin_with(bool strict, enum chain_full full) {
    s->options.strict = strict;
    s->options.full = full;
    scene_begin(s);
    while (!fake_disk_job())
        ck_assert_int_ge(loop_dispatch(s->loop, 10000), 0);
    ck_assert_int_eq(fake_disk_job()->operation, DISK_CREATE);
    fake_disk_do(0, 0);
    fake_disk_do(0, 0);
    s->recorder.chain.options.commit_ms = 60000;
}

static void set_up(void) {
    scene_init(s, 64);
    turns = 0;
}

static void tear_down(void) {
    scene_end(s);
    scene_deinit(s);
}

TEST(test_p10_normal_waits_for_nothing, .setup = set_up, .teardown = tear_down) {
    struct command command;

    begin_with(false, CHAIN_REFUSE);
    ck_assert_int_eq(begin(&command), AUDIT_GO_ON);
    finish(&command);
    go_round();
    ck_assert_ptr_null(fake_disk_job());
}

/* Nothing is executed before its intent is on the disk; what comes meanwhile is one more write. */
TEST(test_p04_strict_waits_for_the_disk_in_order, .setup = set_up, .teardown = tear_down) {
    struct command first, second, third;
    uint64_t writes;

    begin_with(true, CHAIN_REFUSE);
    ck_assert_int_eq(begin(&first), AUDIT_WAIT);
    go_round();
    ck_assert_int_eq(fake_disk_job()->operation, DISK_WRITE);
    ck_assert_int_eq(begin(&second), AUDIT_WAIT);
    ck_assert_int_eq(begin(&third), AUDIT_WAIT);
    go_round();
    ck_assert_int_eq(first.told, UNTOLD);
    writes = fake_disk_writes;
    fake_disk_do(0, 0);
    ck_assert_int_eq(first.told, 0);
    ck_assert_int_eq(second.told, UNTOLD);
    go_round();
    fake_disk_do(0, 0);
    ck_assert_int_eq(second.told, 0);
    ck_assert_int_eq(third.told, 0);
    ck_assert_uint_lt(second.turn, third.turn);
    ck_assert_uint_eq(fake_disk_writes, writes + 2);
    ck_assert_uint_eq(s->audit.records[first.sequence - 1].flags & VMIBUS_AUDIT_WAITED, VMIBUS_AUDIT_WAITED);
}

TEST(test_p05_deadline_passes_while_the_disk_is_slow, .setup = set_up, .teardown = tear_down) {
    struct command command, other;
    struct vmibus_ack ack;

    begin_with(true, CHAIN_CONTINUE);
    ck_assert_int_eq(begin_within(&command, clock_now() + NS_PER_MS, &ack), AUDIT_WAIT);
    ck_assert_int_eq(begin(&other), AUDIT_WAIT);
    while (command.told == UNTOLD)
        ck_assert_int_ge(loop_dispatch(s->loop, 10000), 0);
    ck_assert_int_eq(command.told, ETIME);
    ck_assert_int_eq(other.told, UNTOLD);
    audit_refuse(&ack, command.told);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_EXPIRED);
    fake_disk_do(0, 0);
    ck_assert_int_eq(other.told, 0);
    ck_assert_uint_eq(command.turn, 1);
}

TEST(test_p04_full_disk_refuses_who_waits_and_who_comes, .setup = set_up, .teardown = tear_down, .iterations = 2) {
    int error = _i ? EIO : ENOSPC;
    struct command command;
    struct vmibus_ack ack;

    begin_with(true, CHAIN_REFUSE);
    ck_assert_int_eq(begin(&command), AUDIT_WAIT);
    go_round();
    fake_disk_do(-error, 100);
    ck_assert_int_eq(command.told, error);
    finish(&command);
    ck_assert_int_eq(begin_within(&command, UINT64_MAX, &ack), AUDIT_REFUSED);
    ck_assert_uint_eq(ack.error, VMIBUS_ERROR_IO);
    ck_assert_uint_eq(ack.reason, VMIBUS_REASON_NOT_RECORDED);
    ck_assert_uint_eq(ack.value, error);
    finish(&command);
    /* It is tried again, with the same octets, and then goes on. */
    while (!fake_disk_job())
        ck_assert_int_ge(loop_dispatch(s->loop, 10000), 0);
    fake_disk_do(0, 0);
    ck_assert_int_eq(begin(&command), AUDIT_WAIT);
    go_round();
    fake_disk_do(0, 0);
    ck_assert_int_eq(command.told, 0);
    ck_assert_int_eq(scene_verify(s).verdict, VERIFY_GOOD);
}

TEST(test_p10_continue_goes_on_and_counts, .setup = set_up, .teardown = tear_down) {
    struct audit_counters counters;
    struct command first, second;

    begin_with(true, CHAIN_CONTINUE);
    ck_assert_int_eq(begin(&first), AUDIT_WAIT);
    go_round();
    fake_disk_do(-EIO, 0);
    ck_assert_int_eq(first.told, 0);
    ck_assert_int_eq(begin(&second), AUDIT_GO_ON);
    audit_get_counters(&s->audit, &counters);
    ck_assert_uint_eq(counters.unrecorded, 2);
    ck_assert_uint_eq(s->audit.records[first.sequence - 1].flags, VMIBUS_AUDIT_NOT_DURABLE);
    ck_assert_uint_eq(s->audit.records[second.sequence - 1].flags, VMIBUS_AUDIT_NOT_DURABLE);
}

/* More than there is room for, while the disk writes something else. */
static void flood(void) {
    s->uid = 1000;
    for (unsigned i = 0; i < 2 * CHAIN_BUFFER / sizeof(struct vmibus_audit_record); i++)
        scene_command(s, i);
    s->uid = 1001;
}

static void count_others(void *context, uint64_t segment, const struct chain_item *item, const uint8_t *hash) {
    unsigned *n = context;

    (void)segment;
    (void)hash;
    *n += item->record.kind == VMIBUS_CHAIN_COMMAND && item->command.uid == 1001;
}

static void do_all(void) {
    s->recorder.chain.options.commit_ms = 1;
    while (s->recorder.chain.durable + 1 < s->recorder.chain.sequence) {
        while (fake_disk_job())
            fake_disk_do(0, 0);
        ck_assert_int_ge(loop_dispatch(s->loop, 10), 0);
    }
}

/* Whose commands fill what waits for the disk keeps nobody else from being recorded first. */
TEST(test_p09_flood_leaves_room_for_what_others_wait_for, .setup = set_up, .teardown = tear_down) {
    struct command first, command, other;
    struct vmibus_ack ack;

    begin_with(true, CHAIN_REFUSE);
    ck_assert_int_eq(begin(&first), AUDIT_WAIT);
    go_round();
    flood();
    ck_assert_int_eq(begin(&other), AUDIT_WAIT);
    /* Nor do those that are to be waited for. */
    s->uid = 1000;
    while (begin_within(&command, UINT64_MAX, &ack) == AUDIT_WAIT) {
        audit_waiter_cancel(&command.waiter);
        finish(&command);
    }
    ck_assert_uint_eq(ack.reason, VMIBUS_REASON_NOT_RECORDED);
    finish(&command);
    s->uid = 1001;
    audit_waiter_cancel(&other.waiter);
    finish(&other);
    ck_assert_int_eq(begin(&other), AUDIT_WAIT);
    do_all();
    ck_assert_int_eq(other.told, 0);
    ck_assert_int_eq(scene_verify(s).verdict, VERIFY_GOOD);
}

/* What is lost is the flood's own, and the chain says how much. */
TEST(test_p09_flood_pushes_out_no_record_of_others, .setup = set_up, .teardown = tear_down) {
    struct verify_result result;
    unsigned n = 0;
    const struct verify_options options = {.writer = "bus", .record = count_others, .context = &n};
    struct command command;

    begin_with(false, CHAIN_REFUSE);
    ck_assert_int_eq(begin(&command), AUDIT_GO_ON);
    finish(&command);
    s->recorder.chain.options.commit_ms = 1;
    for (unsigned i = 0; i < 10; i++) {
        flood();
        scene_command(s, i);
    }
    /* Of what waits in the log, too, the flood comes first. */
    s->uid = 1000;
    for (unsigned i = 0; i < 60; i++)
        scene_command(s, i);
    do_all();
    do_all();
    ck_assert_int_eq(verify_chain(s->directory, &options, &result), 0);
    ck_assert_uint_eq(n, 10);
    ck_assert_uint_gt(result.lost, 0);
    ck_assert_int_eq(result.verdict, VERIFY_GOOD);
}

/* So many users that there is room for nobody's, while the disk writes something else. */
static void fill(void) {
    scene_command(s, 0);
    s->recorder.chain.options.commit_ms = 1;
    loop_timer_cancel(&s->recorder.chain.commit_timer);
    scene_command(s, 0);
    while (!fake_disk_job())
        ck_assert_int_ge(loop_dispatch(s->loop, 10000), 0);
    for (s->uid = 2000; !chain_is_full(&s->recorder.chain); s->uid++)
        for (unsigned i = 0; i < CHAIN_BUFFER / sizeof(struct vmibus_audit_record); i++)
            scene_command(s, i);
    s->uid = 1001;
}

TEST(test_p09_many_users_leave_room_for_what_others_wait_for, .setup = set_up, .teardown = tear_down) {
    struct command command;

    begin_with(true, CHAIN_REFUSE);
    fill();
    ck_assert_int_eq(begin(&command), AUDIT_WAIT);
    do_all();
    ck_assert_int_eq(command.told, 0);
}

/* What waits in the log for room is not taken in the order of the flood. */
TEST(test_p09_flood_that_waits_is_in_nobodys_way, .teardown = tear_down) {
    uint64_t sequence;

    scene_init(s, 4096);
    begin_with(false, CHAIN_REFUSE);
    fill();
    s->uid = 1000;
    for (unsigned i = 0; i < 3000; i++)
        scene_command(s, i);
    s->uid = 1001;
    sequence = scene_command(s, 0);
    ck_assert_uint_eq(s->audit.records[(sequence - 1) % 4096].flags & VMIBUS_AUDIT_CHAINED, 0);
    fake_disk_do(0, 0);
    while (!fake_disk_job())
        ck_assert_int_ge(loop_dispatch(s->loop, 10000), 0);
    fake_disk_do(0, 0);
    ck_assert_uint_eq(s->audit.records[(sequence - 1) % 4096].flags & VMIBUS_AUDIT_CHAINED, VMIBUS_AUDIT_CHAINED);
}

/* A disk that does not answer at all. */
TEST(test_p09_nobody_waits_for_a_dead_disk_for_ever, .setup = set_up, .teardown = tear_down, .iterations = 2) {
    static struct command command; /* it waits until the writer ends */
    struct vmibus_ack ack;

    s->options.patience_ms = 20;
    begin_with(true, _i ? CHAIN_CONTINUE : CHAIN_REFUSE);
    ck_assert_int_eq(begin(&command), AUDIT_WAIT);
    while (command.told == UNTOLD)
        ck_assert_int_ge(loop_dispatch(s->loop, 10000), 0);
    ck_assert_int_eq(command.told, _i ? 0 : ETIMEDOUT);
    ck_assert_int_eq(begin_within(&command, UINT64_MAX, &ack), _i ? AUDIT_GO_ON : AUDIT_REFUSED);
    fake_disk_do(0, 0);
    ck_assert_int_eq(begin(&command), AUDIT_WAIT);
}

TEST(test_full_disk_loses_its_oldest_file, .setup = set_up, .teardown = tear_down) {
    struct command command;

    s->options.segment_bytes = 2 * VMIBUS_CHAIN_RECORD_BOUND;
    begin_with(true, CHAIN_DROP_OLDEST);
    for (unsigned i = 0; i < 6; i++) {
        ck_assert_int_eq(begin(&command), AUDIT_WAIT);
        finish(&command);
        go_round();
        while (fake_disk_job())
            fake_disk_do(0, 0);
    }
    ck_assert_uint_ge(s->recorder.chain.open, 3);
    ck_assert_int_eq(begin(&command), AUDIT_WAIT);
    go_round();
    if (fake_disk_job()->operation == DISK_CREATE)
        fake_disk_do(0, 0);
    fake_disk_do(-ENOSPC, 10);
    ck_assert_int_eq(fake_disk_job()->operation, DISK_REMOVE);
    ck_assert_int_eq(command.told, UNTOLD);
    fake_disk_do(0, 0);
    fake_disk_do(0, 0);
    ck_assert_int_eq(command.told, 0);
    ck_assert_uint_eq(scene_verify(s).first_segment, 2);
    ck_assert_int_eq(scene_verify(s).verdict, VERIFY_GOOD);
    /* The one that is being written is never removed. */
    s->recorder.chain.oldest = s->recorder.chain.open;
    ck_assert_int_eq(begin(&command), AUDIT_WAIT);
    go_round();
    fake_disk_do(-ENOSPC, 0);
    ck_assert_int_eq(command.told, ENOSPC);
}

/* A waiter whose command ended otherwise is not called. */
TEST(test_waiter_that_is_taken_away, .setup = set_up, .teardown = tear_down) {
    struct command command, other;

    begin_with(true, CHAIN_REFUSE);
    ck_assert_int_eq(begin(&command), AUDIT_WAIT);
    ck_assert_int_eq(begin(&other), AUDIT_WAIT);
    go_round();
    audit_waiter_cancel(&command.waiter);
    fake_disk_do(0, 0);
    ck_assert_int_eq(command.told, UNTOLD);
    ck_assert_int_eq(other.told, 0);
}

/* The end of the writer is the end of waiting, whatever policy says. */
TEST(test_end_refuses_who_waits, .setup = set_up) {
    struct command command;

    begin_with(true, CHAIN_CONTINUE);
    ck_assert_int_eq(begin(&command), AUDIT_WAIT);
    scene_end(s);
    ck_assert_int_eq(command.told, ECANCELED);
    ck_assert_int_eq(scene_verify(s).verdict, VERIFY_GOOD);
    scene_deinit(s);
}

/* A record is overwritten before its command ends: it is taken as it is. */
TEST(test_pending_record_is_taken_before_it_is_overwritten, .setup = set_up, .teardown = tear_down) {
    struct verify_result result;

    begin_with(false, CHAIN_REFUSE);
    scene_intent(s, 1);
    for (unsigned i = 0; i < 200; i++)
        scene_command(s, i);
    s->recorder.chain.options.commit_ms = 1;
    loop_timer_cancel(&s->recorder.chain.commit_timer);
    scene_command(s, 1);
    while (!fake_disk_job())
        ck_assert_int_ge(loop_dispatch(s->loop, 10000), 0);
    fake_disk_do(0, 0);
    result = scene_verify(s);
    ck_assert_uint_eq(result.commands, 202);
    ck_assert_uint_eq(result.pending, 1);
    ck_assert_uint_eq(result.lost, 0);
}

HARNESS_SUITE("audit waiting", HARNESS_QUICK)
