/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * MEM_IDENTITY: which VM an endpoint is, by the sensor that is going to propose its layout.  What a control may do is
 * decided by name and UUID, and were these the bus's word alone, a bus that lies could have one VM's memory given out under
 * another one's name.  So a UUID that both know has to be the same.  Sensors may know one VM by different names; by such a
 * UUID it is the same VM, and it is the name that this sensor says which decides.  Without one the names have to be the same.
 * Where the bus is another process, the UUID too is from then on what this sensor says, none if it knows none.
 */
#include <string.h>

#include "memory/answer.h"
#include "memory/command.h"
#include "memory/gate.h"

/* What a refusal says is different. */
enum difference {
    DIFFERS_UNSAID,
    DIFFERS_NAME,
    DIFFERS_UUID,
};

static bool is_set(const uint8_t *uuid) {
    static const uint8_t unset[16];

    return memcmp(uuid, unset, sizeof(unset)) != 0;
}

static bool is_named(const struct memory_endpoint *endpoint, const char *name, size_t length) {
    return strlen(endpoint->name) == length && memcmp(endpoint->name, name, length) == 0;
}

static uint16_t refuse(struct memory_endpoint *endpoint, enum difference difference, struct vmibus_ack *ack) {
    answer_refuse(ack, VMIBUS_ERROR_DENIED, VMIBUS_REASON_OTHER_IDENTITY, difference);
    if (!endpoint->current)
        memory_endpoint_publish_none(endpoint, VMIBUS_REASON_OTHER_IDENTITY);
    return ack->error;
}

/* What was remembered of grants was by another name, or another UUID. */
static void identify(struct memory_endpoint *endpoint, const uint8_t *said, const char *name, size_t length) {
    const uint8_t *uuid = endpoint->authority->options.apart ? said : endpoint->uuid;

    if (!is_named(endpoint, name, length) || memcmp(endpoint->uuid, uuid, sizeof(endpoint->uuid)) != 0)
        endpoint->authority->policy_version++;
    memcpy(endpoint->name, name, length);
    endpoint->name[length] = '\0';
    memmove(endpoint->uuid, uuid, sizeof(endpoint->uuid));
    endpoint->identified = endpoint->authority->options.apart;
}

uint16_t command_identity(struct authority_client *client, struct memory_endpoint *endpoint, const struct vmibus_frame *frame,
                          const void *tail, struct vmibus_ack *ack) {
    const struct vmibus_mem_identity *body = &frame->mem_identity;
    bool both = is_set(body->uuid) && is_set(endpoint->uuid);
    size_t length = frame->header.tail_length;

    endpoint->identity = (struct memory_identity){0};
    if (both && memcmp(body->uuid, endpoint->uuid, sizeof(body->uuid)) != 0)
        return refuse(endpoint, DIFFERS_UUID, ack);
    if (!both && !is_named(endpoint, tail, length))
        return refuse(endpoint, DIFFERS_NAME, ack);
    identify(endpoint, body->uuid, tail, length);
    endpoint->identity = (struct memory_identity){.client = client, .pid = body->pid, .start_time = body->start_time};
    return 0;
}

uint16_t command_check_identity(const struct authority_client *client, struct memory_endpoint *endpoint,
                                const struct vmibus_mem_layout *layout, struct vmibus_ack *ack) {
    const struct memory_identity *identity = &endpoint->identity;

    if (identity->client != client)
        return refuse(endpoint, DIFFERS_UNSAID, ack);
    if (layout->pid && identity->pid && (layout->pid != identity->pid || layout->start_time != identity->start_time))
        return answer_refuse(ack, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, layout->pid);
    return 0;
}
