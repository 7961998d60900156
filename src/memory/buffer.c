/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/buffer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vmibus/syscalls.h>

#include "memory/answer.h"
#include "memory/state.h"
#include "util/fds.h"
#include "util/refusal.h"

VMIBUS_SYSCALLS("ftruncate memfd_create")

/* <linux/memfd.h> since 6.3: the file can never be executed. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

/* --- buffers ----------------------------------------------------------------------------------- */

struct buffer *buffer_ref(struct buffer *buffer) {
    buffer->refs++;
    return buffer;
}

static void settle(struct buffer *buffer) {
    charge_release(&buffer->count);
    charge_release(&buffer->bytes);
    charge_release(&buffer->descriptor);
    buffer->account = account_unref(buffer->account);
}

static void buffer_release(struct buffer *buffer) {
    if (buffer->octets)
        munmap(buffer->octets, buffer->size);
    fd_close(buffer->fd);
    settle(buffer);
    free(buffer);
}

static void uncount(struct buffer *buffer) {
    buffer->counters->buffers--;
    buffer->counters->buffer_bytes -= buffer->size;
}

void buffer_abandon(struct buffer *buffer) {
    uncount(buffer);
    settle(buffer);
}

struct buffer *buffer_unref(struct buffer *buffer) {
    if (!buffer || --buffer->refs > 0)
        return NULL;
    uncount(buffer);
    buffer_release(buffer);
    return NULL;
}

/* All three or none. On failure the answer says which. */
static uint16_t buffer_charge(struct buffer *buffer, struct vmibus_ack *ack) {
    const struct {
        struct charge *charge;
        enum resource resource;
        uint64_t amount;
    } charges[] = {
        {&buffer->count, RESOURCE_BUFFERS, 1},
        {&buffer->bytes, RESOURCE_BYTES, buffer->size},
        {&buffer->descriptor, RESOURCE_FDS, 1},
    };

    for (size_t i = 0; i < sizeof(charges) / sizeof(charges[0]); i++) {
        int r = charge_take(charges[i].charge, buffer->account, charges[i].resource,
                            charges[i].amount);

        if (r)
            return refusal_of_charge(ack, r, buffer->account, charges[i].resource);
    }
    return 0;
}

static int create_file(size_t size) {
    int fd = memfd_create("vmibus-buffer", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create("vmibus-buffer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return -errno;
    if (ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
        int r = -errno;

        fd_close(fd);
        return r;
    }
    return fd;
}

static int buffer_map(struct buffer *buffer) {
    void *octets;

    octets = mmap(NULL, buffer->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, buffer->fd, 0);
    if (octets == MAP_FAILED)
        return -errno;
    buffer->octets = octets;
    /* A child would keep it alive; in a core file a guest's octets are not wanted. Failing is no harm. */
    (void)madvise(octets, buffer->size, MADV_DONTFORK);
    (void)madvise(octets, buffer->size, MADV_DONTDUMP);
    return 0;
}

static int buffer_create(struct buffer *buffer) {
    buffer->fd = create_file(buffer->size);
    return buffer->fd < 0 ? buffer->fd : buffer_map(buffer);
}

uint8_t *buffer_octets(const struct buffer *buffer, uint64_t offset, uint64_t len) {
    if (offset > buffer->size || len > buffer->size - offset)
        return NULL;
    return buffer->octets + offset;
}

int buffer_copy(const struct buffer *buffer, uint64_t offset, void *to, size_t len) {
    uint8_t *at = to;

    if (!buffer_octets(buffer, offset, len))
        return -ERANGE;
    while (len > 0) {
        ssize_t n = pread(buffer->fd, at, len, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        at += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

/* --- a client's -------------------------------------------------------------------------------- */

struct buffer *buffer_find(const struct authority_client *client, uint32_t number) {
    struct buffer *buffer;

    list_for_each(buffer, &client->buffers, link)
        if (buffer->number == number)
            return buffer;
    return NULL;
}

/* Gives the buffer the lowest number that is free, and its place in their order. 0: there is none. */
static uint32_t enlist(struct authority_client *client, struct buffer *buffer) {
    struct list *after = &client->buffers;
    struct buffer *other;
    uint32_t number = 1;

    list_for_each(other, &client->buffers, link) {
        if (other->number != number)
            break;
        after = &other->link;
        number++;
    }
    if (number > VMIBUS_BUFFERS_BOUND)
        return 0;
    list_insert_between(&buffer->link, after, after->next);
    buffer->number = number;
    return number;
}

static uint16_t refuse_errno(struct vmibus_ack *ack, int r) {
    if (r == -ENOMEM)
        return answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BUFFERS, 0);
    return answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
}

/* Charged first, then made; the client's descriptor is one of its own, so that nothing of it is shared. */
static uint16_t buffer_make(struct buffer *buffer, int *fd, struct vmibus_ack *ack) {
    int r;

    if (buffer_charge(buffer, ack))
        return ack->error;
    r = buffer_create(buffer);
    if (r < 0)
        return refuse_errno(ack, r);
    *fd = ram_object_reopen(buffer->fd, O_RDWR);
    return *fd < 0 ? refuse_errno(ack, *fd) : 0;
}

/* Not charged, not listed, without octets. */
static struct buffer *buffer_blank(struct authority_client *client, uint64_t size) {
    struct buffer *buffer = calloc(1, sizeof(*buffer));

    if (!buffer)
        return NULL;
    buffer->refs = 1;
    buffer->fd = -1;
    buffer->size = (size_t)((size + MEMCTX_PAGE - 1) & ~(MEMCTX_PAGE - 1));
    buffer->account = account_ref(client->account);
    buffer->counters = &client->authority->counters;
    list_init(&buffer->link);
    return buffer;
}

uint16_t buffer_new(struct buffer **bufferp, struct authority_client *client, uint64_t size, int *fd,
                    struct vmibus_ack *ack) {
    struct buffer *buffer = buffer_blank(client, size);

    if (!buffer)
        return refuse_errno(ack, -ENOMEM);
    if (!enlist(client, buffer)) {
        refusal_of_bound(ack, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_BUFFERS, VMIBUS_BUFFERS_BOUND,
                         VMIBUS_BUFFERS_BOUND, client->account->uid);
        buffer_release(buffer);
        return ack->error;
    }
    if (buffer_make(buffer, fd, ack)) {
        list_unlink(&buffer->link);
        buffer_release(buffer);
        return ack->error;
    }
    buffer->counters->buffers++;
    buffer->counters->buffer_bytes += buffer->size;
    *bufferp = buffer;
    return 0;
}

static bool is_buffer(int fd, uint64_t size) {
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
    int has = fcntl(fd, F_GET_SEALS);
    struct stat st;

    return has >= 0 && (has & seals) == seals && fstat(fd, &st) == 0 && size > 0 && size % MEMCTX_PAGE == 0 &&
           (uint64_t)st.st_size == size && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
}

int buffer_take_over_consume_fd(struct authority_client *client, uint32_t number, uint64_t size, int fd) {
    struct list *before = client->buffers.previous;
    struct vmibus_ack ack = {};
    struct buffer *buffer;
    int r;

    if (!number || number > VMIBUS_BUFFERS_BOUND || buffer_find(client, number) || !is_buffer(fd, size)) {
        fd_close(fd);
        return -EBADMSG;
    }
    buffer = buffer_blank(client, size);
    if (!buffer) {
        fd_close(fd);
        return -ENOMEM;
    }
    buffer->fd = fd;
    buffer->number = number;
    r = buffer_charge(buffer, &ack) ? -ENOBUFS : buffer_map(buffer);
    if (r < 0) {
        buffer_release(buffer);
        return r;
    }
    while (before != &client->buffers && container_of(before, struct buffer, link)->number > number)
        before = before->previous;
    list_insert_between(&buffer->link, before, before->next);
    buffer->counters->buffers++;
    buffer->counters->buffer_bytes += buffer->size;
    return 0;
}

struct buffer *buffer_free(struct buffer *buffer) {
    if (buffer)
        list_unlink(&buffer->link);
    return buffer_unref(buffer);
}

void client_free_buffers(struct authority_client *client) {
    while (!list_is_empty(&client->buffers))
        buffer_free(list_first(&client->buffers, struct buffer, link));
}
