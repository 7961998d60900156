/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory/handover_record.h"

#include <errno.h>

#include "memory/attachment.h"
#include "memory/buffer.h"
#include "memory/memctx.h"
#include "memory/state.h"
#include "util/fds.h"

/* Of each record its own numbers, never reused. */
enum {
    CLIENT_ATTACHMENT = 1,
    CLIENT_BUFFER = 2,
    CLIENT_IDENTIFIES = 3, /* the slot of an endpoint */
    CLIENT_PROVIDES = 4,
};

enum {
    ATTACHMENT_MEMCTX = 1,
    ATTACHMENT_OBJECTS = 2,
    ATTACHMENT_FDS = 3,
};

enum {
    BUFFER_NUMBER = 1,
    BUFFER_SIZE = 2,
    BUFFER_FD = 3,
};

/* --- written ------------------------------------------------------------------------------------- */

static void put_buffer(struct handover_writer *writer, const struct buffer *buffer) {
    handover_begin(writer, CLIENT_BUFFER);
    handover_put_number(writer, BUFFER_NUMBER, buffer->number);
    handover_put_number(writer, BUFFER_SIZE, buffer->size);
    handover_put_fd(writer, BUFFER_FD, buffer->fd);
    handover_end(writer);
}

static void put_provided_in(struct authority_handover *handover, struct handover_writer *writer, const struct list *contexts,
                            const struct authority_client *client) {
    struct memctx *memctx;

    list_for_each(memctx, contexts, retiring.link)
        if (memctx->retiring.provider == client)
            memctx_put(handover, writer, CLIENT_PROVIDES, memctx);
}

/* What a sensor said, and what it is to be told of. */
static void put_provided(struct authority_handover *handover, struct handover_writer *writer,
                         const struct authority_client *client) {
    const struct authority *authority = client->authority;

    for (uint32_t slot = 1; slot <= authority->options.n_endpoints; slot++) {
        const struct memory_endpoint *endpoint = &authority->endpoints[slot];

        if (endpoint->identity.client == client)
            handover_put_number(writer, CLIENT_IDENTIFIES, slot);
        if (endpoint->current && endpoint->current->retiring.provider == client)
            memctx_put(handover, writer, CLIENT_PROVIDES, endpoint->current);
    }
    put_provided_in(handover, writer, &authority->retirement.waiting, client);
    put_provided_in(handover, writer, &authority->retirement.overdue, client);
}

void authority_client_handover_save(struct authority_handover *handover, struct handover_writer *writer,
                                    const struct authority_client *client) {
    const struct attachment *attachment;
    const struct buffer *buffer;

    list_for_each(attachment, &client->attachments, link) {
        if (attachment->memctx->own_process)
            continue;
        handover_begin(writer, CLIENT_ATTACHMENT);
        memctx_put(handover, writer, ATTACHMENT_MEMCTX, attachment->memctx);
        handover_put_number(writer, ATTACHMENT_OBJECTS, attachment->n_objects_given);
        handover_put_number(writer, ATTACHMENT_FDS, attachment->descriptors.amount);
        handover_end(writer);
    }
    list_for_each(buffer, &client->buffers, link)
        put_buffer(writer, buffer);
    if (client->role == VMIBUS_ROLE_SENSOR)
        put_provided(handover, writer, client);
}

/* --- read ---------------------------------------------------------------------------------------- */

static void take_attachment(struct authority_handover *handover, struct authority_client *client,
                            const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    struct memctx *memctx = NULL;
    struct vmibus_ack ack = {};
    uint64_t n_objects = 0, n_fds = 0;

    while (handover_next(&records, &member))
        if (member.tag == ATTACHMENT_MEMCTX)
            memctx = memctx_take(handover, &member);
        else if (member.tag == ATTACHMENT_OBJECTS)
            n_objects = handover_number_below(&member, VMIBUS_FDS_PER_FRAME);
        else if (member.tag == ATTACHMENT_FDS)
            n_fds = handover_number_below(&member, VMIBUS_FDS_PER_FRAME);
    if (record->handover->error)
        return;
    if (!memctx)
        handover_wrong(record->handover, -EBADMSG);
    else if (attachment_new(client, memctx, n_objects, n_fds, &ack))
        handover_wrong(record->handover, -ENOBUFS);
}

static void take_buffer(struct authority_client *client, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    uint64_t number = 0, size = 0;
    int fd = -1, r;

    while (handover_next(&records, &member))
        if (member.tag == BUFFER_NUMBER)
            number = handover_number_below(&member, VMIBUS_BUFFERS_BOUND);
        else if (member.tag == BUFFER_SIZE)
            size = handover_number(&member);
        else if (member.tag == BUFFER_FD && fd < 0)
            fd = handover_take_fd(&member);
    if (record->handover->error) {
        fd_close(fd);
        return;
    }
    r = buffer_take_over_consume_fd(client, (uint32_t)number, size, fd);
    if (r < 0)
        handover_wrong(record->handover, r);
}

static void take_identified(struct authority_client *client, const struct handover_record *record) {
    struct memory_endpoint *endpoint = authority_slot(client->authority, (uint32_t)handover_number_below(record, UINT32_MAX));

    if (!endpoint || !endpoint->open || endpoint->identity.client || client->role != VMIBUS_ROLE_SENSOR)
        handover_wrong(record->handover, -EBADMSG);
    else
        endpoint->identity.client = client;
}

static void take_provided(struct authority_handover *handover, struct authority_client *client,
                          const struct handover_record *record) {
    struct memctx *memctx = memctx_take(handover, record);

    if (memctx && (memctx->retiring.provider || client->role != VMIBUS_ROLE_SENSOR))
        handover_wrong(record->handover, -EBADMSG);
    else if (memctx)
        memctx->retiring.provider = client;
}

bool authority_client_handover_restore(struct authority_handover *handover, struct authority_client *client,
                                       struct handover_records records) {
    struct handover_record record;

    while (handover_next(&records, &record))
        if (record.tag == CLIENT_ATTACHMENT)
            take_attachment(handover, client, &record);
        else if (record.tag == CLIENT_BUFFER)
            take_buffer(client, &record);
        else if (record.tag == CLIENT_IDENTIFIES)
            take_identified(client, &record);
        else if (record.tag == CLIENT_PROVIDES)
            take_provided(handover, client, &record);
    return !records.handover->error;
}
