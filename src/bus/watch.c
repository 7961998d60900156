/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/watch.h"

#include <errno.h>

#include <assert.h>
#include <string.h>

#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/command.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/sensor.h"
#include "util/clock.h"
#include "util/refusal.h"

#define POSITION(number) ((uint16_t)(number))

/* --- the table --------------------------------------------------------------------------------- */

uint32_t watch_table_capacity(uint64_t limit) {
    return limit < UINT16_MAX ? (uint32_t)limit : UINT16_MAX;
}

/* A pool of nothing is none: a limit of 0 leaves one block that is never taken. */
static size_t blocks(uint32_t capacity) {
    return capacity ? capacity : 1;
}

size_t watch_table_cost(uint32_t capacity) {
    return arena_cost(sizeof(struct watch), blocks(capacity)) + arena_cost(blocks(capacity) * sizeof(uint32_t), 1);
}

int watch_table_init(struct watch_table *table, struct arena *arena, uint32_t capacity) {
    int r;

    *table = (struct watch_table){};
    r = pool_init(&table->pool, arena, sizeof(struct watch), blocks(capacity));
    if (r == 0)
        r = pool_init(&table->number_room, arena, blocks(capacity) * sizeof(*table->numbers), 1);
    if (r < 0) {
        watch_table_deinit(table);
        return r;
    }
    table->numbers = pool_take(&table->number_room); /* of zeros: it is taken once, and the arena began so */
    return 0;
}

void watch_table_deinit(struct watch_table *table) {
    if (table->numbers)
        pool_give(&table->number_room, table->numbers);
    pool_deinit(&table->number_room);
    pool_deinit(&table->pool);
    table->numbers = NULL;
}

/* A number tells a past use of its place from the present one, as long as there were not 65535 between. */
static uint32_t number_take(struct watch_table *table, const struct watch *watch) {
    uint32_t position = (uint32_t)((size_t)((const char *)watch - table->pool.memory) / table->pool.block_size);

    table->n_uses = table->n_uses % UINT16_MAX + 1;
    return table->numbers[position] = table->n_uses << 16 | position;
}

static struct watch *watch_find(struct watch_table *table, uint32_t number) {
    uint32_t position = POSITION(number);

    if (number == 0 || position >= table->pool.capacity || table->numbers[position] != number)
        return NULL;
    return (struct watch *)(table->pool.memory + table->pool.block_size * position);
}

static struct watch_table *table_of(const struct endpoint *endpoint) {
    return &endpoint->bus->watches;
}

/* 0, CHARGE_QUOTA or CHARGE_PRESSURE. */
static int watch_new(struct watch **watchp, struct control *control, struct endpoint *endpoint,
                     const struct vmibus_watch *request) {
    struct watch_table *table = table_of(endpoint);
    struct watch *watch = pool_take(&table->pool);
    int r;

    if (!watch)
        return CHARGE_PRESSURE;
    *watch = (struct watch){.state = WATCH_BEGINS, .control = control, .endpoint = endpoint, .request = *request};
    r = charge_take(&watch->charge, control->account, RESOURCE_WATCHES, 1);
    if (r) {
        pool_give(&table->pool, watch);
        return r;
    }
    watch->account = account_ref(control->account);
    watch->number = number_take(table, watch);
    watch->sensor = endpoint_provider(endpoint, VMIBUS_GROUP_WATCH);
    list_init(&watch->control_link);
    list_init(&watch->endpoint_link);
    list_append(&control->watches, &watch->control_link);
    list_append(&endpoint->watches, &watch->endpoint_link);
    *watchp = watch;
    return 0;
}

static void watch_free(struct watch *watch) {
    struct watch_table *table = table_of(watch->endpoint);

    list_unlink(&watch->control_link);
    list_unlink(&watch->endpoint_link);
    charge_release(&watch->charge);
    watch->account = account_unref(watch->account);
    table->numbers[POSITION(watch->number)] = 0;
    pool_give(&table->pool, watch);
}

/* --- ending ------------------------------------------------------------------------------------ */

static bool may_watch(const struct watch *watch) {
    const struct binding *binding = control_binding(watch->control, watch->endpoint->slot, watch->endpoint->generation);

    return binding && binding->grant.capabilities & VMIBUS_CAP_WATCH;
}

static bool is_provided(const struct watch *watch) {
    return endpoint_provider(watch->endpoint, VMIBUS_GROUP_WATCH) == watch->sensor;
}

/* The last that its owner hears of it. Room for that is kept for each watch, as for an answer. */
static void tell_end(const struct watch *watch, const struct vmibus_watch_changed *last) {
    struct endpoint *endpoint = watch->endpoint;
    struct control *control = watch->control;
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_WATCH_CHANGED, .priority = VMIBUS_PRIORITY_NORMAL},
        .watch_changed = {.epoch = watch->epoch},
    };
    struct event *event;

    if (!control || control->failed)
        return;
    if (last)
        frame.watch_changed = *last;
    frame.watch_changed.watch = watch->number;
    frame.watch_changed.flags |= VMIBUS_WATCH_CHANGE_ENDED;
    endpoint_number(endpoint, &frame);
    endpoint->bus->counters.published++;
    event = event_new(&endpoint->bus->events, EVENT_ANSWER, &frame);
    if (!event)
        return;
    outbox_push_answer(&control->outbox, event);
    control_wake(control);
}

/* A sensor that does not have it yet, or no more, need not be told. */
static bool is_at_sensor(const struct watch *watch) {
    return watch->sensor && endpoint_has_provider(watch->endpoint, watch->sensor);
}

static void disown(struct watch *watch) {
    list_unlink(&watch->control_link);
    watch->control = NULL;
}

void watch_remove(struct watch *watch) {
    disown(watch);
    if (!is_at_sensor(watch)) {
        watch_free(watch);
        return;
    }
    watch->state = WATCH_ENDS;
    command_begin_unwatch(watch->endpoint, watch->sensor, watch, watch->number);
}

/* Ends all watches of an endpoint that go on and are over for a reason.  Ending one may end others, so the search starts anew. */
static void end_where(struct endpoint *endpoint, bool (*is_over)(const struct watch *watch, uint64_t epoch), uint64_t epoch) {
    struct watch *watch;
    bool again;

    do {
        again = false;
        list_for_each(watch, &endpoint->watches, endpoint_link)
            if (watch->state == WATCH_GOES_ON && is_over(watch, epoch)) {
                tell_end(watch, NULL);
                watch_remove(watch);
                again = true;
                break;
            }
    } while (again);
}

static bool is_of_epoch(const struct watch *watch, uint64_t epoch) {
    return epoch && watch->epoch == epoch;
}

static bool is_unprovided(const struct watch *watch, uint64_t epoch) {
    (void)epoch;
    return !is_provided(watch) && watch->sensor;
}

static bool is_ungranted(const struct watch *watch, uint64_t epoch) {
    const struct endpoint *endpoint = watch->endpoint;
    struct grant grant =
        policy_evaluate(endpoint->bus->policy, &watch->control->principal, endpoint->name, endpoint_granted_uuid(endpoint));

    (void)epoch;
    return !(grant.capabilities & VMIBUS_CAP_WATCH);
}

void watch_end_epoch(struct endpoint *endpoint, uint64_t epoch) {
    end_where(endpoint, is_of_epoch, epoch);
}

void watch_see_providers(struct endpoint *endpoint) {
    end_where(endpoint, is_unprovided, 0);
}

void watch_revoke_ungranted(struct endpoint *endpoint) {
    end_where(endpoint, is_ungranted, 0);
}

void watch_drop_endpoint(struct endpoint *endpoint) {
    while (!list_is_empty(&endpoint->watches)) {
        struct watch *watch = list_first(&endpoint->watches, struct watch, endpoint_link);

        tell_end(watch, NULL);
        watch_free(watch);
    }
}

void watch_drop_control(struct control *control) {
    while (!list_is_empty(&control->watches)) {
        struct watch *watch = list_first(&control->watches, struct watch, control_link);

        if (watch->state == WATCH_GOES_ON)
            watch_remove(watch);
        else
            disown(watch); /* the answer to its command settles it */
    }
}

/* --- over a restart ---------------------------------------------------------------------------- */

struct watch *watch_of_number(struct watch_table *table, uint32_t number) {
    return watch_find(table, number);
}

int watch_take_over(struct control *control, const struct watch *as) {
    struct watch_table *table = table_of(as->endpoint);
    struct watch *watch = as->number ? pool_take_place(&table->pool, POSITION(as->number)) : NULL;
    int r;

    if (!watch)
        return -EBADMSG;
    *watch = *as;
    watch->control = control;
    watch->sensor = NULL;
    watch->charge = (struct charge){};
    r = charge_take(&watch->charge, control->account, RESOURCE_WATCHES, 1);
    if (r) {
        pool_give(&table->pool, watch);
        return r;
    }
    watch->account = account_ref(control->account);
    table->numbers[POSITION(as->number)] = as->number;
    if (as->number >> 16 > table->n_uses)
        table->n_uses = as->number >> 16;
    list_init(&watch->control_link);
    list_init(&watch->endpoint_link);
    list_append(&control->watches, &watch->control_link);
    list_append(&as->endpoint->watches, &watch->endpoint_link);
    return 0;
}

/* The sensor has it from the moment on that it is asked, so that what it tells before its answer is heard. */
static bool begin_anew(struct endpoint *endpoint, struct sensor *sensor) {
    struct watch *watch;

    list_for_each(watch, &endpoint->watches, endpoint_link)
        if (watch->state == WATCH_GOES_ON && !watch->sensor) {
            watch->sensor = sensor;
            watch->request.epoch = watch->epoch;
            command_begin_rewatch(endpoint, sensor, watch, &watch->request);
            return true;
        }
    return false;
}

static bool is_nowhere(const struct watch *watch, uint64_t epoch) {
    (void)epoch;
    return !watch->sensor;
}

void watch_forget_sensor(struct endpoint *endpoint, const struct sensor *sensor) {
    struct watch *watch;

    list_for_each(watch, &endpoint->watches, endpoint_link)
        if (watch->sensor == sensor && watch->state == WATCH_GOES_ON)
            watch->sensor = NULL;
}

void watch_begin_anew(struct endpoint *endpoint) {
    struct sensor *sensor = endpoint_provider(endpoint, VMIBUS_GROUP_WATCH);

    if (claims_promise(endpoint, VMIBUS_GROUP_WATCH))
        return;
    if (!sensor)
        end_where(endpoint, is_nowhere, 0);
    while (sensor && begin_anew(endpoint, sensor))
        ;
}

void watch_begun_anew(struct watch *watch, struct sensor *sensor, const struct vmibus_ack *ack) {
    if (watch->state != WATCH_GOES_ON || watch->sensor != sensor)
        return;
    if (!ack->error && (!ack->epoch || ack->epoch == watch->epoch))
        return;
    tell_end(watch, NULL);
    if (ack->error)
        watch_free(watch);
    else
        watch_remove(watch);
}

/* --- commands ---------------------------------------------------------------------------------- */

static void refuse(struct control *control, const struct vmibus_frame *command, uint64_t received, uint64_t audit,
                   struct vmibus_ack *ack) {
    ack->received = received;
    ack->started = ack->finished = clock_now();
    audit_finish(control->bus->audit, audit, ack);
    control_answer(control, &command->header, ack, NULL, 0, NULL, 0);
}

static struct vmibus_ack verdict(enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    return (struct vmibus_ack){.error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};
}

static bool is_well_formed(const struct vmibus_watch *watch, struct vmibus_ack *ack) {
    bool is_physical = watch->flags & VMIBUS_WATCH_PHYSICAL;

    if (watch->flags & ~(uint32_t)VMIBUS_WATCH_PHYSICAL)
        *ack = verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FLAGS, watch->flags);
    else if (watch->len == 0 || watch->len > WATCH_RANGE_BOUND)
        *ack = verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, watch->len);
    else if (is_physical && watch->cr3)
        *ack = verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, watch->cr3);
    else if (watch->address + (watch->len - 1) < watch->address)
        *ack = verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_ADDRESS, watch->address);
    return !ack->error;
}

static void watch_begin_command(struct watch *watch, const struct vmibus_frame *command, uint64_t received, uint64_t audit) {
    struct vmibus_frame frame = *command;

    frame.watch.watch = watch->number;
    command_begin(&(struct command_request){.control = watch->control,
                                            .endpoint = watch->endpoint,
                                            .watch = watch,
                                            .group = VMIBUS_GROUP_WATCH,
                                            .frame = &frame,
                                            .received = received,
                                            .audit = audit});
}

static void execute_add(struct control *control, struct endpoint *endpoint, const struct vmibus_frame *command, uint64_t received,
                        uint64_t audit) {
    struct vmibus_ack ack = {};
    struct watch *watch;
    int r;

    if (!is_well_formed(&command->watch, &ack)) {
        refuse(control, command, received, audit, &ack);
        return;
    }
    r = watch_new(&watch, control, endpoint, &command->watch);
    if (r == 0) {
        watch_begin_command(watch, command, received, audit);
    } else {
        (void)refusal_of_charge(&ack, r, control->account, RESOURCE_WATCHES);
        refuse(control, command, received, audit, &ack);
    }
}

static void execute_remove(struct control *control, struct endpoint *endpoint, const struct vmibus_frame *command,
                           uint64_t received, uint64_t audit) {
    struct watch *watch = watch_find(table_of(endpoint), command->watch.watch);
    struct vmibus_ack ack = verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_WATCH, command->watch.watch);

    if (!watch || watch->control != control || watch->endpoint != endpoint || watch->state != WATCH_GOES_ON) {
        refuse(control, command, received, audit, &ack);
        return;
    }
    if (!watch->sensor) {
        ack = (struct vmibus_ack){.value = watch->number};
        watch_free(watch);
        refuse(control, command, received, audit, &ack);
        return;
    }
    watch->state = WATCH_ENDS;
    watch_begin_command(watch, command, received, audit);
}

void watch_execute(struct control *control, struct endpoint *endpoint, const struct vmibus_frame *command, uint64_t received,
                   uint64_t audit) {
    struct vmibus_ack ack = verdict(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD, command->watch.operation);

    if (command->watch.operation == VMIBUS_WATCH_OPERATION_REMOVE)
        execute_remove(control, endpoint, command, received, audit);
    else if (command->watch.operation == VMIBUS_WATCH_OPERATION_ADD)
        execute_add(control, endpoint, command, received, audit);
    else
        refuse(control, command, received, audit, &ack);
}

void watch_not_begun(struct watch *watch) {
    if (watch->state == WATCH_BEGINS)
        watch_free(watch);
    else
        watch->state = WATCH_GOES_ON;
}

static uint64_t current_epoch(const struct endpoint *endpoint) {
    const struct retained *memctx = &endpoint->retained[RETAINED_MEMCTX];

    return memctx->present && memctx->frame.header.kind == VMIBUS_KIND_MEMCTX ? memctx->frame.memctx.epoch : 0;
}

/* Why a watch that the sensor has begun is over before its owner heard of it; error 0: it goes on. */
static struct vmibus_ack judge(const struct watch *watch, const struct vmibus_ack *ack) {
    if (!watch->control)
        return verdict(VMIBUS_ERROR_GONE, VMIBUS_REASON_DISCONNECTED, 0);
    if (!is_provided(watch))
        return verdict(VMIBUS_ERROR_GONE, VMIBUS_REASON_WITHDRAWN, 0);
    if (!may_watch(watch))
        return verdict(VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, VMIBUS_CAP_WATCH);
    if (ack->epoch && ack->epoch != current_epoch(watch->endpoint))
        return verdict(VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE, ack->epoch);
    return (struct vmibus_ack){};
}

struct watch *watch_answered(struct watch *watch, struct vmibus_ack *ack) {
    struct vmibus_ack refusal;

    if (watch->state == WATCH_ENDS || ack->error) {
        watch_free(watch);
        return NULL;
    }
    refusal = judge(watch, ack);
    if (refusal.error) {
        refusal.received = ack->received;
        refusal.started = ack->started;
        refusal.finished = ack->finished;
        *ack = refusal;
        return watch;
    }
    watch->state = WATCH_GOES_ON;
    watch->epoch = ack->epoch;
    ack->value = watch->number;
    return NULL;
}

bool watch_may_be_cancelled(const struct watch *watch) {
    return watch->state == WATCH_BEGINS;
}

/* --- what is told ------------------------------------------------------------------------------ */

void watch_hear(struct endpoint *endpoint, const struct sensor *sensor, struct vmibus_frame *frame, const void *tail) {
    struct watch *watch = watch_find(table_of(endpoint), frame->watch_changed.watch);

    if (!watch || watch->endpoint != endpoint || watch->sensor != sensor || watch->state != WATCH_GOES_ON)
        return;
    if (frame->watch_changed.flags & VMIBUS_WATCH_CHANGE_ENDED) {
        tell_end(watch, &frame->watch_changed);
        watch_free(watch);
        return;
    }
    frame->header.priority = VMIBUS_PRIORITY_NORMAL;
    endpoint_publish_to(endpoint, control_binding(watch->control, endpoint->slot, endpoint->generation), frame, tail);
}

void watch_see_taken(const struct control *control, const struct vmibus_frame *event) {
    const struct watch *watch = watch_find(&control->bus->watches, event->watch_changed.watch);
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_WATCH,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .flags = VMIBUS_FRAME_NO_ACK,
                   .slot = event->header.slot,
                   .generation = event->header.generation},
        .watch = {.watch = event->watch_changed.watch, .operation = VMIBUS_WATCH_OPERATION_GO_ON},
    };

    if (watch && watch->control == control && watch->state == WATCH_GOES_ON)
        watch->sensor->ops->send(watch->sensor, &frame, NULL);
}
