/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a client of the memory authority can command. Each function answers once, perhaps later. */
#ifndef MEMORY_COMMAND_H
#define MEMORY_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include <vmibus/protocol.h>

#include "memory/state.h"

/** CMD_MEMWRITE. The client may be gone afterwards, as after all of these. */
void command_write(struct authority_client *client, const struct vmibus_frame *frame,
                   const void *tail, uint64_t received);

/** MEM_READ. */
void command_read(struct authority_client *client, const struct vmibus_frame *frame,
                  uint64_t received);

/** BUFFER. */
void command_buffer(struct authority_client *client, const struct vmibus_frame *frame,
                    uint64_t received);

/** The policy is another: frees the buffers of a client that may have none any more. */
void client_review_buffers(struct authority_client *client);

/** MEM_ATTACH. */
void command_attach(struct authority_client *client, const struct vmibus_frame *frame,
                    uint64_t received);

/** MEM_QUERY. */
void command_query(struct authority_client *client, const struct vmibus_frame *frame,
                   uint64_t received);

/** MEM_RELEASE. */
void command_release(struct authority_client *client, const struct vmibus_frame *frame,
                     uint64_t received);

/** MEM_IDENTITY, MEM_LAYOUT, MEM_ROOT, MEM_END and MEM_BUSY of a sensor. */
void command_propose(struct authority_client *client, const struct vmibus_frame *frame,
                     const void *tail, const int *fds, uint64_t received);

/** MEM_IDENTITY of a sensor, for an endpoint that it may name. 0, or the error that @a ack tells of. */
uint16_t command_identity(struct authority_client *client, struct memory_endpoint *endpoint, const struct vmibus_frame *frame,
                          const void *tail, struct vmibus_ack *ack);

/** Whether the sensor may propose this layout by the identity it told. 0, or the error that @a ack tells of. */
uint16_t command_check_identity(const struct authority_client *client, struct memory_endpoint *endpoint,
                                const struct vmibus_mem_layout *layout, struct vmibus_ack *ack);

/**
 * MEM_ROOT of a sensor, for an endpoint that it may name.
 * @param answer begun
 * @return whether it is answered later; if not, @a answer is to be given
 */
bool command_root(struct authority_client *client, struct memory_endpoint *endpoint, const struct vmibus_mem_root *proposal,
                  uint32_t flags, struct vmibus_frame *answer);

#endif
