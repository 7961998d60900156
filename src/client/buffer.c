/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client/buffer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <vmibus/client.h>

#include "client/connection.h"

struct buffer {
    struct vmibus_mapped_buffer shown;
    struct list link;
    struct vmibus *bus; /* NULL once it is freed */
};

void buffers_orphan(struct vmibus *bus) {
    while (!list_is_empty(&bus->buffers)) {
        struct buffer *buffer = list_first(&bus->buffers, struct buffer, link);

        buffer->bus = NULL;
        list_unlink(&buffer->link);
    }
}

static void give_back(struct vmibus *bus, uint32_t number) {
    struct vmibus_frame frame;

    vmibus_command_init(&frame, VMIBUS_KIND_BUFFER, NULL);
    frame.buffer.operation = VMIBUS_BUFFER_OPERATION_FREE;
    frame.buffer.buffer = number;
    (void)vmibus_call(bus, &frame, NULL, 0, NULL);
}

/* A file that could be cut short would raise SIGBUS in whoever loads from it: such a one is no buffer. */
static int map(struct vmibus_mapped_buffer *shown, const struct vmibus_message *reply) {
    struct stat st;
    int seals, fd = reply->fds[0];
    void *octets;

    if (reply->frame.header.fd_count != 1)
        return -EPROTO;
    seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 || shown->size == 0 ||
        (uint64_t)st.st_size < shown->size)
        return -EPROTO;
    octets = mmap(NULL, shown->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (octets == MAP_FAILED)
        return -errno;
    shown->octets = octets;
    return 0;
}

static int allocate(struct buffer *buffer, size_t size, struct vmibus_message *reply) {
    struct vmibus_frame frame;
    int r;

    vmibus_command_init(&frame, VMIBUS_KIND_BUFFER, NULL);
    frame.buffer.operation = VMIBUS_BUFFER_OPERATION_ALLOCATE;
    frame.buffer.size = size;
    r = vmibus_call(buffer->bus, &frame, NULL, 0, reply);
    if (r)
        return r;
    buffer->shown.number = (uint32_t)reply->frame.ack.value;
    buffer->shown.size = (size_t)reply->frame.ack.count;
    r = map(&buffer->shown, reply);
    if (r < 0)
        give_back(buffer->bus, buffer->shown.number);
    return r;
}

int vmibus_buffer_new(struct vmibus *bus, size_t size, struct vmibus_mapped_buffer **bufferp, struct vmibus_message *reply) {
    struct buffer *buffer = calloc(1, sizeof(*buffer));
    struct vmibus_message answer = {};
    int r;

    if (reply)
        *reply = answer;
    if (!buffer)
        return -ENOMEM;
    buffer->bus = bus;
    r = allocate(buffer, size, &answer);
    if (r == 0) {
        list_append(&bus->buffers, &buffer->link);
        *bufferp = &buffer->shown;
    } else {
        free(buffer);
    }
    if (reply)
        *reply = answer;
    else
        vmibus_message_deinit(&answer);
    return r;
}

struct vmibus_mapped_buffer *vmibus_buffer_free(struct vmibus_mapped_buffer *shown) {
    struct buffer *buffer;

    if (!shown)
        return NULL;
    buffer = container_of(shown, struct buffer, shown);
    munmap(shown->octets, shown->size);
    if (buffer->bus) {
        give_back(buffer->bus, shown->number);
        list_unlink(&buffer->link);
    }
    free(buffer);
    return NULL;
}

int vmibus_read(struct vmibus *bus, const struct vmibus_endpoint *endpoint, const struct vmibus_read *read,
                struct vmibus_message *reply) {
    struct vmibus_frame frame;

    vmibus_command_init(&frame, VMIBUS_KIND_MEM_READ, endpoint);
    frame.mem_read.cr3 = read->cr3;
    frame.mem_read.gva = read->gva;
    frame.mem_read.epoch = read->epoch;
    frame.mem_read.offset = read->offset;
    frame.mem_read.len = read->len;
    frame.mem_read.buffer = read->buffer->number;
    frame.mem_read.flags = read->flags;
    return vmibus_call(bus, &frame, NULL, 0, reply);
}
