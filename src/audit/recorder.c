/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include <vmibus/names.h>
#include <vmibus/syscalls.h>

#include "audit/hash.h"
#include "audit/messages.h"
#include "util/clock.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("openat")

/* Messages a second, and at once: below what the journal itself lets one service say. */
#define JOURNAL_RATE 200
#define JOURNAL_BURST 1000

/* How long a user may have been idle for its commands that change nothing to be recorded at once. */
#define IDLE_SECONDS 60

#define HEX_SIZE (2 * VMIBUS_AUDIT_HASH + 1)

static const char *known(const char *name) {
    return name ? name : "?";
}

static const char *as_hex(const uint8_t *hash, char *text) {
    for (size_t i = 0; i < VMIBUS_AUDIT_HASH; i++)
        sprintf(text + 2 * i, "%02x", hash[i]);
    return text;
}

/* --- the journal ------------------------------------------------------------------------------- */

/* What changes or takes something, and what was denied; input and questions would drown it. */
static bool is_for_journal(const struct vmibus_audit_record *record) {
    switch (record->kind) {
    case VMIBUS_KIND_CMD_MEMWRITE:
    case VMIBUS_KIND_CMD_POWER:
    case VMIBUS_KIND_CMD_VM:
    case VMIBUS_KIND_CMD_LEASE:
    case VMIBUS_KIND_CMD_MONITOR:
        return true;
    default:
        return record->error == VMIBUS_ERROR_DENIED;
    }
}

static const char *outcome_of(const struct vmibus_audit_record *record) {
    return record->error == VMIBUS_AUDIT_PENDING ? "PENDING" : known(vmibus_error_name(record->error));
}

static void add_digests(struct journal_message *message, const struct vmibus_audit_record *record) {
    char text[HEX_SIZE];

    if (record->flags & VMIBUS_AUDIT_DIGESTED) {
        journal_add(message, "VMIBUS_DIGEST_OLD", "%s", as_hex(record->digest_old, text));
        journal_add(message, "VMIBUS_DIGEST_NEW", "%s", as_hex(record->digest_new, text));
    } else if (record->flags & VMIBUS_AUDIT_NO_DIGEST) {
        journal_add(message, "VMIBUS_DIGEST_NEW", "none: longer than audit-digest-bytes");
    }
}

/* A name is the administrator's: what is no rule has none. What the file says of a rule may have no end. */
static void add_rule(struct recorder *recorder, struct journal_message *message, uint16_t number) {
    const struct vmibus_audit_rule *rule = audit_find_rule(recorder->options.audit, number);

    if (rule) {
        journal_add(message, "VMIBUS_RULE", "%.*s", (int)sizeof(rule->name) - 1, rule->name);
        journal_add(message, "VMIBUS_RULE_PLACE", "%.*s:%" PRIu32, (int)sizeof(rule->source) - 1, rule->source, rule->line);
    } else if (number == VMIBUS_AUDIT_RULE_NONE || number == VMIBUS_AUDIT_RULE_OWNER) {
        journal_add(message, "VMIBUS_RULE_PLACE", "%s", number == VMIBUS_AUDIT_RULE_NONE ? "none" : "owner");
    }
}

static void add_command(struct journal_message *message, const struct vmibus_audit_record *record) {
    journal_add(message, "VMIBUS_COMMAND", "%s", known(vmibus_kind_name(record->kind)));
    journal_add(message, "VMIBUS_OUTCOME", "%s", outcome_of(record));
    if (record->reason)
        journal_add(message, "VMIBUS_REASON", "%s", known(vmibus_reason_name(record->reason)));
    journal_add(message, "VMIBUS_ENDPOINT", "%s", record->name);
    journal_add(message, "VMIBUS_SLOT", "%" PRIu32, record->slot);
    journal_add(message, "VMIBUS_GENERATION", "%" PRIu64, record->generation);
    journal_add(message, "VMIBUS_UID", "%" PRIu32, record->uid);
    journal_add(message, "VMIBUS_PID", "%" PRIu32, record->pid);
    journal_add(message, "VMIBUS_SESSION", "%016" PRIx64, record->session);
    journal_add(message, "VMIBUS_INCARNATION", "%" PRIu32, record->incarnation);
    journal_add(message, "VMIBUS_SEQUENCE", "%" PRIu64, record->sequence);
    journal_add(message, "VMIBUS_CORRELATION", "%" PRIu64, record->correlation);
    journal_add(message, "VMIBUS_TOKEN", "%" PRIu64, record->token);
    if (record->kind == VMIBUS_KIND_CMD_MEMWRITE) {
        journal_add(message, "VMIBUS_EPOCH", "%" PRIu64, record->epoch);
        journal_add(message, "VMIBUS_CR3", "0x%" PRIx64, record->cr3);
        journal_add(message, "VMIBUS_GVA", "0x%" PRIx64, record->address);
        journal_add(message, "VMIBUS_LEN", "%" PRIu32, record->len);
        journal_add(message, "VMIBUS_COUNT", "%" PRIu64, record->count);
        add_digests(message, record);
    }
}

static void tell_command(struct recorder *recorder, const struct vmibus_audit_record *record, bool recovered) {
    bool done = record->error == VMIBUS_ERROR_OK;
    struct journal_message message;

    if (!recorder->journal.path || !is_for_journal(record))
        return;
    journal_begin(&message, recovered ? MESSAGE_RECOVERED : done ? MESSAGE_COMMAND : MESSAGE_REFUSED,
                  done && !recovered ? LOG_INFO : LOG_NOTICE);
    journal_add(&message, "MESSAGE", "%s of uid %" PRIu32 " on '%s': %s%s%s%s", known(vmibus_kind_name(record->kind)), record->uid,
                record->name, outcome_of(record), record->reason ? " " : "",
                record->reason ? known(vmibus_reason_name(record->reason)) : "", recovered ? " (found after a crash)" : "");
    add_command(&message, record);
    add_rule(recorder, &message, record->rule);
    journal_send_for(&recorder->journal, &message, record->uid);
}

static void say(struct recorder *recorder, bool bad, const char *text) {
    if (recorder->options.log)
        recorder->options.log(recorder->options.context, bad, text);
}

static void tell_head(struct recorder *recorder, bool begun, uint64_t segment, const uint8_t *hash) {
    char name[CHAIN_NAME], text[HEX_SIZE];
    struct journal_message message;

    chain_file_name(name, recorder->options.writer, segment);
    journal_begin(&message, MESSAGE_HEAD, LOG_NOTICE);
    journal_add(&message, "MESSAGE", "audit chain file %s %s with %s", name, begun ? "begins" : "ends", as_hex(hash, text));
    journal_add(&message, "VMIBUS_CHAIN_FILE", "%s", name);
    journal_add(&message, "VMIBUS_CHAIN_PLACE", "%s", begun ? "begin" : "end");
    journal_add(&message, "VMIBUS_CHAIN_HASH", "%s", text);
    journal_send(&recorder->journal, &message);
}

static void tell_state(struct recorder *recorder, const char *id, bool bad, const char *text) {
    struct journal_message message;

    say(recorder, bad, text);
    journal_begin(&message, id, bad ? LOG_ERR : LOG_NOTICE);
    journal_add(&message, "MESSAGE", "%s", text);
    journal_send(&recorder->journal, &message);
}

static void tell_failing(struct recorder *recorder, int error) {
    static const char *const meaning[] = {
        [CHAIN_REFUSE] = "destructive commands are refused until they can be",
        [CHAIN_DROP_OLDEST] = "destructive commands are refused until they can be",
        [CHAIN_CONTINUE] = "commands go on without",
    };
    char text[256];

    snprintf(text, sizeof(text), "audit records cannot be written: %s; %s", strerror(error),
             recorder->options.strict ? meaning[recorder->options.full] :
                                        "commands go on, and are recorded as far as there is room");
    tell_state(recorder, MESSAGE_FAILING, true, text);
}

static void chain_tells(void *context, enum chain_event event, uint64_t number, const uint8_t *hash) {
    struct recorder *recorder = context;
    char text[160];

    switch (event) {
    case CHAIN_BEGUN:
    case CHAIN_ENDED:
        tell_head(recorder, event == CHAIN_BEGUN, number, hash);
        break;
    case CHAIN_FAILING:
        tell_failing(recorder, (int)number);
        break;
    case CHAIN_WORKS:
        snprintf(text, sizeof(text), "audit records are written again; %" PRIu64 " commands were not recorded meanwhile", number);
        tell_state(recorder, MESSAGE_WORKS, false, text);
        break;
    case CHAIN_REMOVED:
        snprintf(text, sizeof(text), "audit chain file %" PRIu64 " was removed, to make room", number);
        tell_state(recorder, MESSAGE_HEAD, false, text);
        break;
    }
}

/* --- from the intents log to the chain ----------------------------------------------------------- */

/* False: there is no room. */
static bool take(struct recorder *recorder, struct vmibus_audit_record *record) {
    bool recovered = record->incarnation != recorder->options.audit->header->incarnation;
    struct vmibus_audit_record copy = *record;

    copy.flags &= (uint16_t)~(VMIBUS_AUDIT_CHAINED | VMIBUS_AUDIT_BEGUN);
    copy.name[sizeof(copy.name) - 1] = '\0'; /* of an earlier life it is what the file says */
    if (!chain_append(&recorder->chain, recovered ? VMIBUS_CHAIN_RECOVERED : VMIBUS_CHAIN_COMMAND, &copy,
                      audit_find_rule(recorder->options.audit, copy.rule)))
        return false;
    record->flags |= VMIBUS_AUDIT_CHAINED;
    tell_command(recorder, &copy, recovered);
    return true;
}

/* Questions, and what a check refused: it never came to be executed. What is under way as its endpoint goes ends with a reason. */
static bool is_idle(const struct vmibus_audit_record *record) {
    if (record->flags & VMIBUS_AUDIT_BEGUN || (record->error == VMIBUS_ERROR_GONE && record->reason))
        return false;
    switch (record->error) {
    case VMIBUS_ERROR_VALIDATION:
    case VMIBUS_ERROR_DENIED:
    case VMIBUS_ERROR_NO_LEASE:
    case VMIBUS_ERROR_STALE_TOKEN:
    case VMIBUS_ERROR_QUOTA:
    case VMIBUS_ERROR_GONE:
    case VMIBUS_ERROR_UNSUPPORTED:
        return true;
    default:
        return record->kind == VMIBUS_KIND_QUERY || record->kind == VMIBUS_KIND_EXPLAIN || record->kind == VMIBUS_KIND_SUBSCRIBE;
    }
}

/*
 * Of what changed nothing a user fills no more of the disk than a bucket of IDLE_SECONDS lets through.  By a clock of our own: when
 * a command finished is what a sensor says.
 */
static bool is_too_much(struct recorder *recorder, const struct vmibus_audit_record *record) {
    uint64_t now = clock_now(), *from = &recorder->idle_from[record->uid % CHAIN_USERS], cost;

    if (!recorder->options.idle_rate || record->error == VMIBUS_AUDIT_PENDING || !is_idle(record))
        return false;
    cost = NS_PER_S / recorder->options.idle_rate;
    *from = *from < now ? now : *from;
    if (*from + cost > now + IDLE_SECONDS * NS_PER_S)
        return true;
    *from += cost;
    return false;
}

static void lose(struct recorder *recorder, struct vmibus_audit_record *record, bool idle) {
    record->flags |= VMIBUS_AUDIT_CHAINED; /* once */
    if (idle)
        record->flags |= VMIBUS_AUDIT_COUNTED; /* nor does the next start take it */
    recorder->options.audit->header->lost++;
    recorder->options.audit->header->idle += idle;
    if (recorder->unusable)
        recorder->lost++;
    else
        chain_lose(&recorder->chain, idle);
}

/*
 * Called when a record's command ends, and when a record that nobody took is about to be overwritten.  Only the latter is a
 * loss: a record without room is taken later.
 */
static void keep(void *context, struct vmibus_audit_record *record) {
    struct recorder *recorder = context;
    const struct vmibus_audit_header *header = recorder->options.audit->header;
    bool last_chance = record->sequence + header->capacity == header->written + 1;

    if (!recorder->unusable && is_too_much(recorder, record)) {
        lose(recorder, record, true);
        return;
    }
    if (!recorder->unusable && take(recorder, record))
        return;
    recorder->behind = !recorder->unusable;
    if (last_chance || recorder->unusable)
        lose(recorder, record, false);
}

/* Of earlier lives of the writer also those that never ended. */
static bool is_due(const struct recorder *recorder, const struct vmibus_audit_record *record, uint64_t sequence) {
    return record->sequence == sequence && !(record->flags & (VMIBUS_AUDIT_CHAINED | VMIBUS_AUDIT_COUNTED)) &&
           (record->error != VMIBUS_AUDIT_PENDING || record->incarnation != recorder->options.audit->header->incarnation);
}

static void catch_up(void *context) {
    struct recorder *recorder = context;
    struct audit *audit = recorder->options.audit;
    uint64_t written, capacity;

    if (recorder->unusable)
        return;
    written = audit->header->written;
    capacity = audit->header->capacity;
    audit->header->lost = recorder->chain.lost - recorder->chain.lost_durable;
    audit->header->idle = recorder->chain.idle - recorder->chain.idle_durable;
    if (!recorder->behind)
        return;
    recorder->behind = false;
    for (uint64_t sequence = written > capacity ? written - capacity + 1 : 1; sequence <= written; sequence++) {
        struct vmibus_audit_record *record = &audit->records[(sequence - 1) % capacity];

        if (!is_due(recorder, record, sequence) || take(recorder, record))
            continue;
        recorder->behind = true;
        /* What one user has too much of is in nobody else's way. */
        if (chain_is_full(&recorder->chain))
            return;
    }
}

/* --- waiting for the disk ------------------------------------------------------------------------ */

static void went_on(void *context, uint64_t sequence) {
    struct recorder *recorder = context;
    struct audit *audit = recorder->options.audit;
    struct vmibus_audit_record *record = &audit->records[(sequence - 1) % audit->header->capacity];

    recorder->undurable++;
    if (record->sequence != sequence)
        return;
    record->flags &= (uint16_t)~VMIBUS_AUDIT_WAITED;
    record->flags |= VMIBUS_AUDIT_NOT_DURABLE;
}

static int find_trouble(const struct recorder *recorder, const struct vmibus_audit_record *record) {
    if (recorder->unusable)
        return recorder->unusable;
    return record ? chain_trouble(&recorder->chain) : EIO;
}

static enum audit_answer require(void *context, const struct vmibus_audit_record *record, struct audit_waiter *waiter, int *error) {
    struct recorder *recorder = context;
    struct audit *audit = recorder->options.audit;

    if (!recorder->options.strict)
        return AUDIT_GO_ON;
    *error = find_trouble(recorder, record);
    if (!*error)
        waiter->position = chain_append(&recorder->chain, VMIBUS_CHAIN_INTENT, record, audit_find_rule(audit, record->rule));
    else
        waiter->position = 0;
    if (waiter->position) {
        audit->records[(record->sequence - 1) % audit->header->capacity].flags |= VMIBUS_AUDIT_WAITED;
        chain_wait(&recorder->chain, waiter);
        return AUDIT_WAIT;
    }
    if (!*error)
        *error = ENOBUFS;
    if (recorder->options.full != CHAIN_CONTINUE)
        return AUDIT_REFUSED;
    if (record)
        went_on(recorder, record->sequence);
    else
        recorder->undurable++;
    return AUDIT_GO_ON;
}

static void count(void *context, struct audit_counters *counters) {
    const struct recorder *recorder = context;

    *counters = (struct audit_counters){
        .chained = recorder->chain.written,
        .unrecorded = recorder->lost + recorder->chain.lost - recorder->chain.idle + recorder->undurable,
        .untold = recorder->journal.untold,
    };
}

static const struct audit_ops recorder_ops = {
    .keep = keep,
    .require = require,
    .digest = hash_octets,
    .count = count,
};

/* --- beginning and end --------------------------------------------------------------------------- */

/* What is in the chain need not be taken from the intents log. */
static void seen(void *context, const struct chain_item *item) {
    struct recorder *recorder = context;
    struct audit *audit = recorder->options.audit;
    struct vmibus_audit_record *record;

    if (!chain_has_command(item->record.kind) || item->record.kind == VMIBUS_CHAIN_INTENT || item->command.sequence == 0)
        return;
    record = &audit->records[(item->command.sequence - 1) % audit->header->capacity];
    if (record->sequence == item->command.sequence && record->incarnation == item->command.incarnation)
        record->flags |= VMIBUS_AUDIT_CHAINED;
}

static void forget_chained(struct audit *audit) {
    for (uint64_t i = 0; i < audit->header->capacity; i++)
        audit->records[i].flags &= (uint16_t)~VMIBUS_AUDIT_CHAINED;
}

static void read_boot_id(uint8_t *id) {
    _cleanup_fd_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    char text[37] = "";
    size_t n = 0;

    memset(id, 0, 16);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) != sizeof(text) - 1)
        return;
    for (const char *at = text; *at && n < 16; at++) {
        char pair[3] = {at[0], at[1], '\0'};

        if (*at == '-')
            continue;
        id[n++] = (uint8_t)strtoul(pair, NULL, 16);
        at++;
    }
}

static void tell_beginning(struct recorder *recorder) {
    const struct vmibus_chain_start *start = &recorder->chain.options.start;
    char text[256], name[CHAIN_NAME];

    chain_file_name(name, recorder->options.writer, recorder->chain.segment - start->damaged);
    if (start->damaged) {
        snprintf(text, sizeof(text), "audit chain file %s does not verify, and is left as it is; see 'vmibusctl audit verify'",
                 name);
        tell_state(recorder, MESSAGE_DAMAGED, true, text);
    } else if (start->cut) {
        snprintf(text, sizeof(text), "%" PRIu64 " octets of an unfinished write were cut off audit chain file %s", start->cut,
                 name);
        say(recorder, false, text);
    }
}

static int begin_chain(struct recorder *recorder) {
    const struct recorder_options *options = &recorder->options;
    const struct vmibus_audit_header *header = options->audit->header;
    struct chain_options chain_options = {
        .loop = options->loop,
        .directory = options->directory,
        .writer = options->writer,
        .segment_bytes = options->segment_bytes,
        .keep = options->keep,
        .commit_ms = options->commit_ms,
        .patience_ms = options->patience_ms,
        .full = options->full,
        .way = options->way,
        .start = {.incarnation = header->incarnation,
                  .pid = header->pid,
                  .realtime_offset = header->realtime_offset,
                  .written = header->written,
                  .digest_bound = options->digest_bound},
        .seen = seen,
        .scan = header->capacity,
        .tell = chain_tells,
        .undurable = went_on,
        .room = catch_up,
        .context = recorder,
    };

    read_boot_id(chain_options.start.boot_id);
    return chain_init(&recorder->chain, &chain_options);
}

/* Before new commands need the room: what writers that died left in the intents log, and what they knew to be lost. */
static void recover(struct recorder *recorder) {
    recorder->chain.lost = recorder->options.audit->header->lost;
    recorder->chain.idle = recorder->options.audit->header->idle;
    recorder->behind = true;
    catch_up(recorder);
    while (chain_flush(&recorder->chain) && recorder->behind)
        ;
}

int recorder_init(struct recorder *recorder, const struct recorder_options *options) {
    struct audit *audit = options->audit;
    int r;

    *recorder = (struct recorder){.options = *options};
    journal_init(&recorder->journal, options->journal, JOURNAL_RATE, JOURNAL_BURST);
    if (!audit->header)
        r = -EBADF;
    else if (options->directory < 0)
        r = options->directory;
    else {
        forget_chained(audit);
        r = begin_chain(recorder);
    }
    recorder->unusable = -r;
    audit->ops = &recorder_ops;
    audit->context = recorder;
    audit->digest_bound = options->digest_bound;
    audit->strict = options->strict;
    if (r < 0)
        return r;
    tell_beginning(recorder);
    recover(recorder);
    return 0;
}

void recorder_deinit(struct recorder *recorder) {
    if (!recorder->options.audit)
        return;
    catch_up(recorder);
    chain_deinit(&recorder->chain);
    journal_deinit(&recorder->journal);
    recorder->options.audit->ops = NULL;
    recorder->options.audit->strict = false;
    *recorder = (struct recorder){};
}
