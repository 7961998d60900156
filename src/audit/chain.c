/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/chain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "audit/chain_files.h"
#include "audit/hash.h"
#include "util/clock.h"
#include "util/fds.h"

VMIBUS_SYSCALLS("fdatasync")

#define RETRY_MS_FIRST 1000u
#define RETRY_MS_MOST 30000u

/* Room that is kept in each batch for END, and for LOST or STOP before it. */
#define RESERVE (3 * VMIBUS_CHAIN_RECORD_BOUND)

/* Octets of each batch that only intents may take. */
#define FOR_INTENTS (CHAIN_BUFFER / 4)

static int64_t realtime_now(void) {
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * (int64_t)NS_PER_S + now.tv_nsec;
}

static void tell(const struct chain *chain, enum chain_event event, uint64_t number, const uint8_t *hash) {
    if (chain->options.tell)
        chain->options.tell(chain->options.context, event, number, hash);
}

/* --- records ----------------------------------------------------------------------------------- */

static void put(struct chain *chain, enum vmibus_chain_kind kind, const void *payload) {
    struct chain_buffer *buffer = chain->filling;
    uint8_t *octets = buffer->octets + buffer->len;
    size_t size = chain_payload_size((uint16_t)kind);
    struct vmibus_chain_record record = {
        .magic = VMIBUS_CHAIN_RECORD_MAGIC,
        .kind = (uint16_t)kind,
        .length = (uint32_t)(sizeof(record) + size + VMIBUS_AUDIT_HASH),
        .batch = chain->batch,
        .sequence = chain->sequence,
        .realtime = realtime_now(),
    };

    memcpy(record.previous, chain->hash, sizeof(record.previous));
    memcpy(octets, &record, sizeof(record));
    if (size)
        memcpy(octets + sizeof(record), payload, size);
    hash_octets(octets, sizeof(record) + size, chain->hash);
    memcpy(octets + sizeof(record) + size, chain->hash, sizeof(chain->hash));
    buffer->len += record.length;
    buffer->last = chain->sequence++;
    buffer->n_records++;
}

/* The header of a file goes before the first record of a batch. */
static void put_header(struct chain *chain) {
    struct chain_buffer *buffer = chain->filling;
    struct vmibus_chain_header header = {
        .magic = VMIBUS_CHAIN_MAGIC,
        .version = VMIBUS_CHAIN_VERSION,
        .incarnation = chain->options.start.incarnation,
        .segment = ++chain->segment,
        .first = chain->sequence,
        .realtime = realtime_now(),
        .pid = chain->options.start.pid,
    };

    memcpy(header.boot_id, chain->options.start.boot_id, sizeof(header.boot_id));
    snprintf(header.writer, sizeof(header.writer), "%s", chain->options.writer);
    memcpy(header.previous, chain->hash, sizeof(header.previous));
    hash_octets(&header, sizeof(header) - VMIBUS_AUDIT_HASH, header.hash);
    memcpy(chain->hash, header.hash, sizeof(chain->hash));
    memcpy(buffer->octets, &header, sizeof(header));
    buffer->len = sizeof(header);
    buffer->begins = chain->segment;
}

/* Octets that are left for records of a kind. */
static size_t room_for(const struct chain *chain, enum vmibus_chain_kind kind) {
    size_t kept = RESERVE + (kind == VMIBUS_CHAIN_COMMAND || kind == VMIBUS_CHAIN_RECOVERED ? FOR_INTENTS : 0);

    return chain->filling->len + kept < CHAIN_BUFFER ? CHAIN_BUFFER - kept - chain->filling->len : 0;
}

/* What a user has taken of the batch. NULL: the record is no user's that is there. */
static uint32_t *taken_by(struct chain *chain, enum vmibus_chain_kind kind, const struct vmibus_audit_record *record) {
    return kind == VMIBUS_CHAIN_RECOVERED ? NULL : &chain->filling->taken[record->uid % CHAIN_USERS];
}

static bool is_told(const struct chain *chain, const struct vmibus_audit_rule *rule) {
    size_t place = rule->number % VMIBUS_AUDIT_RULES;

    return chain->told[place].segment == chain->segment && chain->told[place].number == rule->number;
}

static void put_rule(struct chain *chain, const struct vmibus_audit_rule *rule) {
    size_t place = rule->number % VMIBUS_AUDIT_RULES;

    put(chain, VMIBUS_CHAIN_RULE, rule);
    chain->told[place].segment = chain->segment;
    chain->told[place].number = rule->number;
}

bool chain_is_full(const struct chain *chain) {
    return room_for(chain, VMIBUS_CHAIN_COMMAND) < VMIBUS_CHAIN_RECORD_BOUND;
}

static void put_lost(struct chain *chain) {
    const struct vmibus_chain_lost lost = {.count = chain->lost - chain->lost_told, .error = (uint32_t)chain->failing,
                                          .idle = (uint32_t)(chain->idle - chain->idle_told)};

    if (!lost.count)
        return;
    put(chain, VMIBUS_CHAIN_LOST, &lost);
    chain->lost_told = chain->lost;
    chain->idle_told = chain->idle;
}

/* A batch may go: there is one, and the disk has nothing else to do. */
static bool may_commit(const struct chain *chain) {
    return !chain->failing && !chain->flight && chain->filling->n_records && !disk_is_busy(chain->disk);
}

static void commit_when_due(struct chain *chain) {
    if (!may_commit(chain))
        return;
    if (!list_is_empty(&chain->waiters) || chain->filling->len > CHAIN_BUFFER / 4)
        loop_defer(&chain->soon);
    else if (!loop_timer_is_armed(&chain->commit_timer) &&
             loop_timer_set(&chain->commit_timer, clock_now() + chain->options.commit_ms * NS_PER_MS) < 0)
        loop_defer(&chain->soon);
}

uint64_t chain_append(struct chain *chain, enum vmibus_chain_kind kind, const struct vmibus_audit_record *record,
                      const struct vmibus_audit_rule *rule) {
    uint32_t *taken = taken_by(chain, kind, record);
    bool tells = rule && !is_told(chain, rule);
    size_t room = room_for(chain, kind), needed = (tells ? 2 : 1) * VMIBUS_CHAIN_RECORD_BOUND;

    if (room < needed || (taken && *taken > room))
        return 0;
    put_lost(chain);
    if (tells)
        put_rule(chain, rule);
    put(chain, kind, record);
    if (taken)
        *taken += (uint32_t)needed;
    commit_when_due(chain);
    return chain->filling->last;
}

void chain_lose(struct chain *chain, bool idle) {
    chain->lost++;
    chain->idle += idle;
}

/* --- who waits --------------------------------------------------------------------------------- */

int chain_trouble(const struct chain *chain) {
    if (chain->failing)
        return chain->failing;
    if (chain->flight && clock_now() - chain->flight_since > chain->options.patience_ms * NS_PER_MS)
        return ETIMEDOUT;
    return 0;
}

static void end_waiter(struct audit_waiter *waiter, int error) {
    list_unlink(&waiter->link);
    waiter->recorded(waiter, error);
}

static void go_on_undurable(struct chain *chain, struct audit_waiter *waiter) {
    chain->options.undurable(chain->options.context, waiter->sequence);
    end_waiter(waiter, 0);
}

static void end_durable(struct chain *chain) {
    struct audit_waiter *waiter;

    while ((waiter = list_first(&chain->waiters, struct audit_waiter, link)) && waiter->position <= chain->durable)
        end_waiter(waiter, 0);
}

/* What waits in vain goes on or is refused, as the administrator wants it. What an answer sets off may wait anew. */
static void give_up(struct chain *chain, int error) {
    uint64_t last = chain->sequence;
    struct audit_waiter *waiter;

    while ((waiter = list_first(&chain->waiters, struct audit_waiter, link)) && waiter->position < last) {
        if (chain->options.full == CHAIN_CONTINUE && error != ECANCELED)
            go_on_undurable(chain, waiter);
        else
            end_waiter(waiter, error);
    }
}

static void set_patience(struct chain *chain) {
    uint64_t first = UINT64_MAX;
    struct audit_waiter *waiter;

    list_for_each(waiter, &chain->waiters, link)
        first = waiter->limit < first ? waiter->limit : first;
    if (first == UINT64_MAX)
        loop_timer_cancel(&chain->patience_timer);
    else
        (void)loop_timer_set(&chain->patience_timer, first);
}

static struct audit_waiter *find_overdue(const struct chain *chain, uint64_t now) {
    struct audit_waiter *waiter;

    list_for_each(waiter, &chain->waiters, link)
        if (waiter->limit <= now)
            return waiter;
    return NULL;
}

static void patience_ended(struct loop_timer *timer) {
    struct chain *chain = container_of(timer, struct chain, patience_timer);
    struct audit_waiter *waiter;
    uint64_t now = clock_now();

    while ((waiter = find_overdue(chain, now))) {
        bool expired = waiter->deadline <= now;

        if (!expired && !chain->stalled_told) {
            chain->stalled_told = true;
            tell(chain, CHAIN_FAILING, ETIMEDOUT, NULL);
        }
        if (!expired && chain->options.full == CHAIN_CONTINUE)
            go_on_undurable(chain, waiter);
        else
            end_waiter(waiter, expired ? ETIME : ETIMEDOUT);
    }
    set_patience(chain);
}

void chain_wait(struct chain *chain, struct audit_waiter *waiter) {
    uint64_t patience = clock_now() + chain->options.patience_ms * NS_PER_MS;

    waiter->limit = waiter->deadline < patience ? waiter->deadline : patience;
    list_append(&chain->waiters, &waiter->link);
    if (!loop_timer_is_armed(&chain->patience_timer) || waiter->limit < chain->patience_timer.deadline)
        (void)loop_timer_set(&chain->patience_timer, waiter->limit);
    commit_when_due(chain);
}

/* --- batches ----------------------------------------------------------------------------------- */

static void begin_write(struct chain *chain) {
    disk_begin(chain->disk, &(struct disk_job){.operation = DISK_WRITE,
                                               .fd = chain->fd,
                                               .octets = chain->flight->octets,
                                               .len = chain->flight->len,
                                               .offset = chain->offset});
}

static void begin_remove(struct chain *chain) {
    chain_file_name(chain->name, chain->options.writer, chain->oldest);
    disk_begin(chain->disk, &(struct disk_job){.operation = DISK_REMOVE, .directory = chain->directory, .name = chain->name});
}

/* The file of the batch is there: made by an earlier try, or the one that the batch before went to. */
static bool has_file(const struct chain *chain) {
    return chain->fd >= 0 && !chain->flight->begins;
}

static void begin_flight(struct chain *chain) {
    if (has_file(chain)) {
        begin_write(chain);
        return;
    }
    chain_file_name(chain->name, chain->options.writer, chain->flight->begins);
    disk_begin(chain->disk, &(struct disk_job){.operation = DISK_CREATE, .directory = chain->directory, .name = chain->name});
}

/* What is being filled goes; if it fills the file, it is the file's end and the next batch begins another one. */
static void take_off(struct chain *chain) {
    struct chain_buffer *buffer = chain->filling;
    uint64_t offset = buffer->begins ? 0 : chain->offset;
    bool ends = chain->outdated || offset + buffer->len >= chain->options.segment_bytes;

    if (ends)
        put(chain, VMIBUS_CHAIN_END, NULL);
    chain->flight = buffer;
    chain->filling = buffer == &chain->buffers[0] ? &chain->buffers[1] : &chain->buffers[0];
    *chain->filling = (struct chain_buffer){.octets = chain->filling->octets};
    buffer->lost_told = chain->lost_told;
    buffer->idle_told = chain->idle_told;
    chain->batch++;
    if (ends) {
        chain->outdated = false;
        tell(chain, CHAIN_ENDED, chain->segment, chain->hash);
        put_header(chain);
    }
}

static void commit(struct chain *chain) {
    loop_timer_cancel(&chain->commit_timer);
    loop_deferred_cancel(&chain->soon);
    if (!may_commit(chain))
        return;
    take_off(chain);
    chain->flight_since = clock_now();
    begin_flight(chain);
}

static void commit_time_came(struct loop_timer *timer) {
    commit(container_of(timer, struct chain, commit_timer));
}

static void commit_soon(struct loop_deferred *deferred) {
    commit(container_of(deferred, struct chain, soon));
}

static void retry_time_came(struct loop_timer *timer) {
    struct chain *chain = container_of(timer, struct chain, retry_timer);

    chain->flight_since = clock_now();
    begin_flight(chain);
}

static bool is_full(int error) {
    return error == ENOSPC || error == EDQUOT;
}

static void try_later(struct chain *chain, int error) {
    chain->failing = error;
    chain->retry_ms = chain->failing_told ? chain->retry_ms * 2 : RETRY_MS_FIRST;
    if (chain->retry_ms > RETRY_MS_MOST)
        chain->retry_ms = RETRY_MS_MOST;
    if (!chain->failing_told)
        tell(chain, CHAIN_FAILING, (uint64_t)error, NULL);
    chain->failing_told = true;
    (void)loop_timer_set(&chain->retry_timer, clock_now() + chain->retry_ms * NS_PER_MS);
    give_up(chain, error);
    set_patience(chain);
}

static void failed(struct chain *chain, int error) {
    if (is_full(error) && chain->options.full == CHAIN_DROP_OLDEST && chain->oldest < chain->open)
        begin_remove(chain);
    else
        try_later(chain, error);
}

static void take_file(struct chain *chain, int fd) {
    struct stat st;

    /* What is there already is not ours to overwrite. */
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > (off_t)sizeof(struct vmibus_chain_header)) {
        fd_close(fd);
        failed(chain, EEXIST);
        return;
    }
    fd_close(chain->fd);
    chain->fd = fd;
    chain->offset = 0;
    chain->open = chain->flight->begins;
    chain->flight->begins = 0;
    begin_write(chain);
}

static bool keeps_too_many(const struct chain *chain) {
    return chain->options.keep && chain->open - chain->oldest >= chain->options.keep;
}

static void landed(struct chain *chain) {
    struct vmibus_chain_header header;
    bool begun = chain->offset == 0, again = chain->failing_told || chain->stalled_told;

    memcpy(&header, chain->flight->octets, sizeof(header));
    chain->offset += chain->flight->len;
    chain->durable = chain->flight->last;
    chain->lost_durable = chain->flight->lost_told;
    chain->idle_durable = chain->flight->idle_told;
    chain->written += chain->flight->n_records;
    chain->flight = NULL;
    chain->failing = 0;
    chain->failing_told = chain->stalled_told = false;
    if (begun)
        tell(chain, CHAIN_BEGUN, header.segment, header.hash);
    if (again)
        tell(chain, CHAIN_WORKS, chain->lost - chain->lost_told, NULL);
    end_durable(chain);
    set_patience(chain);
    chain->options.room(chain->options.context);
    if (begun && keeps_too_many(chain) && !chain->flight)
        begin_remove(chain);
    else
        commit_when_due(chain);
}

static void removed(struct chain *chain, int result) {
    bool gone = result == 0 || result == -ENOENT;

    if (gone)
        tell(chain, CHAIN_REMOVED, chain->oldest++, NULL);
    if (!chain->flight)
        commit_when_due(chain);
    else if (gone)
        begin_flight(chain);
    else
        try_later(chain, -result);
}

static void job_done(void *context, const struct disk_job *job) {
    struct chain *chain = context;

    if (job->operation == DISK_REMOVE)
        removed(chain, job->result);
    else if (job->result < 0)
        failed(chain, -job->result);
    else if (job->operation == DISK_CREATE)
        take_file(chain, job->result);
    else
        landed(chain);
}

bool chain_flush(struct chain *chain) {
    if (!chain->flight)
        commit(chain);
    while (chain->flight && !chain->failing)
        if (!disk_wait(chain->disk, chain->options.patience_ms))
            return false;
    return !chain->failing;
}

/* --- the beginning ---------------------------------------------------------------------------- */

static int make_buffers(struct chain *chain) {
    for (size_t i = 0; i < 2; i++) {
        void *memory = mmap(NULL, CHAIN_BUFFER, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

        if (memory == MAP_FAILED)
            return -errno;
        chain->buffers[i].octets = memory;
    }
    chain->filling = &chain->buffers[0];
    return 0;
}

static void free_parts(struct chain *chain) {
    for (size_t i = 0; i < 2; i++)
        if (chain->buffers[i].octets)
            munmap(chain->buffers[i].octets, CHAIN_BUFFER);
    fd_close(chain->fd);
    fd_close(chain->directory);
    *chain = (struct chain){};
}

int chain_init(struct chain *chain, const struct chain_options *options) {
    int r;

    *chain = (struct chain){.options = *options, .fd = -1};
    list_init(&chain->waiters);
    loop_timer_init(&chain->commit_timer, options->loop, commit_time_came);
    loop_timer_init(&chain->retry_timer, options->loop, retry_time_came);
    loop_timer_init(&chain->patience_timer, options->loop, patience_ended);
    loop_deferred_init(&chain->soon, options->loop, commit_soon);
    chain->directory = fd_dup(options->directory);
    r = chain->directory < 0 ? chain->directory : make_buffers(chain);
    if (r == 0)
        r = chain_find_files(chain);
    if (r == 0 && chain->segment)
        r = chain_take_files(chain);
    if (!chain->sequence)
        chain->sequence = 1;
    if (r == 0)
        r = disk_new(&chain->disk, options->loop, options->way, job_done, chain);
    if (r < 0) {
        free_parts(chain);
        return r;
    }
    chain->durable = chain->sequence - 1;
    if (chain->fd < 0)
        put_header(chain);
    chain->oldest = chain->oldest ? chain->oldest : chain->segment;
    put(chain, VMIBUS_CHAIN_START, &chain->options.start);
    commit_when_due(chain);
    return 0;
}

/* --- the end ----------------------------------------------------------------------------------- */

/* Nobody is served any more, so this may wait. */
static int write_now(struct chain *chain, struct chain_buffer *buffer) {
    size_t done = 0;

    if (buffer->begins) {
        int fd = chain_open_file(chain, buffer->begins, O_RDWR | O_CREAT);

        if (fd < 0)
            return -errno;
        fd_close(chain->fd);
        chain->fd = fd;
        chain->offset = 0;
    }
    while (done < buffer->len) {
        ssize_t n = pwrite(chain->fd, buffer->octets + done, buffer->len - done, (off_t)(chain->offset + done));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (size_t)n;
    }
    chain->offset += buffer->len;
    chain->written += buffer->n_records;
    return fdatasync(chain->fd) < 0 ? -errno : 0;
}

/* Sees what was under way to its end. 0, or a negative errno: the file cannot be gone on with (-ETIMEDOUT: the disk still does). */
static int finish_flight(struct chain *chain) {
    struct disk_job job;
    int r = disk_free(chain->disk, chain->options.patience_ms, &job);

    chain->disk = NULL;
    if (r < 0)
        return r;
    if (r == 1 && job.operation == DISK_CREATE && job.result >= 0)
        fd_close(job.result); /* it is opened again */
    if (!chain->flight)
        return 0;
    if (r == 0 || job.operation != DISK_WRITE || job.result < 0)
        return write_now(chain, chain->flight);
    chain->offset += chain->flight->len;
    return 0;
}

void chain_deinit(struct chain *chain) {
    int r;

    if (!chain->disk)
        return;
    give_up(chain, ECANCELED);
    put_lost(chain);
    put(chain, VMIBUS_CHAIN_STOP, NULL);
    loop_timer_cancel(&chain->commit_timer);
    loop_timer_cancel(&chain->retry_timer);
    loop_timer_cancel(&chain->patience_timer);
    loop_deferred_cancel(&chain->soon);
    r = finish_flight(chain);
    if (r == 0 && write_now(chain, chain->filling) == 0)
        tell(chain, CHAIN_ENDED, chain->segment, chain->hash);
    if (r == -ETIMEDOUT)
        *chain = (struct chain){}; /* what the disk may still be reading from is left to it */
    else
        free_parts(chain);
}
