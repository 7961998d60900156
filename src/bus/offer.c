/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/offer.h"

#include <string.h>

#include "bus/bus.h"
#include "bus/claim.h"
#include "bus/command.h"
#include "bus/control.h"
#include "bus/endpoint.h"
#include "bus/sensor.h"

/* --- which VM ---------------------------------------------------------------------------------- */

static bool has_uuid(const uint8_t *uuid) {
    static const uint8_t unset[16];

    return memcmp(uuid, unset, sizeof(unset)) != 0;
}

static bool is_same_uuid(const struct endpoint *endpoint, const struct endpoint_identity *identity) {
    return has_uuid(identity->uuid) && memcmp(endpoint->uuid, identity->uuid, sizeof(endpoint->uuid)) == 0;
}

static bool is_same_process(const struct endpoint *endpoint, const struct endpoint_identity *identity) {
    return identity->pid && endpoint->pid == identity->pid && endpoint->start_time == identity->start_time;
}

static struct endpoint *find_by_process(const struct bus *bus, const struct endpoint_identity *identity) {
    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++)
        if (bus->endpoints[slot] && is_same_process(bus->endpoints[slot], identity))
            return bus->endpoints[slot];
    return NULL;
}

/* Those that an offer means by its UUID: how many, and one of them. */
static unsigned find_by_uuid(const struct bus *bus, const struct endpoint_identity *identity, struct endpoint **endpointp) {
    unsigned n = 0;

    for (uint32_t slot = 1; slot <= bus->n_endpoints; slot++) {
        struct endpoint *endpoint = bus->endpoints[slot];

        if (endpoint && is_same_uuid(endpoint, identity) && (!identity->pid || !endpoint->pid)) {
            *endpointp = endpoint;
            n++;
        }
    }
    return n;
}

/* --- learning ---------------------------------------------------------------------------------- */

/* Grants and subscriptions may name a UUID, so who may see the endpoint can have changed. */
static void see_uuid(struct endpoint *endpoint) {
    struct control *control;

    endpoint_tell_opened(endpoint);
    list_for_each(control, &endpoint->bus->controls, link)
        control_see_identity(control, endpoint);
}

static bool is_introducer(const struct endpoint *endpoint, const struct sensor *sensor) {
    return sensor && endpoint->introducer == sensor;
}

/* What nobody is granted anything by, the word of who introduced the VM replaces. */
static bool learns_uuid_from(const struct endpoint *endpoint, const struct endpoint_identity *identity,
                             const struct sensor *sensor) {
    if (!has_uuid(identity->uuid) || is_same_uuid(endpoint, identity))
        return false;
    return !has_uuid(endpoint->uuid) || (endpoint->uuid_doubted && is_introducer(endpoint, sensor));
}

/* True: something was not known before. @param sensor who says so; NULL: two endpoints became one */
static bool learn(struct endpoint *endpoint, const struct endpoint_identity *identity, const struct sensor *sensor) {
    bool learns_process = !endpoint->pid && identity->pid, learns_uuid = learns_uuid_from(endpoint, identity, sensor);
    bool was_doubted = endpoint->uuid_doubted;

    if (learns_process) {
        endpoint->pid = identity->pid;
        endpoint->start_time = identity->start_time;
    }
    if (learns_uuid)
        memcpy(endpoint->uuid, identity->uuid, sizeof(endpoint->uuid));
    if (is_introducer(endpoint, sensor) && is_same_uuid(endpoint, identity))
        endpoint->uuid_doubted = false;
    else if (learns_uuid)
        endpoint->uuid_doubted = true;
    if (learns_uuid || endpoint->uuid_doubted != was_doubted)
        see_uuid(endpoint);
    return learns_process || learns_uuid;
}

/* --- two that are one -------------------------------------------------------------------------- */

/* What it said, or says now. */
static const uint8_t *said_by_introducer(const struct endpoint *endpoint, const struct endpoint_identity *identity,
                                         const struct sensor *sensor) {
    return is_introducer(endpoint, sensor) && has_uuid(identity->uuid) ? identity->uuid : endpoint_granted_uuid(endpoint);
}

/*
 * Of one VM under two names the grants of both would be given to all of it.  So who introduced one has to have introduced the other
 * by the same name, or both by the same UUID.
 */
static bool agree(const struct endpoint *one, const struct endpoint *other, const struct endpoint_identity *identity,
                  const struct sensor *sensor) {
    const uint8_t *a = said_by_introducer(one, identity, sensor), *b = said_by_introducer(other, identity, sensor);

    return strcmp(one->name, other->name) == 0 || (has_uuid(a) && memcmp(a, b, sizeof(one->uuid)) == 0);
}

/* Whose process it is, that is the VM, and what its introducer says counts. Returns who says what is known of the younger. */
static const struct sensor *take_word(struct endpoint *older, const struct endpoint *younger) {
    if (older->pid || !younger->pid)
        return NULL;
    endpoint_set_introducer(older, younger->introducer);
    older->uuid_doubted = younger->uuid_doubted || !has_uuid(younger->uuid);
    return older->uuid_doubted ? NULL : older->introducer;
}

/*
 * Those who only joined hear of the older one by the roster.  Nothing stays behind: neither a key that is down nor a guest held
 * still.
 */
static void merge(struct endpoint *older, struct endpoint *younger) {
    struct endpoint_identity identity = {.pid = younger->pid, .start_time = younger->start_time};
    struct sensor *holder = younger->holding.sensor;
    const struct sensor *word;
    struct pressed pressed = younger->pressed;
    struct provider *provider, *following;
    struct list moving;

    list_init(&moving);
    memcpy(identity.uuid, younger->uuid, sizeof(identity.uuid));
    list_for_each_safe(provider, following, &younger->providers, endpoint_link)
        if (provider->offer) {
            provider->former_slot = younger->slot;
            provider->former_generation = younger->generation;
            list_unlink(&provider->endpoint_link);
            list_append(&moving, &provider->endpoint_link);
        }
    word = take_word(older, younger);
    endpoint_free(younger, VMIBUS_REASON_SAME_VM);
    (void)learn(older, &identity, word);
    see_uuid(older);
    endpoint_publish_roster(older, VMIBUS_ROSTER_CHANGE_ADDED);
    while (!list_is_empty(&moving))
        provider_move(list_first(&moving, struct provider, endpoint_link), older);
    /* Its word ends with it, and it has to be one of these to be seen ending. */
    if (older->introducer && !provider_of(older, older->introducer))
        endpoint_set_introducer(older, NULL);
    if (holder && provider_of(older, holder))
        command_begin_hold(older, holder, VMIBUS_VM_OPERATION_LET_GO);
    if (!pressed_is_empty(&pressed)) {
        pressed_add(&older->pressed, &pressed);
        command_begin_key_release(older);
    }
}

/* --- offers ------------------------------------------------------------------------------------ */

/* How an offer ends. */
struct verdict {
    struct endpoint *endpoint;  /* NULL: there is none yet */
    enum vmibus_error error;
    enum vmibus_reason reason;
    bool is_kept;               /* the endpoint was the sensor's before a restart */
};

static struct verdict refused(enum vmibus_error error, enum vmibus_reason reason) {
    return (struct verdict){.error = error, .reason = reason};
}

/* The one that stays. */
static struct verdict unite(struct endpoint *one, struct endpoint *other, const struct endpoint_identity *identity,
                            const struct sensor *sensor) {
    struct endpoint *older = one->generation < other->generation ? one : other;

    if (!agree(one, other, identity, sensor))
        return refused(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_SAME_VM);
    merge(older, older == one ? other : one);
    return (struct verdict){.endpoint = older};
}

static struct verdict find(struct bus *bus, const struct endpoint_identity *identity, const struct sensor *sensor) {
    struct endpoint *by_process = find_by_process(bus, identity), *by_uuid = NULL;
    unsigned n = find_by_uuid(bus, identity, &by_uuid);

    if (n > 1 && !by_process)
        return refused(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_SAME_VM);
    if (by_process && n == 1 && (!has_uuid(by_process->uuid) || is_same_uuid(by_process, identity)))
        return unite(by_process, by_uuid, identity, sensor);
    return (struct verdict){.endpoint = by_process ? by_process : by_uuid};
}

/* Whether what is known of two of them is the same VM. */
static bool is_one_vm(const struct endpoint *a, const struct endpoint_identity *b) {
    bool both_have_uuid = has_uuid(a->uuid) && has_uuid(b->uuid);

    return (is_same_process(a, b) && (!both_have_uuid || is_same_uuid(a, b))) || (is_same_uuid(a, b) && (!a->pid || !b->pid));
}

static bool contradicts(const struct endpoint *endpoint, const struct endpoint_identity *identity, const struct sensor *sensor) {
    return (identity->pid && endpoint->pid && !is_same_process(endpoint, identity)) ||
           (has_uuid(identity->uuid) && has_uuid(endpoint->uuid) && !is_same_uuid(endpoint, identity) &&
            !learns_uuid_from(endpoint, identity, sensor));
}

/* The endpoint is named by its provider, who has learnt more of it: that may show that it is another one too. */
static struct verdict find_named(struct sensor *sensor, const struct vmibus_header *header,
                                 const struct endpoint_identity *identity) {
    struct endpoint *endpoint = bus_endpoint(sensor->bus, header->slot, header->generation), *other = NULL;
    struct endpoint_identity whole = *identity;
    const struct provider *provider;

    if (!endpoint)
        return refused(VMIBUS_ERROR_GONE, VMIBUS_REASON_NONE);
    if (!identity->pid && !has_uuid(identity->uuid))
        return (struct verdict){.endpoint = endpoint};
    provider = provider_of(endpoint, sensor);
    if (!provider || !provider->offer || contradicts(endpoint, identity, sensor))
        return refused(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    if (!whole.pid) {
        whole.pid = endpoint->pid;
        whole.start_time = endpoint->start_time;
    }
    if (!has_uuid(whole.uuid))
        memcpy(whole.uuid, endpoint->uuid, sizeof(whole.uuid));
    for (uint32_t slot = 1; slot <= sensor->bus->n_endpoints; slot++) {
        struct endpoint *one = sensor->bus->endpoints[slot];

        if (!one || one == endpoint || !is_one_vm(one, &whole))
            continue;
        if (other)
            return refused(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_SAME_VM);
        other = one;
    }
    return other ? unite(endpoint, other, identity, sensor) : (struct verdict){.endpoint = endpoint};
}

static void answer(struct sensor *sensor, const struct vmibus_frame *offer, const struct verdict *verdict) {
    const struct endpoint *endpoint = verdict->error ? NULL : verdict->endpoint;
    struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_ACK,
                   .direction = VMIBUS_DIRECTION_UP,
                   .version = VMIBUS_PROTOCOL_VERSION,
                   .slot = endpoint ? endpoint->slot : 0,
                   .generation = endpoint ? endpoint->generation : 0,
                   .correlation = offer->header.correlation},
        .ack = {.error = (uint16_t)verdict->error,
                .reason = (uint16_t)verdict->reason,
                .command = VMIBUS_KIND_ENDPOINT_OFFER,
                .count = verdict->is_kept},
    };

    sensor->ops->send(sensor, &frame, NULL);
}

static bool is_well_formed(const struct vmibus_frame *frame, const void *tail) {
    uint32_t length = frame->header.tail_length;

    return length > 0 && length <= VMIBUS_NAME_BOUND && !memchr(tail, '\0', length);
}

/* One more provider, or the same with other groups. */
static int join(struct sensor *sensor, const struct vmibus_frame *frame, const struct endpoint_identity *identity,
                struct endpoint *endpoint, bool *is_kept) {
    const struct vmibus_endpoint_offer *offer = &frame->endpoint_offer;
    uint64_t published = endpoint->publication;
    uint32_t groups = endpoint_groups(endpoint);
    bool learnt;
    int r;

    endpoint->claiming = offer->groups && claim_make_good(endpoint, sensor);
    if (endpoint->claiming && !endpoint->introducer && strncmp(endpoint->introduced_by, sensor->name, sizeof(sensor->name)) == 0)
        endpoint_set_introducer(endpoint, sensor);
    learnt = learn(endpoint, identity, sensor);
    r = provider_add(endpoint, sensor, offer->groups, frame->header.slot ? 0 : frame->header.correlation);
    *is_kept = endpoint->claiming;
    if (endpoint->claiming) {
        endpoint->claiming = false;
        if (r == 0 && list_is_empty(&endpoint->claims) && !endpoint_roster_is_current(endpoint))
            endpoint_publish_roster(endpoint, VMIBUS_ROSTER_CHANGE_ADDED);
        return r;
    }

    /* The choice of another provider was told already. */
    if (r == 0 && (learnt || (endpoint->publication == published && (offer->groups || endpoint_groups(endpoint) != groups))))
        endpoint_publish_roster(endpoint, VMIBUS_ROSTER_CHANGE_ADDED);
    return r;
}

/* One that has a bound of its own offers no more VMs than that, whatever of them others offer too. */
static bool offers_enough(const struct sensor *sensor, uint32_t groups) {
    const struct provider *provider;
    uint32_t n = 0;

    if (!sensor->max_endpoints || !(groups & ~GROUPS_OF_KNOWLEDGE))
        return false;
    list_for_each(provider, &sensor->providers, sensor_link)
        n += (provider->groups & ~GROUPS_OF_KNOWLEDGE) != 0;
    return n >= sensor->max_endpoints;
}

static struct verdict take(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    const struct vmibus_endpoint_offer *offer = &frame->endpoint_offer;
    char name[VMIBUS_NAME_BOUND + 1] = "";
    struct endpoint_identity identity = {.name = name, .pid = offer->pid, .start_time = offer->start_time};
    struct verdict verdict;
    int r;

    if (!is_well_formed(frame, tail))
        return refused(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    if (!frame->header.slot && offers_enough(sensor, offer->groups))
        return refused(VMIBUS_ERROR_QUOTA, VMIBUS_REASON_LIMIT_ENDPOINTS);
    memcpy(name, tail, frame->header.tail_length);
    memcpy(identity.uuid, offer->uuid, sizeof(identity.uuid));
    verdict = frame->header.slot ? find_named(sensor, &frame->header, &identity) : find(sensor->bus, &identity, sensor);
    if (verdict.error)
        return verdict;
    if (!verdict.endpoint)
        verdict.endpoint = claims_find_endpoint(sensor->bus, sensor, &identity);
    /* An endpoint is there as long as somebody provides a group of it: this one would never go. */
    if (!verdict.endpoint && !(offer->groups & ~GROUPS_OF_KNOWLEDGE))
        return refused(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_FIELD);
    r = verdict.endpoint ? join(sensor, frame, &identity, verdict.endpoint, &verdict.is_kept)
                         : endpoint_new(&verdict.endpoint, sensor->bus, &identity, sensor, offer->groups,
                                        frame->header.correlation);
    return r ? refused(VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_ENDPOINTS) : verdict;
}

/* What it went on holding while it was started anew may be over meanwhile. */
static void end_forgotten_hold(struct sensor *sensor, const struct verdict *verdict, uint32_t groups) {
    struct endpoint *endpoint = verdict->endpoint;

    if (verdict->is_kept && sensor->keeps && groups & VMIBUS_GROUP_POWER && provider_of(endpoint, sensor) &&
        endpoint->holding.sensor != sensor && !endpoint->holding.asked)
        command_begin_hold(endpoint, sensor, VMIBUS_VM_OPERATION_LET_GO);
}

void offer_hear(struct sensor *sensor, const struct vmibus_frame *frame, const void *tail) {
    struct verdict verdict = take(sensor, frame, tail);
    struct provider *provider;
    uint64_t generation;
    uint32_t slot;

    answer(sensor, frame, &verdict);
    if (verdict.error)
        return;
    slot = verdict.endpoint->slot;
    generation = verdict.endpoint->generation;
    /* Only now does the sensor know the endpoint that these are for. */
    provider = provider_of(verdict.endpoint, sensor);
    if (provider)
        provider_answered(provider);
    end_forgotten_hold(sensor, &verdict, frame->endpoint_offer.groups);
    endpoint_tell_demand(verdict.endpoint, sensor);
    if (bus_endpoint(sensor->bus, slot, generation))
        claims_see_providers(bus_endpoint(sensor->bus, slot, generation));
}
