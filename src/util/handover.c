/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "util/handover.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "util/fault.h"
#include "util/fds.h"
#include "util/octets.h"

VMIBUS_SYSCALLS("fchmod fstatfs memfd_create")

#define SEALS (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL)

/* Before the octets of a record. */
struct head {
    uint16_t tag;
    uint16_t reserved;
    uint32_t length;
};

_Static_assert(sizeof(struct head) == 8, "a record's head is 8 octets");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are written as they lie in memory");

static uint64_t sum_of(const uint8_t *octets, size_t length) {
    uint64_t sum = UINT64_C(0xcbf29ce484222325);

    for (size_t i = 0; i < length; i++)
        sum = (sum ^ octets[i]) * UINT64_C(0x100000001b3);
    return sum;
}

/* --- writing ----------------------------------------------------------------------------------- */

static void fail(struct handover_writer *writer, int error) {
    if (!writer->error)
        writer->error = error;
}

/* Room for so many octets more; NULL: there is none. */
static uint8_t *extend(struct handover_writer *writer, size_t length) {
    uint8_t *at;

    if (writer->error)
        return NULL;
    if (length > HANDOVER_OCTETS_MAX - writer->length) {
        fail(writer, -EFBIG);
        return NULL;
    }
    if (writer->length + length > writer->capacity) {
        size_t capacity = 2 * (writer->length + length) + 4096;
        void *octets = fault_hit(FAULT_ALLOCATION) < 0 ? NULL : realloc(writer->octets, capacity);

        if (!octets) {
            fail(writer, -ENOMEM);
            return NULL;
        }
        writer->octets = octets;
        writer->capacity = capacity;
    }
    at = writer->octets + writer->length;
    writer->length += length;
    return at;
}

static void put_head(struct handover_writer *writer, uint16_t tag, size_t length) {
    const struct head head = {.tag = tag, .length = (uint32_t)length};
    uint8_t *at = extend(writer, sizeof(head));

    if (at)
        memcpy(at, &head, sizeof(head));
}

void handover_begin(struct handover_writer *writer, uint16_t tag) {
    assert(writer->depth < HANDOVER_DEPTH);
    writer->begun[writer->depth++] = writer->length;
    put_head(writer, tag, 0);
}

void handover_end(struct handover_writer *writer) {
    size_t begun = writer->begun[--writer->depth];
    struct head head;

    if (writer->error)
        return;
    memcpy(&head, writer->octets + begun, sizeof(head));
    head.length = (uint32_t)(writer->length - begun - sizeof(head));
    memcpy(writer->octets + begun, &head, sizeof(head));
}

void handover_put(struct handover_writer *writer, uint16_t tag, const void *octets, size_t length) {
    uint8_t *at;

    put_head(writer, tag, length);
    at = extend(writer, length);
    if (at && length)
        memcpy(at, octets, length);
}

void handover_put_number(struct handover_writer *writer, uint16_t tag, uint64_t number) {
    if (number)
        handover_put(writer, tag, &number, sizeof(number));
}

void handover_put_fd(struct handover_writer *writer, uint16_t tag, int fd) {
    uint32_t place = (uint32_t)writer->n_fds;

    if (fd < 0 || writer->error)
        return;
    if (writer->n_fds == HANDOVER_FDS_MAX) {
        fail(writer, -EMFILE);
        return;
    }
    if (writer->n_fds == writer->fds_capacity) {
        size_t capacity = 2 * writer->fds_capacity + 64;
        int *fds = reallocarray(writer->fds, capacity, sizeof(*fds));

        if (!fds) {
            fail(writer, -ENOMEM);
            return;
        }
        writer->fds = fds;
        writer->fds_capacity = capacity;
    }
    writer->fds[writer->n_fds++] = fd;
    handover_put(writer, tag, &place, sizeof(place));
}

static int write_all(int fd, const void *octets, size_t length) {
    const uint8_t *at = octets;

    while (length > 0) {
        ssize_t n = write(fd, at, length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += n;
        length -= (size_t)n;
    }
    return 0;
}

int handover_seal(struct handover_writer *writer, const uint8_t *token, const char *product) {
    struct handover_header header = {
        .magic = HANDOVER_MAGIC, .format = HANDOVER_FORMAT, .n_fds = (uint32_t)writer->n_fds, .length = writer->length};
    _cleanup_fd_ int fd = -1;
    int r;

    if (writer->error)
        return writer->error;
    assert(writer->depth == 0);
    header.sum = sum_of(writer->octets, writer->length);
    memcpy(header.token, token, sizeof(header.token));
    strncpy(header.product, product, sizeof(header.product) - 1);
    fd = memfd_create("vmibus-handover", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    r = fchmod(fd, 0600) < 0 ? -errno : write_all(fd, &header, sizeof(header));
    if (r == 0)
        r = write_all(fd, writer->octets, writer->length);
    if (r == 0 && fcntl(fd, F_ADD_SEALS, SEALS) < 0)
        r = -errno;
    return r < 0 ? r : fd_steal(&fd);
}

void handover_writer_deinit(struct handover_writer *writer) {
    free(writer->octets);
    free(writer->fds);
    *writer = (struct handover_writer){};
}

/* --- opening ----------------------------------------------------------------------------------- */

static int check(struct handover *handover, const uint8_t *octets, size_t size) {
    const struct handover_header *header = (const void *)octets;

    if (size < sizeof(*header) || header->magic != HANDOVER_MAGIC)
        return -EBADMSG;
    if (header->format != HANDOVER_FORMAT)
        return -EPROTONOSUPPORT;
    if (header->length != size - sizeof(*header) || header->n_fds != handover->n_fds ||
        memchr(header->product, '\0', sizeof(header->product)) == NULL || sum_of(octets + sizeof(*header), header->length) != header->sum)
        return -EBADMSG;
    handover->header = header;
    handover->size = size;
    return 0;
}

int handover_open_octets(struct handover *handover, const void *octets, size_t length, int *fds, size_t n_fds) {
    *handover = (struct handover){.fds = fds, .n_fds = n_fds};
    handover->error = check(handover, octets, length);
    return handover->error;
}

/* Nobody but this uid can have made it, and nobody can change it any more. */
static int examine(int fd, size_t *size) {
    int seals = fcntl(fd, F_GET_SEALS);
    struct statfs fs;
    struct stat st;

    if (fstat(fd, &st) < 0 || fstatfs(fd, &fs) < 0)
        return -errno;
    if (seals < 0 || (seals & SEALS) != SEALS || !S_ISREG(st.st_mode) || fs.f_type != TMPFS_MAGIC || st.st_nlink != 0 ||
        st.st_uid != geteuid())
        return -EPERM;
    if (st.st_size < (off_t)sizeof(struct handover_header) || (uint64_t)st.st_size > HANDOVER_OCTETS_MAX + sizeof(struct handover_header))
        return -EBADMSG;
    *size = (size_t)st.st_size;
    return 0;
}

int handover_open(struct handover *handover, int fd, int *fds, size_t n_fds) {
    size_t size = 0;
    void *mapped;
    int r;

    *handover = (struct handover){.fds = fds, .n_fds = n_fds};
    r = examine(fd, &size);
    if (r == 0) {
        mapped = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        r = mapped == MAP_FAILED ? -errno : 0;
    }
    if (r == 0) {
        handover->mapped = mapped;
        handover->size = size;
        r = check(handover, mapped, size);
    }
    handover->error = r;
    return r;
}

void handover_close(struct handover *handover) {
    if (handover->mapped)
        munmap(handover->mapped, handover->size);
    for (size_t i = 0; i < handover->n_fds; i++)
        fd_close(handover->fds[i]);
    free(handover->fds);
    *handover = (struct handover){};
}

/* --- reading ----------------------------------------------------------------------------------- */

bool handover_wrong(struct handover *handover, int error) {
    if (!handover->error)
        handover->error = error;
    return false;
}

struct handover_records handover_all(struct handover *handover) {
    const uint8_t *begin;

    if (handover->error || !handover->header)
        return (struct handover_records){.handover = handover};
    begin = (const uint8_t *)(handover->header + 1);
    return (struct handover_records){.handover = handover, .next = begin, .end = begin + handover->header->length};
}

struct handover_records handover_in(const struct handover_record *record) {
    return (struct handover_records){
        .handover = record->handover, .next = record->octets, .end = record->octets + record->length};
}

bool handover_next(struct handover_records *records, struct handover_record *record) {
    struct head head;

    if (records->handover->error || records->next == records->end)
        return false;
    if ((size_t)(records->end - records->next) < sizeof(head))
        return handover_wrong(records->handover, -EBADMSG);
    memcpy(&head, records->next, sizeof(head));
    records->next += sizeof(head);
    if (head.length > (size_t)(records->end - records->next))
        return handover_wrong(records->handover, -EBADMSG);
    *record = (struct handover_record){
        .handover = records->handover, .tag = head.tag, .octets = records->next, .length = head.length};
    records->next += head.length;
    return true;
}

bool handover_find(struct handover_records records, uint16_t tag, struct handover_record *record) {
    while (handover_next(&records, record))
        if (record->tag == tag)
            return true;
    return false;
}

uint64_t handover_number(const struct handover_record *record) {
    uint64_t number = 0;

    handover_copy(record, &number, sizeof(number));
    return number;
}

uint64_t handover_number_below(const struct handover_record *record, uint64_t bound) {
    uint64_t number = handover_number(record);

    if (number <= bound)
        return number;
    handover_wrong(record->handover, -EBADMSG);
    return 0;
}

void handover_copy(const struct handover_record *record, void *to, size_t size) {
    size_t n = record->length < size ? record->length : size;

    memset(to, 0, size);
    if (!octets_are_zero(record->octets + n, record->length - n))
        handover_wrong(record->handover, -EBADMSG);
    else if (n)
        memcpy(to, record->octets, n);
}

int handover_take_fd(const struct handover_record *record) {
    struct handover *handover = record->handover;
    uint64_t place = handover_number(record);

    if (handover->error)
        return -1;
    if (place < handover->n_fds && handover->fds[place] >= 0)
        return fd_steal(&handover->fds[place]);
    handover_wrong(handover, -EBADMSG);
    return -1;
}

/* --- structures -------------------------------------------------------------------------------- */

void handover_put_members(struct handover_writer *writer, const struct handover_member *members, size_t n, const void *object) {
    for (size_t i = 0; i < n; i++) {
        const uint8_t *member = (const uint8_t *)object + members[i].offset;

        if (!octets_are_zero(member, members[i].size))
            handover_put(writer, members[i].tag, member, members[i].size);
    }
}

static void take_member(const struct handover_record *record, const struct handover_member *member, void *object) {
    uint8_t *place = (uint8_t *)object + member->offset;

    handover_copy(record, place, member->size);
    if (member->is_bool && *place > 1) {
        *place = 0;
        handover_wrong(record->handover, -EBADMSG);
    }
}

bool handover_take_member(const struct handover_record *record, const struct handover_member *members, size_t n, void *object) {
    for (size_t i = 0; i < n; i++)
        if (members[i].tag == record->tag) {
            take_member(record, &members[i], object);
            return true;
        }
    return false;
}
