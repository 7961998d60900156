/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/bus_home.h"

#include "bus/bus.h"
#include "transport/control_session.h"
#include "transport/sensor_session.h"
#include "util/list.h"

#define SENSOR_ANSWER_MS 30000

static struct bus_home *home_of(struct session_home *home) {
    return container_of(home, struct bus_home, home);
}

static const struct policy *bus_home_policy(const struct session_home *home) {
    return container_of(home, const struct bus_home, home)->bus->policy;
}

static bool may_control(const struct bus_home *home, const struct principal *principal) {
    return policy_evaluate_any(home->bus->policy, principal).capabilities != 0;
}

static bool may_be_sensor(const struct bus_home *home, const struct principal *principal) {
    return user_list_has(&home->bus->policy->sensor_users, principal);
}

static enum session_outcome deny(const struct session_request *request, struct frame_fault *fault) {
    *fault = (struct frame_fault){
        .error = VMIBUS_ERROR_DENIED, .reason = VMIBUS_REASON_NO_GRANT, .value = request->principal->uid};
    return SESSION_REFUSED;
}

/* Whom the policy names nowhere, and who may not be a sensor either, is not let in at all. */
static bool bus_home_admit(struct session_home *home, const struct principal *principal, struct frame_fault *fault) {
    if (may_control(home_of(home), principal) || may_be_sensor(home_of(home), principal))
        return true;
    *fault = (struct frame_fault){.error = VMIBUS_ERROR_DENIED, .reason = VMIBUS_REASON_NO_GRANT};
    return false;
}

static enum session_outcome refuse(int r, const struct vmibus_ack *refusal, struct frame_fault *fault) {
    *fault = (struct frame_fault){.error = r > 0 ? (enum vmibus_error)r : VMIBUS_ERROR_PRESSURE,
                                  .reason = r > 0 ? (enum vmibus_reason)refusal->reason : VMIBUS_REASON_NONE,
                                  .value = refusal->count,
                                  .bound = refusal->value};
    return SESSION_REFUSED;
}

static enum session_outcome open_sensor(struct bus_home *home, const struct session_request *request, struct frame_fault *fault) {
    struct vmibus_ack refusal = {};
    int r;

    if (!may_be_sensor(home, request->principal))
        return deny(request, fault);
    r = sensor_session_init((struct sensor_session *)request->session, home, request, &refusal);
    return r ? refuse(r, &refusal, fault) : SESSION_OPEN;
}

static enum session_outcome open_control(struct bus_home *home, const struct session_request *request, struct frame_fault *fault) {
    struct control_session *session = (struct control_session *)request->session;
    struct vmibus_ack refusal = {};
    int r;

    if (!may_control(home, request->principal))
        return deny(request, fault);
    r = control_session_init(session, home, request->principal, request->owner, &refusal);
    if (r)
        return refuse(r, &refusal, fault);
    if (control_session_welcome(session, &request->hello->header) == 0)
        return SESSION_OPEN;
    session->session.ops->deinit(&session->session);
    *fault = (struct frame_fault){.error = VMIBUS_ERROR_PRESSURE, .reason = VMIBUS_REASON_LIMIT_QUEUE};
    return SESSION_REFUSED;
}

static enum session_outcome bus_home_open(struct session_home *home, const struct session_request *request,
                                          struct frame_fault *fault) {
    const struct vmibus_hello *hello = &request->hello->hello;

    if (hello->role == VMIBUS_ROLE_CONTROL && hello->channel == VMIBUS_CHANNEL_BUS)
        return open_control(home_of(home), request, fault);
    if (hello->role == VMIBUS_ROLE_SENSOR && hello->channel == VMIBUS_CHANNEL_BUS)
        return open_sensor(home_of(home), request, fault);
    frame_refuse_role(request->hello, fault);
    return SESSION_REFUSED;
}

static bool bus_home_keeps(const struct session_home *home, const struct session *session) {
    (void)home;
    return session_is_control(session);
}

static void bus_home_save(struct session_home *home, struct session *session, struct handover_writer *writer) {
    (void)home;
    control_session_save((struct control_session *)session, writer);
}

static bool bus_home_take_over(struct session_home *home, const struct session_request *request, struct handover_records records) {
    return control_session_take_over((struct control_session *)request->session, home_of(home), request->principal, request->owner,
                                     records);
}

static const struct session_home_ops bus_home_ops = {
    .admit = bus_home_admit,
    .policy = bus_home_policy,
    .open = bus_home_open,
    .keeps = bus_home_keeps,
    .save = bus_home_save,
    .take_over = bus_home_take_over,
};

size_t bus_home_session_octets(void) {
    return sizeof(struct sensor_session) > sizeof(struct control_session) ? sizeof(struct sensor_session)
                                                                          : sizeof(struct control_session);
}

void bus_home_init(struct bus_home *home, struct bus *bus, uint32_t tail_bound) {
    *home = (struct bus_home){
        .home = {.ops = &bus_home_ops,
                 .ledger = bus->ledger,
                 .n_refused = &bus->counters.connections_refused,
                 .session_octets = bus_home_session_octets(),
                 .tail_bound = tail_bound},
        .bus = bus,
        .sensor_endpoints = (bus->n_endpoints + 1) / 2,
        .sensor_answer_ms = SENSOR_ANSWER_MS,
    };
}
