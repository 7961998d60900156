/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a client of the memory authority can command. Each function answers once, perhaps later. */
#ifndef MEMORY_COMMAND_H
#define MEMORY_COMMAND_H

#include <stdint.h>

#include <vmibus/protocol.h>

#include "memory/state.h"

/** CMD_MEMWRITE. The client may be gone afterwards, as after all of these. */
void command_write(struct authority_client *client, const struct vmibus_frame *frame,
                   const void *tail, uint64_t received);

/** A worker has finished a write: a job_done_fn. */
void command_write_done(struct job *job);

/** MEM_ATTACH. */
void command_attach(struct authority_client *client, const struct vmibus_frame *frame,
                    uint64_t received);

/** MEM_RELEASE. */
void command_release(struct authority_client *client, const struct vmibus_frame *frame,
                     uint64_t received);

/** MEM_LAYOUT, MEM_ROOT, MEM_END and MEM_BUSY of a sensor. */
void command_propose(struct authority_client *client, const struct vmibus_frame *frame,
                     const void *tail, const int *fds, uint64_t received);

/** Ends all attachments of a client. */
void client_detach(struct authority_client *client);

#endif
