/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MEM_ATTACH and MEM_RELEASE: holding a memory context, with read-only descriptors of its objects or
 * without.
 *
 * Each attachment receives descriptors that were opened for it, so that no two receivers share a file
 * description; the last one is that of the epoch page, which those get too that read through the authority.
 * A sensor in this very process has the authority's memory anyway: it is not asked whether it could open
 * a file again, and it is called when an epoch ends, so it needs no page.  All others are asked, and get one.
 *
 * A sensor apart reads the memory whose layout it proposed itself, as it has to, to find the root in it.  For all else it needs
 * what a control needs, RAM_FD by a rule for its user: it reads for whoever the bus says has asked, and the bus may lie.
 *
 * What a sensor may read it may read where it is private to a process too: it gets that process's /proc/PID/mem, opened for
 * reading.  Whoever opened that anew for writing would need ptrace(2) access to the process by itself, so the rule is that of
 * files: not to the owner's uid, nor to root, but by policy's explicit word.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "memory/answer.h"
#include "memory/attachment.h"
#include "memory/command.h"
#include "memory/gate.h"
#include "memory/handout.h"
#include "util/clock.h"
#include "util/deadline.h"
#include "util/fds.h"
#include "util/refusal.h"

static uint64_t audit_attach(struct authority_client *client,
                             const struct vmibus_frame *frame, uint64_t received) {
    struct vmibus_audit_record record = {.epoch = frame->mem_attach.epoch};

    return client_audit(client, frame, received, &record);
}

/* --- descriptors ------------------------------------------------------------------------------- */

static bool is_local_sensor(const struct authority_client *client) {
    return client->role == VMIBUS_ROLE_SENSOR && client->principal.pid == 0;
}

/*
 * Whether the client may have the process's memory for objects that are private to it: read-only /proc/PID/mem in the place of
 * each, and /proc/PID/pagemap behind all, without which they could not be read untouched.
 */
static bool has_process_memory(const struct authority_client *client, const struct memctx *memctx) {
    return client->role == VMIBUS_ROLE_SENSOR && memctx->process_ranges;
}

/* Why the client gets no descriptors: VMIBUS_REASON_NONE if it gets them. 0 or a negative errno. */
static int find_refusal(const struct authority_client *client, const struct memctx *memctx,
                        uint32_t capabilities, uint16_t *reason) {
    *reason = VMIBUS_REASON_NONE;
    if (client->role != VMIBUS_ROLE_SENSOR && !(capabilities & VMIBUS_CAP_RAM_FD))
        *reason = VMIBUS_REASON_NO_CAPABILITY;
    else if (memctx->n_objects + has_process_memory(client, memctx) > MEMCTX_OBJECTS_GIVEN)
        *reason = VMIBUS_REASON_LIMIT_FDS; /* the pagemap has to fit too */
    for (size_t i = 0; *reason == VMIBUS_REASON_NONE && i < memctx->n_objects; i++) {
        int r;

        if (!memctx->objects[i].is_file && !has_process_memory(client, memctx)) {
            *reason = VMIBUS_REASON_PRIVATE_RAM;
            return 0;
        }
        if (is_local_sensor(client))
            continue;
        r = handout_refusal(memctx->objects[i].is_file ? memctx->objects[i].fd : memctx->memory_fd, &client->principal,
                            capabilities, reason);
        if (r < 0)
            return r;
    }
    return 0;
}

/* What belongs to a process is opened anew by who could trace it (ptrace(2)). */
static bool is_refused(int fd) {
    return fd == -EACCES || fd == -EPERM;
}

static int open_pagemap(const struct authority *authority, const struct memctx *memctx) {
    const struct opener *opener = authority->options.opener;
    int fd = ram_object_reopen(memctx->pagemap_fd, O_RDONLY);

    return is_refused(fd) ? opener->open_pagemap(opener, &memctx->process) : fd;
}

static int open_object(const struct authority *authority, const struct memctx *memctx,
                       const struct ram_object *object) {
    const struct opener *opener = authority->options.opener;
    struct stat ours, theirs;
    int fd;

    if (!object->is_file) {
        fd = ram_object_reopen(memctx->memory_fd, O_RDONLY);
        return is_refused(fd) ? opener->open_memory_to_read(opener, &memctx->process) : fd;
    }
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

/* Opens the epoch page for the client, and makes it before if it is the slot's first. 0, or the error that the answer tells of. */
static uint16_t open_page(struct authority *authority, struct memory_endpoint *endpoint, int *fd, struct vmibus_ack *ack) {
    const struct authority_options *options = &authority->options;
    const struct memctx *memctx = endpoint->current;
    int r = 0;

    if (!epoch_page_is_there(&endpoint->page)) {
        r = epoch_page_make(&endpoint->page, options->keep != NULL, memctx->account);
        if (r > 0)
            return refusal_of_charge(ack, r, memctx->account, RESOURCE_FDS);
        if (r == 0) {
            if (options->keep)
                options->keep(options->keep_context, endpoint->slot, endpoint->page.fd);
            epoch_page_begin(&endpoint->page, memctx->epoch, memctx->generation);
        }
    }
    if (r == 0)
        r = *fd = epoch_page_open(&endpoint->page);
    return r < 0 ? answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r) : 0;
}

/* --- the commands ------------------------------------------------------------------------------ */

/* Without an epoch there is nothing to read, which the gate of epochs tells. */
static uint16_t gate_sensor(struct authority_client *client, const struct vmibus_frame *frame, struct memory_endpoint **endpointp,
                            struct vmibus_ack *ack) {
    const struct memctx *memctx;

    if (gate_endpoint(client->authority, frame, endpointp, ack))
        return ack->error;
    memctx = (*endpointp)->current;
    if (!memctx || is_local_sensor(client) || memctx->retiring.provider == client ||
        client_capabilities(client, *endpointp) & VMIBUS_CAP_RAM_FD)
        return 0;
    return answer_refuse(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_SENSOR_GRANT, VMIBUS_CAP_RAM_FD);
}

/* Passes the gates. */
static uint16_t pass_gates(struct authority_client *client, const struct vmibus_frame *frame,
                           uint64_t now, struct memory_endpoint **endpointp,
                           struct vmibus_ack *ack) {
    uint64_t epoch = frame->mem_attach.epoch;

    if (client->role == VMIBUS_ROLE_SENSOR)
        gate_sensor(client, frame, endpointp, ack);
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

/* Opens what the client may have: the objects, then the epoch page. */
static uint16_t open_descriptors(struct authority_client *client, struct memory_endpoint *endpoint, int *fds, size_t *n_given,
                                 size_t *n_fds, struct vmibus_ack *ack) {
    const struct memctx *memctx = endpoint->current;
    uint16_t refusal;
    int r;

    r = find_refusal(client, memctx, client_capabilities(client, endpoint), &refusal);
    if (!r && refusal == VMIBUS_REASON_NONE) {
        r = open_objects(client->authority, memctx, fds);
        if (!r)
            *n_given = *n_fds = memctx->n_objects;
    }
    if (!r && *n_given && has_process_memory(client, memctx)) {
        refusal = VMIBUS_REASON_PRIVATE_RAM;
        r = fds[*n_fds] = open_pagemap(client->authority, memctx);
        if (r >= 0)
            ++*n_fds;
    }
    /* Nobody opens it anew: the authority has not the right to, and no opener that has. */
    if (is_refused(r) && has_process_memory(client, memctx)) {
        fds_close(fds, *n_fds);
        *n_given = *n_fds = 0;
        refusal = VMIBUS_REASON_PRIVATE_RAM;
        r = 0;
    }
    if (r < 0)
        return answer_refuse(ack, VMIBUS_ERROR_IO, VMIBUS_REASON_NONE, (uint64_t)-r);
    if (!is_local_sensor(client)) {
        if (open_page(client->authority, endpoint, &fds[*n_fds], ack))
            return ack->error;
        ++*n_fds;
    }
    ack->reason = refusal;
    if (refusal == VMIBUS_REASON_NO_CAPABILITY)
        ack->value = VMIBUS_CAP_RAM_FD;
    else if (refusal == VMIBUS_REASON_LIMIT_FDS)
        ack->value = MEMCTX_OBJECTS_GIVEN;
    return 0;
}

/* Opens the descriptors and makes the attachment. */
static uint16_t attach(struct authority_client *client, struct memory_endpoint *endpoint,
                       int *fds, size_t *n_given, size_t *n_fds, struct vmibus_ack *ack) {
    struct memctx *memctx = endpoint->current;

    if (open_descriptors(client, endpoint, fds, n_given, n_fds, ack) ||
        attachment_new(client, memctx, *n_given, *n_fds, ack))
        return ack->error;
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
    size_t n_given = 0, n_fds = 0;

    answer_begin(&answer, frame, received);
    if (!pass_gates(client, frame, received, &endpoint, &answer.ack) &&
        !attach(client, endpoint, fds, &n_given, &n_fds, &answer.ack)) {
        memctx = memctx_ref(endpoint->current);
        answer.header.tail_length = (uint32_t)(memctx->n_ranges * sizeof(*memctx->ranges));
        answer.header.fd_count = (uint8_t)n_fds;
    }
    answer.ack.finished = clock_now();
    audit_finish(authority->options.audit, sequence, &answer.ack);
    /* The ranges and descriptors are the answer: it is wanted whatever the flags say. */
    if (memctx)
        client_answer(client, &answer, 0, n_given && has_process_memory(client, memctx) ? memctx->process_ranges : memctx->ranges,
                      fds);
    else
        client_answer(client, &answer, 0, NULL, NULL);
    fds_close(fds, n_fds);
    memctx_unref(memctx);
}

void authority_client_undo_attach(struct authority_client *client, uint64_t epoch) {
    struct attachment *attachment = attachment_find(client, epoch);

    if (attachment)
        attachment_free(client, attachment);
}

void command_release(struct authority_client *client, const struct vmibus_frame *frame,
                     uint64_t received) {
    struct attachment *attachment = attachment_find(client, frame->mem_release.epoch);
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
