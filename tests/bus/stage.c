/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/stage.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <vmibus/names.h>

#include "util/fds.h"

struct stage stage;

/* --- logs -------------------------------------------------------------------------------------- */

static struct entry *log_add(struct entry_log *log, const struct vmibus_frame *frame, const void *tail) {
    struct entry *entry;

    if (log->n == log->room) {
        log->room = log->room ? 2 * log->room : 64;
        log->entries = reallocarray(log->entries, log->room, sizeof(*log->entries));
        ck_assert_ptr_nonnull(log->entries);
    }
    entry = malloc(sizeof(*entry));
    ck_assert_ptr_nonnull(entry);
    log->entries[log->n++] = entry;
    entry->frame = *frame;
    entry->tail = NULL;
    if (frame->header.tail_length) {
        ck_assert_ptr_nonnull(tail);
        entry->tail = calloc(1, frame->header.tail_length + 1);
        ck_assert_ptr_nonnull(entry->tail);
        memcpy(entry->tail, tail, frame->header.tail_length);
    }
    return entry;
}

static const struct entry *log_next(struct entry_log *log) {
    return log->next < log->n ? log->entries[log->next++] : NULL;
}

static void log_free(struct entry_log *log) {
    for (size_t i = 0; i < log->n; i++) {
        free(log->entries[i]->tail);
        free(log->entries[i]);
    }
    free(log->entries);
    *log = (struct entry_log){};
}

/* --- stage ------------------------------------------------------------------------------------- */

static void hear_link(void *context, const struct vmibus_frame *frame, const void *tail) {
    (void)context;
    log_add(&stage.link, frame, tail);
    if (frame->header.kind == VMIBUS_KIND_FENCE_REVOKE && stage.link_drains) {
        struct vmibus_frame drained = {
            .header = {.kind = VMIBUS_KIND_FENCE_DRAINED, .slot = frame->header.slot, .generation = frame->header.generation},
            .fence_drained = {.token = frame->fence_revoke.token},
        };

        bus_hear_link(stage.bus, &drained, NULL);
    }
}

static void count_memory(void *context, struct bus_memory_counters *counters) {
    (void)context;
    counters->writes = 1234;
}

void stage_open(const struct stage_options *options) {
    struct bus_options bus_options = {
        .ledger = &stage.ledger,
        .arena = &stage.arena,
        .audit = &stage.audit,
        .incarnation = 7,
        .n_endpoints = options->n_endpoints ? options->n_endpoints : 16,
        .n_connections = options->n_connections ? options->n_connections : 16,
        .tail_bound = VMIBUS_TAIL_BOUND_DEFAULT,
        .region_octets = options->region_octets ? options->region_octets : 16 << 20,
        .queue_depth = options->queue_depth ? options->queue_depth : 1024,
        .commands = options->commands ? options->commands : 64,
        .drain_ms = options->drain_ms ? options->drain_ms : 3600 * 1000,
        .hold_ms = options->hold_ms ? options->hold_ms : 3600 * 1000,
        .link = options->with_link ? hear_link : NULL,
        .memory_counters = options->with_link ? count_memory : NULL,
    };
    struct policy_rule *rule;

    stage = (struct stage){.link_drains = true};
    ck_assert_int_eq(loop_new(&stage.loop), 0);
    ck_assert_int_eq(policy_new(&stage.policy), 0);
    ck_assert_int_eq(policy_add_rule(stage.policy, "everybody", &rule), 0);
    rule->subject = POLICY_EVERYBODY;
    rule->capabilities = CAPABILITIES_ALL;
    if (options->limits)
        memcpy(stage.policy->limits, options->limits, sizeof(stage.policy->limits));
    if (options->limits_total)
        memcpy(stage.policy->limits_total, options->limits_total, sizeof(stage.policy->limits_total));
    ledger_init(&stage.ledger, stage.policy->limits_total);
    stage.audit_fd = memfd_create("audit", MFD_CLOEXEC);
    ck_assert_int_eq(audit_init(&stage.audit, stage.audit_fd, 64, 7), 0);
    bus_options.loop = stage.loop;
    bus_options.policy = stage.policy;
    ck_assert_int_eq(arena_init(&stage.arena, bus_memory_needed(&bus_options)), 0);
    ck_assert_int_eq(bus_new(&stage.bus, &bus_options), 0);
}

void stage_open_default(void) {
    stage_open(&(struct stage_options){});
}

void stage_close(void) {
    stage.bus = bus_free(stage.bus);
    ck_assert_uint_eq(stage.arena.used, 0);
    arena_deinit(&stage.arena);
    ledger_deinit(&stage.ledger);
    audit_deinit(&stage.audit);
    stage.audit_fd = fd_close(stage.audit_fd);
    stage.policy = policy_free(stage.policy);
    stage.last_policy = policy_free(stage.last_policy);
    stage.loop = loop_free(stage.loop);
    log_free(&stage.link);
}

void stage_new_policy(void) {
    policy_free(stage.last_policy);
    stage.last_policy = stage.policy;
    ck_assert_int_eq(policy_new(&stage.policy), 0);
    memcpy(stage.policy->limits, stage.last_policy->limits, sizeof(stage.policy->limits));
    memcpy(stage.policy->limits_total, stage.last_policy->limits_total, sizeof(stage.policy->limits_total));
}

struct policy_rule *stage_allow(uid_t uid, const char *endpoints, uint32_t capabilities, uint32_t rank) {
    struct policy_rule *rule;

    ck_assert_int_eq(policy_add_rule(stage.policy, "a rule", &rule), 0);
    rule->subject = POLICY_USER;
    rule->id = uid;
    free(rule->endpoints);
    rule->endpoints = strdup(endpoints);
    rule->capabilities = capabilities;
    rule->rank = rank;
    return rule;
}

void stage_apply_policy(void) {
    bus_set_policy(stage.bus, stage.policy);
}

const struct vmibus_frame *stage_link_next(void) {
    const struct entry *entry = log_next(&stage.link);

    return entry ? &entry->frame : NULL;
}

void stage_memctx(const struct endpoint *endpoint, uint64_t epoch, enum vmibus_memctx_state state) {
    const struct vmibus_ram_range range = {.len = 4096};
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEMCTX,
                   .slot = endpoint->slot,
                   .generation = endpoint->generation,
                   .tail_length = sizeof(range)},
        .memctx = {.epoch = epoch, .state = (uint8_t)state, .range_count = 1},
    };

    bus_hear_link(stage.bus, &frame, &range);
}

void stage_invalidate(const struct endpoint *endpoint, uint64_t epoch) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_MEMCTX_INVALIDATED, .slot = endpoint->slot, .generation = endpoint->generation},
        .memctx_invalidated = {.epoch = epoch, .reason = VMIBUS_REASON_RESET},
    };

    bus_hear_link(stage.bus, &frame, NULL);
}

void stage_drained(const struct endpoint *endpoint, uint64_t token) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_FENCE_DRAINED, .slot = endpoint->slot, .generation = endpoint->generation},
        .fence_drained = {.token = token},
    };

    bus_hear_link(stage.bus, &frame, NULL);
}

uint64_t stage_used(enum resource resource) {
    return stage.ledger.used[resource];
}

void stage_settle(void) {
    while (loop_dispatch(stage.loop, 0) > 0)
        ;
}

/* --- controls ---------------------------------------------------------------------------------- */

static void control_woken(struct control *control) {
    struct fake_control *fake = container_of(control, struct fake_control, control);

    fake->n_wakes++;
    if (fake->on_wake)
        fake->on_wake(fake);
}

static void control_failed(struct control *control) {
    container_of(control, struct fake_control, control)->failed = true;
}

static void control_reclaim(struct control *control) {
    container_of(control, struct fake_control, control)->n_reclaims++;
}

static const struct control_ops control_ops = {
    .wake = control_woken,
    .fail = control_failed,
    .reclaim = control_reclaim,
};

int fake_control_try(struct fake_control *control, uid_t uid) {
    const struct principal principal = {.uid = uid, .gid = uid, .pid = (pid_t)(1000 + uid)};
    uint8_t session[16] = {};

    *control = (struct fake_control){};
    memcpy(session, &control, sizeof(control));
    return control_init(&control->control, stage.bus, &principal, session, &control_ops, &control->refusal);
}

int fake_control_take_over(struct fake_control *control, uid_t uid) {
    const struct principal principal = {.uid = uid, .gid = uid, .pid = (pid_t)(1000 + uid)};
    uint8_t session[16] = {(uint8_t)uid};

    *control = (struct fake_control){};
    return control_take_over(&control->control, stage.bus, &principal, session, &control_ops, &control->refusal);
}

void fake_control_open(struct fake_control *control, uid_t uid) {
    ck_assert_int_eq(fake_control_try(control, uid), 0);
}

void fake_control_close(struct fake_control *control) {
    control_deinit(&control->control);
    log_free(&control->log);
}

const struct entry *fake_control_take(struct fake_control *control) {
    struct control_item item;
    const struct entry *entry;

    if (!control_take(&control->control, &item))
        return NULL;
    ck_assert_uint_eq(item.frame.header.delivery, ++control->delivery);
    ck_assert_uint_eq(item.frame.header.tail_length, item.tail ? item.tail->length : 0);
    ck_assert_uint_eq(item.frame.header.direction, VMIBUS_DIRECTION_UP);
    ck_assert_uint_eq(item.frame.header.version, VMIBUS_PROTOCOL_VERSION);
    entry = log_add(&control->log, &item.frame, item.tail ? item.tail->data : NULL);
    control_item_deinit(&item);
    return entry;
}

void fake_control_take_all(struct fake_control *control) {
    while (fake_control_take(control))
        ;
}

const struct entry *fake_control_next(struct fake_control *control) {
    fake_control_take_all(control);
    return log_next(&control->log);
}

const struct vmibus_frame *fake_control_next_of(struct fake_control *control, enum vmibus_kind kind) {
    const struct entry *entry;

    while ((entry = fake_control_next(control)))
        if (entry->frame.header.kind == kind)
            return &entry->frame;
    return NULL;
}

void fake_control_forget(struct fake_control *control) {
    fake_control_take_all(control);
    log_free(&control->log);
}

const struct vmibus_ack *fake_control_ack(struct fake_control *control, uint64_t correlation) {
    const struct vmibus_ack *found = NULL;

    fake_control_take_all(control);
    for (size_t i = 0; i < control->log.n; i++) {
        const struct vmibus_frame *frame = &control->log.entries[i]->frame;

        if (frame->header.kind != VMIBUS_KIND_ACK || frame->header.correlation != correlation)
            continue;
        ck_assert_msg(!found, "command %ju was answered twice", (uintmax_t)correlation);
        found = &frame->ack;
    }
    return found;
}

const struct vmibus_ack *fake_control_wait_ack(struct fake_control *control, uint64_t correlation) {
    const struct vmibus_ack *ack;

    while (!(ack = fake_control_ack(control, correlation)))
        ck_assert_int_ge(loop_dispatch(stage.loop, -1), 0);
    return ack;
}

uint64_t fake_control_submit(struct fake_control *control, struct vmibus_frame *frame, const void *tail, size_t tail_length) {
    uint64_t now = clock_now();

    frame->header.direction = VMIBUS_DIRECTION_DOWN;
    frame->header.version = VMIBUS_PROTOCOL_VERSION;
    frame->header.correlation = ++control->correlation;
    frame->header.tail_length = (uint32_t)tail_length;
    if (!frame->header.timestamp)
        frame->header.timestamp = now;
    control_submit(&control->control, frame, tail, now);
    return control->correlation;
}

uint64_t fake_subscribe(struct fake_control *control, const char *pattern, uint64_t kinds) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_SUBSCRIBE}, .subscribe = {.kinds = kinds}};

    return fake_control_submit(control, &frame, pattern, strlen(pattern));
}

static uint64_t lease(struct fake_control *control, const struct endpoint *endpoint, struct vmibus_cmd_lease command) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_CMD_LEASE, .slot = endpoint->slot, .generation = endpoint->generation},
        .cmd_lease = command,
    };

    return fake_control_submit(control, &frame, NULL, 0);
}

uint64_t fake_acquire(struct fake_control *control, const struct endpoint *endpoint, enum vmibus_lease_class lease_class,
                      enum vmibus_lease_mode mode, uint32_t ttl_ms) {
    return lease(control, endpoint,
                 (struct vmibus_cmd_lease){.operation = VMIBUS_LEASE_OPERATION_ACQUIRE,
                                           .lease_class = (uint8_t)lease_class,
                                           .mode = (uint8_t)mode,
                                           .ttl_ms = ttl_ms});
}

uint64_t fake_renew(struct fake_control *control, const struct endpoint *endpoint, enum vmibus_lease_class lease_class,
                    uint64_t token, uint32_t ttl_ms) {
    return lease(control, endpoint,
                 (struct vmibus_cmd_lease){.operation = VMIBUS_LEASE_OPERATION_RENEW,
                                           .lease_class = (uint8_t)lease_class,
                                           .token = token,
                                           .ttl_ms = ttl_ms});
}

uint64_t fake_release(struct fake_control *control, const struct endpoint *endpoint, enum vmibus_lease_class lease_class,
                      uint64_t token) {
    return lease(control, endpoint,
                 (struct vmibus_cmd_lease){
                     .operation = VMIBUS_LEASE_OPERATION_RELEASE, .lease_class = (uint8_t)lease_class, .token = token});
}

uint64_t fake_hold(struct fake_control *control, const struct endpoint *endpoint, enum vmibus_lease_class lease_class) {
    uint64_t command = fake_acquire(control, endpoint, lease_class, VMIBUS_LEASE_MODE_FAIL, 0);
    const struct vmibus_ack *ack = fake_control_ack(control, command);

    ck_assert_ptr_nonnull(ack);
    ck_assert_uint_eq(ack->error, VMIBUS_ERROR_OK);
    ck_assert_uint_ne(ack->token, 0);
    return ack->token;
}

uint64_t fake_input(struct fake_control *control, const struct endpoint *endpoint, uint64_t token, uint16_t code) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_CMD_INPUT, .slot = endpoint->slot, .generation = endpoint->generation},
        .cmd_input = {.token = token, .count = 1, .events = {{.type = VMIBUS_INPUT_TYPE_KEY, .code = code, .value = 1}}},
    };

    return fake_control_submit(control, &frame, NULL, 0);
}

uint64_t fake_power(struct fake_control *control, const struct endpoint *endpoint, uint64_t token,
                    enum vmibus_power_operation operation) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_CMD_POWER, .slot = endpoint->slot, .generation = endpoint->generation},
        .cmd_power = {.token = token, .operation = (uint8_t)operation},
    };

    return fake_control_submit(control, &frame, NULL, 0);
}

uint64_t fake_query(struct fake_control *control, const struct endpoint *endpoint, enum vmibus_query query) {
    struct vmibus_frame frame = {.header = {.kind = VMIBUS_KIND_QUERY}, .query = {.query = (uint8_t)query}};

    if (endpoint) {
        frame.header.slot = endpoint->slot;
        frame.header.generation = endpoint->generation;
    }
    return fake_control_submit(control, &frame, NULL, 0);
}

/* --- sensors ----------------------------------------------------------------------------------- */

static void sensor_sent(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    struct fake_sensor *fake = container_of(sensor, struct fake_sensor, sensor);

    if (frame->header.kind == VMIBUS_KIND_ACK) {
        fake->last_answer = *frame;
        return;
    }
    log_add(&fake->log, frame, tail);
    if (fake->answers && frame->header.kind != VMIBUS_KIND_DEMAND && frame->header.kind != VMIBUS_KIND_CANCEL)
        fake_complete(fake, frame, (enum vmibus_error)fake->answer_error);
}

static const struct sensor_ops sensor_ops = {.send = sensor_sent};

void fake_sensor_open(struct fake_sensor *sensor, const char *name, uint32_t groups, uint32_t fallback) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_SENSOR_ANNOUNCE},
        .sensor_announce = {.state = VMIBUS_SENSOR_STATE_READY, .groups = groups, .fallback = fallback},
    };

    *sensor = (struct fake_sensor){.opened = true};
    ck_assert_int_eq(sensor_init(&sensor->sensor, stage.bus, &sensor_ops), 0);
    memcpy(frame.sensor_announce.name, name, strlen(name));
    sensor_hear(&sensor->sensor, &frame, NULL, NULL);
}

void fake_sensor_close(struct fake_sensor *sensor) {
    sensor_deinit(&sensor->sensor);
    log_free(&sensor->log);
}

static struct endpoint *offer(struct fake_sensor *sensor, struct vmibus_frame *frame, const char *name) {
    const struct vmibus_header *header = &sensor->last_answer.header;

    frame->header.kind = VMIBUS_KIND_ENDPOINT_OFFER;
    frame->header.correlation = ++stage.publication;
    frame->header.tail_length = (uint32_t)strlen(name);
    sensor->last_answer = (struct vmibus_frame){};
    sensor_hear(&sensor->sensor, frame, name, NULL);
    ck_assert_uint_eq(header->kind, VMIBUS_KIND_ACK);
    ck_assert_uint_eq(header->correlation, frame->header.correlation);
    return sensor->last_answer.ack.error ? NULL : bus_endpoint(stage.bus, header->slot, header->generation);
}

struct endpoint *fake_offer_as(struct fake_sensor *sensor, const char *name, uint8_t uuid, uint32_t pid, uint32_t groups) {
    struct vmibus_frame frame = {
        .endpoint_offer = {.uuid = {uuid}, .pid = pid, .start_time = pid, .groups = groups},
    };

    return offer(sensor, &frame, name);
}

struct endpoint *fake_offer(struct fake_sensor *sensor, const char *name, uint32_t groups) {
    return fake_offer_as(sensor, name, 0, 0, groups);
}

bool fake_join(struct fake_sensor *sensor, const struct endpoint *endpoint, uint32_t groups) {
    struct vmibus_frame frame = {
        .header = {.slot = endpoint->slot, .generation = endpoint->generation},
        .endpoint_offer = {.groups = groups},
    };

    return offer(sensor, &frame, endpoint->name) == endpoint;
}

void fake_withdraw(struct fake_sensor *sensor, const struct endpoint *endpoint) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ENDPOINT_WITHDRAW, .slot = endpoint->slot, .generation = endpoint->generation},
        .endpoint_withdraw = {.reason = VMIBUS_REASON_EXIT},
    };

    sensor_hear(&sensor->sensor, &frame, NULL, NULL);
}

void fake_lifecycle(struct fake_sensor *sensor, const struct endpoint *endpoint, enum vmibus_vm_state state) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_LIFECYCLE, .slot = endpoint->slot, .generation = endpoint->generation},
        .lifecycle = {.state = (uint8_t)state},
    };

    sensor_hear(&sensor->sensor, &frame, NULL, NULL);
}

const struct entry *fake_sensor_next(struct fake_sensor *sensor) {
    return log_next(&sensor->log);
}

const struct vmibus_frame *fake_sensor_next_of(struct fake_sensor *sensor, enum vmibus_kind kind) {
    const struct entry *entry;

    while ((entry = log_next(&sensor->log)))
        if (entry->frame.header.kind == kind)
            return &entry->frame;
    return NULL;
}

void fake_answer(struct fake_sensor *sensor, const struct vmibus_frame *command, const struct vmibus_ack *ack, const void *tail,
                 size_t tail_length, const int *fds, size_t n_fds) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ACK,
                   .slot = command->header.slot,
                   .generation = command->header.generation,
                   .correlation = command->header.correlation,
                   .tail_length = (uint32_t)tail_length,
                   .fd_count = (uint8_t)n_fds},
        .ack = *ack,
    };

    sensor_hear(&sensor->sensor, &frame, tail, fds);
}

void fake_complete(struct fake_sensor *sensor, const struct vmibus_frame *command, enum vmibus_error error) {
    fake_answer(sensor, command, &(struct vmibus_ack){.error = (uint16_t)error, .count = 1}, NULL, 0, NULL, 0);
}
