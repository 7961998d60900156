/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/audit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/clock.h"
#include "util/fault.h"

VMIBUS_SYSCALLS("fallocate ftruncate")

static int64_t realtime_offset(void) {
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * (int64_t)NS_PER_S + now.tv_nsec - (int64_t)clock_now();
}

/*
 * 1: the file is a log of this shape, or one without rules, which get their place behind the records; 0: it is not. What cannot
 * be read may be one, with records that nobody has taken yet.
 */
static int is_log(int fd, size_t size, uint64_t capacity) {
    const size_t without_rules = size - VMIBUS_AUDIT_RULES * sizeof(struct vmibus_audit_rule);
    struct vmibus_audit_header header;
    struct stat st;
    ssize_t n;

    if (fstat(fd, &st) < 0)
        return -errno;
    if ((size_t)st.st_size != size && (size_t)st.st_size != without_rules)
        return 0;
    n = pread(fd, &header, sizeof(header), 0);
    if (n < 0)
        return -errno;
    if (n != sizeof(header))
        return -EIO;
    return header.magic == VMIBUS_AUDIT_MAGIC && header.capacity == capacity;
}

int audit_init(struct audit *audit, int fd, uint64_t capacity, uint32_t incarnation) {
    size_t size = sizeof(struct vmibus_audit_header) + capacity * sizeof(struct vmibus_audit_record) +
                  VMIBUS_AUDIT_RULES * sizeof(struct vmibus_audit_rule);
    struct vmibus_audit_header *header;
    int r;

    if (capacity == 0 || capacity > UINT32_MAX)
        return -EINVAL;
    r = is_log(fd, size, capacity);
    if (r < 0)
        return r;
    /* Anything else is emptied, so that its records become zeros without being touched. */
    if (!r && ftruncate(fd, 0) < 0)
        return -errno;
    /* A page that the disk had no room for would kill whoever stores into it: better no log than that. */
    r = posix_fallocate(fd, 0, (off_t)size);
    if (r)
        return -r;
    header = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (header == MAP_FAILED)
        return -errno;
    header->capacity = capacity;
    header->rules = VMIBUS_AUDIT_RULES;
    header->magic = VMIBUS_AUDIT_MAGIC;
    header->incarnation = incarnation;
    header->pid = (uint32_t)getpid();
    header->realtime_offset = realtime_offset();
    *audit = (struct audit){.header = header, .records = (void *)(header + 1), .size = size};
    audit->rules = (void *)(audit->records + capacity);
    /* The last writer may have died between its last record and counting it. */
    if (audit->records[header->written % capacity].sequence == header->written + 1)
        header->written++;
    return 0;
}

void audit_deinit(struct audit *audit) {
    if (audit->header)
        munmap(audit->header, audit->size);
    *audit = (struct audit){};
}

/* --- rules -------------------------------------------------------------------------------------- */

static uint16_t number_at(uint64_t numbered) {
    return (uint16_t)(numbered % VMIBUS_AUDIT_RULE_LAST + 1);
}

static bool is_same_rule(const struct vmibus_audit_rule *a, const struct vmibus_audit_rule *b) {
    return a->line == b->line && memcmp(a->name, b->name, sizeof(a->name)) == 0 &&
           memcmp(a->source, b->source, sizeof(a->source)) == 0;
}

/* Of the younger half: what a policy is still to number does not take the place of what it has. */
static const struct vmibus_audit_rule *find_same(const struct audit *audit, const struct vmibus_audit_rule *rule) {
    uint64_t numbered = audit->header->numbered;

    for (uint64_t i = 0; i < VMIBUS_AUDIT_RULES / 2 && i < numbered; i++) {
        const struct vmibus_audit_rule *known = audit_find_rule(audit, number_at(numbered - 1 - i));

        if (known && is_same_rule(known, rule))
            return known;
    }
    return NULL;
}

const struct vmibus_audit_rule *audit_find_rule(const struct audit *audit, uint16_t number) {
    const struct vmibus_audit_rule *rule;

    if (!audit->header || number == VMIBUS_AUDIT_RULE_UNTOLD || number > VMIBUS_AUDIT_RULE_LAST)
        return NULL;
    rule = &audit->rules[(number - 1u) % VMIBUS_AUDIT_RULES];
    return rule->number == number ? rule : NULL;
}

uint16_t audit_number_rule(struct audit *audit, const char *name, const char *source, uint32_t line) {
    struct vmibus_audit_rule rule = {.line = line}, *place;
    const struct vmibus_audit_rule *same;
    size_t length = strlen(source);

    if (!audit->header)
        return VMIBUS_AUDIT_RULE_UNTOLD;
    memcpy(rule.name, name, strnlen(name, sizeof(rule.name) - 1));
    if (length >= sizeof(rule.source))
        source += length - (sizeof(rule.source) - 1);
    memcpy(rule.source, source, strlen(source));
    same = find_same(audit, &rule);
    if (same)
        return same->number;
    rule.number = number_at(audit->header->numbered);
    place = &audit->rules[(rule.number - 1u) % VMIBUS_AUDIT_RULES];
    __atomic_store_n(&place->number, 0, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy((char *)place + sizeof(place->number), (const char *)&rule + sizeof(rule.number), sizeof(rule) - sizeof(rule.number));
    __atomic_store_n(&place->number, rule.number, __ATOMIC_RELEASE);
    audit->header->numbered++;
    return rule.number;
}

/* --- records ------------------------------------------------------------------------------------ */

uint64_t audit_begin(struct audit *audit, const struct vmibus_audit_record *record) {
    struct vmibus_audit_record *slot;
    uint64_t sequence;

    if (!audit->header || fault_hit(FAULT_AUDIT) < 0)
        return 0;
    sequence = audit->header->written + 1;
    slot = &audit->records[(sequence - 1) % audit->header->capacity];
    if (audit->ops && slot->sequence && !(slot->flags & VMIBUS_AUDIT_CHAINED))
        audit->ops->keep(audit->context, slot); /* the last chance */
    __atomic_store_n(&slot->sequence, 0, __ATOMIC_RELEASE);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    memcpy((char *)slot + sizeof(slot->sequence), (const char *)record + sizeof(record->sequence),
           sizeof(*slot) - sizeof(slot->sequence));
    slot->finished = 0;
    slot->error = VMIBUS_AUDIT_PENDING;
    slot->incarnation = audit->header->incarnation;
    slot->flags = 0;
    __atomic_store_n(&slot->sequence, sequence, __ATOMIC_RELEASE);
    __atomic_store_n(&audit->header->written, sequence, __ATOMIC_RELEASE);
    /* The next record is cold: it is fetched while this command is executed. */
    __builtin_prefetch(&audit->records[sequence % audit->header->capacity], 1);
    return sequence;
}

void audit_set_name(struct vmibus_audit_record *record, const char *name) {
    size_t len = strnlen(name, sizeof(record->name) - 1);

    memcpy(record->name, name, len);
    record->name[len] = '\0';
}

/* The record of a sequence, if it was not overwritten meanwhile. */
static struct vmibus_audit_record *find(const struct audit *audit, uint64_t sequence) {
    struct vmibus_audit_record *slot;

    if (!audit->header || sequence == 0)
        return NULL;
    slot = &audit->records[(sequence - 1) % audit->header->capacity];
    return slot->sequence == sequence ? slot : NULL;
}

void audit_note_begun(struct audit *audit, uint64_t sequence) {
    struct vmibus_audit_record *slot = find(audit, sequence);

    if (slot)
        slot->flags |= VMIBUS_AUDIT_BEGUN;
}

void audit_finish(struct audit *audit, uint64_t sequence, const struct vmibus_ack *ack) {
    struct vmibus_audit_record *slot = find(audit, sequence);

    if (!slot)
        return;
    slot->reason = ack->reason;
    slot->count = ack->count;
    slot->value = ack->value;
    slot->finished = ack->finished;
    if (ack->token)
        slot->token = ack->token;
    __atomic_store_n(&slot->error, ack->error, __ATOMIC_RELEASE);
    if (audit->ops)
        audit->ops->keep(audit->context, slot);
}

/* --- what is kept for good ---------------------------------------------------------------------- */

void audit_refuse(struct vmibus_ack *ack, int error) {
    ack->error = error == ETIME ? VMIBUS_ERROR_EXPIRED : VMIBUS_ERROR_IO;
    ack->reason = error == ETIME ? VMIBUS_REASON_NONE : VMIBUS_REASON_NOT_RECORDED;
    ack->value = (uint64_t)error;
}

enum audit_answer audit_require(struct audit *audit, uint64_t sequence, struct audit_waiter *waiter, struct vmibus_ack *ack) {
    struct vmibus_audit_record *slot = find(audit, sequence);
    enum audit_answer answer;
    int error = EIO;

    if (!audit->ops)
        return AUDIT_GO_ON;
    waiter->sequence = sequence;
    answer = audit->ops->require(audit->context, slot, waiter, &error);
    if (answer == AUDIT_REFUSED)
        audit_refuse(ack, error);
    return answer;
}

void audit_waiter_cancel(struct audit_waiter *waiter) {
    if (waiter->link.next)
        list_unlink(&waiter->link);
}

void audit_note_digests(struct audit *audit, uint64_t sequence, const uint8_t *digests) {
    struct vmibus_audit_record *slot = find(audit, sequence);

    if (!slot)
        return;
    slot->flags |= digests ? VMIBUS_AUDIT_DIGESTED : VMIBUS_AUDIT_NO_DIGEST;
    if (!digests)
        return;
    memcpy(slot->digest_old, digests, sizeof(slot->digest_old));
    memcpy(slot->digest_new, digests + VMIBUS_AUDIT_HASH, sizeof(slot->digest_new));
}

uint64_t audit_session_number(const struct audit *audit, const uint8_t *session) {
    uint8_t digest[VMIBUS_AUDIT_HASH];
    uint64_t number;

    if (!audit->ops)
        return 0;
    audit->ops->digest(session, 16, digest);
    memcpy(&number, digest, sizeof(number));
    return number;
}

void audit_get_counters(const struct audit *audit, struct audit_counters *counters) {
    *counters = (struct audit_counters){};
    if (audit->ops)
        audit->ops->count(audit->context, counters);
}
