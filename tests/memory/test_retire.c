/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The end of an epoch, as its holders see it: the epoch page, and the barrier that retires it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"
#include "memory/epoch_page.h"
#include "memory/fixture.h"
#include "memory/state.h"
#include "util/clock.h"
#include "util/fds.h"

#define FOREIGN 65534u
#define LONG_MS 600000
#define SHORT_MS 1

static struct fixture fx;
static struct client receiver;

static void ready_for(enum vm_kind kind, uint32_t retire_ms, uint32_t capabilities) {
    fixture_retire_ms = retire_ms;
    fixture_init(&fx, kind);
    fixture_grant(&fx, geteuid(), CAPABILITIES_ALL);
    fixture_grant(&fx, FOREIGN, capabilities);
    fixture_ready(&fx);
    client_init(&receiver, &fx, VMIBUS_ROLE_CONTROL, FOREIGN, 4711);
}

static void ready(void) {
    ready_for(VM_SEALED, LONG_MS, VMIBUS_CAP_RAM_FD | VMIBUS_CAP_OBSERVE);
}

static void ready_short(void) {
    ready_for(VM_SEALED, SHORT_MS, VMIBUS_CAP_RAM_FD | VMIBUS_CAP_OBSERVE);
}

static void teardown(void) {
    client_deinit(&receiver);
    fixture_deinit(&fx);
}

#define READY .setup = ready, .teardown = teardown
#define READY_SHORT .setup = ready_short, .teardown = teardown

static struct vmibus_ack *attach(struct client *client) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_ATTACH);

    return submit(client, &frame, NULL, NULL);
}

static struct vmibus_ack *release(struct client *client, uint64_t epoch) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_RELEASE);

    frame.mem_release.epoch = epoch;
    return submit(client, &frame, NULL, NULL);
}

static void end_epoch(void) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_END);

    frame.mem_end.reason = VMIBUS_REASON_RESET;
    assert_ok(submit(&fx.sensor, &frame, NULL, NULL));
}

static uint64_t retiring(void) {
    struct authority_counters counters;

    authority_get_counters(fx.authority, &counters);
    return counters.epochs_retiring;
}

/* The page that the client was given last, mapped as a reader does. */
static const volatile struct vmibus_epoch_page *map_page(const struct client *client) {
    int fd = client->journal.fds[client->journal.n_fds - 1];
    void *page = mmap(NULL, EPOCH_PAGE_SIZE, PROT_READ, MAP_SHARED, fd, 0);

    ck_assert_ptr_ne(page, MAP_FAILED);
    return page;
}

/* --- the epoch page ---------------------------------------------------------------------------- */

TEST(test_p06_page_shows_the_epoch_and_its_end, READY) {
    const volatile struct vmibus_epoch_page *page;
    uint64_t first = fx.epoch, changes;

    assert_ok(attach(&receiver));
    page = map_page(&receiver);
    ck_assert_uint_eq(page->epoch, first);
    ck_assert_uint_eq(page->generation, fx.generation);
    changes = page->changes;
    end_epoch();
    ck_assert_uint_eq(page->epoch, 0);
    ck_assert_uint_gt(page->changes, changes);
    assert_ok(propose_layout(&fx, false));
    ck_assert_uint_ne(page->epoch, first);
    ck_assert_uint_eq(page->epoch, fx.epoch);
    /* The slot's next occupant has another page; this one says for ever that it has ended. */
    link_close(&fx, fx.generation);
    ck_assert_uint_eq(page->epoch, 0);
    link_open(&fx, fx.generation + 1, "other");
    assert_ok(propose_layout(&fx, false));
    assert_ok(attach(&receiver));
    ck_assert_uint_eq(page->epoch, 0);
    page = map_page(&receiver);
    ck_assert_uint_eq(page->epoch, fx.epoch);
    ck_assert_uint_eq(page->generation, fx.generation);
}

/* Slots are taken in turn: pages that stayed would in the end leave no descriptors to prove a layout with. */
TEST(test_p08_page_goes_with_its_occupant, READY) {
    assert_ok(attach(&receiver));
    ck_assert_uint_eq(fx.sensor.account->used[RESOURCE_FDS], 2);
    link_close(&fx, fx.generation);
    ck_assert_uint_eq(fx.sensor.account->used[RESOURCE_FDS], 0);
}

static const volatile struct vmibus_epoch_page *watched;
static uint64_t when_told = 1;

static void look_when_told(void *context, const struct vmibus_frame *frame, const void *tail) {
    (void)context;
    (void)tail;
    if (frame->header.kind == VMIBUS_KIND_MEMCTX_INVALIDATED)
        when_told = watched->epoch;
}

/* Whoever hears of the end finds it in the page: it was written before. */
TEST(test_p06_page_ends_before_anybody_is_told, READY) {
    assert_ok(attach(&receiver));
    watched = map_page(&receiver);
    fx.authority->options.link = look_when_told;
    end_epoch();
    ck_assert_uint_eq(when_told, 0);
}

TEST(test_p06_page_ends_with_the_authority) {
    const volatile struct vmibus_epoch_page *page;

    ready();
    assert_ok(attach(&receiver));
    page = map_page(&receiver);
    ck_assert_uint_ne(page->epoch, 0);
    teardown();
    ck_assert_uint_eq(page->epoch, 0);
}

/* Those who read through the authority get the page, and nothing else. */
TEST(test_p06_mediated_reader_has_the_page) {
    const volatile struct vmibus_epoch_page *page;

    ready_for(VM_PRIVATE, LONG_MS, VMIBUS_CAP_MEM_READ);
    assert_ok(attach(&receiver));
    ck_assert_uint_eq(receiver.journal.n_fds, 1);
    page = map_page(&receiver);
    ck_assert_uint_eq(page->epoch, fx.epoch);
    end_epoch();
    ck_assert_uint_eq(page->epoch, 0);
    teardown();
}

/* It is made with the first attachment, once, and each reader has a description of its own. */
TEST(test_page_is_made_when_it_is_needed, READY) {
    struct stat first, second;

    ck_assert(!epoch_page_is_there(&fx.authority->endpoints[fx.slot].page));
    assert_ok(attach(&receiver));
    ck_assert_int_eq(fstat(receiver.journal.fds[1], &first), 0);
    ck_assert_uint_eq(first.st_mode & 07777, 0400);
    ck_assert_int_eq(fcntl(receiver.journal.fds[1], F_GETFL) & O_ACCMODE, O_RDONLY);
    ck_assert_int_eq(fcntl(receiver.journal.fds[1], F_GET_SEALS),
                     F_SEAL_SEAL | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_FUTURE_WRITE);
    assert_ok(attach(&receiver));
    ck_assert_int_eq(fstat(receiver.journal.fds[1], &second), 0);
    ck_assert_uint_eq(first.st_ino, second.st_ino);
}

/* A sensor in this process sees the RAM, and is called when the epoch ends. */
TEST(test_local_sensor_gets_no_page, READY) {
    assert_ok(attach(&fx.sensor));
    ck_assert_uint_eq(fx.sensor.journal.n_fds, 1);
    ck_assert_uint_eq(lseek(fx.sensor.journal.fds[0], 0, SEEK_END) > (off_t)EPOCH_PAGE_SIZE, 1);
}

/* --- keeping pages ----------------------------------------------------------------------------- */

static struct account *make_account(struct ledger *ledger) {
    static const uint64_t limits[N_RESOURCES] = {[RESOURCE_FDS] = 4};
    struct account *account;

    ledger_init(ledger, limits);
    ck_assert_int_eq(ledger_ref_account(ledger, 1, limits, &account), 0);
    return account;
}

TEST(test_p06_dead_epoch_is_ended_in_its_page) {
    struct epoch_page old;
    struct ledger ledger;
    struct account *account = make_account(&ledger);
    int kept, reader;

    epoch_page_init(&old);
    ck_assert_int_eq(epoch_page_make(&old, true, account), 0);
    epoch_page_begin(&old, 77, 5);
    kept = fd_dup(old.fd);
    reader = epoch_page_open(&old);
    const volatile struct vmibus_epoch_page *page = mmap(NULL, EPOCH_PAGE_SIZE, PROT_READ, MAP_SHARED, reader, 0);
    ck_assert_uint_eq(page->epoch, 77);
    ck_assert_int_eq(epoch_page_end_fd(kept), 0);
    ck_assert_uint_eq(page->epoch, 0);
    epoch_page_deinit(&old);
    fd_close(kept);
    fd_close(reader);
    account_unref(account);
    ledger_deinit(&ledger);
}

/* What came back is written into only if it is what was given. */
TEST(test_p12_only_pages_are_written_into) {
    const int seals = F_SEAL_GROW | F_SEAL_SHRINK;
    uint64_t word = 0x1234;
    int pipes[2];

    for (int i = 0; i < 5; i++) {
        int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        ck_assert_int_eq(ftruncate(fd, i == 0 ? 8192 : 4096), 0);
        ck_assert_int_eq(pwrite_really(fd, &word, sizeof(word), 0), sizeof(word));
        ck_assert_int_eq(fchmod(fd, i == 1 ? 0600 : 0400), 0);
        ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, i == 2 ? F_SEAL_GROW : seals), 0);
        if (i == 3)
            ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
        if (i == 4 && (geteuid() != 0 || fchown(fd, FOREIGN, FOREIGN) < 0)) {
            fd_close(fd);
            continue;
        }
        ck_assert_int_eq(epoch_page_end_fd(fd), -EBADF);
        word = 0;
        ck_assert_int_eq(pread(fd, &word, sizeof(word), 0), sizeof(word));
        ck_assert_uint_eq(word, 0x1234);
        fd_close(fd);
    }
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    ck_assert_int_eq(epoch_page_end_fd(pipes[0]), -EBADF);
    fds_close(pipes, 2);
}

/* --- the barrier ------------------------------------------------------------------------------- */

TEST(test_p06_epoch_that_nobody_holds_retires_at_once, READY) {
    uint64_t epoch = fx.epoch;

    end_epoch();
    ck_assert_uint_eq(fx.sensor.n_retired, 1);
    ck_assert_uint_eq(fx.sensor.retired, epoch);
    ck_assert_uint_eq(retiring(), 0);
    ck_assert(!loop_timer_is_armed(&fx.authority->retirement.timer));
}

TEST(test_p06_epoch_retires_with_its_last_holder, READY) {
    uint64_t epoch = fx.epoch;

    assert_ok(attach(&receiver));
    assert_ok(attach(&receiver));
    assert_ok(attach(&fx.control));
    end_epoch();
    ck_assert_uint_eq(retiring(), 1);
    ck_assert(loop_timer_is_armed(&fx.authority->retirement.timer));
    assert_ok(release(&receiver, epoch));
    assert_ok(release(&receiver, epoch));
    ck_assert_uint_eq(fx.sensor.n_retired, 0);
    assert_ok(release(&fx.control, epoch));
    ck_assert_uint_eq(fx.sensor.n_retired, 1);
    ck_assert_uint_eq(fx.sensor.retired, epoch);
    ck_assert_uint_eq(retiring(), 0);
    ck_assert(!loop_timer_is_armed(&fx.authority->retirement.timer));
    ck_assert_uint_eq(receiver.n_disconnected, 0);
}

/* Epochs that are held cost who holds them, not the sensor whose next layout needs descriptors. */
TEST(test_p09_held_epochs_are_not_paid_by_their_provider, READY) {
    uint64_t used;

    assert_ok(attach(&receiver)); /* makes the page, which stays */
    assert_ok(attach(&receiver));
    used = fx.sensor.account->used[RESOURCE_FDS];
    for (size_t i = 0; i < 20; i++) {
        end_epoch();
        assert_ok(propose_layout(&fx, false));
        assert_ok(attach(&receiver));
    }
    ck_assert_uint_eq(retiring(), 20);
    ck_assert_uint_eq(fx.sensor.account->used[RESOURCE_FDS], used);
    ck_assert_uint_eq(fx.sensor.n_retired, 0);
}

/* A write that is on a worker holds its context too. */
TEST(test_p06_epoch_retires_with_its_last_command, READY) {
    static uint8_t source[MIB];
    struct vmibus_frame frame = write_frame(&fx, DATA_GVA, source, sizeof(source), 0);
    size_t n = fx.control.journal.n;

    pwrite_block();
    submit_only(&fx.control, &frame, source, NULL);
    end_epoch();
    ck_assert_uint_eq(fx.sensor.n_retired, 0);
    ck_assert_uint_eq(retiring(), 1);
    pwrite_release();
    wait_answers(&fx.control, n + 1);
    ck_assert_uint_eq(fx.sensor.n_retired, 1);
}

static void wait_disconnected(struct client *client) {
    while (client->n_disconnected == 0)
        ck_assert_int_ge(loop_dispatch(fx.loop, -1), 0);
}

TEST(test_p06_overdue_holder_is_disconnected, READY_SHORT) {
    uint64_t epoch = fx.epoch;

    assert_ok(attach(&receiver));
    end_epoch();
    ck_assert_uint_eq(fx.sensor.n_retired, 0);
    wait_disconnected(&receiver);
    ck_assert_uint_eq(receiver.n_disconnected, 1);
    ck_assert_uint_eq(fx.sensor.n_retired, 1);
    ck_assert_uint_eq(fx.sensor.retired, epoch);
    ck_assert_uint_eq(receiver.account->used[RESOURCE_ATTACHMENTS], 0);
    /* Nothing is executed for it any more. */
    assert_refused(attach(&receiver), VMIBUS_ERROR_DENIED, VMIBUS_REASON_BAD_SESSION);
    ck_assert(!loop_timer_is_armed(&fx.authority->retirement.timer));
}

/* Only the holders of that epoch go, not those of the one that followed. */
TEST(test_p09_overdue_holder_hurts_only_itself, READY_SHORT) {
    assert_ok(attach(&receiver));
    end_epoch();
    assert_ok(propose_layout(&fx, false));
    assert_ok(attach(&fx.control));
    wait_disconnected(&receiver);
    ck_assert_uint_eq(fx.control.n_disconnected, 0);
    assert_ok(release(&fx.control, fx.epoch));
}

/* A sensor in this process cannot be made to go: it is shown, until it lets go. */
TEST(test_p06_overdue_local_sensor_is_shown, READY_SHORT) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_QUERY);
    const struct vmibus_memory_holder *holders;
    uint64_t epoch = fx.epoch;

    assert_ok(attach(&fx.sensor));
    assert_ok(attach(&receiver));
    end_epoch();
    wait_disconnected(&receiver);
    ck_assert_uint_eq(retiring(), 1);
    ck_assert_uint_eq(fx.sensor.n_retired, 0);
    ck_assert(!loop_timer_is_armed(&fx.authority->retirement.timer));
    frame.mem_query.query = VMIBUS_MEMORY_QUERY_HOLDERS;
    ck_assert_uint_eq(submit(&fx.control, &frame, NULL, NULL)->count, 1);
    holders = fx.control.journal.tails[fx.control.journal.n - 1];
    ck_assert_uint_eq(holders[0].epoch, epoch);
    ck_assert_uint_ne(holders[0].overdue, 0);
    ck_assert_uint_le(holders[0].overdue, clock_now());
    ck_assert_uint_eq(holders[0].pid, 0);
    assert_ok(release(&fx.sensor, epoch));
    ck_assert_uint_eq(fx.sensor.n_retired, 1);
    ck_assert_uint_eq(retiring(), 0);
}

/* Who provided it may be gone before its last holder. */
TEST(test_p06_provider_that_is_gone_is_not_told, READY) {
    assert_ok(attach(&receiver));
    end_epoch();
    fx.sensor.handle = authority_client_free(fx.sensor.handle);
    assert_ok(release(&receiver, fx.epoch));
    ck_assert_uint_eq(fx.sensor.n_retired, 0);
    ck_assert_uint_eq(retiring(), 0);
}

TEST(test_p06_two_epochs_retire_each_for_itself, READY) {
    uint64_t first = fx.epoch, second;

    assert_ok(attach(&receiver));
    end_epoch();
    assert_ok(propose_layout(&fx, false));
    second = fx.epoch;
    assert_ok(attach(&receiver));
    end_epoch();
    ck_assert_uint_eq(retiring(), 2);
    assert_ok(release(&receiver, second));
    ck_assert_uint_eq(fx.sensor.retired, second);
    assert_ok(release(&receiver, first));
    ck_assert_uint_eq(fx.sensor.retired, first);
    ck_assert_uint_eq(fx.sensor.n_retired, 2);
}

/* --- who holds what ---------------------------------------------------------------------------- */

static size_t query_holders(struct client *client, uint32_t slot, const struct vmibus_memory_holder **holdersp) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_QUERY);
    struct vmibus_ack *ack;

    frame.header.slot = slot;
    frame.mem_query.query = VMIBUS_MEMORY_QUERY_HOLDERS;
    ack = submit(client, &frame, NULL, NULL);
    assert_ok(ack);
    *holdersp = client->journal.tails[client->journal.n - 1];
    ck_assert_uint_eq(client->journal.frames[client->journal.n - 1].header.tail_length, ack->count * sizeof(**holdersp));
    return ack->count;
}

TEST(test_p01_holders_show_ones_own, READY) {
    const struct vmibus_memory_holder *holders;
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_QUERY);
    struct client blind;

    assert_ok(attach(&fx.control));
    ck_assert_uint_eq(query_holders(&receiver, fx.slot, &holders), 0);
    assert_ok(attach(&receiver));
    ck_assert_uint_eq(query_holders(&receiver, fx.slot, &holders), 1);
    ck_assert_uint_eq(holders[0].uid, FOREIGN);
    ck_assert_uint_eq(holders[0].pid, 4711);
    ck_assert_uint_eq(holders[0].descriptors, 1);
    ck_assert_uint_eq(holders[0].epoch, fx.epoch);
    ck_assert_uint_eq(holders[0].overdue, 0);
    ck_assert_uint_eq(query_holders(&receiver, 0, &holders), 1);
    /* Who sees counters sees everybody's. */
    ck_assert_uint_eq(query_holders(&fx.control, fx.slot, &holders), 2);
    ck_assert_uint_eq(query_holders(&fx.control, 0, &holders), 2);
    /* Of another endpoint there are none; who may not know of one is not told whether it is there. */
    frame.mem_query.query = 77;
    assert_refused(submit(&receiver, &frame, NULL, NULL), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    frame.mem_query.query = VMIBUS_MEMORY_QUERY_HOLDERS;
    fixture_grant(&fx, FOREIGN - 1, VMIBUS_CAP_RAM_FD);
    client_init(&blind, &fx, VMIBUS_ROLE_CONTROL, FOREIGN - 1, 4712);
    assert_refused(submit(&blind, &frame, NULL, NULL), VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    client_deinit(&blind);
}

/* Contexts of a VM that has gone are found among all. */
TEST(test_holders_of_a_vm_that_has_gone, READY) {
    const struct vmibus_memory_holder *holders;
    uint64_t epoch = fx.epoch;

    assert_ok(attach(&receiver));
    link_close(&fx, fx.generation);
    ck_assert_uint_eq(query_holders(&fx.control, 0, &holders), 1);
    ck_assert_uint_eq(holders[0].epoch, epoch);
    ck_assert_uint_gt(holders[0].overdue, clock_now());
}

HARNESS_SUITE("memory: ends of epochs", HARNESS_QUICK)
