/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/hold.h"

#include <assert.h>

#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/command.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/sensor.h"
#include "util/clock.h"
#include "util/refusal.h"
#include "util/region.h"

static void progress(struct holding *holding);

/* --- answers ----------------------------------------------------------------------------------- */

static void answer_control(struct control *control, const struct hold *hold, const struct vmibus_ack *result) {
    struct vmibus_ack ack = *result;

    ack.received = ack.started = hold->received;
    ack.finished = clock_now();
    audit_finish(control->bus->audit, hold->audit, &ack);
    control_answer(control, &hold->header, &ack, NULL, 0, NULL, 0);
}

static void answer_authority(const struct hold *hold, const struct vmibus_ack *result) {
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_QUIESCE_STATE, .correlation = hold->name},
        .quiesce_state = {.error = result->error, .reason = result->reason},
    };

    bus_tell_link(hold->endpoint->bus, hold->endpoint, &frame, NULL);
}

static struct vmibus_ack verdict(enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    return (struct vmibus_ack){.error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};
}

/* --- one hold ---------------------------------------------------------------------------------- */

static void end_authority(struct hold *hold) {
    list_unlink(&hold->link);
    hold->name = 0;
}

static void hold_end(struct hold *hold) {
    if (!hold->control) {
        end_authority(hold);
        return;
    }
    list_unlink(&hold->link);
    list_unlink(&hold->control_link);
    charge_release(&hold->charge);
    region_give(&hold->control->region, hold, sizeof(*hold));
}

/* It is over before its time, or never was: the authority is told in either case, a control if it waits. */
static void hold_fail(struct hold *hold, const struct vmibus_ack *why) {
    struct control *control = hold->control;
    struct hold told = *hold;

    hold_end(hold);
    if (!control)
        answer_authority(&told, why);
    else if (!told.still)
        answer_control(control, &told, why);
}

static void fail_all(struct holding *holding, const struct vmibus_ack *why) {
    while (!list_is_empty(&holding->holds))
        hold_fail(list_first(&holding->holds, struct hold, link), why);
}

static void answer_leaving(struct holding *holding, const struct vmibus_ack *ack) {
    while (!list_is_empty(&holding->leaving)) {
        struct hold *hold = list_first(&holding->leaving, struct hold, link), told = *hold;

        hold_end(hold);
        answer_control(told.control, &told, ack);
    }
}

static struct hold *first_waiting(const struct holding *holding) {
    struct hold *hold;

    list_for_each(hold, &holding->holds, link)
        if (!hold->still)
            return hold;
    return NULL;
}

static void come_into_force(struct holding *holding) {
    const struct vmibus_ack ack = {};
    struct hold *hold;

    while ((hold = first_waiting(holding))) {
        hold->still = true;
        hold->expires = clock_now() + holding->endpoint->bus->options.hold_ms * NS_PER_MS;
        if (hold->control)
            answer_control(hold->control, hold, &ack);
        else
            answer_authority(hold, &ack);
    }
}

/* --- the provider ------------------------------------------------------------------------------ */

static void set_timer(struct holding *holding, uint64_t ms) {
    if (loop_timer_set(&holding->timer, clock_now() + ms * NS_PER_MS) < 0)
        loop_timer_cancel(&holding->timer);
}

/* The answer may come before this returns. */
static void ask(struct holding *holding, enum vmibus_vm_operation operation) {
    struct endpoint *endpoint = holding->endpoint;

    holding->asked = true;
    set_timer(holding, endpoint->bus->options.drain_ms);
    command_begin_hold(endpoint, holding->sensor, operation);
}

static void begin(struct holding *holding) {
    const struct vmibus_ack nobody = verdict(VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_NO_PROVIDER, VMIBUS_GROUP_POWER);

    holding->sensor = endpoint_provider(holding->endpoint, VMIBUS_GROUP_POWER);
    if (!holding->sensor && claims_promise(holding->endpoint, VMIBUS_GROUP_POWER))
        return; /* hold_see_providers() */
    if (!holding->sensor) {
        fail_all(holding, &nobody);
        return;
    }
    holding->state = HOLDING_STOPPING;
    holding->endpoint->bus->n_held++;
    ask(holding, VMIBUS_VM_OPERATION_HOLD);
}

static void finish(struct holding *holding) {
    loop_timer_cancel(&holding->timer);
    holding->state = HOLDING_NONE;
    holding->sensor = NULL;
    holding->asked = false;
    holding->endpoint->bus->n_held--;
}

static void let_go(struct holding *holding) {
    holding->state = HOLDING_ENDING;
    if (holding->sensor)
        ask(holding, VMIBUS_VM_OPERATION_LET_GO);
    else
        set_timer(holding, HOLD_RETRY_MS);
}

/* Does what the holds that there are ask for. Nothing is held without a bound. */
static void progress(struct holding *holding) {
    const struct vmibus_ack unbounded = verdict(VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_QUIESCE_FAILED, 0);
    bool wanted = !list_is_empty(&holding->holds);

    switch (holding->state) {
    case HOLDING_NONE:
        if (wanted)
            begin(holding);
        break;
    case HOLDING_STILL:
        if (wanted && loop_timer_set(&holding->timer, list_first(&holding->holds, struct hold, link)->expires) < 0)
            fail_all(holding, &unbounded);
        if (list_is_empty(&holding->holds))
            let_go(holding);
        break;
    case HOLDING_STOPPING:
    case HOLDING_ENDING:
        /* Whoever comes after patience has run out has as much of it as the first one. */
        if (wanted && !loop_timer_is_armed(&holding->timer))
            set_timer(holding, holding->endpoint->bus->options.drain_ms);
        break;
    }
}

/* A provider that does not know how is told from one that cannot now. */
static struct vmibus_ack reason_of_failure(const struct vmibus_ack *ack) {
    bool unknown = ack->error == VMIBUS_ERROR_UNSUPPORTED || ack->error == VMIBUS_ERROR_VALIDATION;

    return verdict(unknown ? VMIBUS_ERROR_UNSUPPORTED : VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED, ack->value);
}

static void stopped(struct holding *holding, const struct vmibus_ack *ack) {
    const struct vmibus_ack failure = reason_of_failure(ack);

    loop_timer_cancel(&holding->timer);
    if (ack->error) {
        finish(holding);
        fail_all(holding, &failure);
    } else {
        holding->state = HOLDING_STILL;
        come_into_force(holding);
    }
    progress(holding);
}

static void gone_on(struct holding *holding, const struct vmibus_ack *ack) {
    const struct vmibus_ack failure = reason_of_failure(ack);

    if (ack->error) {
        set_timer(holding, HOLD_RETRY_MS);
        answer_leaving(holding, &failure);
        fail_all(holding, &failure);
        return;
    }
    finish(holding);
    answer_leaving(holding, ack);
    progress(holding);
}

void hold_answered(struct endpoint *endpoint, enum vmibus_vm_operation operation, const struct vmibus_ack *ack) {
    struct holding *holding = &endpoint->holding;

    if (!holding->asked)
        return; /* the holding ended with its sensor or its endpoint */
    holding->asked = false;
    if (operation == VMIBUS_VM_OPERATION_HOLD)
        stopped(holding, ack);
    else
        gone_on(holding, ack);
}

void hold_see_state(struct endpoint *endpoint, const struct sensor *sensor, enum vmibus_vm_state state) {
    struct holding *holding = &endpoint->holding;
    struct vmibus_ack broken;

    if (holding->state != HOLDING_STILL || holding->sensor != sensor ||
        (state != VMIBUS_VM_STATE_RUNNING && state != VMIBUS_VM_STATE_MIGRATING))
        return;
    broken = verdict(VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED, 0);
    fail_all(holding, &broken);
    progress(holding);
}

void hold_drop_sensor(struct endpoint *endpoint, const struct sensor *sensor) {
    const struct vmibus_ack gone = verdict(VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED, 0);
    struct holding *holding = &endpoint->holding;

    if (holding->state == HOLDING_NONE || holding->sensor != sensor)
        return;
    finish(holding);
    answer_leaving(holding, &gone);
    fail_all(holding, &gone);
}

void hold_leave_sensor(struct endpoint *endpoint, const struct sensor *sensor) {
    struct holding *holding = &endpoint->holding;

    if (holding->state == HOLDING_STILL && holding->sensor == sensor && sensor->keeps)
        holding->sensor = NULL; /* hold_see_providers() */
    else
        hold_drop_sensor(endpoint, sensor);
}

/* --- over a restart ---------------------------------------------------------------------------- */

int hold_take_over(struct control *control, const struct hold *as) {
    struct holding *holding = &as->endpoint->holding;
    struct hold *hold, *other;
    void *memory;
    int r = region_take(&control->region, sizeof(*hold), &memory);

    if (r)
        return r;
    hold = memory;
    *hold = *as;
    hold->control = control;
    hold->charge = (struct charge){};
    list_init(&hold->link);
    list_init(&hold->control_link);
    r = charge_take(&hold->charge, control->account, RESOURCE_HOLDS, 1);
    if (r) {
        region_give(&control->region, hold, sizeof(*hold));
        return r;
    }
    list_append(&control->holds, &hold->control_link);
    list_for_each(other, &holding->holds, link)
        if (other->place > hold->place) {
            list_insert_between(&hold->link, other->link.previous, &other->link);
            return 0;
        }
    list_append(&holding->holds, &hold->link);
    return 0;
}

void hold_take_over_state(struct holding *holding, enum holding_state state) {
    /* Whoever was being asked has been ended without an answer. */
    if (state == HOLDING_NONE || state == HOLDING_STOPPING || holding->state != HOLDING_NONE)
        return;
    holding->state = state;
    holding->endpoint->bus->n_held++;
}

void hold_go_on(struct holding *holding) {
    if (holding->state == HOLDING_ENDING)
        set_timer(holding, HOLD_RETRY_MS);
    else
        progress(holding);
}

void hold_see_providers(struct endpoint *endpoint) {
    const struct vmibus_ack gone = verdict(VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED, 0);
    struct holding *holding = &endpoint->holding;

    if (holding->sensor || claims_promise(endpoint, VMIBUS_GROUP_POWER))
        return;
    if (holding->state != HOLDING_NONE)
        holding->sensor = endpoint_provider(endpoint, VMIBUS_GROUP_POWER);
    if (holding->state != HOLDING_NONE && !holding->sensor) {
        finish(holding);
        answer_leaving(holding, &gone);
        fail_all(holding, &gone);
    }
    progress(holding);
}

void hold_end_all(struct endpoint *endpoint) {
    const struct vmibus_ack restarted = verdict(VMIBUS_ERROR_BUSY, VMIBUS_REASON_RESTARTED, 0);

    fail_all(&endpoint->holding, &restarted);
    progress(&endpoint->holding);
}

/* --- time -------------------------------------------------------------------------------------- */

static void end_overdue(struct holding *holding) {
    const struct vmibus_ack over = verdict(VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_QUIESCE_FAILED, 0);
    uint64_t now = clock_now();
    struct hold *hold;

    while ((hold = list_first(&holding->holds, struct hold, link)) && hold->expires <= now)
        hold_fail(hold, &over);
}

static void timer_came(struct loop_timer *timer) {
    const struct vmibus_ack late = verdict(VMIBUS_ERROR_BUSY, VMIBUS_REASON_QUIESCE_FAILED, 0);
    struct holding *holding = container_of(timer, struct holding, timer);

    if (holding->asked) {
        /* What it says in the end is acted upon; nobody waits for it any longer. */
        answer_leaving(holding, &late);
        fail_all(holding, &late);
    } else if (holding->state == HOLDING_ENDING) {
        let_go(holding);
    } else {
        end_overdue(holding);
        progress(holding);
    }
}

/* --- holders ----------------------------------------------------------------------------------- */

static void execute_hold(struct control *control, const struct hold *asked) {
    struct holding *holding = &asked->endpoint->holding;
    struct vmibus_ack ack = {};
    struct hold *hold;
    void *memory;
    int r = region_take(&control->region, sizeof(*hold), &memory);

    if (r) {
        (void)region_refusal(&ack, r, &control->region);
        answer_control(control, asked, &ack);
        return;
    }
    hold = memory;
    *hold = *asked;
    list_init(&hold->link);
    list_init(&hold->control_link);
    r = charge_take(&hold->charge, control->account, RESOURCE_HOLDS, 1);
    if (r) {
        region_give(&control->region, hold, sizeof(*hold));
        (void)refusal_of_charge(&ack, r, control->account, RESOURCE_HOLDS);
        answer_control(control, asked, &ack);
        return;
    }
    hold->control = control;
    list_append(&holding->holds, &hold->link);
    list_append(&control->holds, &hold->control_link);
    if (holding->state == HOLDING_STILL)
        come_into_force(holding);
    progress(holding);
}

/* The control's oldest hold here, of those in force if there is one. */
static struct hold *hold_of(const struct control *control, const struct endpoint *endpoint) {
    struct hold *hold, *found = NULL;

    list_for_each(hold, &control->holds, control_link) {
        if (hold->endpoint == endpoint && hold->still)
            return hold;
        if (hold->endpoint == endpoint && !found)
            found = hold;
    }
    return found;
}

/* Whoever lets go last is answered once the guest goes on. */
static void leave_last(struct hold *hold, const struct hold *asked) {
    struct holding *holding = &hold->endpoint->holding;

    list_unlink(&hold->link);
    list_unlink(&hold->control_link);
    hold->header = asked->header;
    hold->received = asked->received;
    hold->audit = asked->audit;
    list_append(&holding->leaving, &hold->link);
    list_append(&hold->control->departures, &hold->control_link);
    progress(holding);
}

static void execute_let_go(struct control *control, const struct hold *asked) {
    const struct vmibus_ack done = {}, cancelled = verdict(VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, 0),
                            nothing = verdict(VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_QUIESCE_FAILED, 0);
    struct holding *holding = &asked->endpoint->holding;
    struct hold *hold = hold_of(control, asked->endpoint);

    if (!hold) {
        answer_control(control, asked, &nothing);
        return;
    }
    if (hold->still && holding->holds.next == holding->holds.previous) {
        leave_last(hold, asked);
        return;
    }
    hold_fail(hold, &cancelled);
    answer_control(control, asked, &done);
    progress(holding);
}

void hold_execute(struct control *control, struct endpoint *endpoint, const struct vmibus_frame *command, uint64_t received,
                  uint64_t audit) {
    const struct hold asked = {.endpoint = endpoint, .header = command->header, .received = received, .audit = audit};

    if (command->cmd_vm.operation == VMIBUS_VM_OPERATION_HOLD)
        execute_hold(control, &asked);
    else
        execute_let_go(control, &asked);
}

void hold_hear_link(struct endpoint *endpoint, const struct vmibus_frame *frame) {
    struct holding *holding = &endpoint->holding;
    struct hold *hold = &holding->authority;
    uint64_t name = frame->header.correlation;

    if (frame->header.kind == VMIBUS_KIND_QUIESCE_END) {
        if (name && hold->name == name)
            end_authority(hold);
    } else {
        if (hold->name)
            end_authority(hold); /* an authority that began anew knows nothing of it */
        hold->name = name;
        hold->still = false;
        list_append(&holding->holds, &hold->link);
        if (holding->state == HOLDING_STILL)
            come_into_force(holding);
    }
    progress(holding);
}

void hold_drop_authority(struct endpoint *endpoint) {
    struct hold *hold = &endpoint->holding.authority;

    if (!hold->name)
        return;
    end_authority(hold);
    progress(&endpoint->holding);
}

void hold_drop_control(struct control *control) {
    const struct vmibus_ack gone = verdict(VMIBUS_ERROR_GONE, VMIBUS_REASON_DISCONNECTED, 0);

    while (!list_is_empty(&control->holds)) {
        struct hold *hold = list_first(&control->holds, struct hold, control_link);
        struct holding *holding = &hold->endpoint->holding;

        hold_fail(hold, &gone);
        progress(holding);
    }
    while (!list_is_empty(&control->departures)) {
        struct hold *hold = list_first(&control->departures, struct hold, control_link), told = *hold;

        hold_end(hold);
        answer_control(control, &told, &gone);
    }
}

void hold_revoke_ungranted(struct endpoint *endpoint) {
    const struct vmibus_ack denied = verdict(VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_CAPABILITY, VMIBUS_CAP_QUIESCE);
    struct holding *holding = &endpoint->holding;
    struct hold *hold, *following;

    list_for_each_safe(hold, following, &holding->holds, link) {
        const struct binding *binding;

        if (!hold->control)
            continue;
        binding = control_binding(hold->control, endpoint->slot, endpoint->generation);
        if (!binding || !(binding->grant.capabilities & VMIBUS_CAP_QUIESCE))
            hold_fail(hold, &denied);
    }
    progress(holding);
}

/* --- coming and going -------------------------------------------------------------------------- */

void holding_init(struct holding *holding, struct endpoint *endpoint) {
    *holding = (struct holding){.endpoint = endpoint, .authority = {.endpoint = endpoint}};
    list_init(&holding->holds);
    list_init(&holding->leaving);
    list_init(&holding->authority.link);
    list_init(&holding->authority.control_link);
    loop_timer_init(&holding->timer, endpoint->bus->loop, timer_came);
}

void holding_deinit(struct holding *holding) {
    const struct vmibus_ack gone = verdict(VMIBUS_ERROR_GONE, VMIBUS_REASON_WITHDRAWN, 0);

    if (holding->state != HOLDING_NONE)
        finish(holding);
    answer_leaving(holding, &gone);
    fail_all(holding, &gone);
    assert(list_is_empty(&holding->holds));
}
