/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* MEM_ATTACH: who receives descriptors, what can be done with them, and what they cost. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "memory/fixture.h"
#include "util/fds.h"

#define FOREIGN 65534u

static struct fixture fx;
static struct client receiver;

static void ready_for(enum vm_kind kind, uid_t uid, uint32_t capabilities) {
    fixture_init(&fx, kind);
    fixture_grant(&fx, geteuid(), CAPABILITIES_ALL);
    fixture_grant(&fx, uid, capabilities);
    fixture_ready(&fx);
    client_init(&receiver, &fx, VMIBUS_ROLE_CONTROL, uid, 4711);
}

static void ready_foreign(void) {
    ready_for(VM_SEALED, FOREIGN, VMIBUS_CAP_RAM_FD);
}

static void teardown(void) {
    client_deinit(&receiver);
    fixture_deinit(&fx);
}

#define READY .setup = ready_foreign, .teardown = teardown

static struct vmibus_ack *attach(struct client *client, uint64_t epoch) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_ATTACH);

    frame.mem_attach.epoch = epoch;
    return submit(client, &frame, NULL, NULL);
}

static struct vmibus_ack *release(struct client *client, uint64_t epoch) {
    struct vmibus_frame frame = frame_make(&fx, VMIBUS_KIND_MEM_RELEASE);

    frame.mem_release.epoch = epoch;
    return submit(client, &frame, NULL, NULL);
}

static const struct vmibus_frame *last_answer(const struct client *client) {
    return &client->journal.frames[client->journal.n - 1];
}

static void assert_mediated(struct vmibus_ack *ack, uint16_t reason) {
    assert_ok(ack);
    ck_assert_uint_eq(ack->reason, reason);
    ck_assert_uint_eq(ack->count, 2);
    ck_assert_uint_eq(last_answer(&receiver)->header.fd_count, 1); /* the epoch page */
    ck_assert_uint_eq(last_answer(&receiver)->header.tail_length,
                      2 * sizeof(struct vmibus_ram_range));
}

static void assert_given(struct vmibus_ack *ack) {
    assert_ok(ack);
    ck_assert_uint_eq(ack->reason, VMIBUS_REASON_NONE);
    ck_assert_uint_eq(ack->count, 2);
    ck_assert_uint_eq(last_answer(&receiver)->header.fd_count, 2); /* the RAM, then the epoch page */
}

TEST(test_attach_gives_ranges_and_descriptors, READY) {
    const struct vmibus_ram_range *ranges;
    uint8_t octet = 0;

    assert_given(attach(&receiver, 0));
    ranges = receiver.journal.tails[receiver.journal.n - 1];
    ck_assert_uint_eq(ranges[0].len, RAM_SIZE);
    ck_assert_uint_eq(ranges[1].flags, VMIBUS_RANGE_READ_ONLY);
    ck_assert_uint_eq(last_answer(&receiver)->ack.epoch, fx.epoch);
    ck_assert_int_eq(fcntl(receiver.journal.fds[0], F_GETFL) & O_ACCMODE, O_RDONLY);
    ck_assert_int_eq(pread(receiver.journal.fds[0], &octet, 1, NOTE_GPA), 1);
    ck_assert_int_eq(octet, 'O');
}

TEST(test_attach_is_audited, READY) {
    struct vmibus_audit_record record;

    attach(&receiver, fx.epoch);
    ck_assert_int_eq(vmibus_audit_read(fx.audit.header, 1, &record), 1);
    ck_assert_uint_eq(record.kind, VMIBUS_KIND_MEM_ATTACH);
    ck_assert_uint_eq(record.uid, FOREIGN);
    ck_assert_uint_eq(record.pid, 4711);
    ck_assert_uint_eq(record.epoch, fx.epoch);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_OK);
}

/* --- sensors apart ----------------------------------------------------------------------------- */

/* It reads for whoever the bus says has asked. */
TEST(test_p09_sensor_apart_reads_what_a_rule_gives, .setup = ready_foreign, .teardown = teardown) {
    struct client sensor;

    client_init(&sensor, &fx, VMIBUS_ROLE_SENSOR, FOREIGN + 1, 4712);
    assert_refused(attach(&sensor, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_SENSOR_GRANT);
    ck_assert_uint_eq(last_answer(&sensor)->ack.value, VMIBUS_CAP_RAM_FD);
    ck_assert_uint_eq(last_answer(&sensor)->header.fd_count, 0);
    fixture_grant(&fx, FOREIGN + 1, VMIBUS_CAP_WATCH | VMIBUS_CAP_GUEST | VMIBUS_CAP_MEM_READ);
    assert_refused(attach(&sensor, fx.epoch), VMIBUS_ERROR_DENIED, VMIBUS_REASON_SENSOR_GRANT);
    fixture_grant(&fx, FOREIGN + 1, VMIBUS_CAP_RAM_FD);
    assert_ok(attach(&sensor, fx.epoch));
    ck_assert_uint_eq(last_answer(&sensor)->header.fd_count, 2);
    client_deinit(&sensor);
}

/* It is asked to find the root in it. */
TEST(test_sensor_apart_reads_what_it_proposed) {
    struct client other;

    fixture_init(&fx, VM_SEALED);
    client_deinit(&fx.sensor);
    client_init(&fx.sensor, &fx, VMIBUS_ROLE_SENSOR, FOREIGN, 4711);
    client_init(&other, &fx, VMIBUS_ROLE_SENSOR, FOREIGN, 4712);
    fixture_ready(&fx);
    assert_ok(attach(&fx.sensor, 0));
    assert_refused(attach(&other, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_SENSOR_GRANT);
    client_deinit(&other);
    fixture_deinit(&fx);
}

/* --- promise 3 --------------------------------------------------------------------------------- */

/* Tries every way that is known to turn a read-only descriptor into a write. Returns the number of the one that worked. */
static int try_to_write(int fd) {
    char path[64], octet = 'x';
    volatile char *map;
    int other;

    if (pwrite_really(fd, &octet, 1, DATA_GPA) >= 0)
        return 1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (open(path, O_RDWR) >= 0 || open(path, O_WRONLY) >= 0 || open(path, O_RDWR | O_TRUNC) >= 0)
        return 2;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/fd/%d", (int)getpid(), (int)getpid(), fd);
    if (open(path, O_RDWR) >= 0 || truncate(path, 0) == 0 || chmod(path, 0777) == 0)
        return 3;
    if (mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, DATA_GPA) != MAP_FAILED)
        return 4;
    map = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, DATA_GPA);
    if (map == MAP_FAILED)
        return 5;
    if (mprotect((void *)map, PAGE, PROT_READ | PROT_WRITE) == 0)
        return 6;
    prctl(PR_SET_DUMPABLE, 1);
    other = open("/proc/self/mem", O_RDWR);
    if (other >= 0 && pwrite_really(other, &octet, 1, (off_t)(uintptr_t)map) > 0)
        return 7;
    if (madvise((void *)map, PAGE, MADV_REMOVE) == 0)
        return 8;
    if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, PAGE) == 0 ||
        ftruncate(fd, 0) == 0)
        return 9;
    if (fchmod(fd, 0777) == 0 || fchown(fd, FOREIGN, FOREIGN) == 0)
        return 10;
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0)
        return 11;
    if (linkat(AT_FDCWD, path, AT_FDCWD, "/dev/shm/vmibus-linked", AT_SYMLINK_FOLLOW) == 0)
        return 12;
    return map[0] == 'x' ? 13 : 0;
}

static int in_foreign_process(int fd, int (*act)(int fd)) {
    pid_t child = fork();
    int status;

    if (child == 0) {
        if (setgroups(0, NULL) < 0 || setgid(FOREIGN) < 0 || setuid(FOREIGN) < 0)
            _exit(99);
        _exit(act(fd));
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int reopen(int fd) {
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDWR) >= 0;
}

TEST(test_p03_foreign_uid_cannot_write, .iterations = 2) {
    if (geteuid() != 0)
        test_skip("only root can become another uid");
    ready_for(_i ? VM_UNSEALED : VM_SEALED, FOREIGN, VMIBUS_CAP_RAM_FD);
    assert_given(attach(&receiver, 0));
    ck_assert_int_eq(in_foreign_process(receiver.journal.fds[0], try_to_write), 0);
    ck_assert_uint_eq(fx.vm.ram[DATA_GPA], 0);
    teardown();
}

/* The same tricks work on a memfd as QEMU makes it: the test above can fail. */
TEST(test_p03_a_memfd_as_made_can_be_reopened) {
    int fd, readable;

    if (geteuid() != 0)
        test_skip("only root can become another uid");
    fd = memfd_create("ram", MFD_CLOEXEC);
    ck_assert_int_eq(ftruncate(fd, 2 * MIB), 0);
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    readable = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_eq(in_foreign_process(readable, reopen), 1);
    ck_assert_int_eq(fchmod(fd, 0400), 0);
    ck_assert_int_eq(in_foreign_process(readable, reopen), 0);
    fd_close(readable);
    fd_close(fd);
}

TEST(test_p03_root_needs_the_explicit_word) {
    ready_for(VM_SEALED, 0, VMIBUS_CAP_RAM_FD);
    if (geteuid() == 0) /* the fixture gave it everything */
        list_first(&fx.policy->rules, struct policy_rule, link)->capabilities =
            (uint32_t)~VMIBUS_CAP_RAM_FD_OWNER;
    authority_set_policy(fx.authority, fx.policy);
    assert_mediated(attach(&receiver, 0), VMIBUS_REASON_REOPENABLE);
    fixture_grant(&fx, 0, VMIBUS_CAP_RAM_FD_OWNER);
    assert_given(attach(&receiver, 0));
    teardown();
}

TEST(test_p03_root_needs_it_for_the_files_of_others_too) {
    if (geteuid() != 0)
        test_skip("only root can give a file away");
    ready_for(VM_SEALED, 0, 0);
    list_first(&fx.policy->rules, struct policy_rule, link)->capabilities =
        (uint32_t)~VMIBUS_CAP_RAM_FD_OWNER;
    authority_set_policy(fx.authority, fx.policy);
    ck_assert_int_eq(fchown(fx.vm.fd, 1234, 1234), 0);
    assert_mediated(attach(&receiver, 0), VMIBUS_REASON_REOPENABLE);
    teardown();
}

TEST(test_p03_owner_needs_the_explicit_word) {
    if (geteuid() != 0)
        test_skip("only root can give a file away");
    ready_for(VM_SEALED, 1234, VMIBUS_CAP_RAM_FD);
    ck_assert_int_eq(fchown(fx.vm.fd, 1234, 1234), 0);
    assert_mediated(attach(&receiver, 0), VMIBUS_REASON_REOPENABLE);
    fixture_grant(&fx, 1234, VMIBUS_CAP_RAM_FD_OWNER);
    assert_given(attach(&receiver, 0));
    teardown();
}

TEST(test_p03_named_file_is_refused) {
    struct stat st;

    ready_for(VM_SHM, FOREIGN, VMIBUS_CAP_RAM_FD | VMIBUS_CAP_RAM_FD_OWNER);
    assert_mediated(attach(&receiver, 0), VMIBUS_REASON_NAMED_FILE);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.access,
                      VMIBUS_ACCESS_MEDIATED | VMIBUS_ACCESS_WRITE);
    ck_assert_int_eq(fstat(fx.vm.fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0666); /* not ours to tighten */
    /* Its mode forbids it by itself. */
    ck_assert_int_eq(fchmod(fx.vm.fd, 0644), 0);
    assert_given(attach(&receiver, 0));
    /* The group's bits are what an access control list is masked by. */
    ck_assert_int_eq(fchmod(fx.vm.fd, 0660), 0);
    assert_mediated(attach(&receiver, 0), VMIBUS_REASON_NAMED_FILE);
    /* Without its name it is ours. */
    ck_assert_int_eq(unlink(vm_shm_path()), 0);
    struct vmibus_frame end = frame_make(&fx, VMIBUS_KIND_MEM_END);
    submit(&fx.sensor, &end, NULL, NULL);
    propose_layout(&fx, false);
    assert_given(attach(&receiver, 0));
    ck_assert_int_eq(fstat(fx.vm.fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 07777, 0600);
    teardown();
}

static int refuse_to_tighten(const struct opener *opener, int fd, mode_t mode) {
    (void)opener;
    (void)fd;
    (void)mode;
    return -EPERM;
}

TEST(test_p03_what_cannot_be_tightened_is_not_given) {
    fixture_init(&fx, VM_SEALED);
    fx.opener.tighten = refuse_to_tighten;
    fixture_grant(&fx, geteuid(), CAPABILITIES_ALL);
    fixture_grant(&fx, FOREIGN, VMIBUS_CAP_RAM_FD);
    fixture_ready(&fx);
    client_init(&receiver, &fx, VMIBUS_ROLE_CONTROL, FOREIGN, 4711);
    ck_assert_uint_eq(last_of(&fx.link, VMIBUS_KIND_MEMCTX)->memctx.access &
                          (VMIBUS_ACCESS_FD | VMIBUS_ACCESS_MEDIATED),
                      VMIBUS_ACCESS_MEDIATED);
    assert_mediated(attach(&receiver, 0), VMIBUS_REASON_REOPENABLE);
    teardown();
}

/* Loosened again after it was published: looked at anew each time. */
TEST(test_p03_looked_at_anew_each_time, READY) {
    assert_given(attach(&receiver, 0));
    ck_assert_int_eq(fchmod(fx.vm.fd, 0777), 0);
    assert_mediated(attach(&receiver, 0), VMIBUS_REASON_REOPENABLE);
}

TEST(test_p03_private_memory_has_no_descriptor) {
    ready_for(VM_PRIVATE, FOREIGN, VMIBUS_CAP_RAM_FD);
    assert_mediated(attach(&receiver, 0), VMIBUS_REASON_PRIVATE_RAM);
    teardown();
}

/* Two receivers do not share a file position, nor flags. */
TEST(test_p03_each_attachment_has_its_own_description, READY) {
    int first;

    assert_given(attach(&receiver, 0));
    first = fd_dup(receiver.journal.fds[0]);
    ck_assert_int_eq(lseek(first, 4711, SEEK_SET), 4711);
    assert_given(attach(&receiver, 0));
    ck_assert_int_eq(lseek(receiver.journal.fds[0], 0, SEEK_CUR), 0);
    fd_close(first);
}

/* --- capabilities and epochs ------------------------------------------------------------------- */

TEST(test_p01_attach_needs_a_capability) {
    ready_for(VM_SEALED, FOREIGN, VMIBUS_CAP_MEM_WRITE);
    assert_refused(attach(&receiver, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY);
    ck_assert_uint_eq(last_answer(&receiver)->ack.value, VMIBUS_CAP_RAM_FD);
    fixture_grant(&fx, FOREIGN, VMIBUS_CAP_MEM_READ);
    assert_mediated(attach(&receiver, 0), VMIBUS_REASON_NO_CAPABILITY);
    teardown();
}

TEST(test_attach_sensor_needs_none) {
    fixture_init(&fx, VM_SEALED);
    fixture_grant(&fx, FOREIGN, VMIBUS_CAP_RAM_FD);
    fixture_grant(&fx, 0, VMIBUS_CAP_RAM_FD);
    fixture_ready(&fx);
    assert_ok(attach(&fx.sensor, 0));
    ck_assert_uint_eq(last_answer(&fx.sensor)->header.fd_count, 1);
    /* One in another process is asked whether it could reopen the file. */
    client_init(&receiver, &fx, VMIBUS_ROLE_SENSOR, FOREIGN, 99);
    assert_given(attach(&receiver, 0));
    client_deinit(&receiver);
    client_init(&receiver, &fx, VMIBUS_ROLE_SENSOR, 0, 99);
    assert_mediated(attach(&receiver, 0), VMIBUS_REASON_REOPENABLE);
    teardown();
}

TEST(test_p06_attach_to_a_stale_epoch, READY) {
    struct vmibus_frame end = frame_make(&fx, VMIBUS_KIND_MEM_END);
    uint64_t epoch = fx.epoch;

    assert_refused(attach(&receiver, epoch + 1), VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE);
    assert_given(attach(&receiver, epoch));
    end.mem_end.reason = VMIBUS_REASON_RESET;
    assert_ok(submit(&fx.sensor, &end, NULL, NULL));
    assert_refused(attach(&receiver, epoch), VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_RESET);
    assert_refused(attach(&receiver, 0), VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE);
    assert_ok(release(&receiver, epoch)); /* what is held can be given back */
    assert_refused(release(&receiver, epoch), VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
}

/* --- promise 8 --------------------------------------------------------------------------------- */

/* An attachment pays for what it gives: here the RAM and the epoch page. */
TEST(test_p08_attachments_are_charged, READY) {
    const uint64_t *used = receiver.account->used;
    struct authority_counters counters;

    attach(&receiver, 0);
    attach(&receiver, 0);
    ck_assert_uint_eq(used[RESOURCE_ATTACHMENTS], 2);
    ck_assert_uint_eq(used[RESOURCE_FDS], 4);
    authority_get_counters(fx.authority, &counters);
    ck_assert_uint_eq(counters.attachments, 2);
    assert_ok(release(&receiver, fx.epoch));
    ck_assert_uint_eq(used[RESOURCE_ATTACHMENTS], 1);
    ck_assert_uint_eq(used[RESOURCE_FDS], 2);
    link_session_closed(&fx, &receiver);
    ck_assert_uint_eq(used[RESOURCE_ATTACHMENTS], 0);
    ck_assert_uint_eq(used[RESOURCE_FDS], 0);
    assert_refused(attach(&receiver, 0), VMIBUS_ERROR_DENIED, VMIBUS_REASON_BAD_SESSION);
}

/* Names the limit and whose use it is. */
static void assert_limit(struct vmibus_ack *ack, enum vmibus_error error, enum vmibus_reason reason, uint64_t bound) {
    ck_assert_uint_eq(ack->error, error);
    ck_assert_uint_eq(ack->reason, reason);
    ck_assert_uint_eq(ack->value, bound);
    ck_assert_uint_gt(ack->count, 0);
}

TEST(test_p08_limits_are_named, READY) {
    receiver.account->limit[RESOURCE_ATTACHMENTS] = 1;
    assert_given(attach(&receiver, 0));
    assert_limit(attach(&receiver, 0), VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_ATTACHMENTS, 1);
    receiver.account->limit[RESOURCE_ATTACHMENTS] = 10;
    receiver.account->limit[RESOURCE_FDS] = 3;
    assert_limit(attach(&receiver, 0), VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_FDS, 3);
    receiver.account->limit[RESOURCE_FDS] = 10;
    fx.ledger.limit[RESOURCE_FDS] = fx.ledger.used[RESOURCE_FDS];
    assert_limit(attach(&receiver, 0), VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_FDS, fx.ledger.used[RESOURCE_FDS]);
    ck_assert_uint_eq(receiver.account->used[RESOURCE_ATTACHMENTS], 1);
}

/*
 * The last attachment releases the context, after its epoch and its endpoint have gone; what it costs its provider goes with
 * the epoch, and the page with the endpoint.
 */
TEST(test_p08_context_outlives_its_epoch, READY) {
    const uint64_t *provider = fx.sensor.account->used;
    uint64_t before = provider[RESOURCE_FDS];

    attach(&receiver, 0);
    ck_assert_uint_eq(provider[RESOURCE_FDS], before + 1);
    link_close(&fx, fx.generation);
    ck_assert_uint_eq(provider[RESOURCE_FDS], 0);
    ck_assert_uint_eq(receiver.account->used[RESOURCE_FDS], 2);
    receiver.handle = authority_client_free(receiver.handle);
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_FDS], 0);
    ck_assert_uint_eq(fx.ledger.used[RESOURCE_ATTACHMENTS], 0);
}

HARNESS_SUITE("memory: attachments", HARNESS_QUICK)
