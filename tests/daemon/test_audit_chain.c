/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The audit chain of a real daemon: it holds every command that was answered, whenever the daemon is killed. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "audit/hash.h"
#include "audit/verify.h"
#include "daemon/daemon.h"
#include "harness.h"

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

/* --- what is in the chain ------------------------------------------------------------------------ */

#define FOUND_MOST 2000000

/* Ended commands by correlation, which this process never uses twice. */
static struct vmibus_audit_record *found;
static uint64_t n_found, n_intents;

static void take(void *context, uint64_t segment, const struct chain_item *item, const uint8_t *hash) {
    (void)context;
    (void)segment;
    (void)hash;
    n_intents += item->record.kind == VMIBUS_CHAIN_INTENT;
    if (chain_has_command(item->record.kind) && item->record.kind != VMIBUS_CHAIN_INTENT && n_found < FOUND_MOST)
        found[n_found++] = item->command;
}

static struct verify_result read_chain(void) {
    const struct verify_options options = {.writer = "bus", .record = take};
    struct verify_result result;
    char path[128];
    int directory;

    free(found);
    found = malloc(FOUND_MOST * sizeof(*found));
    n_found = n_intents = 0;
    snprintf(path, sizeof(path), "%s/state/audit", d->directory);
    directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ck_assert_int_ge(directory, 0);
    ck_assert_int_eq(verify_chain(directory, &options, &result), 0);
    close(directory);
    return result;
}

static const struct vmibus_audit_record *find(uint64_t correlation) {
    for (uint64_t i = n_found; i-- > 0;)
        if (found[i].correlation == correlation)
            return &found[i];
    ck_abort_msg("the chain has no command %lu", (unsigned long)correlation);
}

static void end_daemon(void) {
    kill(d->pid, SIGTERM);
    ck_assert_int_eq(daemon_await_exit(d), 0);
}

/* --- commands ------------------------------------------------------------------------------------ */

static struct vmibus_frame write_of(const struct wire_endpoint *vm, uint64_t token, const void *octets, uint32_t len) {
    struct vmibus_frame write = wire_command(VMIBUS_KIND_CMD_MEMWRITE, vm);

    write.cmd_memwrite.cr3 = 0x600000;
    write.cmd_memwrite.gva = 0x410000;
    write.cmd_memwrite.len = len;
    write.cmd_memwrite.token = token;
    write.cmd_memwrite.epoch = vm->epoch;
    if (len <= sizeof(write.cmd_memwrite.data))
        memcpy(write.cmd_memwrite.data, octets, len);
    else
        write.cmd_memwrite.flags = VMIBUS_MEMWRITE_SRC_PAYLOAD;
    return write;
}

/* --- killed at random moments -------------------------------------------------------------------- */

#define ROUNDS_FULL 200
#define ROUNDS_QUICK 6
#define PIPELINE 16
#define ACKED_MOST 2000000

static struct {
    uint64_t correlation;
    uint16_t error;
} *acked;
static uint64_t n_acked;

/* The moment is the subject, so nothing tells it. */
static pid_t kill_later(pid_t victim, unsigned ms) {
    pid_t pid = fork();

    if (pid == 0) {
        (void)poll(NULL, 0, (int)ms);
        kill(victim, SIGKILL);
        _exit(0);
    }
    return pid;
}

static void write_until_the_end(int fd, const struct wire_endpoint *vm, uint64_t token) {
    struct vmibus_frame frame;
    uint64_t octets = 0;
    unsigned pending = 0;

    for (;;) {
        while (pending < PIPELINE) {
            octets++;
            /* Some are refused: they are recorded too. */
            frame = write_of(vm, octets % 7 ? token : token + 1, &octets, sizeof(octets));
            if (!wire_send(fd, &frame, NULL, 0))
                return;
            pending++;
        }
        if (!wire_receive(fd, &frame, NULL))
            return;
        if (frame.header.kind != VMIBUS_KIND_ACK || frame.ack.command != VMIBUS_KIND_CMD_MEMWRITE)
            continue;
        pending--;
        if (n_acked == ACKED_MOST)
            return;
        acked[n_acked].correlation = frame.header.correlation;
        acked[n_acked++].error = frame.ack.error;
    }
}

static int by_correlation(const void *a, const void *b) {
    const struct vmibus_audit_record *left = a, *right = b;

    return left->correlation < right->correlation ? -1 : left->correlation > right->correlation;
}

static const char *const configs[] = {
    "[daemon]\naudit-records = 131072\naudit-idle-rate = 0\naudit-journal = no\n", /* the disk may be slower than the commands */
    "[daemon]\naudit = strict\naudit-idle-rate = 0\naudit-journal = no\n",
    "[daemon]\naudit-records = 131072\naudit-idle-rate = 0\naudit-writer = thread\naudit-segment-bytes = 65536\naudit-journal = no\n",
};

TEST(test_p04_kill_at_random_moments_loses_no_command, .iterations = 3, .timeout = 600) {
    unsigned rounds = getenv("VMIBUS_TEST_FULL") ? ROUNDS_FULL : ROUNDS_QUICK;
    const struct daemon_options options = {.config = configs[_i]};
    struct verify_result result;
    struct wire_endpoint vm;

    srandom((unsigned)getpid());
    acked = calloc(ACKED_MOST, sizeof(*acked));
    for (unsigned round = 0; round < rounds; round++) {
        pid_t killer;
        int fd;

        if (round == 0)
            daemon_start(d, &options);
        else
            daemon_restart(d);
        fd = wire_open(d->path, NULL);
        vm = wire_find(fd, "stub-0");
        killer = kill_later(d->pid, (unsigned)random() % 60);
        /* Also a lease may be what it dies of; then there is nothing to write with. */
        struct vmibus_frame lease = wire_command(VMIBUS_KIND_CMD_LEASE, &vm);
        lease.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
        lease.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_MEMWRITE;
        lease.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
        if (wire_send(fd, &lease, NULL, 0))
            while (wire_receive(fd, &lease, NULL))
                if (lease.header.kind == VMIBUS_KIND_ACK && lease.ack.command == VMIBUS_KIND_CMD_LEASE) {
                    write_until_the_end(fd, &vm, lease.ack.token);
                    break;
                }
        close(fd);
        waitpid(killer, NULL, 0);
        daemon_kill(d);
    }
    daemon_restart(d);
    end_daemon();
    result = read_chain();
    printf("# %u kills, %lu commands, %lu of them acknowledged writes, %lu recovered, %lu octets torn off\n", rounds,
           (unsigned long)result.commands, (unsigned long)n_acked, (unsigned long)result.recovered, (unsigned long)result.cut);
    ck_assert_msg(result.verdict == VERIFY_GOOD, "verdict %d: file %lu, octet %lu: %s; %lu missing", (int)result.verdict,
                  (unsigned long)result.bad_segment, (unsigned long)result.bad_offset, result.wrong ? result.wrong : "",
                  (unsigned long)result.missing);
    ck_assert_uint_eq(result.missing + result.lost, 0);
    ck_assert(result.stopped);
    qsort(found, n_found, sizeof(*found), by_correlation);
    for (uint64_t i = 0; i < n_acked; i++) {
        const struct vmibus_audit_record key = {.correlation = acked[i].correlation};
        const struct vmibus_audit_record *record = bsearch(&key, found, n_found, sizeof(*found), by_correlation);

        ck_assert_msg(record, "command %lu was acknowledged and is not in the chain", (unsigned long)acked[i].correlation);
        ck_assert_uint_eq(record->error, acked[i].error);
        ck_assert_int_eq(!!(record->flags & VMIBUS_AUDIT_WAITED), _i == 1 && !acked[i].error);
    }
    free(acked);
    free(found);
    found = NULL;
    daemon_remove(d);
}

/* --- what is recorded ---------------------------------------------------------------------------- */

TEST(test_record_names_all_and_digests_what_was_written, .iterations = 2) {
    const struct daemon_options options = {.config = configs[_i]};
    static uint8_t large[8192], before[4096];
    uint8_t digest[VMIBUS_AUDIT_HASH];
    struct vmibus_frame first, second, longest, refused;
    const struct vmibus_audit_record *record;
    struct wire_endpoint vm;
    uint64_t token;
    int fd;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE);
    memset(before, 0x5a, sizeof(before));
    first = write_of(&vm, token, before, sizeof(before));
    wire_expect(fd, &first, before, sizeof(before), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    memset(large, 0xa5, sizeof(large));
    second = write_of(&vm, token, large, 4096);
    wire_expect(fd, &second, large, 4096, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    longest = write_of(&vm, token, large, sizeof(large));
    longest.cmd_memwrite.gva = 0xc00000;
    wire_expect(fd, &longest, large, sizeof(large), VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    refused = write_of(&vm, token + 1, before, 8);
    wire_expect(fd, &refused, NULL, 0, VMIBUS_ERROR_STALE_TOKEN, VMIBUS_REASON_NONE);
    close(fd);
    end_daemon();
    ck_assert_int_eq(read_chain().verdict, VERIFY_GOOD);
    record = find(first.header.correlation);
    ck_assert_str_eq(record->name, "stub-0");
    ck_assert_uint_eq(record->uid, geteuid());
    ck_assert_uint_eq(record->pid, (uint32_t)getpid());
    ck_assert_uint_ne(record->session, 0);
    ck_assert_uint_eq(record->flags & VMIBUS_AUDIT_DIGESTED, VMIBUS_AUDIT_DIGESTED);
    hash_octets(before, sizeof(before), digest);
    ck_assert_mem_eq(record->digest_new, digest, sizeof(digest));
    record = find(second.header.correlation);
    ck_assert_mem_eq(record->digest_old, digest, sizeof(digest));
    hash_octets(large, 4096, digest);
    ck_assert_mem_eq(record->digest_new, digest, sizeof(digest));
    record = find(longest.header.correlation);
    ck_assert_uint_eq(record->error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(record->flags & (VMIBUS_AUDIT_DIGESTED | VMIBUS_AUDIT_NO_DIGEST), VMIBUS_AUDIT_NO_DIGEST);
    record = find(refused.header.correlation);
    ck_assert_uint_eq(record->error, VMIBUS_ERROR_STALE_TOKEN);
    ck_assert_uint_eq(record->flags, 0);
    free(found);
    found = NULL;
    daemon_remove(d);
}

/* Input and power wait as writes do; questions do not. */
TEST(test_p05_strict_records_intents_of_what_is_destructive) {
    const struct daemon_options options = {.config = configs[1]};
    struct vmibus_frame input, power, query;
    struct wire_endpoint vm;
    int fd;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    input = wire_command(VMIBUS_KIND_CMD_INPUT, &vm);
    input.cmd_input.token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_INPUT);
    input.cmd_input.count = 1;
    input.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = 1};
    wire_expect(fd, &input, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    power = wire_command(VMIBUS_KIND_CMD_POWER, &vm);
    power.cmd_power.token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_POWER);
    power.cmd_power.operation = VMIBUS_POWER_OPERATION_RESET;
    wire_expect(fd, &power, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    query = wire_frame(VMIBUS_KIND_QUERY);
    query.query.query = VMIBUS_QUERY_SENSORS;
    wire_expect(fd, &query, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    close(fd);
    end_daemon();
    ck_assert_int_eq(read_chain().verdict, VERIFY_GOOD);
    ck_assert_uint_eq(n_intents, 2);
    ck_assert(find(input.header.correlation)->flags & VMIBUS_AUDIT_WAITED);
    ck_assert(find(power.header.correlation)->flags & VMIBUS_AUDIT_WAITED);
    ck_assert(!(find(query.header.correlation)->flags & VMIBUS_AUDIT_WAITED));
    free(found);
    found = NULL;
    daemon_remove(d);
}

/* --- a disk without room ------------------------------------------------------------------------- */

#define FULL "audit-records = 16\naudit-journal = no\naudit-commit-ms = 1\n"

/* RLIMIT_FSIZE is the daemon's disk here; it is that of the VM's memory too, so this is done by input. */
TEST(test_p10_full_disk_is_handled_as_policy_says, .iterations = 3, .timeout = 60) {
    static const char *const full[] = {
        "[daemon]\naudit = strict\naudit-full = refuse\n" FULL,
        "[daemon]\naudit = strict\naudit-full = continue\n" FULL,
        "[daemon]\naudit = normal\naudit-full = refuse\n" FULL,
    };
    const struct daemon_options options = {.config = full[_i]};
    struct vmibus_frame input, query, answer = {};
    struct rlimit limit;
    struct wire_endpoint vm;
    uint64_t token;
    int fd;

    daemon_start(d, &options);
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = 16384;
    ck_assert_int_eq(prlimit(d->pid, RLIMIT_FSIZE, &limit, NULL), 0);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_INPUT);
    for (unsigned i = 0; i < 200 && !answer.ack.error; i++) {
        input = wire_command(VMIBUS_KIND_CMD_INPUT, &vm);
        input.cmd_input.token = token;
        input.cmd_input.count = 1;
        input.cmd_input.events[0] = (struct vmibus_input_event){.type = VMIBUS_INPUT_TYPE_KEY, .code = 30, .value = 1};
        answer = wire_ask(fd, &input, NULL, 0);
    }
    if (_i == 0) {
        ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_IO);
        ck_assert_uint_eq(answer.ack.reason, VMIBUS_REASON_NOT_RECORDED);
        ck_assert_uint_eq(answer.ack.value, EFBIG);
    } else {
        ck_assert_uint_eq(answer.ack.error, VMIBUS_ERROR_OK);
    }
    daemon_await_log(d, "audit records cannot be written: File too large");
    query = wire_frame(VMIBUS_KIND_QUERY);
    query.query.query = VMIBUS_QUERY_SENSORS;
    wire_expect(fd, &query, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    if (_i == 1)
        ck_assert_uint_gt(wire_counter(fd, VMIBUS_COUNTER_AUDIT_UNRECORDED), 0);
    close(fd);
    end_daemon();
    ck_assert_int_le(read_chain().verdict, VERIFY_TORN);
    free(found);
    found = NULL;
    daemon_remove(d);
}

/* Without a place for it there is no chain, and no reason to end. */
TEST(test_p10_chain_that_cannot_be_is_no_reason_to_end) {
    const struct daemon_options options = {.config = "[daemon]\naudit = off\n"};
    struct wire_endpoint vm;
    char path[128];
    int fd;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    (void)wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_MEMWRITE);
    ck_assert_uint_eq(wire_counter(fd, VMIBUS_COUNTER_AUDIT_CHAINED), 0);
    close(fd);
    snprintf(path, sizeof(path), "%s/state/audit/bus.00000001.chain", d->directory);
    ck_assert_int_ne(access(path, F_OK), 0);
    daemon_stop(d);
}

HARNESS_SUITE("audit chain of a daemon", HARNESS_QUICK)
