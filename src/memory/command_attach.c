/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MEM_ATTACH and MEM_RELEASE: holding a memory context, with read-only descriptors of its objects or
 * without.
 *
 * Each attachment receives descriptors that were opened for it, so that no two receivers share a file
 * description.  A sensor in this very process has the authority's memory anyway: it is not asked
 * whether it could open a file again.  All others are.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "memory/answer.h"
#include "memory/command.h"
#include "memory/gate.h"
#include "memory/handout.h"
#include "util/clock.h"
#include "util/deadline.h"
#include "util/fds.h"

struct attachment {
    struct list link;
    struct memctx *memctx;      /* referenced */
    struct charge attachment;
    struct charge descriptors;
};

static uint64_t audit_attach(const struct authority_client *client,
                             const struct vmibus_frame *frame, uint64_t received) {
    const struct vmibus_audit_record record = {
        .received = received,
        .generation = frame->header.generation,
        .slot = frame->header.slot,
        .uid = client->principal.uid,
        .pid = (uint32_t)client->principal.pid,
        .kind = VMIBUS_KIND_MEM_ATTACH,
        .epoch = frame->mem_attach.epoch,
        .correlation = frame->header.correlation,
    };

    return audit_begin(client->authority->options.audit, &record);
}

/* --- attachments ------------------------------------------------------------------------------- */

static void attachment_free(struct authority_client *client, struct attachment *attachment) {
    list_unlink(&attachment->link);
    attachment->memctx->attachments--;
    memctx_unref(attachment->memctx);
    charge_release(&attachment->attachment);
    charge_release(&attachment->descriptors);
    free(attachment);
    client->authority->counters.attachments--;
}

void client_detach(struct authority_client *client) {
    while (!list_is_empty(&client->attachments))
        attachment_free(client, list_first(&client->attachments, struct attachment, link));
}

static int attachment_charge(struct attachment *attachment, struct account *account,
                             size_t n_fds, enum resource *limit) {
    int r;

    *limit = RESOURCE_ATTACHMENTS;
    r = charge_take(&attachment->attachment, account, RESOURCE_ATTACHMENTS, 1);
    if (r || n_fds == 0)
        return r;
    *limit = RESOURCE_FDS;
    r = charge_take(&attachment->descriptors, account, RESOURCE_FDS, n_fds);
    if (r)
        charge_release(&attachment->attachment);
    return r;
}

static uint16_t attachment_new(struct authority_client *client, struct memctx *memctx,
                               size_t n_fds, struct vmibus_ack *ack) {
    struct account *account = client->account;
    struct attachment *attachment = calloc(1, sizeof(*attachment));
    enum resource limit;
    int r;

    if (!attachment)
        return answer_refuse(ack, VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_ATTACHMENTS, 0);
    r = attachment_charge(attachment, account, n_fds, &limit);
    if (r) {
        free(attachment);
        return answer_refuse(ack, r == CHARGE_QUOTA ? VMIBUS_ERROR_QUOTA : VMIBUS_ERROR_PRESSURE,
                             resource_reason(limit),
                             r == CHARGE_QUOTA ? account->limit[limit]
                                               : account->ledger->limit[limit]);
    }
    attachment->memctx = memctx_ref(memctx);
    memctx->attachments++;
    list_append(&client->attachments, &attachment->link);
    client->authority->counters.attachments++;
    authority_rely(client->authority);
    return 0;
}

/* --- descriptors ------------------------------------------------------------------------------- */

static bool is_local_sensor(const struct authority_client *client) {
    return client->role == VMIBUS_ROLE_SENSOR && client->principal.pid == 0;
}

/* Why the client gets no descriptors: VMIBUS_REASON_NONE if it gets them. 0 or a negative errno. */
static int find_refusal(const struct authority_client *client, const struct memctx *memctx,
                        uint32_t capabilities, uint16_t *reason) {
    *reason = VMIBUS_REASON_NONE;
    if (client->role != VMIBUS_ROLE_SENSOR && !(capabilities & VMIBUS_CAP_RAM_FD))
        *reason = VMIBUS_REASON_NO_CAPABILITY;
    else if (memctx->n_objects > VMIBUS_FDS_PER_FRAME)
        *reason = VMIBUS_REASON_LIMIT_FDS;
    for (size_t i = 0; *reason == VMIBUS_REASON_NONE && i < memctx->n_objects; i++) {
        int r;

        if (!memctx->objects[i].is_file) {
            *reason = VMIBUS_REASON_BAD_FDS; /* private memory has no descriptor */
            return 0;
        }
        if (is_local_sensor(client))
            continue;
        r = handout_refusal(memctx->objects[i].fd, &client->principal, capabilities, reason);
        if (r < 0)
            return r;
    }
    return 0;
}

static int open_object(const struct authority *authority, const struct memctx *memctx,
                       const struct ram_object *object) {
    const struct opener *opener = authority->options.opener;
    struct stat ours, theirs;
    int fd;

    fd = ram_object_reopen(object->fd, O_RDONLY);
    if (fd == -EACCES && memctx->process.pid)
        fd = opener->open_file(opener, &memctx->process, &object->file, O_RDONLY);
    if (fd < 0)
        return fd;
    if (fstat(fd, &theirs) < 0 || fstat(object->fd, &ours) < 0 || ours.st_dev != theirs.st_dev ||
        ours.st_ino != theirs.st_ino || (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY) {
        fd_close(fd);
        return -ESTALE;
    }
    return fd;
}

static int open_objects(const struct authority *authority, const struct memctx *memctx, int *fds) {
    for (size_t i = 0; i < memctx->n_objects; i++) {
        fds[i] = open_object(authority, memctx, &memctx->objects[i]);
        if (fds[i] < 0) {
            int r = fds[i];

            fds_close(fds, i);
            return r;
        }
    }
    return 0;
}

/* --- the commands ------------------------------------------------------------------------------ */

/* Passes the gates. A sensor needs no capability: it is one that policy lets be a sensor. */
static uint16_t pass_gates(struct authority_client *client, const struct vmibus_frame *frame,
                           uint64_t now, struct memory_endpoint **endpointp,
                           struct vmibus_ack *ack) {
    uint64_t epoch = frame->mem_attach.epoch;

    if (client->role == VMIBUS_ROLE_SENSOR)
        gate_endpoint(client->authority, frame, endpointp, ack);
    else
        gate_grant(client, frame, VMIBUS_CAP_RAM_FD | VMIBUS_CAP_MEM_READ, 0, VMIBUS_CAP_RAM_FD,
                   endpointp, ack);
    if (ack->error)
        return ack->error;
    if (epoch == 0 && (*endpointp)->current)
        epoch = (*endpointp)->current->epoch;
    if (gate_epoch(*endpointp, epoch, ack))
        return ack->error;
    ack->epoch = epoch;
    if (deadline_has_passed(&frame->header, now))
        return answer_refuse(ack, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, 0);
    return 0;
}

/* Opens what the client may have and makes the attachment. */
static uint16_t attach(struct authority_client *client, struct memory_endpoint *endpoint,
                       int *fds, size_t *n_fds, struct vmibus_ack *ack) {
    struct memctx *memctx = endpoint->current;
    uint16_t refusal;
    int r;

    r = find_refusal(client, memctx, client_capabilities(client, endpoint), &refusal);
    if (!r && refusal == VMIBUS_REASON_NONE) {
        r = open_objects(client->authority, memctx, fds);
        if (!r)
            *n_fds = memctx->n_objects;
    }
    if (r)
        return answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
    if (attachment_new(client, memctx, *n_fds, ack))
        return ack->error;
    ack->reason = refusal;
    ack->count = memctx->n_ranges;
    return 0;
}

void command_attach(struct authority_client *client, const struct vmibus_frame *frame,
                    uint64_t received) {
    struct authority *authority = client->authority;
    uint64_t sequence = audit_attach(client, frame, received);
    struct memory_endpoint *endpoint;
    struct memctx *memctx = NULL;
    struct vmibus_frame answer;
    int fds[VMIBUS_FDS_PER_FRAME];
    size_t n_fds = 0;

    answer_begin(&answer, frame, received);
    if (!pass_gates(client, frame, received, &endpoint, &answer.ack) &&
        !attach(client, endpoint, fds, &n_fds, &answer.ack)) {
        memctx = memctx_ref(endpoint->current);
        answer.header.tail_length = (uint32_t)(memctx->n_ranges * sizeof(*memctx->ranges));
        answer.header.fd_count = (uint8_t)n_fds;
    }
    answer.ack.finished = clock_now();
    audit_finish(authority->options.audit, sequence, &answer.ack);
    /* The ranges and descriptors are the answer: it is wanted whatever the flags say. */
    client_answer(client, &answer, 0, memctx ? memctx->ranges : NULL, fds);
    fds_close(fds, n_fds);
    memctx_unref(memctx);
}

static struct attachment *find_attachment(struct authority_client *client, uint64_t epoch) {
    struct attachment *attachment;

    list_for_each(attachment, &client->attachments, link)
        if (attachment->memctx->epoch == epoch)
            return attachment;
    return NULL;
}

void command_release(struct authority_client *client, const struct vmibus_frame *frame,
                     uint64_t received) {
    struct attachment *attachment = find_attachment(client, frame->mem_release.epoch);
    struct vmibus_frame answer;

    answer_begin(&answer, frame, received);
    answer.ack.epoch = frame->mem_release.epoch;
    if (attachment)
        attachment_free(client, attachment);
    else
        answer_refuse(&answer.ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD,
                      frame->mem_release.epoch);
    answer.ack.finished = clock_now();
    client_answer(client, &answer, frame->header.flags, NULL, NULL);
}
