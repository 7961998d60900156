/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The chain on a real disk: what is in it, what a crash does to it, and what somebody else could. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "audit/hash.h"
#include "audit/messages.h"
#include "harness.h"
#include "scene.h"
#include "util/clock.h"

static struct scene scene_under_test;
static struct scene *const s = &scene_under_test;

#define COMMAND_SIZE VMIBUS_CHAIN_RECORD_BOUND

static void set_up(void) {
    scene_init(s, 256);
}

static void tear_down(void) {
    scene_deinit(s);
}

/* Iterations: by io_uring, by a thread. */
static void begin_either_way(int thread) {
    s->options.way = thread ? DISK_THREAD : DISK_ANY;
    scene_begin(s);
    if (thread)
        ck_assert(!disk_is_ring(s->recorder.chain.disk));
}

TEST(test_chain_goes_on_over_starts, .setup = set_up, .teardown = tear_down, .iterations = 2) {
    struct verify_result result;

    for (unsigned start = 1; start <= 3; start++) {
        begin_either_way(_i);
        for (unsigned i = 0; i < 10; i++)
            scene_command(s, i);
        scene_settle(s);
        scene_end(s);
        result = scene_verify(s);
        ck_assert_int_eq(result.verdict, VERIFY_GOOD);
        ck_assert(result.stopped);
        ck_assert_uint_eq(result.commands, start * 10);
        ck_assert_uint_eq(result.recovered, 0);
        ck_assert_uint_eq(result.records, start * 12);
        ck_assert_uint_eq(result.missing + result.open, 0);
    }
}

TEST(test_what_was_not_written_is_recovered, .setup = set_up, .teardown = tear_down, .iterations = 2) {
    struct verify_result result;

    begin_either_way(_i);
    scene_command(s, 1);
    scene_settle(s);
    s->recorder.chain.options.commit_ms = 60000;
    for (unsigned i = 0; i < 20; i++)
        scene_command(s, i);
    scene_intent(s, 99);
    scene_crash(s);
    begin_either_way(_i);
    scene_settle(s);
    scene_end(s);
    result = scene_verify(s);
    ck_assert_int_eq(result.verdict, VERIFY_GOOD);
    ck_assert_uint_eq(result.commands, 22);
    ck_assert_uint_eq(result.recovered, 21);
    ck_assert_uint_eq(result.pending, 1);
    ck_assert_uint_eq(result.missing, 0);
}

TEST(test_files_are_ended_by_size, .setup = set_up, .teardown = tear_down, .iterations = 2) {
    struct verify_result result;

    s->options.segment_bytes = 4 * COMMAND_SIZE;
    begin_either_way(_i);
    for (unsigned i = 0; i < 40; i++) {
        scene_command(s, i);
        scene_settle(s);
    }
    scene_end(s);
    result = scene_verify(s);
    ck_assert_int_eq(result.verdict, VERIFY_GOOD);
    ck_assert_uint_ge(result.files, 8);
    ck_assert_uint_eq(result.commands, 40);
    /* A file in the middle is missed, and so is the end of one. */
    unlinkat(s->directory, "bus.00000004.chain", 0);
    result = scene_verify(s);
    ck_assert_int_eq(result.verdict, VERIFY_DAMAGED);
    ck_assert_uint_eq(result.bad_segment, 4);
}

TEST(test_oldest_files_are_removed, .setup = set_up, .teardown = tear_down, .iterations = 2) {
    struct verify_result result;

    s->options.segment_bytes = 4 * COMMAND_SIZE;
    s->options.keep = 3;
    begin_either_way(_i);
    for (unsigned i = 0; i < 40; i++) {
        scene_command(s, i);
        scene_settle(s);
    }
    scene_end(s);
    result = scene_verify(s);
    ck_assert_int_eq(result.verdict, VERIFY_GOOD);
    ck_assert_uint_le(result.files, 4);
    ck_assert_uint_gt(result.first_segment, 1);
}

/* Whatever a crash leaves of the last records is cut off, and recovered. */
TEST(test_torn_at_every_octet_of_the_last_records, .setup = set_up, .teardown = tear_down, .timeout = 240) {
    struct verify_result result;
    uint8_t *octets;
    size_t size;

    scene_begin(s);
    for (unsigned i = 0; i < 3; i++)
        scene_command(s, i);
    scene_settle(s);
    scene_crash(s);
    octets = scene_load(s, 1, &size);
    for (size_t cut = size - 3 * COMMAND_SIZE; cut < size; cut++) {
        scene_store(s, 1, octets, cut);
        result = scene_verify(s);
        ck_assert_int_eq(result.verdict, (size - cut) % COMMAND_SIZE ? VERIFY_TORN : VERIFY_GOOD);
        scene_begin(s);
        ck_assert_uint_eq(s->recorder.chain.options.start.cut, (COMMAND_SIZE - (size - cut) % COMMAND_SIZE) % COMMAND_SIZE);
        scene_settle(s);
        scene_crash(s);
        result = scene_verify(s);
        ck_assert_int_eq(result.verdict, VERIFY_GOOD);
        ck_assert_uint_eq(result.commands, 3);
        ck_assert_uint_eq(result.recovered, (size - cut + COMMAND_SIZE - 1) / COMMAND_SIZE);
        ck_assert_uint_eq(result.missing, 0);
        s->incarnation = 1;
    }
    free(octets);
}

/* Zeros where a batch's first pages did not reach the disk: the last batch only. */
TEST(test_hole_in_the_last_batch_is_a_crash, .setup = set_up, .teardown = tear_down) {
    struct verify_result result;
    uint8_t *octets;
    size_t size;

    scene_begin(s);
    for (unsigned i = 0; i < 4; i++)
        scene_command(s, i);
    scene_settle(s);
    for (unsigned i = 0; i < 4; i++)
        scene_command(s, i);
    scene_settle(s);
    scene_crash(s);
    octets = scene_load(s, 1, &size);
    memset(octets + size - 4 * COMMAND_SIZE, 0, COMMAND_SIZE);
    scene_store(s, 1, octets, size);
    ck_assert_int_eq(scene_verify(s).verdict, VERIFY_TORN);
    scene_begin(s);
    ck_assert_uint_eq(s->recorder.chain.options.start.cut, 4 * COMMAND_SIZE);
    scene_settle(s);
    scene_end(s);
    result = scene_verify(s);
    ck_assert_int_eq(result.verdict, VERIFY_GOOD);
    ck_assert_uint_eq(result.recovered, 4);
    free(octets);
}

static size_t make_batches(unsigned n) {
    uint8_t *octets;
    size_t size;

    scene_begin(s);
    for (unsigned i = 0; i < n; i++) {
        scene_command(s, i);
        scene_settle(s);
    }
    scene_end(s);
    octets = scene_load(s, 1, &size);
    free(octets);
    return size;
}

TEST(test_any_changed_octet_is_seen, .setup = set_up, .teardown = tear_down) {
    size_t size = make_batches(6), same;
    uint8_t *octets = scene_load(s, 1, &same);

    /* But for the last two batches, where it could be a crash: there it is seen, too. */
    for (size_t at = 0; at < size; at++) {
        struct verify_result result;

        octets[at] ^= 0x40;
        scene_store(s, 1, octets, size);
        result = scene_verify(s);
        if (at < size - 3 * COMMAND_SIZE)
            ck_assert_int_eq(result.verdict, VERIFY_DAMAGED);
        else
            ck_assert(result.verdict == VERIFY_DAMAGED || result.verdict == VERIFY_TORN);
        octets[at] ^= 0x40;
    }
    free(octets);
}

TEST(test_records_cannot_be_taken_out_swapped_or_doubled, .setup = set_up, .teardown = tear_down) {
    size_t size = make_batches(6), first = sizeof(struct vmibus_chain_header) + 64 + sizeof(struct vmibus_chain_start) + 32;
    uint8_t *octets = scene_load(s, 1, &size), *other = malloc(2 * size);
    struct verify_result result;

    memcpy(other, octets, first);
    memcpy(other + first, octets + first + COMMAND_SIZE, size - first - COMMAND_SIZE);
    scene_store(s, 1, other, size - COMMAND_SIZE);
    result = scene_verify(s);
    ck_assert_int_eq(result.verdict, VERIFY_DAMAGED);
    ck_assert_uint_eq(result.bad_sequence, 2);
    memcpy(other, octets, size);
    memcpy(other + first, octets + first + COMMAND_SIZE, COMMAND_SIZE);
    memcpy(other + first + COMMAND_SIZE, octets + first, COMMAND_SIZE);
    scene_store(s, 1, other, size);
    ck_assert_int_eq(scene_verify(s).verdict, VERIFY_DAMAGED);
    memcpy(other, octets, first + COMMAND_SIZE);
    memcpy(other + first + COMMAND_SIZE, octets + first, size - first);
    scene_store(s, 1, other, size + COMMAND_SIZE);
    ck_assert_int_eq(scene_verify(s).verdict, VERIFY_DAMAGED);
    free(other);
    free(octets);
}

/* Who can rewrite everything makes a chain that is right in itself: only a hash kept elsewhere tells. */
TEST(test_rebuilt_chain_is_seen_by_the_head, .setup = set_up, .teardown = tear_down) {
    struct verify_options options = {.writer = "bus"};
    struct verify_result first, second;
    uint8_t head[VMIBUS_AUDIT_HASH];

    make_batches(3);
    first = scene_verify(s);
    memcpy(head, first.head, sizeof(head));
    unlinkat(s->directory, "bus.00000001.chain", 0);
    ck_assert_int_eq(ftruncate(s->log_fd, 0), 0);
    make_batches(3);
    ck_assert_int_eq(scene_verify(s).verdict, VERIFY_GOOD);
    options.head = head;
    ck_assert_int_eq(verify_chain(s->directory, &options, &second), 0);
    ck_assert_int_eq(second.verdict, VERIFY_OTHER_HEAD);
    options.head = second.head;
    ck_assert_int_eq(verify_chain(s->directory, &options, &first), 0);
    ck_assert_int_eq(first.verdict, VERIFY_GOOD);
}

/* One that is damaged is evidence: it stays, and the chain goes on in another file that says so. */
TEST(test_damaged_file_is_left_alone, .setup = set_up, .teardown = tear_down) {
    size_t size = make_batches(6), same;
    uint8_t *octets = scene_load(s, 1, &same), *after;
    struct verify_result result;

    octets[sizeof(struct vmibus_chain_header) + 300] ^= 1;
    scene_store(s, 1, octets, size);
    scene_begin(s);
    ck_assert_uint_eq(s->recorder.chain.options.start.damaged, 1);
    scene_command(s, 1);
    scene_settle(s);
    scene_end(s);
    after = scene_load(s, 1, &same);
    ck_assert_uint_eq(same, size);
    ck_assert_mem_eq(after, octets, size);
    result = scene_verify(s);
    ck_assert_int_eq(result.verdict, VERIFY_DAMAGED);
    ck_assert_uint_eq(result.bad_segment, 1);
    ck_assert_uint_eq(result.files, 2);
    ck_assert_uint_eq(result.damaged_files, 1);
    free(after);
    free(octets);
}

/* A start died between making a file and writing its header. */
TEST(test_file_without_a_header_is_begun_anew, .setup = set_up, .teardown = tear_down, .iterations = 2) {
    struct verify_result result;
    uint8_t zeros[100] = {0};

    make_batches(3);
    scene_store(s, _i + 1, zeros, _i ? 0 : sizeof(zeros));
    scene_begin(s);
    scene_command(s, 1);
    scene_settle(s);
    scene_end(s);
    result = scene_verify(s);
    ck_assert_int_eq(result.verdict, _i ? VERIFY_DAMAGED : VERIFY_GOOD); /* of the first file nothing said that it has ended */
    ck_assert_uint_eq(result.files, _i + 1);
}

/*
 * Commands until the disk has no room.  Nothing is asserted while the limit holds: libcheck writes each
 * assertion to a file of its own, which has the same limit.
 */
static int fill_disk(struct rlimit limit) {
    int error = 0;

    limit.rlim_cur = 8192;
    setrlimit(RLIMIT_FSIZE, &limit);
    for (unsigned i = 0; i < 10000; i++) {
        scene_command(s, i);
        if (i % 64 == 0 && error >= 0)
            error = loop_dispatch(s->loop, 0);
    }
    while (!s->recorder.chain.failing && error >= 0)
        error = loop_dispatch(s->loop, 10000);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_FSIZE, &limit);
    return error;
}

/* The log goes round while the disk has no room: what was lost is counted, and the chain says so. */
TEST(test_p10_full_disk_is_no_reason_to_stop, .setup = set_up, .teardown = tear_down, .iterations = 2) {
    struct audit_counters counters;
    struct verify_result result;
    struct rlimit limit;

    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
    begin_either_way(_i);
    scene_settle(s);
    ck_assert_int_ge(fill_disk(limit), 0);
    ck_assert_int_eq(s->recorder.chain.failing, EFBIG);
    audit_get_counters(&s->audit, &counters);
    ck_assert_uint_gt(counters.unrecorded, 0);
    while (s->recorder.chain.failing)
        ck_assert_int_ge(loop_dispatch(s->loop, 30000), 0);
    scene_settle(s);
    scene_end(s);
    result = scene_verify(s);
    ck_assert_int_eq(result.verdict, VERIFY_GOOD);
    ck_assert_uint_eq(result.lost, counters.unrecorded);
    ck_assert_uint_eq(result.lost, result.missing + result.open);
    ck_assert_uint_eq(result.commands + result.lost, 10000);
}

/* --- the journal --------------------------------------------------------------------------------- */

static int listen_as_journal(struct sockaddr_un *address) {
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    address->sun_family = AF_UNIX;
    snprintf(address->sun_path, sizeof(address->sun_path), "%s/journal", s->path);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)address, sizeof(*address)), 0);
    return fd;
}

TEST(test_journal_gets_fields, .setup = set_up, .teardown = tear_down) {
    struct sockaddr_un address = {};
    int fd = listen_as_journal(&address);
    char text[4096] = "";
    bool head = false, command = false;
    ssize_t n;

    s->options.journal = address.sun_path;
    scene_begin(s);
    scene_command(s, 77);
    scene_settle(s);
    while ((n = recv(fd, text, sizeof(text) - 1, 0)) > 0) {
        text[n] = '\0';
        ck_assert_int_eq(text[n - 1], '\n');
        if (strstr(text, "MESSAGE_ID=" MESSAGE_HEAD "\n"))
            head = strstr(text, "VMIBUS_CHAIN_HASH=") && strstr(text, "VMIBUS_CHAIN_FILE=bus.00000001.chain\n");
        if (strstr(text, "MESSAGE_ID=" MESSAGE_COMMAND "\n"))
            command = strstr(text, "\nVMIBUS_ENDPOINT=web1\n") && strstr(text, "\nVMIBUS_UID=1000\n") &&
                      strstr(text, "\nVMIBUS_CORRELATION=77\n") && strstr(text, "\nVMIBUS_COMMAND=CMD_MEMWRITE\n");
    }
    ck_assert(head && command);
    scene_end(s);
    close(fd);
}

/* Nobody reads it: nothing waits, and what it did not get is counted. */
TEST(test_p10_journal_that_is_stuck_stops_nobody, .setup = set_up, .teardown = tear_down) {
    struct sockaddr_un address = {};
    int fd = listen_as_journal(&address);
    struct audit_counters counters;

    s->options.journal = address.sun_path;
    scene_begin(s);
    for (unsigned i = 0; i < 3000; i++) {
        scene_command(s, i);
        if (i % 100 == 0)
            scene_settle(s);
    }
    audit_get_counters(&s->audit, &counters);
    ck_assert_uint_gt(counters.untold, 1000);
    scene_end(s);
    ck_assert_uint_eq(scene_verify(s).commands, 3000);
    close(fd);
}

/* How many messages with both of these texts the journal has got since. */
static unsigned count_told(int fd, const char *first, const char *second) {
    char text[4096];
    unsigned told = 0;
    ssize_t n;

    while ((n = recv(fd, text, sizeof(text) - 1, 0)) > 0) {
        text[n] = '\0';
        told += strstr(text, first) && strstr(text, second);
    }
    return told;
}

/* Commands of these users in turn. How many ends of files the journal was told. */
static unsigned flood(int fd, uint32_t one, uint32_t other) {
    unsigned heads = 0;

    for (unsigned i = 0; i < 3000; i++) {
        s->uid = i % 2 ? one : other;
        scene_command(s, i);
        if (i % 100 == 0)
            scene_settle(s);
        heads += count_told(fd, "MESSAGE_ID=" MESSAGE_HEAD "\n", "VMIBUS_CHAIN_PLACE=end\n");
    }
    return heads;
}

/* Neither what another user did nor the hashes, without which a chain that is written anew is not found out. */
TEST(test_p09_flood_keeps_nothing_else_out_of_the_journal, .setup = set_up, .teardown = tear_down) {
    struct sockaddr_un address = {};
    int fd = listen_as_journal(&address);
    unsigned heads;

    s->options.journal = address.sun_path;
    s->options.segment_bytes = 16384;
    scene_begin(s);
    heads = flood(fd, 1000, 1000);
    s->uid = 1001;
    scene_command(s, 1);
    ck_assert_uint_eq(count_told(fd, "MESSAGE_ID=" MESSAGE_COMMAND "\n", "\nVMIBUS_UID=1001\n"), 1);
    /* Two have all that is for commands. */
    heads += flood(fd, 1000, 1002);
    ck_assert_uint_ge(heads, 20);
    ck_assert_uint_eq(heads, s->recorder.chain.segment - 1);
    scene_end(s);
    close(fd);
}

/* --- rules -------------------------------------------------------------------------------------- */

static uint64_t command_by(uint16_t rule, uint16_t kind, uint16_t error) {
    struct vmibus_audit_record record = {.kind = kind, .uid = s->uid, .slot = 1, .generation = 7, .rule = rule};
    uint64_t sequence = audit_begin(&s->audit, &record);

    audit_finish(&s->audit, sequence, &(struct vmibus_ack){.error = error, .finished = clock_now()});
    return sequence;
}

/* What a reader of single files knows: the rules that the file told so far. */
struct reading {
    uint64_t segment, named, unnamed, rules, lost, idle, begun;
    struct vmibus_audit_rule known[8];
    bool is_known[8];
};

static void read_record(void *context, uint64_t segment, const struct chain_item *item, const uint8_t *hash) {
    struct reading *reading = context;

    (void)hash;
    if (segment != reading->segment)
        memset(reading->is_known, 0, sizeof(reading->is_known));
    reading->segment = segment;
    reading->begun += chain_has_command(item->record.kind) && item->command.kind == VMIBUS_KIND_CMD_INPUT;
    if (item->record.kind == VMIBUS_CHAIN_RULE) {
        ck_assert(!reading->is_known[item->rule.number]);
        reading->is_known[item->rule.number] = true;
        reading->known[item->rule.number] = item->rule;
        reading->rules++;
    } else if (item->record.kind == VMIBUS_CHAIN_LOST) {
        reading->lost += item->lost.count;
        reading->idle += item->lost.idle;
    } else if (chain_has_command(item->record.kind) && item->command.rule && item->command.rule <= VMIBUS_AUDIT_RULE_LAST) {
        ck_assert(reading->is_known[item->command.rule]);
        ck_assert_str_eq(reading->known[item->command.rule].name, item->command.rule == 1 ? "alice" : "bob");
        reading->named++;
    } else if (chain_has_command(item->record.kind)) {
        reading->unnamed++;
    }
}

static struct verify_result read_all(struct reading *reading) {
    const struct verify_options options = {.writer = "bus", .record = read_record, .context = reading};
    struct verify_result result;

    *reading = (struct reading){};
    ck_assert_int_eq(verify_chain(s->directory, &options, &result), 0);
    return result;
}

/* Each file names the rules of its commands once, before them; also those that a crash left in the intents log. */
TEST(test_each_file_tells_its_rules, .setup = set_up, .teardown = tear_down) {
    struct reading reading;

    s->options.segment_bytes = 6 * COMMAND_SIZE;
    scene_begin(s);
    ck_assert_uint_eq(audit_number_rule(&s->audit, "alice", "/etc/rules", 3), 1);
    ck_assert_uint_eq(audit_number_rule(&s->audit, "bob", "/etc/rules", 9), 2);
    for (unsigned i = 0; i < 30; i++) {
        command_by((uint16_t)(1 + i % 2), VMIBUS_KIND_CMD_POWER, 0);
        if (i % 3 == 0)
            scene_settle(s);
    }
    command_by(VMIBUS_AUDIT_RULE_OWNER, VMIBUS_KIND_CMD_POWER, 0);
    command_by(VMIBUS_AUDIT_RULE_NONE, VMIBUS_KIND_CMD_POWER, VMIBUS_ERROR_DENIED);
    scene_settle(s);
    s->recorder.chain.options.commit_ms = 60000;
    command_by(2, VMIBUS_KIND_CMD_POWER, 0);
    scene_crash(s);
    scene_begin(s);
    scene_settle(s);
    scene_end(s);
    ck_assert_int_eq(read_all(&reading).verdict, VERIFY_GOOD);
    ck_assert_uint_eq(reading.named, 31);
    ck_assert_uint_eq(reading.unnamed, 2);
    ck_assert_uint_gt(reading.segment, 3);
    ck_assert_uint_ge(reading.rules, 2 * (reading.segment - 1));
}

/* The hashes of a file whose version is another, as its writer made them. */
static void set_version(uint8_t *octets, size_t size, uint32_t version) {
    struct vmibus_chain_header *header = (void *)octets;
    uint8_t hash[VMIBUS_AUDIT_HASH];

    header->version = version;
    hash_octets(octets, sizeof(*header) - VMIBUS_AUDIT_HASH, header->hash);
    memcpy(hash, header->hash, sizeof(hash));
    for (size_t at = sizeof(*header); at < size;) {
        struct vmibus_chain_record *record = (void *)(octets + at);

        memcpy(record->previous, hash, sizeof(hash));
        hash_octets(record, record->length - VMIBUS_AUDIT_HASH, hash);
        at += record->length;
        memcpy(octets + at - VMIBUS_AUDIT_HASH, hash, sizeof(hash));
    }
}

/* A file of version 1 verifies, and is ended: what its readers do not know comes in the next one. */
TEST(test_file_of_the_version_before_is_gone_on_with, .setup = set_up, .teardown = tear_down) {
    struct reading reading;
    struct verify_result result;
    uint8_t *octets;
    size_t size;

    scene_begin(s);
    scene_command(s, 1);
    scene_settle(s);
    scene_end(s);
    octets = scene_load(s, 1, &size);
    set_version(octets, size, 1);
    scene_store(s, 1, octets, size);
    ck_assert_int_eq(scene_verify(s).verdict, VERIFY_GOOD);
    scene_begin(s);
    ck_assert_uint_eq(audit_number_rule(&s->audit, "alice", "/etc/rules", 3), 1);
    command_by(1, VMIBUS_KIND_CMD_POWER, 0);
    scene_settle(s);
    scene_end(s);
    result = read_all(&reading);
    ck_assert_int_eq(result.verdict, VERIFY_GOOD);
    ck_assert_uint_eq(result.files, 2);
    ck_assert_uint_eq(result.commands, 2);
    ck_assert_uint_eq(reading.named, 1);
    ck_assert_uint_eq(reading.segment, 2);
    free(octets);
    octets = scene_load(s, 1, &size);
    ck_assert_ptr_null(memmem(octets, size, "alice", 5));
    set_version(octets, size, VMIBUS_CHAIN_VERSION + 1);
    scene_store(s, 1, octets, size);
    free(octets);
    ck_assert_int_eq(scene_verify(s).verdict, VERIFY_DAMAGED);
}

/* Who only asks, or is refused, does not fill the disk; what was not recorded is told, and what changes something always is. */
TEST(test_p09_flood_of_questions_is_counted, .setup = set_up, .teardown = tear_down) {
    struct audit_counters counters;
    struct reading reading;
    struct verify_result result;

    s->options.idle_rate = 1; /* so 60 at once */
    scene_begin(s);
    for (unsigned i = 0; i < 1000; i++) {
        command_by(0, i % 2 ? VMIBUS_KIND_QUERY : VMIBUS_KIND_CMD_POWER, i % 2 ? 0 : VMIBUS_ERROR_DENIED);
        if (i % 100 == 0)
            scene_settle(s);
    }
    for (unsigned i = 0; i < 100; i++)
        command_by(0, VMIBUS_KIND_CMD_POWER, i % 2 ? 0 : VMIBUS_ERROR_IO);
    s->uid++;
    command_by(0, VMIBUS_KIND_QUERY, 0);
    scene_settle(s);
    audit_get_counters(&s->audit, &counters);
    ck_assert_uint_eq(counters.unrecorded, 0);
    command_by(0, VMIBUS_KIND_QUERY, 0);
    s->uid--;
    for (unsigned i = 0; i < 60; i++)
        command_by(0, VMIBUS_KIND_QUERY, 0);
    scene_crash(s);
    scene_begin(s);
    scene_end(s);
    scene_begin(s);
    scene_end(s);
    result = read_all(&reading);
    ck_assert_int_eq(result.verdict, VERIFY_GOOD);
    ck_assert_uint_eq(result.commands + result.lost, 1162);
    ck_assert_uint_eq(result.idle, result.lost);
    ck_assert_uint_eq(result.missing, result.lost);
    ck_assert_uint_ge(result.commands, 60 + 101);
    ck_assert_uint_lt(result.commands, 500 + 101);
    ck_assert_uint_eq(reading.idle, reading.lost);
}

/* Whoever is over the rate hides nothing that was executed behind what is said of it. */
TEST(test_p09_flood_hides_nothing_that_was_begun, .setup = set_up, .teardown = tear_down) {
    const struct vmibus_ack ends[] = {
        {.error = VMIBUS_ERROR_UNSUPPORTED, .count = 3, .finished = 1},
        {.error = VMIBUS_ERROR_DENIED, .finished = INT64_MAX},
        {.error = VMIBUS_ERROR_GONE, .reason = VMIBUS_REASON_WITHDRAWN, .finished = 1},
    };
    struct reading reading;
    struct verify_result result;

    s->options.idle_rate = 1; /* so 60 at once */
    scene_begin(s);
    for (unsigned i = 0; i < 200; i++)
        command_by(0, VMIBUS_KIND_QUERY, 0);
    for (size_t i = 0; i < 3; i++) {
        struct vmibus_audit_record record = {.kind = VMIBUS_KIND_CMD_INPUT, .uid = s->uid, .slot = 1, .generation = 7};
        uint64_t sequence = audit_begin(&s->audit, &record);

        if (i < 2)
            audit_note_begun(&s->audit, sequence);
        audit_finish(&s->audit, sequence, &ends[i]);
    }
    scene_settle(s);
    scene_end(s);
    result = read_all(&reading);
    ck_assert_int_eq(result.verdict, VERIFY_GOOD);
    ck_assert_uint_ge(result.commands, 63);
    ck_assert_uint_eq(result.commands + result.lost, 203);
    ck_assert_uint_eq(reading.begun, 3);
}

/* A time that a sensor says uses up nobody's rate. */
TEST(test_p09_time_of_an_answer_blinds_nobody, .setup = set_up, .teardown = tear_down) {
    struct vmibus_audit_record record = {.kind = VMIBUS_KIND_CMD_INPUT, .uid = s->uid, .slot = 1, .generation = 7};
    struct reading reading;

    s->options.idle_rate = 1;
    scene_begin(s);
    audit_finish(&s->audit, audit_begin(&s->audit, &record),
                 &(struct vmibus_ack){.error = VMIBUS_ERROR_DENIED, .finished = INT64_MAX});
    for (unsigned i = 0; i < 50; i++)
        command_by(0, VMIBUS_KIND_CMD_POWER, VMIBUS_ERROR_DENIED);
    scene_settle(s);
    scene_end(s);
    ck_assert_uint_eq(read_all(&reading).commands, 51);
    ck_assert_uint_eq(reading.lost, 0);
}

/* What is found in an intents log is read within its bounds, whatever it is. */
TEST(test_texts_without_an_end_are_cut, .setup = set_up, .teardown = tear_down) {
    struct sockaddr_un address = {};
    int fd = listen_as_journal(&address);
    struct vmibus_audit_record record = {.kind = VMIBUS_KIND_CMD_POWER, .rule = 1}, *found;
    char text[4096];
    unsigned n_told = 0;
    ssize_t n;

    s->options.journal = address.sun_path;
    scene_begin(s);
    ck_assert_uint_eq(audit_number_rule(&s->audit, "alice", "/etc/rules", 3), 1);
    found = &s->audit.records[audit_begin(&s->audit, &record) - 1];
    memset(found->name, 'A', sizeof(*found) - offsetof(struct vmibus_audit_record, name));
    memset(s->audit.rules[0].name, 'A', 2 * sizeof(s->audit.rules[0]));
    scene_crash(s);
    scene_begin(s);
    scene_settle(s);
    while ((n = recv(fd, text, sizeof(text) - 1, 0)) > 0) {
        text[n] = '\0';
        if (!strstr(text, "VMIBUS_RULE=A"))
            continue;
        n_told++;
        ck_assert_uint_eq(strcspn(strstr(text, "VMIBUS_ENDPOINT=A") + 16, "\n"), VMIBUS_AUDIT_NAME - 1);
        ck_assert_uint_eq(strcspn(strstr(text, "VMIBUS_RULE=A") + 12, "\n"), 63);
        ck_assert_uint_eq(strcspn(strstr(text, "VMIBUS_RULE_PLACE=A") + 18, ":\n"), 119);
    }
    ck_assert_uint_eq(n_told, 1);
    scene_end(s);
    close(fd);
}

/* A name with a newline is no field of its own. */
TEST(test_journal_values_stay_values, .setup = set_up, .teardown = tear_down) {
    struct journal_message message;

    journal_begin(&message, MESSAGE_COMMAND, 6);
    journal_add(&message, "VMIBUS_ENDPOINT", "%s", "a\nVMIBUS_UID=0");
    ck_assert_ptr_null(memmem(message.text, message.len, "\nVMIBUS_UID", 11));
    for (unsigned i = 0; i < 100; i++)
        journal_add(&message, "LONG", "%0100d", i);
    ck_assert_uint_le(message.len, sizeof(message.text));
    ck_assert_int_eq(message.text[message.len - 1], '\n');
}

HARNESS_SUITE("audit chain", HARNESS_QUICK)
