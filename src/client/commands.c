/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The usual commands: each fills a body and calls. */
#include <errno.h>
#include <string.h>

#include <vmibus/client.h>

int vmibus_subscribe(struct vmibus *bus, const char *pattern, uint64_t kinds) {
    struct vmibus_frame frame;
    size_t length = strlen(pattern);

    if (length == 0 || length > VMIBUS_NAME_BOUND)
        return -EMSGSIZE;
    vmibus_command_init(&frame, VMIBUS_KIND_SUBSCRIBE, NULL);
    frame.subscribe.kinds = kinds;
    return vmibus_call(bus, &frame, pattern, length, NULL);
}

static int lease_call(struct vmibus *bus, const struct vmibus_endpoint *endpoint, const struct vmibus_cmd_lease *lease,
                      struct vmibus_message *reply) {
    struct vmibus_frame frame;

    vmibus_command_init(&frame, VMIBUS_KIND_CMD_LEASE, endpoint);
    frame.cmd_lease = *lease;
    return vmibus_call(bus, &frame, NULL, 0, reply);
}

int vmibus_lease_acquire(struct vmibus *bus, const struct vmibus_endpoint *endpoint, enum vmibus_lease_class lease_class,
                         enum vmibus_lease_mode mode, uint32_t ttl_ms, uint64_t *token, struct vmibus_message *reply) {
    const struct vmibus_cmd_lease lease = {
        .operation = VMIBUS_LEASE_OPERATION_ACQUIRE,
        .lease_class = (uint8_t)lease_class,
        .mode = (uint8_t)mode,
        .ttl_ms = ttl_ms,
    };
    struct vmibus_message answer;
    int r = lease_call(bus, endpoint, &lease, &answer);

    if (r == 0 && token)
        *token = answer.frame.ack.token;
    if (reply)
        *reply = answer;
    else
        vmibus_message_deinit(&answer);
    return r;
}

int vmibus_lease_renew(struct vmibus *bus, const struct vmibus_endpoint *endpoint, enum vmibus_lease_class lease_class,
                       uint64_t token, uint32_t ttl_ms) {
    const struct vmibus_cmd_lease lease = {
        .operation = VMIBUS_LEASE_OPERATION_RENEW,
        .lease_class = (uint8_t)lease_class,
        .token = token,
        .ttl_ms = ttl_ms,
    };

    return lease_call(bus, endpoint, &lease, NULL);
}

int vmibus_lease_release(struct vmibus *bus, const struct vmibus_endpoint *endpoint, enum vmibus_lease_class lease_class,
                         uint64_t token) {
    const struct vmibus_cmd_lease lease = {
        .operation = VMIBUS_LEASE_OPERATION_RELEASE,
        .lease_class = (uint8_t)lease_class,
        .token = token,
    };

    return lease_call(bus, endpoint, &lease, NULL);
}

int vmibus_input(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t token,
                 const struct vmibus_input_event *events, size_t n_events, struct vmibus_message *reply) {
    bool is_inline = n_events <= VMIBUS_INPUT_EVENTS_INLINE;
    size_t length = n_events * sizeof(*events);
    struct vmibus_frame frame;

    if (reply)
        *reply = (struct vmibus_message){};
    if (n_events == 0)
        return -EINVAL;
    if (n_events > UINT16_MAX)
        return -EMSGSIZE;
    vmibus_command_init(&frame, VMIBUS_KIND_CMD_INPUT, endpoint);
    frame.cmd_input.token = token;
    frame.cmd_input.count = (uint16_t)n_events;
    if (is_inline)
        memcpy(frame.cmd_input.events, events, length);
    return vmibus_call(bus, &frame, is_inline ? NULL : events, is_inline ? 0 : length, reply);
}

int vmibus_power(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t token, enum vmibus_power_operation operation,
                 struct vmibus_message *reply) {
    struct vmibus_frame frame;

    vmibus_command_init(&frame, VMIBUS_KIND_CMD_POWER, endpoint);
    frame.cmd_power.token = token;
    frame.cmd_power.operation = (uint8_t)operation;
    return vmibus_call(bus, &frame, NULL, 0, reply);
}

int vmibus_control_vm(struct vmibus *bus, const struct vmibus_endpoint *endpoint, uint64_t token,
                      enum vmibus_vm_operation operation, struct vmibus_message *reply) {
    struct vmibus_frame frame;

    vmibus_command_init(&frame, VMIBUS_KIND_CMD_VM, endpoint);
    frame.cmd_vm.token = token;
    frame.cmd_vm.operation = (uint8_t)operation;
    return vmibus_call(bus, &frame, NULL, 0, reply);
}

int vmibus_query(struct vmibus *bus, const struct vmibus_endpoint *endpoint, enum vmibus_query query,
                 struct vmibus_message *reply) {
    struct vmibus_frame frame;

    vmibus_command_init(&frame, VMIBUS_KIND_QUERY, endpoint);
    frame.query.query = (uint8_t)query;
    return vmibus_call(bus, &frame, NULL, 0, reply);
}

int vmibus_memory_query(struct vmibus *bus, const struct vmibus_endpoint *endpoint, enum vmibus_memory_query query,
                        struct vmibus_message *reply) {
    struct vmibus_frame frame;

    vmibus_command_init(&frame, VMIBUS_KIND_MEM_QUERY, endpoint);
    frame.mem_query.query = (uint8_t)query;
    return vmibus_call(bus, &frame, NULL, 0, reply);
}
