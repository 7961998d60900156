/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "audit/verify.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/fds.h"

VMIBUS_SYSCALLS("getdents64 openat")

/* Sequences of one span are counted one by one up to this many; a chain that claims more is not ours. */
#define SPAN_BOUND (UINT64_C(1) << 32)

/* The commands that a writer began: from one START to the next. */
struct span {
    uint64_t first;         /* sequence of the intents log */
    uint64_t end;           /* one after the last; 0: not known yet */
    uint8_t *seen;          /* a bit each */
    uint64_t room;          /* bits, a multiple of 8 */
    uint64_t n_seen, last;
    uint32_t incarnation;
};

struct verification {
    const struct verify_options *options;
    struct verify_result *result;
    struct span *spans;
    size_t n_spans;
    uint8_t previous[VMIBUS_AUDIT_HASH];
    uint64_t sequence;      /* of the record that must come next; 0: any */
    bool ended;             /* the file before ended with END */
    bool damaged;           /* ... does not verify */
};

/* --- which commands are there ------------------------------------------------------------------- */

/* A writer may die before its START is on the disk: its commands count with those of the one before. */
static struct span *find_span(const struct verification *verification, const struct vmibus_audit_record *command) {
    for (size_t i = verification->n_spans; i-- > 0;)
        if (verification->spans[i].incarnation <= command->incarnation && verification->spans[i].first <= command->sequence)
            return &verification->spans[i];
    return NULL;
}

static int see(struct span *span, uint64_t sequence) {
    uint64_t at = sequence - span->first;

    if (sequence < span->first || at >= SPAN_BOUND)
        return 0;
    if (at >= span->room) {
        uint64_t room = (at / 1024 + 1) * 2048;
        uint8_t *seen = realloc(span->seen, room / 8);

        if (!seen)
            return -ENOMEM;
        memset(seen + span->room / 8, 0, (room - span->room) / 8);
        span->seen = seen;
        span->room = room;
    }
    if (!(span->seen[at / 8] & 1u << at % 8))
        span->n_seen++;
    span->seen[at / 8] |= (uint8_t)(1u << at % 8);
    span->last = sequence > span->last ? sequence : span->last;
    return 0;
}

/* The log may have been begun anew since: then nobody knows how far the one before it had come. */
static int begin_span(struct verification *verification, const struct vmibus_chain_start *start) {
    struct span *spans = reallocarray(verification->spans, verification->n_spans + 1, sizeof(*spans));
    struct span *before;

    if (!spans)
        return -ENOMEM;
    verification->spans = spans;
    before = verification->n_spans ? &spans[verification->n_spans - 1] : NULL;
    if (before && start->written + 1 >= before->first)
        before->end = start->written + 1;
    else if (before)
        before->end = before->last + 1;
    spans[verification->n_spans++] = (struct span){.first = start->written + 1, .incarnation = start->incarnation};
    return 0;
}

static void count_missing(struct verification *verification) {
    struct verify_result *result = verification->result;

    for (size_t i = 0; i < verification->n_spans; i++) {
        const struct span *span = &verification->spans[i];
        uint64_t end = span->end ? span->end : span->last + 1;
        uint64_t all = span->n_seen || span->end ? end - span->first : 0;
        uint64_t gone = all > span->n_seen ? all - span->n_seen : 0;

        if (i + 1 == verification->n_spans)
            result->open = gone;
        else
            result->missing += gone;
        free(span->seen);
    }
    free(verification->spans);
}

/* --- records ------------------------------------------------------------------------------------ */

static int take_command(struct verification *verification, const struct chain_item *item) {
    struct verify_result *result = verification->result;
    struct span *span;

    if (item->record.kind == VMIBUS_CHAIN_INTENT)
        return 0;
    result->commands++;
    result->recovered += item->record.kind == VMIBUS_CHAIN_RECOVERED;
    result->pending += item->command.error == VMIBUS_AUDIT_PENDING;
    span = find_span(verification, &item->command);
    return span ? see(span, item->command.sequence) : 0;
}

static int take_record(struct verification *verification, const struct chain_item *item) {
    struct verify_result *result = verification->result;

    result->records++;
    result->stopped = item->record.kind == VMIBUS_CHAIN_STOP;
    verification->ended = item->record.kind == VMIBUS_CHAIN_END;
    if (chain_has_command(item->record.kind))
        return take_command(verification, item);
    if (item->record.kind == VMIBUS_CHAIN_LOST) {
        result->lost += item->lost.count;
        result->idle += item->lost.idle;
    }
    if (item->record.kind != VMIBUS_CHAIN_START)
        return 0;
    result->cut += item->start.cut;
    result->damaged_files += item->start.damaged;
    return begin_span(verification, &item->start);
}

static void take_hash(struct verification *verification, const uint8_t *hash) {
    const uint8_t *head = verification->options->head;

    memcpy(verification->result->head, hash, VMIBUS_AUDIT_HASH);
    if (head && memcmp(head, hash, VMIBUS_AUDIT_HASH) == 0)
        verification->result->head_seen = true;
}

/* --- files -------------------------------------------------------------------------------------- */

static void say_wrong(struct verification *verification, enum verify_verdict verdict, uint64_t segment,
                      const struct chain_reader *reader, const char *wrong) {
    struct verify_result *result = verification->result;

    if (result->verdict == VERIFY_DAMAGED)
        return; /* the first is told */
    result->verdict = verdict;
    result->bad_segment = segment;
    result->bad_offset = reader->offset;
    result->bad_sequence = reader->sequence ? reader->sequence : verification->sequence;
    result->wrong = wrong;
}

static const char *check_header(const struct verification *verification, uint64_t segment, const struct chain_reader *reader) {
    if (reader->header.segment != segment)
        return "the file has the name of another";
    if (strncmp(reader->header.writer, verification->options->writer, sizeof(reader->header.writer)) != 0)
        return "the file is of another writer";
    if (verification->sequence == 0)
        return segment == 1 && reader->header.first != 1 ? "the first file does not begin with the first record" : NULL;
    if (reader->header.first != verification->sequence ||
        memcmp(reader->header.previous, verification->previous, VMIBUS_AUDIT_HASH) != 0)
        return "it does not follow from the file before it";
    if (!verification->ended && !verification->damaged)
        return "the file before it was cut off";
    return NULL;
}

/* A file of which its writer found that it is damaged is followed by one that says so: what is before is still told as damaged. */
static int verify_file(struct verification *verification, uint64_t segment, bool newest, const void *octets, size_t size) {
    const struct verify_options *options = verification->options;
    struct chain_reader reader;
    enum chain_found found = chain_reader_init(&reader, octets, size);
    const char *wrong = found == CHAIN_RECORD ? check_header(verification, segment, &reader) : reader.wrong;
    struct chain_item item;
    int r = 0;

    if (found == CHAIN_RECORD && wrong)
        found = CHAIN_DAMAGED;
    if (found == CHAIN_RECORD)
        take_hash(verification, reader.hash);
    while (r == 0 && found == CHAIN_RECORD && (found = chain_reader_next(&reader, &item)) == CHAIN_RECORD) {
        take_hash(verification, reader.hash);
        r = take_record(verification, &item);
        if (options->record)
            options->record(options->context, segment, &item, reader.hash);
    }
    verification->damaged = found == CHAIN_DAMAGED;
    if (found == CHAIN_TORN && newest)
        say_wrong(verification, VERIFY_TORN, segment, &reader, "the last write was not finished");
    else if (found != CHAIN_FILE_END)
        say_wrong(verification, VERIFY_DAMAGED, segment, &reader,
                  !octets ? "the file is missing" : wrong ? wrong : reader.wrong ? reader.wrong : "it was cut off");
    if (reader.sequence) {
        verification->sequence = reader.sequence;
        memcpy(verification->previous, reader.hash, sizeof(reader.hash));
    }
    return r;
}

/* A file may be written, or cut off, meanwhile: it is not mapped. */
static int read_file(int fd, uint8_t **octetsp, size_t *sizep) {
    struct stat st;
    size_t n = 0;

    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return -EBADF;
    *octetsp = malloc((size_t)st.st_size + 1);
    if (!*octetsp)
        return -ENOMEM;
    while (n < (size_t)st.st_size) {
        ssize_t got = read(fd, *octetsp + n, (size_t)st.st_size - n);

        if (got < 0)
            return -errno;
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *sizep = n;
    return 0;
}

static int open_and_verify(struct verification *verification, int directory, uint64_t segment, bool newest) {
    _cleanup_fd_ int fd = -1;
    char name[CHAIN_NAME];
    uint8_t *octets = NULL;
    size_t size = 0;
    int r;

    chain_file_name(name, verification->options->writer, segment);
    fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT ? verify_file(verification, segment, false, NULL, 0) : -errno;
    r = read_file(fd, &octets, &size);
    if (r == 0)
        r = verify_file(verification, segment, newest, octets, size);
    free(octets);
    verification->result->files++;
    return r;
}

static int find_range(int directory, const char *writer, uint64_t *first, uint64_t *last) {
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;

    if (!stream) {
        int r = -errno;

        fd_close(fd);
        return r;
    }
    *first = *last = 0;
    while ((entry = readdir(stream))) {
        uint64_t number = chain_file_number(entry->d_name, writer);

        if (!number)
            continue;
        *last = number > *last ? number : *last;
        *first = !*first || number < *first ? number : *first;
    }
    closedir(stream);
    return *last ? 0 : -ENOENT;
}

int verify_chain(int directory, const struct verify_options *options, struct verify_result *result) {
    struct verification verification = {.options = options, .result = result};
    int r;

    *result = (struct verify_result){};
    r = find_range(directory, options->writer, &result->first_segment, &result->last_segment);
    for (uint64_t segment = result->first_segment; r == 0 && segment <= result->last_segment; segment++)
        r = open_and_verify(&verification, directory, segment, segment == result->last_segment);
    count_missing(&verification);
    if (result->verdict == VERIFY_DAMAGED || r < 0)
        return r;
    if (result->missing > result->lost)
        result->verdict = VERIFY_MISSING;
    if (options->head && !result->head_seen)
        result->verdict = VERIFY_OTHER_HEAD;
    return 0;
}
