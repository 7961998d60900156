/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The intents log: a ring that is never read torn, survives its writer, and is gone on with after a restart. */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "util/audit.h"
#include "util/fds.h"

#define CAPACITY 8

static int log_open(void) {
    int fd = memfd_create("audit", MFD_CLOEXEC);

    ck_assert_int_ge(fd, 0);
    return fd;
}

/* A record whose every number tells the same, so that a mixture of two shows. */
static struct vmibus_audit_record record_of(uint64_t value) {
    return (struct vmibus_audit_record){
        .received = value,
        .generation = value,
        .slot = (uint32_t)value,
        .token = value,
        .epoch = value,
        .cr3 = value,
        .address = value,
        .count = value,
        .correlation = value,
    };
}

static void check_record(const struct vmibus_audit_record *record, uint64_t value) {
    ck_assert_uint_eq(record->received, value);
    ck_assert_uint_eq(record->generation, value);
    ck_assert_uint_eq(record->slot, (uint32_t)value);
    ck_assert_uint_eq(record->token, value);
    ck_assert_uint_eq(record->epoch, value);
    ck_assert_uint_eq(record->cr3, value);
    ck_assert_uint_eq(record->address, value);
    ck_assert_uint_eq(record->correlation, value);
}

static uint64_t begin(struct audit *audit, uint64_t value) {
    struct vmibus_audit_record record = record_of(value);

    return audit_begin(audit, &record);
}

TEST(test_audit_wraps_and_tells_what_was_overwritten) {
    struct audit audit;
    struct vmibus_audit_record record;
    _cleanup_fd_ int fd = log_open();

    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 7), 0);
    ck_assert_int_eq(vmibus_audit_read(audit.header, 0, &record), 0);
    ck_assert_int_eq(vmibus_audit_read(audit.header, 1, &record), 0);
    for (uint64_t i = 1; i <= 20; i++)
        ck_assert_uint_eq(begin(&audit, i), i);
    ck_assert_uint_eq(audit.header->written, 20);
    ck_assert_uint_eq(audit.header->incarnation, 7);
    for (uint64_t i = 1; i <= 12; i++)
        ck_assert_int_eq(vmibus_audit_read(audit.header, i, &record), 0);
    for (uint64_t i = 13; i <= 20; i++) {
        ck_assert_int_eq(vmibus_audit_read(audit.header, i, &record), 1);
        ck_assert_uint_eq(record.sequence, i);
        ck_assert_uint_eq(record.error, VMIBUS_AUDIT_PENDING);
        ck_assert_uint_eq(record.finished, 0);
        check_record(&record, i);
    }
    ck_assert_int_eq(vmibus_audit_read(audit.header, 21, &record), 0);
    audit_deinit(&audit);
}

TEST(test_audit_finish_notes_how_it_ended) {
    const struct vmibus_ack ack = {.error = VMIBUS_ERROR_QUOTA, .reason = VMIBUS_REASON_LIMIT_FDS, .count = 3, .finished = 99};
    struct audit audit;
    struct vmibus_audit_record record;
    _cleanup_fd_ int fd = log_open();
    uint64_t old, young;

    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 1), 0);
    old = begin(&audit, 1);
    for (int i = 0; i < CAPACITY; i++)
        young = begin(&audit, 2);
    audit_finish(&audit, old, &ack); /* overwritten meanwhile */
    ck_assert_int_eq(vmibus_audit_read(audit.header, young, &record), 1);
    ck_assert_uint_eq(record.error, VMIBUS_AUDIT_PENDING);
    audit_finish(&audit, young, &ack);
    ck_assert_int_eq(vmibus_audit_read(audit.header, young, &record), 1);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_QUOTA);
    ck_assert_uint_eq(record.reason, VMIBUS_REASON_LIMIT_FDS);
    ck_assert_uint_eq(record.count, 3);
    ck_assert_uint_eq(record.finished, 99);
    ck_assert_uint_eq(record.token, 2); /* an ACK without a token leaves it */
    audit_deinit(&audit);
}

TEST(test_audit_without_a_log_is_harmless) {
    const struct vmibus_ack ack = {};
    struct audit audit = {};

    ck_assert_uint_eq(begin(&audit, 1), 0);
    audit_finish(&audit, 0, &ack);
    audit_deinit(&audit);
}

/* What was stored outlives SIGKILL, and whoever comes next goes on after it. */
TEST(test_audit_survives_its_writer) {
    const struct vmibus_ack ack = {.finished = 5};
    struct audit audit;
    struct vmibus_audit_record record;
    _cleanup_fd_ int fd = log_open();
    pid_t pid = fork();

    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        if (audit_init(&audit, fd, CAPACITY, 1) < 0)
            _exit(1);
        audit_finish(&audit, begin(&audit, 1), &ack);
        begin(&audit, 2);
        raise(SIGKILL);
    }
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 2), 0);
    ck_assert_uint_eq(audit.header->incarnation, 2);
    ck_assert_int_eq(vmibus_audit_read(audit.header, 1, &record), 1);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_OK);
    check_record(&record, 1);
    ck_assert_int_eq(vmibus_audit_read(audit.header, 2, &record), 1);
    ck_assert_uint_eq(record.error, VMIBUS_AUDIT_PENDING);
    check_record(&record, 2);
    ck_assert_uint_eq(begin(&audit, 3), 3);
    audit_deinit(&audit);
}

/* A writer that died between its record and counting it: the number is not used for another. */
TEST(test_audit_numbers_never_repeat) {
    struct audit audit;
    struct vmibus_audit_record record;
    _cleanup_fd_ int fd = log_open();

    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 1), 0);
    for (uint64_t i = 1; i <= 10; i++)
        begin(&audit, i);
    audit.header->written--;
    audit_deinit(&audit);
    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 2), 0);
    ck_assert_uint_eq(begin(&audit, 11), 11);
    ck_assert_int_eq(vmibus_audit_read(audit.header, 10, &record), 1);
    check_record(&record, 10);
    audit_deinit(&audit);
}

/* What a log without rules has is kept, and they get their place. */
TEST(test_log_without_rules_gets_some) {
    const size_t size = sizeof(struct vmibus_audit_header) + CAPACITY * sizeof(struct vmibus_audit_record);
    struct vmibus_audit_record record;
    struct vmibus_audit_rule rule;
    struct audit audit;
    _cleanup_fd_ int fd = log_open();

    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 1), 0);
    begin(&audit, 1);
    audit.header->rules = audit.header->numbered = 0;
    audit_deinit(&audit);
    ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 2), 0);
    ck_assert_int_eq(vmibus_audit_read(audit.header, 1, &record), 1);
    ck_assert_uint_eq(record.rule, VMIBUS_AUDIT_RULE_UNTOLD);
    ck_assert_int_eq(vmibus_audit_read_rule(audit.header, 1, &rule), 0);
    ck_assert_uint_eq(audit_number_rule(&audit, "alice", "/etc/rules", 7), 1);
    ck_assert_int_eq(vmibus_audit_read_rule(audit.header, 1, &rule), 1);
    ck_assert_str_eq(rule.name, "alice");
    ck_assert_str_eq(rule.source, "/etc/rules");
    ck_assert_uint_eq(rule.line, 7);
    audit_deinit(&audit);
}

/* A number means one rule as long as the log keeps it, over starts too, and never another one. */
TEST(test_rules_are_numbered_once) {
    char name[100], source[300];
    uint16_t alice, bob, last = 0;
    struct audit audit, nowhere = {};
    _cleanup_fd_ int fd = log_open();

    ck_assert_uint_eq(audit_number_rule(&nowhere, "alice", "file", 1), VMIBUS_AUDIT_RULE_UNTOLD);
    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 1), 0);
    alice = audit_number_rule(&audit, "alice", "file", 1);
    bob = audit_number_rule(&audit, "bob", "file", 5);
    ck_assert_uint_ne(alice, bob);
    ck_assert_uint_eq(audit_number_rule(&audit, "alice", "file", 1), alice);
    ck_assert_uint_ne(audit_number_rule(&audit, "alice", "file", 2), alice);
    audit_deinit(&audit);
    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 2), 0);
    ck_assert_uint_eq(audit_number_rule(&audit, "bob", "file", 5), bob);
    /* Texts that are too long, numbers that begin again. */
    memset(name, 'n', sizeof(name));
    name[sizeof(name) - 1] = '\0';
    memset(source, 's', sizeof(source));
    strcpy(source + sizeof(source) - 5, ".end");
    last = audit_number_rule(&audit, name, source, 1);
    ck_assert_uint_eq(strlen(audit_find_rule(&audit, last)->name), 63);
    ck_assert_str_eq(audit_find_rule(&audit, last)->source + 115, ".end");
    for (uint32_t line = 1; line <= 70000; line++) {
        last = audit_number_rule(&audit, "many", "file", line);
        ck_assert(last != VMIBUS_AUDIT_RULE_UNTOLD && last <= VMIBUS_AUDIT_RULE_LAST);
        ck_assert_uint_eq(audit_find_rule(&audit, last)->line, line);
        if (line == VMIBUS_AUDIT_RULES)
            ck_assert_ptr_null(audit_find_rule(&audit, alice));
    }
    ck_assert_ptr_null(audit_find_rule(&audit, VMIBUS_AUDIT_RULE_OWNER));
    audit_deinit(&audit);
}

/* A policy that is read again and again does not take the places of its own rules. */
TEST(test_policy_keeps_its_rules) {
    struct audit audit;
    uint16_t first;
    _cleanup_fd_ int fd = log_open();

    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 1), 0);
    for (uint32_t load = 0; load < 3 * VMIBUS_AUDIT_RULES; load++) {
        first = audit_number_rule(&audit, "first", "file", 1);
        audit_number_rule(&audit, "moves", "file", load + 2);
        ck_assert_ptr_nonnull(audit_find_rule(&audit, first));
        ck_assert_str_eq(audit_find_rule(&audit, first)->name, "first");
    }
    audit_deinit(&audit);
}

TEST(test_audit_of_another_shape_is_begun_anew) {
    struct audit audit;
    struct vmibus_audit_record record;
    struct stat st;
    _cleanup_fd_ int fd = log_open();

    ck_assert_int_eq(audit_init(&audit, fd, CAPACITY, 1), 0);
    begin(&audit, 1);
    audit_deinit(&audit);
    ck_assert_int_eq(audit_init(&audit, fd, 2 * CAPACITY, 1), 0);
    ck_assert_uint_eq(audit.header->written, 0);
    ck_assert_int_eq(vmibus_audit_read(audit.header, 1, &record), 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_eq(st.st_size, sizeof(struct vmibus_audit_header) + 2 * CAPACITY * sizeof(struct vmibus_audit_record) +
                                     VMIBUS_AUDIT_RULES * sizeof(struct vmibus_audit_rule));
    memset(audit.header, 0xa5, 128);
    audit_deinit(&audit);
    ck_assert_int_eq(audit_init(&audit, fd, 2 * CAPACITY, 1), 0);
    ck_assert_uint_eq(audit.header->written, 0);
    audit_deinit(&audit);
}

/* A store into a page without a block on a full disk would be a SIGBUS: all blocks are there before the first store. */
TEST(test_p10_audit_has_its_blocks_before_it_is_written) {
    const struct vmibus_audit_header header = {.magic = VMIBUS_AUDIT_MAGIC, .capacity = 4096};
    struct audit audit;
    struct stat st;
    _cleanup_fd_ int fd = log_open();

    /* One that seems right, and is a hole. */
    ck_assert_int_eq(write(fd, &header, sizeof(header)), sizeof(header));
    ck_assert_int_eq(ftruncate(fd, 128 + 4096 * 128), 0);
    ck_assert_int_eq(audit_init(&audit, fd, 4096, 1), 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_int_ge(st.st_blocks * 512, st.st_size);
    audit_deinit(&audit);
}

TEST(test_audit_refuses_what_cannot_be_mapped) {
    struct audit audit = {};
    int pipes[2];
    _cleanup_fd_ int fd = log_open();

    ck_assert_int_eq(audit_init(&audit, fd, 0, 1), -EINVAL);
    ck_assert_int_eq(audit_init(&audit, fd, UINT64_MAX, 1), -EINVAL);
    ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
    ck_assert_int_lt(audit_init(&audit, pipes[1], CAPACITY, 1), 0);
    fds_close(pipes, 2);
    ck_assert_ptr_null(audit.header);
}

/* --- reading while it is written --------------------------------------------------------------- */

static struct audit shared;
static uint64_t stop;

static void *write_on(void *context) {
    (void)context;
    for (uint64_t i = 1; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
        const struct vmibus_ack ack = {.error = VMIBUS_ERROR_GONE, .count = i, .finished = i, .token = i};

        audit_finish(&shared, begin(&shared, i), &ack);
    }
    return NULL;
}

/* Whether a record is of one piece. It is asked millions of times, which an assertion each would make slow. */
static bool is_whole(const struct vmibus_audit_record *record, uint64_t value) {
    const uint64_t numbers[] = {record->sequence, record->received, record->generation, record->slot,       record->token,
                                record->epoch,    record->cr3,      record->address,    record->correlation};

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        if (numbers[i] != value)
            return false;
    return record->error == VMIBUS_AUDIT_PENDING || (record->finished == value && record->count == value);
}

TEST(test_audit_is_never_read_torn) {
#ifdef __SANITIZE_THREAD__
    test_skip("a sequence lock reads what is being written on purpose");
#endif
    struct vmibus_audit_record record;
    pthread_t writer;
    _cleanup_fd_ int fd = log_open();

    /* One record, so that it is overwritten all the time. */
    ck_assert_int_eq(audit_init(&shared, fd, 1, 1), 0);
    ck_assert_int_eq(pthread_create(&writer, NULL, write_on, NULL), 0);
    for (uint64_t sequence = 0; sequence < 3000000;) {
        sequence = __atomic_load_n(&shared.header->written, __ATOMIC_ACQUIRE);
        if (vmibus_audit_read(shared.header, sequence, &record) && !is_whole(&record, sequence))
            ck_abort_msg("record %ju was read torn", (uintmax_t)sequence);
    }
    __atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
    pthread_join(writer, NULL);
    ck_assert_int_eq(vmibus_audit_read(shared.header, shared.header->written, &record), 1);
    audit_deinit(&shared);
}

HARNESS_SUITE("audit", HARNESS_QUICK)
