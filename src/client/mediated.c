/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Guest-physical memory through the memory authority, in portions of one buffer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/client.h>
#include <vmibus/guest.h>

/* A walk reads eight octets, a reader of pages some pages. */
#define PORTION ((size_t)64 * 1024)

struct vmibus_mediated {
    struct vmibus *bus;
    struct vmibus_endpoint endpoint;
    uint64_t epoch;
    struct vmibus_mapped_buffer *buffer;
    struct vmibus_ack ack;
};

int vmibus_mediated_new(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t epoch,
                        struct vmibus_mediated **mediatedp, struct vmibus_message *reply) {
    struct vmibus_mediated *mediated = calloc(1, sizeof(*mediated));
    int r;

    if (!mediated) {
        if (reply)
            *reply = (struct vmibus_message){};
        return -ENOMEM;
    }
    mediated->bus = bus;
    mediated->endpoint = *endpoint;
    mediated->epoch = epoch;
    r = vmibus_buffer_new(bus, PORTION, &mediated->buffer, reply);
    if (r)
        free(mediated);
    else
        *mediatedp = mediated;
    return r;
}

struct vmibus_mediated *vmibus_mediated_free(struct vmibus_mediated *mediated) {
    if (!mediated)
        return NULL;
    vmibus_buffer_free(mediated->buffer);
    free(mediated);
    return NULL;
}

static int result_of(const struct vmibus_ack *ack) {
    switch (ack->error) {
    case VMIBUS_ERROR_TRANSLATION:
        return ack->reason == VMIBUS_REASON_OUTSIDE_RAM ? (int)VMIBUS_GUEST_OUTSIDE_RAM : -EIO;
    case VMIBUS_ERROR_STALE_EPOCH:
        return ack->reason == VMIBUS_REASON_BACKING_CHANGED ? (int)VMIBUS_GUEST_TRUNCATED : -ESTALE;
    case VMIBUS_ERROR_GONE:
        return -ESTALE;
    case VMIBUS_ERROR_DENIED:
        return -EACCES;
    default:
        return -EIO;
    }
}

static int read_portion(struct vmibus_mediated *mediated, uint64_t gpa, void *buffer, size_t len) {
    const struct vmibus_read read = {
        .gva = gpa,
        .epoch = mediated->epoch,
        .buffer = mediated->buffer,
        .len = (uint32_t)len,
        .flags = VMIBUS_MEMREAD_PHYSICAL,
    };
    struct vmibus_message reply;
    int r = vmibus_read(mediated->bus, &mediated->endpoint, &read, &reply);

    if (r >= 0)
        mediated->ack = reply.frame.ack;
    vmibus_message_deinit(&reply);
    if (r)
        return r < 0 ? r : result_of(&mediated->ack);
    if (mediated->ack.count != len)
        return -EPROTO;
    memcpy(buffer, mediated->buffer->octets, len);
    return 0;
}

int vmibus_mediated_read(void *context, uint64_t gpa, void *buffer, size_t len) {
    struct vmibus_mediated *mediated = context;
    uint8_t *at = buffer;

    while (len > 0) {
        size_t portion = len < mediated->buffer->size ? len : mediated->buffer->size;
        int r = read_portion(mediated, gpa, at, portion);

        if (r)
            return r;
        gpa += portion;
        at += portion;
        len -= portion;
    }
    return 0;
}

const struct vmibus_ack *vmibus_mediated_get_ack(const struct vmibus_mediated *mediated) {
    return &mediated->ack;
}
