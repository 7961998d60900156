/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The intents log: every command is in it, how it ended too, and it is there after SIGKILL. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/daemon.h"
#include "harness.h"
#include "util/audit.h"

static struct daemon daemon_under_test;
static struct daemon *const d = &daemon_under_test;

struct log {
    const struct vmibus_audit_header *header;
    size_t size;
};

static void log_open(struct log *log) {
    char path[128];
    struct stat st;
    int fd;

    snprintf(path, sizeof(path), "%s/state/audit/bus.log", d->directory);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fstat(fd, &st), 0);
    ck_assert_uint_eq(st.st_mode & 0777, 0600);
    log->size = (size_t)st.st_size;
    log->header = mmap(NULL, log->size, PROT_READ, MAP_SHARED, fd, 0);
    ck_assert_ptr_ne(log->header, MAP_FAILED);
    close(fd);
    ck_assert_uint_eq(log->header->magic, VMIBUS_AUDIT_MAGIC);
}

static void log_close(struct log *log) {
    munmap((void *)log->header, log->size);
}

/* The newest record of this correlation. */
static struct vmibus_audit_record find(const struct log *log, uint64_t correlation) {
    struct vmibus_audit_record record;

    for (uint64_t sequence = log->header->written; sequence > 0; sequence--)
        if (vmibus_audit_read(log->header, sequence, &record) && record.correlation == correlation)
            return record;
    ck_abort_msg("there is no record of correlation %lu", (unsigned long)correlation);
}

TEST(test_p09_every_command_is_named_and_survives_sigkill) {
    const struct daemon_options options = {.arguments = {"--sensor", "stub:execute=hang"}};
    struct vmibus_frame lease, write, refused, subscribe, power;
    struct vmibus_audit_record record;
    struct wire_endpoint vm;
    uint64_t token, written;
    struct log log;
    int fd;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    vm = wire_find(fd, "stub-0");
    lease = wire_command(VMIBUS_KIND_CMD_LEASE, &vm);
    lease.cmd_lease.operation = VMIBUS_LEASE_OPERATION_ACQUIRE;
    lease.cmd_lease.lease_class = VMIBUS_LEASE_CLASS_MEMWRITE;
    lease.cmd_lease.mode = VMIBUS_LEASE_MODE_FAIL;
    token = wire_ask(fd, &lease, NULL, 0).ack.token;
    write = wire_command(VMIBUS_KIND_CMD_MEMWRITE, &vm);
    write.cmd_memwrite.cr3 = 0x600000;
    write.cmd_memwrite.gva = 0x410000;
    write.cmd_memwrite.len = 8;
    write.cmd_memwrite.token = token;
    write.cmd_memwrite.epoch = vm.epoch;
    wire_expect(fd, &write, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    refused = write;
    refused.header.correlation = 0xbad;
    refused.cmd_memwrite.token = token + 1;
    ck_assert_uint_eq(wire_ask(fd, &refused, NULL, 0).ack.error, VMIBUS_ERROR_STALE_TOKEN);
    subscribe = wire_frame(VMIBUS_KIND_SUBSCRIBE);
    wire_expect(fd, &subscribe, "no-such-vm", 10, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    token = wire_acquire(fd, &vm, VMIBUS_LEASE_CLASS_POWER);
    power = wire_command(VMIBUS_KIND_CMD_POWER, &vm);
    power.cmd_power.operation = VMIBUS_POWER_OPERATION_QUIT;
    power.cmd_power.token = token;
    ck_assert(wire_send(fd, &power, NULL, 0));
    /* It has been begun, and will not end. */
    do {
        written = wire_counter(fd, VMIBUS_COUNTER_COMMANDS_IN_FLIGHT);
    } while (written == 0);
    daemon_kill(d);
    close(fd);

    log_open(&log);
    ck_assert_uint_eq(log.header->pid, (uint32_t)d->pid);
    written = log.header->written;
    record = find(&log, lease.header.correlation);
    ck_assert_uint_eq(record.kind, VMIBUS_KIND_CMD_LEASE);
    ck_assert_uint_eq(record.detail, VMIBUS_LEASE_CLASS_MEMWRITE);
    ck_assert_uint_eq(record.operation, VMIBUS_LEASE_OPERATION_ACQUIRE);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_OK);
    ck_assert_uint_ne(record.token, 0);
    record = find(&log, write.header.correlation);
    ck_assert_uint_eq(record.kind, VMIBUS_KIND_CMD_MEMWRITE);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(record.uid, geteuid());
    ck_assert_uint_eq(record.pid, (uint32_t)getpid());
    ck_assert_uint_eq(record.slot, vm.slot);
    ck_assert_uint_eq(record.generation, vm.generation);
    ck_assert_uint_eq(record.epoch, vm.epoch);
    ck_assert_uint_eq(record.cr3, 0x600000);
    ck_assert_uint_eq(record.address, 0x410000);
    ck_assert_uint_eq(record.count, 8);
    ck_assert_uint_ge(record.finished, record.received);
    record = find(&log, 0xbad);
    ck_assert_uint_eq(record.error, VMIBUS_ERROR_STALE_TOKEN);
    ck_assert_uint_eq(record.count, 0);
    record = find(&log, subscribe.header.correlation);
    ck_assert_uint_eq(record.kind, VMIBUS_KIND_SUBSCRIBE);
    ck_assert_uint_eq(record.len, 10);
    record = find(&log, power.header.correlation);
    ck_assert_uint_eq(record.kind, VMIBUS_KIND_CMD_POWER);
    ck_assert_uint_eq(record.detail, VMIBUS_POWER_OPERATION_QUIT);
    ck_assert_uint_eq(record.error, VMIBUS_AUDIT_PENDING);
    ck_assert_uint_eq(record.finished, 0);
    log_close(&log);

    /* The next life goes on after it. */
    daemon_restart(d);
    log_open(&log);
    ck_assert_uint_gt(log.header->written, written);
    ck_assert_uint_eq(find(&log, write.header.correlation).error, VMIBUS_ERROR_OK);
    ck_assert_uint_eq(find(&log, power.header.correlation).error, VMIBUS_AUDIT_PENDING);
    log_close(&log);
    daemon_stop(d);
}

/* The ring is small: it goes round, and what is there is right. */
TEST(test_p09_log_that_goes_round) {
    const struct daemon_options options = {.config = "[daemon]\naudit-records = 16\n"};
    struct vmibus_audit_record record;
    struct vmibus_frame frame;
    struct log log;
    int fd;

    daemon_start(d, &options);
    fd = wire_open(d->path, NULL);
    for (unsigned i = 0; i < 100; i++) {
        frame = wire_frame(VMIBUS_KIND_QUERY);
        frame.query.query = VMIBUS_QUERY_SENSORS;
        wire_expect(fd, &frame, NULL, 0, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE);
    }
    log_open(&log);
    ck_assert_uint_eq(log.size, sizeof(struct vmibus_audit_header) + 16 * sizeof(struct vmibus_audit_record) +
                                    VMIBUS_AUDIT_RULES * sizeof(struct vmibus_audit_rule));
    ck_assert_uint_ge(log.header->written, 100);
    for (uint64_t sequence = log.header->written, i = 0; i < 16; i++, sequence--) {
        ck_assert_int_eq(vmibus_audit_read(log.header, sequence, &record), 1);
        ck_assert_uint_eq(record.correlation, frame.header.correlation - i);
    }
    ck_assert_int_eq(vmibus_audit_read(log.header, log.header->written - 16, &record), 0);
    log_close(&log);
    close(fd);
    daemon_stop(d);
}

HARNESS_SUITE("audit", HARNESS_QUICK)
