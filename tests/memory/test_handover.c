/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An authority that is handed over: who may write, what was promised to the bus, and whom it has heard of. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "memory/buffers.h"
#include "memory/fixture.h"
#include "memory/handover.h"
#include "memory/state.h"
#include "util/fds.h"
#include "util/lies.h"

#define TAG 1
#define TAG_SENSOR 2
#define TAG_CONTROL 3

static struct fixture fx;

static void begin(void) {
    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
}

static void end(void) {
    fixture_deinit(&fx);
}

/* What one authority writes, read into another one of the same options: it answers in the place of the first. */
static struct authority *take_over(int *error) {
    static const uint8_t token[HANDOVER_TOKEN];
    struct handover_writer writer = {};
    struct authority_handover handover;
    struct handover_record record;
    struct authority *authority;
    struct handover whole;
    int state, *fds;
    size_t n_fds;

    authority_handover_init(&handover, fx.authority);
    handover_begin(&writer, TAG);
    authority_handover_save(&handover, &writer);
    handover_end(&writer);
    authority_handover_deinit(&handover);
    state = handover_seal(&writer, token, "test");
    ck_assert_int_ge(state, 0);
    n_fds = writer.n_fds;
    fds = calloc(n_fds + 1, sizeof(*fds));
    for (size_t i = 0; i < n_fds; i++)
        fds[i] = fd_dup(writer.fds[i]);
    handover_writer_deinit(&writer);
    ck_assert_int_eq(authority_new(&authority, &fx.authority->options), 0);
    ck_assert_int_eq(handover_open(&whole, state, fds, n_fds), 0);
    authority_handover_init(&handover, authority);
    ck_assert(handover_find(handover_all(&whole), TAG, &record));
    ck_assert_uint_eq(authority_handover_incarnation(handover_in(&record)), fx.authority->options.incarnation);
    (void)authority_handover_restore(&handover, handover_in(&record));
    *error = whole.error;
    authority_handover_deinit(&handover);
    handover_close(&whole);
    close(state);
    return authority;
}

static struct memory_endpoint *endpoint_of(struct authority *authority) {
    return authority_slot(authority, 1);
}

/* A write that was under way under a revoked token ended with its process: the bus is told so by the next one, once. */
TEST(test_p05_what_was_draining_is_drained_by_the_next, .setup = begin, .teardown = end) {
    struct fence *fence = endpoint_of(fx.authority)->fences.current;
    struct authority *next;
    size_t before;
    int error;

    fence_enter(fence);
    link_revoke(&fx, fx.token);
    ck_assert_ptr_null(endpoint_of(fx.authority)->fences.current);
    next = take_over(&error);
    ck_assert_int_eq(error, 0);
    ck_assert_ptr_null(endpoint_of(next)->fences.current);
    ck_assert_uint_eq(endpoint_of(next)->fences.highest, fx.token);
    before = fx.link.n;
    authority_handover_go_on(next, NULL, 0, true);
    ck_assert_uint_gt(fx.link.n, before);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_FENCE_DRAINED)->fence_drained.token, fx.token);
    ck_assert(list_is_empty(&endpoint_of(next)->fences.draining));
    authority_free(next);
    fence_leave(fence, memory_endpoint_drained, endpoint_of(fx.authority));
}

/* The fence goes on as it was; without the link it is suspended until the bus has told all. */
TEST(test_p05_fence_is_in_force_only_with_the_link, .setup = begin, .teardown = end, .iterations = 2) {
    struct authority *next;
    struct fence *fence;
    int error;

    next = take_over(&error);
    ck_assert_int_eq(error, 0);
    fence = endpoint_of(next)->fences.current;
    ck_assert_ptr_nonnull(fence);
    ck_assert_uint_eq(fence->token, fx.token);
    authority_handover_go_on(next, NULL, 0, _i == 0);
    ck_assert_uint_eq(fence_check(fence, 0), _i == 0 ? VMIBUS_REASON_NONE : VMIBUS_REASON_NO_LINK);
    authority_free(next);
}

/* Thrown away before it went on, it leaves nothing behind and tells nobody. */
TEST(test_p05_what_does_not_go_on_tells_nobody, .setup = begin, .teardown = end) {
    struct fence *fence = endpoint_of(fx.authority)->fences.current;
    struct authority *next;
    size_t before;
    int error;

    fence_enter(fence);
    link_revoke(&fx, fx.token);
    before = fx.link.n;
    next = take_over(&error);
    ck_assert_int_eq(error, 0);
    authority_free(next);
    ck_assert_uint_eq(fx.link.n, before);
    fence_leave(fence, memory_endpoint_drained, endpoint_of(fx.authority));
}

/* --- lies ---------------------------------------------------------------------------------------- */

static pid_t vm_process; /* whose memory the RAM is; 0: nobody's */
static int *given;       /* the descriptors beside the state */
static size_t n_given;

/* The machine loses its ROM; or its RAM becomes that of another process, which is a copy of this one. */
static void change_layout(bool in_process) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_LAYOUT);
    struct vmibus_layout_range range = {.len = RAM_SIZE};

    frame.header.tail_length = sizeof(range);
    frame.mem_layout.range_count = 1;
    frame.header.fd_count = !in_process;
    if (in_process) {
        vm_process = fork();
        ck_assert_int_ge(vm_process, 0);
        while (vm_process == 0)
            pause();
        range.object = 0xffff;
        range.location = (uintptr_t)fx.vm.ram;
        frame.mem_layout.pid = (uint32_t)vm_process;
        frame.mem_layout.start_time = start_time_of(vm_process);
    }
    assert_ok(submit(&fx.sensor, &frame, &range, &fx.vm.fd));
}

static void attach(struct client *client) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_ATTACH);

    assert_ok(submit(client, &frame, NULL, NULL));
}

static void open_session(void) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_SESSION_OPENED}};

    memcpy(frame.session_opened.session, "somebody apart", 14);
    frame.session_opened.role = VMIBUS_ROLE_CONTROL;
    authority_hear_link(fx.authority, &frame, NULL);
}

static void put_client(struct authority_handover *handover, struct handover_writer *writer, uint16_t tag,
                       const struct client *client) {
    handover_begin(writer, tag);
    authority_client_handover_save(handover, writer, client->handle);
    handover_end(writer);
}

static uint8_t *write_state(size_t *size) {
    static const uint8_t token[HANDOVER_TOKEN];
    struct authority_handover handover;
    struct handover_writer writer = {};
    int state;

    authority_handover_init(&handover, fx.authority);
    handover_begin(&writer, TAG);
    authority_handover_save(&handover, &writer);
    handover_end(&writer);
    put_client(&handover, &writer, TAG_SENSOR, &fx.sensor);
    put_client(&handover, &writer, TAG_CONTROL, &fx.control);
    authority_handover_deinit(&handover);
    state = handover_seal(&writer, token, "test");
    ck_assert_int_ge(state, 0);
    n_given = writer.n_fds;
    given = calloc(n_given + 1, sizeof(*given));
    for (size_t i = 0; i < n_given; i++)
        given[i] = fd_dup(writer.fds[i]);
    handover_writer_deinit(&writer);
    return lies_read_consume_fd(state, size);
}

/* An epoch that has ended and is held, one that goes on, a buffer, a fence in force and one that drains, a session. */
static uint8_t *sample(bool in_process, size_t *size) {
    struct fence *fence;
    uint8_t *octets;

    fixture_init(&fx, VM_SEALED);
    fixture_ready(&fx);
    attach(&fx.control);
    fence = endpoint_of(fx.authority)->fences.current;
    fence_enter(fence);
    link_revoke(&fx, fx.token);
    link_issue(&fx, &fx.control, fx.token + 1, 0);
    change_layout(in_process);
    assert_ok(propose_root(&fx));
    attach(&fx.control);
    assert_ok(buffer_allocate(&fx, &fx.control, 65536));
    open_session();
    octets = write_state(size);
    fence_leave(fence, memory_endpoint_drained, endpoint_of(fx.authority));
    fixture_deinit(&fx);
    return octets;
}

static void take_client(struct authority_handover *handover, struct handover *whole, uint16_t tag, struct client *client) {
    struct handover_record record;

    if (!whole->error && handover_find(handover_all(whole), tag, &record))
        (void)authority_client_handover_restore(handover, client->handle, handover_in(&record));
}

/* Reads a state into an authority without anything, which tells nobody. What was wrong, 0: nothing. */
static int restore(const uint8_t *octets, size_t size) {
    struct authority_handover handover;
    struct handover_record record;
    struct handover whole;
    int *fds = calloc(n_given + 1, sizeof(*fds)), error;

    for (size_t i = 0; i < n_given; i++)
        fds[i] = fd_dup(given[i]);
    fixture_init_empty(&fx);
    ck_assert_int_eq(handover_open_octets(&whole, octets, size, fds, n_given), 0);
    authority_handover_init(&handover, fx.authority);
    if (handover_find(handover_all(&whole), TAG, &record))
        (void)authority_handover_restore(&handover, handover_in(&record));
    take_client(&handover, &whole, TAG_SENSOR, &fx.sensor);
    take_client(&handover, &whole, TAG_CONTROL, &fx.control);
    authority_handover_deinit(&handover);
    ck_assert_uint_eq(fx.link.n, 0);
    error = whole.error;
    handover_close(&whole);
    return error;
}

/* The ledgers assert that nothing is left, the harness that no descriptor is. */
static bool is_taken(const uint8_t *octets, size_t size) {
    bool taken = restore(octets, size) == 0;

    if (taken)
        authority_handover_go_on(fx.authority, NULL, 0, true);
    fixture_deinit(&fx);
    return taken;
}

static void forget_state(void) {
    fds_close(given, n_given);
    free(given);
    if (vm_process) {
        kill(vm_process, SIGKILL);
        waitpid(vm_process, NULL, 0);
    }
}

/* Its objects are closed since only the attachment holds it; the sensor waits to be told, by whichever process it is. */
TEST(test_p06_ended_epoch_that_is_held_is_waited_for_by_the_next, .iterations = 2, .teardown = forget_state) {
    size_t size;
    uint8_t *octets = sample(_i == 1, &size);
    struct vmibus_frame frame;

    ck_assert_int_eq(restore(octets, size), 0);
    authority_handover_go_on(fx.authority, NULL, 0, true);
    fx.slot = 1;
    fx.generation = 7;
    ck_assert_uint_eq(fx.sensor.n_retired, 0);
    frame = frame_make(&fx, VMIBUS_KIND_MEM_RELEASE);
    frame.mem_release.epoch = UINT64_C(3) << 32 | 1;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
    ck_assert_uint_eq(fx.sensor.n_retired, 1);
    ck_assert_uint_eq(fx.sensor.retired, UINT64_C(3) << 32 | 1);
    fixture_deinit(&fx);
    free(octets);
}

/* Nobody has heard releases while there was no process: a deadline that passed meanwhile is given anew. */
TEST(test_p06_nobody_is_overdue_by_a_restart, .iterations = 2, .teardown = forget_state) {
    struct retirement *retirement;
    size_t size;
    uint8_t *octets = sample(_i == 1, &size);
    struct vmibus_frame frame;

    ck_assert_int_eq(restore(octets, size), 0);
    retirement = &fx.authority->retirement;
    ck_assert(!list_is_empty(&retirement->waiting));
    list_first(&retirement->waiting, struct memctx, retiring.link)->retiring.deadline = 1;
    authority_handover_go_on(fx.authority, NULL, 0, true);
    for (unsigned i = 0; i < 3; i++)
        ck_assert_int_ge(loop_dispatch(fx.loop, 0), -ETIMEDOUT);
    ck_assert_uint_eq(fx.control.n_disconnected, 0);
    fx.slot = 1;
    fx.generation = 7;
    frame = frame_make(&fx, VMIBUS_KIND_MEM_RELEASE);
    frame.mem_release.epoch = UINT64_C(3) << 32 | 1;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
    ck_assert_uint_eq(fx.sensor.n_retired, 1);
    fixture_deinit(&fx);
    free(octets);
}

/* Nor by one that is about to end: what is under way may take longer than holders have. */
TEST(test_p06_nobody_is_overdue_while_nobody_is_heard, .setup = begin, .teardown = end) {
    struct vmibus_frame frame;

    attach(&fx.control);
    authority_settle_begin(fx.authority);
    change_layout(false);
    ck_assert(!loop_timer_is_armed(&fx.authority->retirement.timer));
    frame = frame_make(&fx, VMIBUS_KIND_MEM_RELEASE);
    frame.mem_release.epoch = UINT64_C(3) << 32 | 1;
    assert_ok(submit(&fx.control, &frame, NULL, NULL));
}

/* A disk that takes its time: the intent is not durable until a test says so. */
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

/* A write whose intent is not on the disk when the process ends is answered once, and never executed. */
TEST(test_p05_what_waits_for_its_record_is_answered_once, .setup = begin, .teardown = end) {
    static const struct audit_ops slow_disk = {.keep = keep_nothing, .require = never_durable};
    const uint8_t octets[8] = "written!";
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, octets, sizeof(octets), 0);
    size_t n_answers = fx.control.journal.n;
    struct audit_waiter *waiter;

    list_init(&parked);
    fx.audit.ops = &slow_disk;
    fx.audit.strict = true;
    submit_only(&fx.control, &frame, NULL, NULL);
    ck_assert(!list_is_empty(&parked));
    ck_assert_uint_eq(fx.control.journal.n, n_answers);
    ck_assert(!authority_is_settled(fx.authority));
    authority_settle(fx.authority);
    ck_assert(authority_is_settled(fx.authority));
    ck_assert_uint_eq(fx.control.journal.n, n_answers + 1);
    assert_refused(&fx.control.journal.frames[n_answers].ack, VMIBUS_ERROR_GONE, VMIBUS_REASON_RESTARTED);
    fx.audit.ops = NULL;
    fx.audit.strict = false;
    /* The disk fails late: whom it would be told to is another process's. */
    waiter = list_first(&parked, struct audit_waiter, link);
    list_unlink(&waiter->link);
    waiter->recorded(waiter, -EIO);
    ck_assert_uint_eq(fx.control.journal.n, n_answers + 1);
}

TEST(test_p12_lies_are_taken_whole_or_not_at_all, .timeout = 300, .iterations = 2, .teardown = forget_state) {
    size_t size;
    uint8_t *octets = sample(_i == 1, &size);
    struct lies lies = lies_tell(octets, size, harness_is_full() ? 1 : 7, is_taken);

    ck_assert_uint_gt(lies.n_refused, 100);
    ck_assert_uint_gt(lies.n_taken, 100);
    free(octets);
}

HARNESS_SUITE("handover of an authority", HARNESS_QUICK)
