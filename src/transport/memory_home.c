/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "transport/memory_home.h"

#include <errno.h>
#include <string.h>

#include <vmibus/names.h>

#include "memory/authority.h"
#include "memory/sessions.h"
#include "transport/listener.h"
#include "transport/memory_session.h"
#include "util/clock.h"
#include "util/fds.h"

/* What the bus is told that does not fit the socket: a memory context of each endpoint, with ranges as QEMU has them. */
#define OCTETS_PER_ENDPOINT 2048u
#define QUEUE_LEAST (256u << 10)

static struct memory_home *home_of(struct session_home *home) {
    return container_of(home, struct memory_home, home);
}

/* --- whom it lets in --------------------------------------------------------------------------- */

static bool may_be_bus(const struct memory_home *home, const struct principal *principal) {
    return user_list_has(&home->options.policy->bus_users, principal);
}

static bool may_be_sensor(const struct memory_home *home, const struct principal *principal) {
    return user_list_has(&home->options.policy->sensor_users, principal);
}

static bool may_be_control(const struct memory_home *home, const struct principal *principal) {
    return policy_evaluate_any(home->options.policy, principal).capabilities != 0;
}

static bool admit(struct session_home *base, const struct principal *principal, struct frame_fault *fault) {
    const struct memory_home *home = home_of(base);

    if (may_be_control(home, principal) || may_be_sensor(home, principal) || may_be_bus(home, principal))
        return true;
    *fault = (struct frame_fault){.error = VMIBUS_ERROR_DENIED, .reason = VMIBUS_REASON_NO_GRANT};
    return false;
}

static const struct policy *policy_in_force(const struct session_home *base) {
    return container_of(base, const struct memory_home, home)->options.policy;
}

/* --- sessions ---------------------------------------------------------------------------------- */

static enum session_outcome refuse(enum vmibus_error error, enum vmibus_reason reason, uint64_t value, struct frame_fault *fault) {
    *fault = (struct frame_fault){.error = error, .reason = reason, .value = value};
    return SESSION_REFUSED;
}

static enum session_outcome open_link(struct memory_home *home, const struct session_request *request, struct frame_fault *fault) {
    if (!may_be_bus(home, request->principal))
        return refuse(VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_GRANT, request->principal->uid, fault);
    /* Also one that is lost but not ended yet: whoever comes anew comes again. */
    if (home->link.fd >= 0)
        return refuse(VMIBUS_ERROR_BUSY, VMIBUS_REASON_HELD, 0, fault);
    return SESSION_ELSEWHERE;
}

static enum session_outcome open_channel(struct memory_home *home, const struct session_request *request,
                                         struct frame_fault *fault) {
    const struct vmibus_hello *hello = &request->hello->hello;
    const struct known_session *known = authority_find_session(home->authority, hello->session);
    struct vmibus_ack refusal = {};
    int r;

    if (!(hello->role == VMIBUS_ROLE_SENSOR ? may_be_sensor : may_be_control)(home, request->principal))
        return refuse(VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_GRANT, request->principal->uid, fault);
    if (!known)
        return SESSION_WAIT;
    if (known->uid != request->principal->uid || known->role != hello->role)
        return refuse(VMIBUS_ERROR_DENIED, VMIBUS_REASON_BAD_SESSION, 0, fault);
    r = memory_session_init((struct memory_session *)(void *)request->session, home, request, &refusal);
    if (r == 0)
        return SESSION_OPEN;
    *fault = (struct frame_fault){.error = r > 0 ? (enum vmibus_error)r : VMIBUS_ERROR_PRESSURE,
                                  .reason = r > 0 ? (enum vmibus_reason)refusal.reason : VMIBUS_REASON_NONE,
                                  .value = refusal.count,
                                  .bound = refusal.value};
    return SESSION_REFUSED;
}

static enum session_outcome open(struct session_home *base, const struct session_request *request, struct frame_fault *fault) {
    const struct vmibus_hello *hello = &request->hello->hello;

    if (hello->role == VMIBUS_ROLE_BUS && hello->channel == VMIBUS_CHANNEL_LINK)
        return open_link(home_of(base), request, fault);
    if (hello->role != VMIBUS_ROLE_BUS && hello->channel == VMIBUS_CHANNEL_MEMORY)
        return open_channel(home_of(base), request, fault);
    frame_refuse_role(request->hello, fault);
    return SESSION_REFUSED;
}

/* --- the link ---------------------------------------------------------------------------------- */

static void tell_news(struct memory_home *home, enum memory_home_news news, enum link_loss loss) {
    if (home->options.news)
        home->options.news(home->options.news_context, news, loss);
}

/* One that has lost its state would number its tokens below those that are known here, and they would be good for nothing. */
static void tell_numbers(struct memory_home *home) {
    const struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_NUMBERS_TAKEN,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_URGENT,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .timestamp = clock_now()},
        .numbers_taken = {.incarnation = authority_numbers_taken(home->authority)},
    };

    link_say(&home->link, &frame, NULL);
}

static void welcome_bus(struct memory_home *home, const struct vmibus_header *hello) {
    const struct memory_home_options *options = &home->options;
    const struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_WELCOME,
                   .direction = VMIBUS_DIRECTION_UP,
                   .priority = VMIBUS_PRIORITY_URGENT,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .correlation = hello->correlation,
                   .timestamp = clock_now()},
        .welcome = {.magic = VMIBUS_MAGIC,
                    .incarnation = options->incarnation,
                    .tail_bound = options->tail_bound,
                    .endpoints = options->n_endpoints,
                    .version = VMIBUS_PROTOCOL_VERSION,
                    .memory = VMIBUS_MEMORY_LOCATION_HERE},
    };

    tell_numbers(home);
    link_say(&home->link, &frame, NULL);
}

static void take_consume_fd(struct session_home *base, const struct session_request *request, int fd) {
    struct memory_home *home = home_of(base);

    if (link_begin_consume_fd(&home->link, fd) == 0)
        welcome_bus(home, &request->hello->header);
}

static void hear_bus(void *context, const struct vmibus_frame *frame, const void *tail) {
    struct memory_home *home = context;

    authority_hear_link(home->authority, frame, tail);
    if (frame->header.kind == VMIBUS_KIND_LINK_SYNCED)
        tell_news(home, MEMORY_HOME_LINKED, LINK_CLOSED);
    if (frame->header.kind == VMIBUS_KIND_LINK_SYNCED || frame->header.kind == VMIBUS_KIND_SESSION_OPENED)
        listener_hello_again(home->listener);
}

static void bus_lost(void *context, enum link_loss loss) {
    struct memory_home *home = context;

    link_end(&home->link);
    tell_news(home, MEMORY_HOME_LOST, loss);
}

/* Of a link that is lost its loss is heard too: at once, not when its turn comes. */
static void before_reading(struct session_home *base) {
    struct memory_home *home = home_of(base);

    link_catch_up(&home->link);
}

static void bus_down(void *context) {
    struct memory_home *home = context;

    authority_link_lost(home->authority);
}

void memory_home_tell(void *context, const struct vmibus_frame *frame, const void *tail) {
    struct memory_home *home = context;

    link_say(&home->link, frame, tail);
}

/* --- coming and going -------------------------------------------------------------------------- */

static bool keeps(const struct session_home *home, const struct session *session) {
    (void)home;
    return !container_of(session, const struct memory_session, session)->failed;
}

static void save(struct session_home *home, struct session *session, struct handover_writer *writer) {
    (void)home;
    memory_session_save(container_of(session, struct memory_session, session), writer);
}

static bool take_over(struct session_home *base, const struct session_request *request, struct handover_records records) {
    return memory_session_take_over((struct memory_session *)(void *)request->session, home_of(base), request, records);
}

bool memory_home_is_linked(const struct memory_home *home) {
    return link_is_up(&home->link) && authority_is_synced(home->authority);
}

static const struct session_home_ops memory_home_ops = {
    .admit = admit,
    .policy = policy_in_force,
    .open = open,
    .take_consume_fd = take_consume_fd,
    .keeps = keeps,
    .save = save,
    .take_over = take_over,
    .before_reading = before_reading,
};

size_t memory_home_session_octets(void) {
    return sizeof(struct memory_session);
}

/* Per session: commands at the authority, answers untaken, and what tells of the connection's own end; MEM_RETIRED. */
static struct event_room event_room(const struct memory_home_options *options) {
    return (struct event_room){
        .answers = (size_t)options->n_connections * (2 * (size_t)options->commands + 2) + 4 * (size_t)options->n_endpoints,
        .fds = options->policy->limits_total[RESOURCE_FDS],
        .tail_octets = options->region_octets,
        .tail_bound = options->tail_bound,
    };
}

size_t memory_home_needed(const struct memory_home_options *options) {
    const struct event_room room = event_room(options);

    return event_pool_cost(&room) + arena_cost(sizeof(struct delivery), room.answers) +
           arena_cost(REGION_BLOCK, options->region_octets / REGION_BLOCK) + link_memory_needed(options->tail_bound);
}

static int reserve(struct memory_home *home) {
    const struct memory_home_options *options = &home->options;
    const struct event_room room = event_room(options);
    const struct link_options link_options = {
        .loop = options->loop,
        .arena = options->arena,
        .tail_bound = options->tail_bound,
        .sender = VMIBUS_SENDER_BUS,
        .queue_bound = QUEUE_LEAST + (size_t)options->n_endpoints * OCTETS_PER_ENDPOINT,
        .half_frame_ms = options->half_frame_ms,
        .hear = hear_bus,
        .down = bus_down,
        .lost = bus_lost,
        .context = home,
    };
    int r = event_pool_init(&home->events, options->arena, &room);

    if (r == 0)
        r = pool_init(&home->deliveries, options->arena, sizeof(struct delivery), room.answers);
    if (r == 0)
        r = region_pool_init(&home->regions, options->arena, options->region_octets);
    if (r == 0)
        r = link_init(&home->link, &link_options);
    if (r == 0)
        ledger_bound(options->ledger, RESOURCE_ANSWERS, store_for_peers(&home->events.tails));
    return r;
}

int memory_home_init(struct memory_home *home, const struct memory_home_options *options) {
    int r;

    *home = (struct memory_home){
        .home = {.ops = &memory_home_ops,
                 .ledger = options->ledger,
                 .n_refused = &home->n_refused,
                 .session_octets = memory_home_session_octets(),
                 .tail_bound = options->tail_bound},
        .options = *options,
    };
    list_init(&home->sessions);
    r = reserve(home);
    if (r < 0)
        memory_home_deinit(home);
    return r;
}

void memory_home_deinit(struct memory_home *home) {
    if (!home->home.ops)
        return;
    link_deinit(&home->link);
    pool_deinit(&home->deliveries);
    pool_deinit(&home->regions);
    event_pool_deinit(&home->events);
    *home = (struct memory_home){};
}

/* --- all sessions ------------------------------------------------------------------------------ */

void memory_home_reclaim(struct memory_home *home) {
    struct memory_session *session;

    list_for_each(session, &home->sessions, link)
        if (session->session.owner->reclaim)
            session->session.owner->reclaim(&session->session);
}

void memory_home_set_policy(struct memory_home *home, const struct policy *policy) {
    struct memory_session *session;

    home->options.policy = policy;
    list_for_each(session, &home->sessions, link) {
        struct account *account;

        /* The same account with the limits of the new policy. */
        if (ledger_ref_account(home->options.ledger, session->principal.uid, policy->limits, &account) == 0)
            account_unref(account);
        if (!(session->role == VMIBUS_ROLE_SENSOR ? may_be_sensor : may_be_control)(home, &session->principal))
            memory_session_fail(session, VMIBUS_ERROR_DENIED, VMIBUS_REASON_NO_GRANT);
    }
}
