/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Epochs: how they begin, what they tell, what ends them, and that nothing stale is executed. */
#include <semaphore.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"
#include "memory/state.h"
#include "util/clock.h"
#include "util/fds.h"

static struct fixture fx;

static void ready(void) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
}

static void teardown(void) {
    fixture_deinit(&fx);
}

#define READY .setup = ready, .teardown = teardown

static const uint8_t eight[8] = {1, 2, 3, 4, 5, 6, 7, 8};

static struct vmibus_ack *end(uint64_t epoch, uint16_t reason) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_END);

    frame.mem_end.epoch = epoch;
    frame.mem_end.reason = reason;
    return submit(&fx.sensor, &frame, NULL, NULL);
}

static void assert_ended(uint64_t epoch, uint16_t reason) {
    struct vmibus_frame *frame = last_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED);

    ck_assert_ptr_nonnull(frame);
    ck_assert_uint_eq(frame->memctx_invalidated.epoch, epoch);
    ck_assert_uint_eq(frame->memctx_invalidated.reason, reason);
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED), 1);
}

TEST(test_memctx_is_published, READY) {
    const struct vmibus_memctx *pending = &fx.link.frames[0].memctx, *body;
    const struct vmibus_ram_range *ranges = fx.link.tails[1];

    ck_assert_uint_eq(fx.link.n, 2);
    ck_assert_uint_eq(pending->state, VMIBUS_MEMCTX_STATE_PENDING);
    ck_assert_uint_eq(pending->reason, VMIBUS_REASON_BOOTING);
    ck_assert_uint_eq(pending->cr3, 0);
    ck_assert_uint_eq(pending->epoch >> 32, 3);
    body = &fx.link.frames[1].memctx;
    ck_assert_uint_eq(body->state, VMIBUS_MEMCTX_STATE_READY);
    ck_assert_uint_eq(body->epoch, pending->epoch);
    ck_assert_uint_eq(body->cr3, PGD_GPA);
    ck_assert_uint_eq(body->levels, 4);
    ck_assert_uint_eq(body->note, NOTE_GPA);
    ck_assert_uint_eq(body->ram_size, RAM_SIZE + ROM_SIZE);
    ck_assert_uint_eq(body->evidence,
                      VMIBUS_EVIDENCE_NOTE | VMIBUS_EVIDENCE_NOTE_MAPPED | VMIBUS_EVIDENCE_CANARY);
    ck_assert_uint_eq(body->confidence, VMIBUS_CONFIDENCE_NOTED);
    ck_assert_uint_eq(body->access,
                      VMIBUS_ACCESS_FD | VMIBUS_ACCESS_WRITE | VMIBUS_ACCESS_SEALED);
    ck_assert_uint_eq(body->range_count, 2);
    ck_assert_uint_eq(body->object_count, 1);
    ck_assert_uint_eq(fx.link.frames[1].header.tail_length, 2 * sizeof(*ranges));
    ck_assert_uint_eq(ranges[0].gpa, 0);
    ck_assert_uint_eq(ranges[0].len, RAM_SIZE);
    ck_assert_uint_eq(ranges[1].gpa, ROM_GPA);
    ck_assert_uint_eq(ranges[1].offset, RAM_SIZE);
    ck_assert_uint_eq(ranges[1].flags, VMIBUS_RANGE_READ_ONLY);
}

TEST(test_same_layout_keeps_the_epoch, READY) {
    uint64_t epoch = fx.epoch;
    struct vmibus_ack *ack = propose_layout(&fx, false);

    assert_ok(ack);
    ck_assert_uint_eq(ack->epoch, epoch);
    ck_assert_uint_eq(fx.link.n, 2);
    assert_ok(propose_root(&fx));
    ck_assert_uint_eq(fx.link.n, 2);
}

/* Tightening the file's mode must not lock out who opens it again at the next epoch. */
TEST(test_next_epoch_is_as_writable, .iterations = 2) {
    struct vmibus_frame *last;

    fixture_init(&fx, VM_UNSEALED);
    for (unsigned round = 0; round < 3; round++) {
        assert_ok(propose_layout(&fx, _i));
        last = last_of(&fx.link, VMIBUS_KIND_MEMCTX);
        ck_assert_uint_eq(last->memctx.access, VMIBUS_ACCESS_FD | VMIBUS_ACCESS_WRITE);
        ck_assert(fx.authority->endpoints[1].current->objects[0].writable);
        assert_ok(end(0, VMIBUS_REASON_RESET));
    }
    fixture_deinit(&fx);
}

TEST(test_other_layout_begins_another_epoch, READY) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    struct vmibus_layout_range range = {.len = RAM_SIZE};
    uint64_t epoch = fx.epoch;

    frame.header.tail_length = sizeof(range);
    frame.header.fd_count = 1;
    frame.mem_layout.range_count = 1;
    assert_ok(submit(&fx.sensor, &frame, &range, &fx.vm.fd));
    assert_ended(epoch, VMIBUS_REASON_HOTPLUG);
    ck_assert_uint_gt(fx.epoch, epoch);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.state,
                      VMIBUS_MEMCTX_STATE_PENDING);
}

TEST(test_other_backing_begins_another_epoch, READY) {
    uint64_t epoch = fx.epoch;
    struct vm other;

    vm_init(&other, VM_SEALED, 4);
    struct vm kept = fx.vm;
    fx.vm = other;
    assert_ok(propose_layout(&fx, false));
    assert_ended(epoch, VMIBUS_REASON_BACKING_CHANGED);
    vm_deinit(&kept);
}

TEST(test_p06_ended_epoch_is_refused, READY) {
    uint64_t epoch = fx.epoch;
    struct vmibus_ack *ack;

    assert_ok(end(0, VMIBUS_REASON_RESET));
    assert_ended(epoch, VMIBUS_REASON_RESET);
    ack = do_write(&fx, DATA_GVA, eight, 8, 0);
    assert_refused(ack, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_RESET);
    ck_assert_uint_eq(ack->value, 0);
    /* QEMU may say it twice: one event. */
    assert_refused(end(epoch, VMIBUS_REASON_RESET), VMIBUS_ERROR_STALE_EPOCH,
                   VMIBUS_REASON_RESET);
    assert_refused(end(0, VMIBUS_REASON_RESET), VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE);
    assert_ended(epoch, VMIBUS_REASON_RESET);
    assert_ok(propose_layout(&fx, false));
    ck_assert_uint_gt(fx.epoch, epoch);
    uint64_t current = fx.epoch;
    fx.epoch = epoch;
    ack = do_write(&fx, DATA_GVA, eight, 8, 0);
    assert_refused(ack, VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_RESET);
    ck_assert_uint_eq(ack->value, current);
    struct vmibus_frame frame = root_frame(&fx);
    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_STALE_EPOCH,
                   VMIBUS_REASON_RESET);
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA], 0);
}

TEST(test_p06_changed_canary_is_seen_at_commit, .iterations = 4) {
    uint8_t source[8192] = {0xee};
    uint64_t epoch;

    fixture_init(&fx, _i < 2 ? VM_SEALED : VM_UNSEALED);
    fixture_ready(&fx);
    epoch = fx.epoch;
    fx.vm.ram[NOTE_GPA + 12] ^= 1;
    assert_refused(do_write(&fx, DATA_GVA, source, _i % 2 ? 8192 : 8, 0),
                   VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_CANARY);
    assert_ended(epoch, VMIBUS_REASON_CANARY);
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA], 0);
    fixture_deinit(&fx);
}

TEST(test_p06_changed_top_entry_is_seen_at_commit, READY) {
    uint64_t *pgd = (uint64_t *)(void *)(fx.vm.ram + PGD_GPA), epoch = fx.epoch;

    pgd[511] |= 0x40; /* what hardware and software may change is no change */
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
    pgd[300] = 0x5027; /* an entry that was not there may come */
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
    pgd[511] ^= 0x4;
    assert_refused(do_write(&fx, DATA_GVA, eight, 8, 0), VMIBUS_ERROR_STALE_EPOCH,
                   VMIBUS_REASON_CANARY);
    assert_ended(epoch, VMIBUS_REASON_CANARY);
}

/* Epoch and busy change between receipt and commit. */
TEST(test_p06_epoch_ended_between_receipt_and_commit, .iterations = 2) {
    static uint8_t source[MIB];
    struct vmibus_frame frame;

    ready();
    pwrite_block();
    frame = write_frame(&fx, DATA_GVA, source, sizeof(source), 0);
    submit_only(&fx.control, &frame, source, NULL);
    frame = write_frame(&fx, DATA_GVA + 8, eight, 8, 0);
    submit_only(&fx.control, &frame, NULL, NULL);
    if (_i == 0) {
        assert_ok(end(0, VMIBUS_REASON_RESET));
    } else {
        struct vmibus_frame busy = frame_make(&fx, VMIBUS_KIND_MEM_BUSY);

        busy.mem_busy.busy = 1;
        busy.mem_busy.reason = VMIBUS_REASON_MIGRATION;
        struct vmibus_ack *ack = submit(&fx.sensor, &busy, NULL, NULL);
        assert_ok(ack);
        ck_assert_uint_eq(ack->count, 2);
    }
    pwrite_release();
    wait_answers(&fx.control, 2);
    if (_i == 0)
        assert_refused(&fx.control.journal.frames[1].ack, VMIBUS_ERROR_STALE_EPOCH,
                       VMIBUS_REASON_RESET);
    else
        assert_refused(&fx.control.journal.frames[1].ack, VMIBUS_ERROR_BUSY,
                       VMIBUS_REASON_MIGRATION);
    ck_assert_mem_ne(fx.vm.ram + DATA_GPA + 8, eight, 8);
    teardown();
}

static sem_t moving, go_on;

static ssize_t pwrite_in_two(int fd, const void *buffer, size_t len, off_t offset) {
    sem_post(&moving);
    while (sem_wait(&go_on) < 0)
        continue;
    return pwrite_really(fd, buffer, len, offset);
}

/* They change while the octets move: what was written stays, and is not promised. */
TEST(test_p06_overtaken_while_it_is_written, .iterations = 2) {
    static uint8_t source[MIB];
    struct vmibus_frame frame, other;
    const struct vmibus_ack *ack;

    ready();
    memset(source, 0x3c, sizeof(source));
    sem_init(&moving, 0, 0);
    sem_init(&go_on, 0, 0);
    pwrite_hook = pwrite_in_two;
    frame = write_frame(&fx, DATA_GVA, source, sizeof(source), 0);
    submit_only(&fx.control, &frame, source, NULL);
    while (sem_wait(&moving) < 0)
        continue;
    if (_i == 0) {
        assert_ok(end(0, VMIBUS_REASON_RESET));
    } else {
        other = frame_make(&fx, VMIBUS_KIND_MEM_BUSY);
        other.mem_busy.busy = 1;
        other.mem_busy.reason = VMIBUS_REASON_MIGRATION;
        assert_ok(submit(&fx.sensor, &other, NULL, NULL));
    }
    pwrite_hook = NULL;
    sem_post(&go_on);
    wait_answers(&fx.control, 1);
    ack = &fx.control.journal.frames[0].ack;
    ck_assert_uint_eq(ack->error, _i ? VMIBUS_ERROR_BUSY : VMIBUS_ERROR_STALE_EPOCH);
    ck_assert_uint_eq(ack->reason, _i ? VMIBUS_REASON_MIGRATION : VMIBUS_REASON_RESET);
    ck_assert_uint_eq(ack->count, sizeof(source));
    ck_assert(is_filled(fx.vm.ram + DATA_GPA, 0x3c, sizeof(source)));
    teardown();
}

/* While somebody relies on it a context is looked at, without anybody writing. */
TEST(test_p06_canary_is_looked_at_by_itself, READY) {
    uint64_t *pgd = (uint64_t *)(void *)(fx.vm.ram + PGD_GPA), epoch = fx.epoch;

    pgd[511] ^= 0x4;
    wait_link(&fx, 3);
    assert_ended(epoch, VMIBUS_REASON_CANARY);
}

/* Nobody relies on it: the loop has nothing to do. */
TEST(test_p02_idle_without_reliance) {
    fixture_init(&fx, VM_SEALED);
    propose_layout(&fx, false);
    propose_root(&fx);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_ge(loop_dispatch(fx.loop, i ? 1200 : 0), 0);
    ck_assert(!loop_timer_is_armed(&fx.authority->look));
    fixture_deinit(&fx);
}

/* --- roots ------------------------------------------------------------------------------------- */

static void layout_only(void) {
    fixture_init(&fx, VM_SEALED);
    assert_ok(propose_layout(&fx, false));
}

#define LAYOUT .setup = layout_only, .teardown = teardown

static void assert_unproven(struct vmibus_frame *frame) {
    assert_refused(submit(&fx.sensor, frame, NULL, NULL), VMIBUS_ERROR_UNSUPPORTED,
                   VMIBUS_REASON_ROOT_UNPROVEN);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.state,
                      VMIBUS_MEMCTX_STATE_PENDING);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.reason,
                      VMIBUS_REASON_ROOT_UNPROVEN);
}

TEST(test_p12_root_without_evidence, LAYOUT) {
    struct vmibus_frame frame = root_frame(&fx);

    frame.mem_root.note = 0;
    assert_unproven(&frame);
}

TEST(test_p12_root_that_does_not_map_itself, LAYOUT) {
    struct vmibus_frame frame = root_frame(&fx);

    frame.mem_root.cr3 = PGD_GPA + PAGE;
    assert_unproven(&frame);
    frame = root_frame(&fx);
    frame.mem_root.probe_gva = DATA_GVA;
    assert_unproven(&frame);
    frame = root_frame(&fx);
    frame.mem_root.levels = 5;
    assert_unproven(&frame);
}

/* A copy of the top table maps everything, but not itself: a process's own, or a relic. */
TEST(test_p12_copy_of_the_root_is_no_root, LAYOUT) {
    struct vmibus_frame frame = root_frame(&fx);

    memcpy(fx.vm.ram + DATA_GPA, fx.vm.ram + PGD_GPA, PAGE);
    frame.mem_root.cr3 = DATA_GPA;
    assert_unproven(&frame);
}

TEST(test_p12_root_against_its_note, LAYOUT) {
    struct vmibus_frame frame = root_frame(&fx);

    frame.mem_root.note = DATA_GPA; /* no note there */
    assert_unproven(&frame);
    frame.mem_root.note = OUTSIDE_GPA;
    assert_unproven(&frame);
    frame = root_frame(&fx);
    memcpy(strstr((char *)fx.vm.ram + NOTE_GPA, "ffffffff82"), "ffffffff83", 10);
    assert_unproven(&frame);
}

TEST(test_p12_root_against_a_vcpu, LAYOUT) {
    struct vmibus_frame frame = root_frame(&fx);

    frame.mem_root.vcpu_cr3 = DATA_GPA; /* tables that map nothing */
    assert_unproven(&frame);
    frame.mem_root.vcpu_cr3 = PGD_GPA;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.confidence,
                      VMIBUS_CONFIDENCE_PROVEN);
    ck_assert(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.evidence & VMIBUS_EVIDENCE_VCPU_CR3);
}

TEST(test_p12_root_from_a_vcpu_alone, LAYOUT) {
    struct vmibus_frame frame = root_frame(&fx);

    frame.mem_root.note = 0;
    frame.mem_root.vcpu_cr3 = PGD_GPA | 0x5;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.confidence,
                      VMIBUS_CONFIDENCE_SAMPLED);
}

/* What a vCPU uses; the probe is any address of its system. */
static struct vmibus_frame sampled_frame(uint64_t probe) {
    struct vmibus_frame frame = root_frame(&fx);

    frame.mem_root.note = frame.mem_root.note_len = 0;
    frame.mem_root.vcpu_cr3 = PGD_GPA;
    frame.mem_root.probe_gva = probe;
    return frame;
}

TEST(test_p12_sampled_root_maps_its_probe_to_ram, LAYOUT) {
    static const uint64_t probes[] = {OUTSIDE_GVA, RESERVED_GVA, EMPTY_GVA, UINT64_C(0x0000800000000000), 0x1000};
    struct vmibus_frame frame;
    const struct vmibus_memctx *body;

    for (size_t i = 0; i < sizeof(probes) / sizeof(probes[0]); i++) {
        frame = sampled_frame(probes[i]);
        assert_unproven(&frame);
    }
    frame = sampled_frame(DATA_GVA + 0x123);
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    body = &last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx;
    ck_assert_uint_eq(body->state, VMIBUS_MEMCTX_STATE_READY);
    ck_assert_uint_eq(body->confidence, VMIBUS_CONFIDENCE_SAMPLED); /* not PROVEN, as the sensor says */
    ck_assert_uint_eq(body->evidence, VMIBUS_EVIDENCE_VCPU_CR3 | VMIBUS_EVIDENCE_CANARY);
}

TEST(test_p12_sampled_root_against_a_vcpu, LAYOUT) {
    struct vmibus_frame frame = sampled_frame(DATA_GVA);

    frame.mem_root.vcpu_cr3 = DATA_GPA; /* tables that map nothing */
    assert_unproven(&frame);
    /* Another process's, which share the system's half. */
    memcpy(fx.vm.ram + DATA_GPA + PAGE / 2, fx.vm.ram + PGD_GPA + PAGE / 2, PAGE / 2);
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
}

/* The tables lead to the page that maps it: the last entry of each level. */
static uint64_t *leaf_of(uint64_t gva) {
    uint64_t table = PGD_GPA;

    for (unsigned shift = fx.vm.levels == 5 ? 48 : 39; shift > 12; shift -= 9)
        table = *(uint64_t *)(void *)(fx.vm.ram + table + 8 * (gva >> shift & 511)) & UINT64_C(0x000ffffffffff000);
    return (uint64_t *)(void *)(fx.vm.ram + table + 8 * (gva >> 12 & 511));
}

TEST(test_p12_page_of_a_process_is_no_probe, LAYOUT) {
    struct vmibus_frame frame = sampled_frame(DATA_GVA);
    uint64_t *leaf = leaf_of(DATA_GVA);

    *leaf |= 0x4;
    assert_unproven(&frame);
    *leaf &= ~UINT64_C(0x4);
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
}

/* A unikernel, or firmware: all that it maps lies in the lower half. */
TEST(test_p06_canary_of_a_root_in_the_lower_half, LAYOUT) {
    uint64_t *pgd = (uint64_t *)(void *)(fx.vm.ram + PGD_GPA), epoch = fx.epoch;
    struct vmibus_frame frame = sampled_frame(DATA_GVA & UINT64_C(0x7fffffffff));

    pgd[0] = pgd[511];
    pgd[511] = 0;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.state, VMIBUS_MEMCTX_STATE_READY);
    pgd[1] = pgd[0]; /* which comes and goes */
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    pgd[0] ^= 0x1000;
    submit(&fx.sensor, &frame, NULL, NULL);
    assert_ended(epoch, VMIBUS_REASON_CANARY);
}

/* A kernel with a note is found after all: another root, so another epoch. */
TEST(test_p06_noted_root_after_a_sampled_one_ends_the_epoch, LAYOUT) {
    uint64_t epoch = fx.epoch;
    struct vmibus_frame frame = sampled_frame(DATA_GVA);

    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    frame = root_frame(&fx);
    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_RELOADED);
    assert_ended(epoch, VMIBUS_REASON_RELOADED);
}

TEST(test_p12_malformed_roots, LAYOUT) {
    struct vmibus_frame frame = root_frame(&fx);

    frame.mem_root.levels = 3;
    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FIELD);
    frame = root_frame(&fx);
    frame.mem_root.cr3 |= 1;
    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FIELD);
    frame = root_frame(&fx);
    frame.mem_root.note_len = 4097;
    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION,
                   VMIBUS_REASON_BAD_FIELD);
    frame = root_frame(&fx);
    frame.mem_root.epoch = 0;
    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_STALE_EPOCH,
                   VMIBUS_REASON_NONE);
    ck_assert_uint_eq(fx.link.n, 1);
}

TEST(test_p12_no_root_yet_says_why, LAYOUT) {
    struct vmibus_frame frame = root_frame(&fx);

    frame.mem_root.cr3 = 0;
    frame.mem_root.reason = VMIBUS_REASON_BOOTING;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    ck_assert_uint_eq(fx.link.n, 1); /* said already */
    frame.mem_root.reason = VMIBUS_REASON_ROOT_UNPROVEN;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.reason,
                      VMIBUS_REASON_ROOT_UNPROVEN);
    frame.mem_root.reason = VMIBUS_REASON_CONFIDENTIAL;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    assert_ended(fx.link.frames[0].memctx.epoch, VMIBUS_REASON_CONFIDENTIAL);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.state,
                      VMIBUS_MEMCTX_STATE_NONE);
}

/* Another root that is proven too: the guest was exchanged under us. */
TEST(test_p06_disagreeing_root_ends_the_epoch, READY) {
    struct vmibus_frame frame = root_frame(&fx);
    uint64_t epoch = fx.epoch, second = DATA_GPA + 64 * PAGE;

    memcpy(fx.vm.ram + second, fx.vm.ram + PGD_GPA, PAGE);
    vm_map(&fx.vm, KERNEL_GVA, second, 0x63, 1);
    frame.mem_root.cr3 = second;
    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_STALE_EPOCH,
                   VMIBUS_REASON_RELOADED);
    assert_ended(epoch, VMIBUS_REASON_RELOADED);
}

/* A sensor that finds none, or a wrong one, does not end what the tables still prove. */
TEST(test_p06_sensor_in_error_ends_nothing, READY) {
    struct vmibus_frame frame = root_frame(&fx);

    frame.mem_root.cr3 = 0;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
    frame.mem_root.cr3 = DATA_GPA;
    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_UNSUPPORTED,
                   VMIBUS_REASON_ROOT_UNPROVEN);
    ck_assert_uint_eq(fx.link.n, 2);
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
    /* When the canary says the same as the sensor, it does. */
    fx.vm.ram[NOTE_GPA] = 0;
    frame.mem_root.cr3 = 0;
    assert_refused(submit(&fx.sensor, &frame, NULL, NULL), VMIBUS_ERROR_STALE_EPOCH,
                   VMIBUS_REASON_CANARY);
}

/* --- occupants --------------------------------------------------------------------------------- */

TEST(test_p06_closed_endpoint_ends_the_epoch, READY) {
    uint64_t epoch = fx.epoch;

    link_close(&fx, fx.generation + 1); /* another generation's */
    ck_assert_uint_eq(count_of(&fx.link, VMIBUS_KIND_MEMCTX_INVALIDATED), 0);
    link_close(&fx, fx.generation);
    assert_ended(epoch, VMIBUS_REASON_EXIT);
    link_open(&fx, 8, "next");
    assert_ok(propose_layout(&fx, false));
    ck_assert_uint_gt(fx.epoch, epoch);
}

TEST(test_p06_exit_of_the_process_ends_the_epoch) {
    int release[2];
    pid_t child;
    void *ram;

    fixture_init(&fx, VM_UNSEALED);
    ck_assert_int_eq(pipe(release), 0);
    child = fork();
    if (child == 0) {
        char octet;

        _exit(read(release[0], &octet, 1) == 1 ? 0 : 1);
    }
    ram = fx.vm.ram; /* mapped at the same place in the child */
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    struct vmibus_layout_range range = {
        .len = RAM_SIZE,
        .location = (uintptr_t)ram,
        .object = 0xffff,
    };
    frame.header.tail_length = sizeof(range);
    frame.mem_layout.range_count = 1;
    frame.mem_layout.pid = (uint32_t)child;
    frame.mem_layout.start_time = start_time_of(child);
    assert_ok(submit(&fx.sensor, &frame, &range, NULL));
    assert_ok(propose_root(&fx));
    link_issue(&fx, &fx.control, 1, 0);
    assert_ok(do_write(&fx, DATA_GVA, eight, 8, 0));
    uint64_t epoch = fx.epoch;
    ck_assert_int_eq(write(release[1], "x", 1), 1);
    wait_link(&fx, fx.link.n + 1);
    assert_ended(epoch, VMIBUS_REASON_EXIT);
    waitpid(child, NULL, 0);
    assert_refused(do_write(&fx, DATA_GVA, eight, 8, 0), VMIBUS_ERROR_STALE_EPOCH,
                   VMIBUS_REASON_EXIT);
    /* Its pid is not there any more, or another's: by its start time it is not found. */
    assert_refused(submit(&fx.sensor, &frame, &range, NULL), VMIBUS_ERROR_GONE,
                   VMIBUS_REASON_EXIT);
    fd_close(release[0]);
    fd_close(release[1]);
    fixture_deinit(&fx);
}

HARNESS_SUITE("memory: epochs", HARNESS_QUICK)
