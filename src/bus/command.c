/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/command.h"

#include <assert.h>
#include <string.h>

#include <vmibus/names.h>

#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/hold.h"
#include "bus/lease.h"
#include "bus/pressed.h"
#include "bus/provider.h"
#include "bus/sensor.h"
#include "bus/watch.h"
#include "util/clock.h"
#include "util/deadline.h"
#include "util/refusal.h"

/* An id is a position in the lower half and a number of its own in the upper: an answer to a past use finds nobody. */
#define ID_POSITION(id) ((uint32_t)(id))

int command_table_init(struct command_table *table, struct bus *bus, uint32_t capacity) {
    struct arena *arena = bus->options.arena;
    int r;

    *table = (struct command_table){.bus = bus};
    r = pool_init(&table->pool, arena, sizeof(struct command), capacity);
    if (r == 0)
        r = pool_init(&table->id_room, arena, capacity * sizeof(*table->ids), 1);
    if (r < 0) {
        command_table_deinit(table);
        return r;
    }
    table->ids = pool_take(&table->id_room); /* of zeros: it is taken once, and the arena began so */
    return 0;
}

size_t command_table_cost(uint32_t capacity) {
    return arena_cost(sizeof(struct command), capacity) + arena_cost(capacity * sizeof(uint64_t), 1);
}

void command_table_deinit(struct command_table *table) {
    if (table->ids)
        pool_give(&table->id_room, table->ids);
    pool_deinit(&table->id_room);
    pool_deinit(&table->pool);
    table->ids = NULL;
}

static struct command *command_take(struct command_table *table) {
    struct command *command = pool_take(&table->pool);
    size_t position;

    if (!command)
        return NULL;
    if (++table->n_uses == 0)
        table->n_uses++;
    position = (size_t)((char *)command - table->pool.memory) / table->pool.block_size;
    command->id = table->ids[position] = (uint64_t)table->n_uses << 32 | position;
    command->control = NULL;
    command->sensor = NULL;
    command->lease = NULL;
    command->watch = NULL;
    command->group = 0;
    command->expects = false;
    command->tail = NULL;
    command->account = NULL;
    command->charge = (struct charge){};
    command->audit = 0;
    command->waiter = (struct audit_waiter){};
    list_init(&command->control_link);
    list_init(&command->endpoint_link);
    return command;
}

static void command_give(struct command *command) {
    struct command_table *table = &command->endpoint->bus->commands;

    loop_timer_cancel(&command->timer);
    audit_waiter_cancel(&command->waiter);
    if (command->control)
        command->control->n_commands--;
    list_unlink(&command->control_link);
    list_unlink(&command->endpoint_link);
    command->tail = tail_unref(command->tail);
    charge_release(&command->charge);
    command->account = account_unref(command->account);
    table->ids[ID_POSITION(command->id)] = 0;
    pool_give(&table->pool, command);
}

/* A provider that is lost has not released anything; if there is a next one, that will. */
static void input_released(const struct command *command, const struct vmibus_ack *ack) {
    struct endpoint *endpoint = command->endpoint;
    bool released = !ack->error || ack->reason == VMIBUS_REASON_GUEST_PAUSED;

    if (released)
        endpoint->pressed = (struct pressed){};
    lease_input_answered(command->lease, released || (ack->error == VMIBUS_ERROR_GONE && !endpoint->passing_on));
}

/* What waits for the end of a command, of a control's or of the bus's own; of a watch's it was told before the answer. */
static void command_ended(const struct command *command, const struct vmibus_ack *ack) {
    switch (command->purpose) {
    case COMMAND_LEASED:
        lease_command_end(command->lease);
        break;
    case COMMAND_RELEASE:
        input_released(command, ack);
        break;
    case COMMAND_KEYS_UP:
        if (!ack->error)
            command->endpoint->pressed = (struct pressed){};
        break;
    case COMMAND_HOLD:
        hold_answered(command->endpoint, (enum vmibus_vm_operation)command->frame.cmd_vm.operation, ack);
        break;
    case COMMAND_REWATCH:
        watch_begun_anew(command->watch, command->sensor, ack);
        break;
    case COMMAND_ASKED:
    case COMMAND_WATCH:
    case COMMAND_UNWATCH:
        break;
    }
}

/* Answers and ends a command; then its lease may be drained, which may begin the next command, so that comes last. */
static void command_end(struct command *command, const struct command_result *result) {
    struct endpoint *endpoint = command->endpoint;
    struct bus *bus = endpoint->bus;
    uint64_t generation = endpoint->generation;
    uint32_t slot = endpoint->slot;
    struct watch *unwanted = NULL;
    struct command copy;
    struct vmibus_ack ack = *result->ack;

    ack.received = command->received;
    if (command->watch && command->sensor && command->purpose != COMMAND_REWATCH)
        unwanted = watch_answered(command->watch, &ack);
    else if (command->watch && command->purpose != COMMAND_REWATCH)
        watch_not_begun(command->watch);
    if (!ack.started)
        ack.started = command->started ? command->started : command->received;
    if (!ack.finished)
        ack.finished = clock_now();
    audit_finish(endpoint->bus->audit, command->audit, &ack);
    if (command->control)
        control_answer(command->control, &command->frame.header, &ack, ack.error ? NULL : result->tail,
                       ack.error ? 0 : result->tail_length, ack.error ? NULL : result->fds, ack.error ? 0 : result->n_fds);
    copy = *command;
    command_give(command);
    command_ended(&copy, &ack);
    if (unwanted)
        watch_remove(unwanted);
    if (bus->endpoints[slot] == endpoint && endpoint->generation == generation)
        providers_see_idle(endpoint);
}

static void command_end_ack(struct command *command, const struct vmibus_ack *ack) {
    command_end(command, &(struct command_result){.ack = ack});
}

static void command_end_with(struct command *command, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    const struct vmibus_ack ack = {.error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};

    command_end_ack(command, &ack);
}

static void note_pressed(const struct command *command, const void *tail) {
    const struct vmibus_cmd_input *input = &command->frame.cmd_input;

    if (command->frame.header.kind != VMIBUS_KIND_CMD_INPUT)
        return;
    for (size_t i = 0; i < input->count; i++) {
        struct vmibus_input_event event;

        memcpy(&event, (tail ? (const char *)tail : (const char *)input->events) + i * sizeof(event), sizeof(event));
        pressed_note(&command->endpoint->pressed, &event);
    }
}

static void command_send(struct command *command, struct sensor *sensor, const void *tail) {
    struct vmibus_frame frame = command->frame;

    note_pressed(command, tail);
    audit_note_begun(command->endpoint->bus->audit, command->audit);
    command->sensor = sensor;
    command->started = clock_now();
    frame.header.correlation = command->id;
    if (command->watch)
        command->watch->sensor = sensor;
    sensor->ops->send(sensor, &frame, tail);
}

/* Whose provider executes it, the bus's own ones too; 0: it is for a sensor, not for a provider. */
static uint32_t command_group(const struct command *command) {
    switch (command->frame.header.kind) {
    case VMIBUS_KIND_CMD_INPUT:
    case VMIBUS_KIND_INPUT_RELEASE:
        return VMIBUS_GROUP_INPUT;
    case VMIBUS_KIND_CMD_POWER:
    case VMIBUS_KIND_CMD_VM:
        return VMIBUS_GROUP_POWER;
    case VMIBUS_KIND_SCREENSHOT:
        return VMIBUS_GROUP_SCREEN;
    case VMIBUS_KIND_REGISTERS:
        return VMIBUS_GROUP_REGISTERS;
    case VMIBUS_KIND_WATCH:
        return VMIBUS_GROUP_WATCH;
    default:
        return 0;
    }
}

bool command_is_under_way(const struct endpoint *endpoint, const struct sensor *sensor, uint32_t group) {
    const struct command *command;

    list_for_each(command, &endpoint->commands, endpoint_link)
        if (command->sensor == sensor && command_group(command) & group)
            return true;
    return false;
}

static uint64_t command_token(const struct vmibus_frame *frame) {
    switch (frame->header.kind) {
    case VMIBUS_KIND_CMD_INPUT:
        return frame->cmd_input.token;
    case VMIBUS_KIND_CMD_POWER:
        return frame->cmd_power.token;
    default:
        return frame->cmd_vm.token;
    }
}

static bool is_for_sensor(const struct command *command) {
    return command->frame.header.kind == VMIBUS_KIND_CMD_MONITOR;
}

/* One that is for a sensor as such has no provider: it was parked only until its intent was recorded. */
static void command_go_on_to_sensor(struct command *command) {
    uint32_t needed = vmibus_frame_describe(VMIBUS_KIND_CMD_MONITOR)->capability;
    struct vmibus_ack refusal = {};
    struct sensor *sensor = sensor_named(command->endpoint->bus, (const char *)command->frame.cmd_monitor.sensor, &refusal);

    if (deadline_has_passed(&command->frame.header, clock_now()))
        command_end_with(command, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, command->frame.header.deadline_us);
    else if (!(command->control->grant.capabilities & needed))
        command_end_with(command, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, needed);
    else if (!sensor)
        command_end_ack(command, &refusal);
    else
        command_send(command, sensor, command->tail ? command->tail->data : NULL);
}

/* What was checked at receipt is checked again. */
static void command_go_on(struct command *command) {
    struct sensor *sensor;
    enum vmibus_reason reason = VMIBUS_REASON_NONE;
    enum vmibus_error error = VMIBUS_ERROR_OK;

    if (is_for_sensor(command)) {
        command_go_on_to_sensor(command);
        return;
    }
    sensor = endpoint_provider(command->endpoint, command->group);
    if (command->lease)
        error = lease_check(command->lease, command->control, command_token(&command->frame), &reason);
    command->expects = !error && !sensor && claims_promise(command->endpoint, command->group);
    if (command->expects)
        return;
    if (error)
        command_end_with(command, error, reason, 0);
    else if (deadline_has_passed(&command->frame.header, clock_now()))
        command_end_with(command, VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_NONE, command->frame.header.deadline_us);
    else if (!sensor)
        command_end_with(command, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NO_PROVIDER, 0);
    else
        command_send(command, sensor, command->tail ? command->tail->data : NULL);
}

static void command_time_came(struct loop_timer *timer) {
    command_go_on(container_of(timer, struct command, timer));
}

/* When input may be applied; the sender's sum saturates, as a deadline does. */
static uint64_t not_before_of(const struct vmibus_frame *frame) {
    uint64_t not_before;

    if (frame->cmd_input.not_before_us == 0)
        return 0;
    if (__builtin_add_overflow(frame->header.timestamp, frame->cmd_input.not_before_us * NS_PER_US, &not_before))
        return UINT64_MAX;
    return not_before;
}

/* As region_take(). */
static int command_keep_tail(struct command *command, const void *tail) {
    const struct vmibus_header *header = &command->frame.header;

    if (!header->tail_length)
        return 0;
    return tail_new(&command->tail, &command->endpoint->bus->events.tails, command->account, tail, header->tail_length);
}

/* As region_take(). */
static int command_wait(struct command *command, const void *tail) {
    int r = command_keep_tail(command, tail);

    if (r || command->expects)
        return r;
    return loop_timer_set(&command->timer, not_before_of(&command->frame)) < 0 ? REGION_FULL : 0;
}

/* Its intent is on the disk, or policy lets it go on without, or it must not be executed. */
static void command_recorded(struct audit_waiter *waiter, int error) {
    struct command *command = container_of(waiter, struct command, waiter);
    bool early = command->frame.header.kind == VMIBUS_KIND_CMD_INPUT && not_before_of(&command->frame) > clock_now();
    struct vmibus_ack refusal = {};

    if (error)
        audit_refuse(&refusal, error);
    else if (early && loop_timer_set(&command->timer, not_before_of(&command->frame)) < 0)
        (void)region_refusal(&refusal, REGION_FULL, &command->control->region);
    if (refusal.error)
        command_end_ack(command, &refusal);
    else if (!early)
        command_go_on(command);
}

/*
 * What a lease is needed for, or what has a sensor follow a VM or none, is not begun before its intent is recorded as policy wants
 * it.  True: it waits for that, or has been refused and answered.
 */
static bool command_waits_for_record(struct command *command, const void *tail) {
    struct audit *audit = command->endpoint->bus->audit;
    struct vmibus_ack refusal = {};
    enum audit_answer answer;
    int r;

    if (!command->lease && !is_for_sensor(command))
        return false;
    command->waiter.recorded = command_recorded;
    command->waiter.deadline = deadline_of(&command->frame.header);
    answer = audit_require(audit, command->audit, &command->waiter, &refusal);
    if (answer == AUDIT_GO_ON)
        return false;
    command->expects = false; /* it is asked again then */
    r = answer == AUDIT_WAIT ? command_keep_tail(command, tail) : 0;
    if (r)
        (void)region_refusal(&refusal, r, &command->control->region);
    if (refusal.error)
        command_end_ack(command, &refusal);
    return true;
}

static void refuse_unbegun(struct control *control, const struct vmibus_frame *frame, uint64_t received, uint64_t audit,
                           struct vmibus_ack *ack) {
    ack->received = ack->started = received;
    ack->finished = clock_now();
    audit_finish(control->bus->audit, audit, ack);
    control_answer(control, &frame->header, ack, NULL, 0, NULL, 0);
}

/* Why a command to a sensor cannot begin at all; written into @a ack. */
static bool is_refused(const struct control *control, const struct sensor *sensor, const struct endpoint *endpoint, uint32_t group,
                       struct vmibus_ack *ack) {
    const struct bus *bus = control->bus;

    if (!sensor && !claims_promise(endpoint, group))
        *ack = (struct vmibus_ack){.error = VMIBUS_ERROR_UNSUPPORTED, .reason = VMIBUS_REASON_NO_PROVIDER, .value = group};
    else if (control->n_commands >= bus->options.commands)
        (void)refusal_of_bound(ack, VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_COMMANDS, bus->options.commands, control->n_commands,
                               control->principal.uid);
    else if (bus->commands.pool.in_use >= bus->commands.pool.capacity)
        (void)refusal_of_charge(ack, CHARGE_PRESSURE, control->account, RESOURCE_COMMANDS);
    return ack->error;
}

static struct command *command_of(const struct command_request *request) {
    struct control *control = request->control;
    struct endpoint *endpoint = request->endpoint;
    struct command *command = command_take(&endpoint->bus->commands);

    command->purpose = request->lease ? COMMAND_LEASED : request->watch ? COMMAND_WATCH : COMMAND_ASKED;
    command->endpoint = endpoint;
    command->control = control;
    command->account = account_ref(control->account);
    command->lease = request->lease;
    command->watch = request->watch;
    command->group = request->group;
    command->frame = *request->frame;
    command->received = request->received;
    command->started = 0;
    command->audit = request->audit;
    loop_timer_init(&command->timer, endpoint->bus->loop, command_time_came);
    list_append(&control->commands, &command->control_link);
    list_append(&endpoint->commands, &command->endpoint_link);
    control->n_commands++;
    if (request->lease)
        lease_command_begin(request->lease);
    return command;
}

void command_begin(const struct command_request *request) {
    struct control *control = request->control;
    struct sensor *sensor = request->sensor ? request->sensor : endpoint_provider(request->endpoint, request->group);
    const struct vmibus_frame *frame = request->frame;
    bool waits = frame->header.kind == VMIBUS_KIND_CMD_INPUT && not_before_of(frame) > request->received;
    struct vmibus_ack refusal = {};
    struct command *command;
    int r;

    if (is_refused(control, sensor, request->endpoint, request->group, &refusal)) {
        if (request->watch)
            watch_not_begun(request->watch);
        refuse_unbegun(control, frame, request->received, request->audit, &refusal);
        return;
    }
    command = command_of(request);
    command->expects = !sensor && !waits;
    r = charge_take(&command->charge, control->account, RESOURCE_COMMANDS, 1);
    if (r) {
        (void)refusal_of_charge(&refusal, r, control->account, RESOURCE_COMMANDS);
        command_end_ack(command, &refusal);
    } else if (command_waits_for_record(command, request->tail)) {
        return;
    } else if (!waits && sensor) {
        command_send(command, sensor, request->tail);
    } else {
        r = command_wait(command, request->tail);
        if (r) {
            refusal = (struct vmibus_ack){};
            (void)region_refusal(&refusal, r, &control->region);
            command_end_ack(command, &refusal);
        }
    }
}

/* A command in the bus's own name. NULL: there is no room. */
static struct command *command_take_own(struct endpoint *endpoint, enum command_purpose purpose, enum vmibus_kind kind) {
    struct command *command = command_take(&endpoint->bus->commands);

    if (!command)
        return NULL;
    command->endpoint = endpoint;
    command->purpose = purpose;
    command->received = clock_now();
    command->frame = (struct vmibus_frame){
        .header = {.kind = (uint16_t)kind,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .priority = VMIBUS_PRIORITY_URGENT,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .slot = endpoint->slot,
                   .generation = endpoint->generation,
                   .timestamp = command->received},
    };
    loop_timer_init(&command->timer, endpoint->bus->loop, command_time_came);
    list_append(&endpoint->commands, &command->endpoint_link);
    return command;
}

void command_begin_input_release(struct endpoint *endpoint, struct lease *lease) {
    struct sensor *sensor = endpoint_provider(endpoint, VMIBUS_GROUP_INPUT);
    struct command *command;

    if (!sensor) {
        /* Nobody pressed what nobody provides; whoever is waited for may have. */
        lease_input_answered(lease, !claims_promise(endpoint, VMIBUS_GROUP_INPUT));
        return;
    }
    command = command_take_own(endpoint, COMMAND_RELEASE, VMIBUS_KIND_INPUT_RELEASE);
    if (!command) {
        lease_input_answered(lease, false);
        return;
    }
    command->lease = lease;
    command_send(command, sensor, NULL);
}

/* Without room they stay as they are, until the lease ends. */
void command_begin_key_release(struct endpoint *endpoint) {
    struct vmibus_input_event events[PRESSED_CODES];
    size_t n = pressed_releases(&endpoint->pressed, events);
    struct sensor *sensor = endpoint_provider(endpoint, VMIBUS_GROUP_INPUT);
    struct command *command;

    if (!n || !sensor)
        return;
    command = command_take_own(endpoint, COMMAND_KEYS_UP, VMIBUS_KIND_CMD_INPUT);
    if (!command)
        return;
    command->frame.cmd_input.count = (uint16_t)n;
    if (n <= sizeof(command->frame.cmd_input.events) / sizeof(events[0]))
        memcpy(command->frame.cmd_input.events, events, n * sizeof(events[0]));
    else
        command->frame.header.tail_length = (uint32_t)(n * sizeof(events[0]));
    command_send(command, sensor, command->frame.header.tail_length ? events : NULL);
}

void command_begin_hold(struct endpoint *endpoint, struct sensor *sensor, enum vmibus_vm_operation operation) {
    const struct vmibus_ack full = {.error = VMIBUS_ERROR_PRESSURE, .reason = VMIBUS_REASON_LIMIT_COMMANDS};
    struct command *command = command_take_own(endpoint, COMMAND_HOLD, VMIBUS_KIND_CMD_VM);

    if (!command) {
        hold_answered(endpoint, operation, &full);
        return;
    }
    command->frame.cmd_vm.operation = (uint8_t)operation;
    command_send(command, sensor, NULL);
}

void command_begin_unwatch(struct endpoint *endpoint, struct sensor *sensor, struct watch *watch, uint32_t number) {
    struct command *command = command_take_own(endpoint, COMMAND_UNWATCH, VMIBUS_KIND_WATCH);

    assert(command); /* there is one for each watch */
    command->watch = watch;
    command->frame.watch.operation = VMIBUS_WATCH_OPERATION_REMOVE;
    command->frame.watch.watch = number;
    command_send(command, sensor, NULL);
}

void command_begin_rewatch(struct endpoint *endpoint, struct sensor *sensor, struct watch *watch,
                           const struct vmibus_watch *request) {
    struct command *command = command_take_own(endpoint, COMMAND_REWATCH, VMIBUS_KIND_WATCH);

    assert(command); /* there is one for each watch */
    command->watch = watch;
    command->frame.watch = *request;
    command->frame.watch.operation = VMIBUS_WATCH_OPERATION_ADD;
    command->frame.watch.watch = watch->number;
    command_send(command, sensor, NULL);
}

/* --- over a restart ---------------------------------------------------------------------------- */

void command_see_providers(struct endpoint *endpoint) {
    struct command *command;
    bool again;

    /* Ending one command may begin or end others, so the search starts anew after each. */
    do {
        again = false;
        list_for_each(command, &endpoint->commands, endpoint_link)
            if (command->expects && (endpoint_provider(endpoint, command->group) || !claims_promise(endpoint, command->group))) {
                command_go_on(command);
                again = true;
                break;
            }
    } while (again);
}

int command_take_over(const struct command_request *request) {
    struct command *command;
    int r;

    if (request->endpoint->bus->commands.pool.in_use >= request->endpoint->bus->commands.pool.capacity)
        return CHARGE_PRESSURE;
    command = command_of(request);
    command->expects = !(request->frame->header.kind == VMIBUS_KIND_CMD_INPUT && not_before_of(request->frame) > request->received);
    r = charge_take(&command->charge, request->control->account, RESOURCE_COMMANDS, 1);
    if (r == 0)
        r = command_wait(command, request->tail);
    return r; /* one that cannot be kept ends with its control */
}

void command_end_all(struct endpoint *endpoint) {
    struct command *command;
    bool again;

    do {
        again = false;
        list_for_each(command, &endpoint->commands, endpoint_link)
            if (command->sensor || audit_waiter_waits(&command->waiter)) {
                command_end_with(command, VMIBUS_ERROR_GONE, VMIBUS_REASON_RESTARTED, 0);
                again = true;
                break;
            }
    } while (again);
}

/* --- answers, and ends ------------------------------------------------------------------------- */

void command_complete(struct bus *bus, struct sensor *sensor, uint64_t id, const struct command_result *result) {
    struct command_table *table = &bus->commands;
    struct command *command;

    if (ID_POSITION(id) >= table->pool.capacity || table->ids[ID_POSITION(id)] != id || id == 0)
        return;
    command = (struct command *)(table->pool.memory + table->pool.block_size * ID_POSITION(id));
    if (command->sensor != sensor || !list_is_linked(&command->endpoint_link))
        return;
    command_end(command, result);
}

static void command_cancel(struct command *command) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_CANCEL,
                   .direction = VMIBUS_DIRECTION_DOWN,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .slot = command->endpoint->slot,
                   .generation = command->endpoint->generation,
                   .correlation = command->id},
    };

    command->sensor->ops->send(command->sensor, &frame, NULL);
}

void command_drop_control(struct control *control) {
    while (!list_is_empty(&control->commands)) {
        struct command *command = list_first(&control->commands, struct command, control_link);

        list_unlink(&command->control_link);
        control->n_commands--;
        command->control = NULL;
        if (!command->sensor)
            command_end_with(command, VMIBUS_ERROR_GONE, VMIBUS_REASON_DISCONNECTED, 0);
        else if (!command->watch || watch_may_be_cancelled(command->watch))
            command_cancel(command);
    }
}

void command_drop_waiting(struct lease *lease, enum vmibus_reason reason) {
    struct command *command, *following;

    list_for_each_safe(command, following, &lease->endpoint->commands, endpoint_link)
        if (command->lease == lease && !command->sensor)
            command_end_with(command, VMIBUS_ERROR_STALE_TOKEN, reason, lease->lease_class);
}

/* Ends the commands that match; sensor NULL: all. Ending one may begin or end others, so the search starts anew after each. */
static void drop(struct endpoint *endpoint, const struct sensor *sensor, uint32_t groups, enum vmibus_error error,
                 enum vmibus_reason reason) {
    struct command *command;
    bool again;

    do {
        again = false;
        list_for_each(command, &endpoint->commands, endpoint_link)
            if (!sensor || (command->sensor == sensor && (!endpoint->slot || command_group(command) & groups))) {
                command_end_with(command, error, reason, 0);
                again = true;
                break;
            }
    } while (again);
}

void command_drop_groups(struct endpoint *endpoint, const struct sensor *sensor, uint32_t groups, enum vmibus_error error,
                         enum vmibus_reason reason) {
    drop(endpoint, sensor, groups, error, reason);
}

void command_drop_endpoint(struct endpoint *endpoint) {
    drop(endpoint, NULL, UINT32_MAX, VMIBUS_ERROR_GONE, VMIBUS_REASON_WITHDRAWN);
}

static uint64_t oldest_of(const struct endpoint *endpoint, const struct sensor *sensor) {
    const struct command *command;
    uint64_t oldest = 0;

    list_for_each(command, &endpoint->commands, endpoint_link)
        if (command->sensor == sensor && (!oldest || command->started < oldest))
            oldest = command->started;
    return oldest;
}

uint64_t command_oldest(const struct sensor *sensor) {
    const struct provider *provider;
    uint64_t oldest = oldest_of(sensor->bus->endpoints[0], sensor);

    list_for_each(provider, &sensor->providers, sensor_link) {
        uint64_t started = oldest_of(provider->endpoint, sensor);

        if (started && (!oldest || started < oldest))
            oldest = started;
    }
    return oldest;
}
