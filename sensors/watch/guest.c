/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Watching one endpoint: RAM is attached and a timer runs while there is a range, and only then.
 *
 * Looks fall on multiples of their intervals, so that ranges with the same interval share wake-ups.  One look is under way at a
 * time: of few pages on the loop, else, and wherever reading could wait for the process that the RAM is private to, on the
 * worker.  While it is there, what it looks at is kept, whatever ends meanwhile, and ended when it is back.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "watch.h"

static void look(struct guest *guest);

static const struct vmibus_sensor_api *api_of(const struct guest *guest) {
    return guest->watch->api;
}

/* --- answers ------------------------------------------------------------------------------------------------------ */

static void answer(const struct guest *guest, uint64_t id, uint64_t received, struct vmibus_ack *ack) {
    ack->command = VMIBUS_KIND_WATCH;
    ack->started = received;
    ack->finished = api_of(guest)->now();
    api_of(guest)->complete(guest->watch->host, id, ack);
}

static struct vmibus_ack refusal(enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    return (struct vmibus_ack){.error = (uint16_t)error, .reason = (uint16_t)reason, .value = value};
}

/* The bus may remove the range while it is answered. */
static void answer_range(const struct guest *guest, struct range *range, struct vmibus_ack ack) {
    uint64_t id = range->command;

    range->command = 0;
    answer(guest, id, range->received, &ack);
}

/* --- ranges ------------------------------------------------------------------------------------------------------- */

static uint32_t pages_of(const struct range *range) {
    uint64_t first = range->address / 4096, last = (range->address + (range->len - 1)) / 4096;

    return (uint32_t)(last - first + 1);
}

/* Rounded up, so that nothing is free. */
static uint32_t pages_per_second(const struct range *range) {
    uint64_t second = 1000 * WATCH_NS_PER_MS;

    return (uint32_t)((pages_of(range) * second + range->interval - 1) / range->interval);
}

static struct range *find(const struct guest *guest, uint32_t number) {
    struct range *range;

    TAILQ_FOREACH(range, &guest->ranges, link)
        if (range->number == number && !range->removed)
            return range;
    return NULL;
}

static bool is_watched(const struct guest *guest) {
    return guest->octets != 0;
}

static void forget(struct guest *guest, struct range *range) {
    TAILQ_REMOVE(&guest->ranges, range, link);
    range_free(range);
}

/* It is gone; if a look owns it, all but its memory is. */
static void remove_range(struct guest *guest, struct range *range) {
    guest->octets -= range->len;
    guest->pages -= pages_per_second(range);
    range->removed = true;
    if (!range->looking)
        forget(guest, range);
}

/* --- RAM ---------------------------------------------------------------------------------------------------------- */

static void release(struct guest *guest) {
    guest->ram = vmibus_guest_ram_free(guest->ram);
    if (guest->attached && guest->endpoint)
        (void)api_of(guest)->detach(guest->endpoint, guest->attached);
    guest->attached = 0;
}

/* Lets go of what nobody needs: memory that is held for no reason would keep an ended epoch from being retired. */
static void settle(struct guest *guest) {
    if (guest->looking)
        return;
    if (guest->attached && (!is_watched(guest) || guest->attached != guest->epoch))
        release(guest);
    if (is_watched(guest))
        return;
    if (guest->timer)
        api_of(guest)->timer_set(guest->timer, 0);
    free(guest->scratch);
    guest->scratch = NULL;
}

static void refuse(struct guest *guest, struct range *range, struct vmibus_ack ack) {
    uint64_t id = range->command, received = range->received;

    remove_range(guest, range);
    answer(guest, id, received, &ack);
}

static struct range *first_waiting(const struct guest *guest) {
    struct range *range;

    TAILQ_FOREACH(range, &guest->ranges, link)
        if (range->command && !range->removed)
            return range;
    return NULL;
}

/* Whoever waits for an answer gets this one, and is gone. */
static void refuse_waiting(struct guest *guest, struct vmibus_ack ack) {
    struct range *range;

    while ((range = first_waiting(guest)))
        refuse(guest, range, ack);
    settle(guest);
}

static void attach(struct guest *guest) {
    int r;

    if (guest->asked)
        return;
    guest->asked = guest->epoch;
    r = api_of(guest)->attach(guest->endpoint, guest->epoch);
    if (r < 0) {
        guest->asked = 0;
        refuse_waiting(guest, refusal(VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, (uint64_t)-r));
    }
}

static int open_ram(struct guest *guest, const struct vmibus_sensor_ram *ram) {
    guest->may_block = ram->pagemap_fd >= 0;
    return vmibus_guest_ram_new_unmapped(&guest->ram, ram->ranges, ram->n_ranges, ram->fds, ram->n_fds, ram->pagemap_fd);
}

void guest_attached(struct guest *guest, const struct vmibus_sensor_ram *ram, enum vmibus_error error, enum vmibus_reason reason) {
    uint64_t asked = guest->asked;
    int r;

    guest->asked = 0;
    if (!ram && asked == guest->epoch) {
        refuse_waiting(guest, refusal(error ? error : VMIBUS_ERROR_UNSUPPORTED, error ? reason : VMIBUS_REASON_PRIVATE_RAM, 0));
        return;
    }
    guest->attached = ram ? ram->epoch : 0;
    if (!ram || ram->epoch != guest->epoch || !is_watched(guest)) {
        settle(guest);
        if (is_watched(guest))
            attach(guest);
        return;
    }
    r = open_ram(guest, ram);
    if (r < 0) {
        refuse_waiting(guest, refusal(VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, (uint64_t)-r));
        return;
    }
    look(guest);
}

/* --- telling ------------------------------------------------------------------------------------------------------ */

static int publish(struct guest *guest, const struct range *range, uint32_t shown) {
    uint8_t tail[2 * RANGE_SHOWN_MAX];
    struct vmibus_frame frame;
    size_t tail_length;

    if (!range_compose(range, shown, &frame, tail, &tail_length))
        return -EAGAIN;
    frame.watch_changed.epoch = guest->epoch;
    return api_of(guest)->publish(guest->endpoint, &frame, tail, tail_length);
}

static void tell(struct guest *guest, struct range *range) {
    int r;

    if (range->untaken)
        return;
    range->untaken = true;
    r = publish(guest, range, RANGE_SHOWN_MAX);
    if (r == -E2BIG)
        r = publish(guest, range, RANGE_SHOWN_LEAST);
    if (r == 0)
        range_told(range);
    else
        range->untaken = false;
}

static void tell_end(struct guest *guest, const struct range *range) {
    const struct vmibus_frame frame = {
        .header = {.kind = VMIBUS_KIND_WATCH_CHANGED},
        .watch_changed = {.epoch = guest->epoch, .watch = range->number, .flags = VMIBUS_WATCH_CHANGE_ENDED},
    };

    (void)api_of(guest)->publish(guest->endpoint, &frame, NULL, 0);
}

/* --- looking ------------------------------------------------------------------------------------------------------ */

/* Its first look is the answer to the command that begins it. */
static void begin(struct guest *guest, struct range *range) {
    struct vmibus_ack ack = {.epoch = guest->epoch};

    if (range->result == 0) {
        range_begin(range);
        answer_range(guest, range, ack);
        return;
    }
    ack = (struct vmibus_ack){};
    range_refuse(range, &ack);
    refuse(guest, range, ack);
}

static void conclude(struct guest *guest, struct range *range) {
    if (range->removed)
        forget(guest, range);
    else if (range->command)
        begin(guest, range);
    else
        tell(guest, range);
}

static void arm(struct guest *guest) {
    uint64_t now = api_of(guest)->now(), due = UINT64_MAX;
    struct range *range;

    TAILQ_FOREACH(range, &guest->ranges, link)
        due = range->due < due ? range->due : due;
    if (due != UINT64_MAX)
        api_of(guest)->timer_set(guest->timer, due > now ? due - now : 1);
}

/* On the loop's thread. */
static void looked(void *data) {
    struct guest *guest = data;
    struct range *range;

    guest->looking = false;
    while ((range = TAILQ_FIRST(&guest->looks))) {
        TAILQ_REMOVE(&guest->looks, range, look_link);
        range->looking = false;
        conclude(guest, range);
    }
    if (!guest->endpoint) {
        guest_free(guest);
        return;
    }
    settle(guest);
    if (guest->ram)
        arm(guest);
    else if (is_watched(guest))
        attach(guest);
}

/* On either thread. */
static void look_at_ranges(void *data) {
    struct guest *guest = data;
    struct range *range;

    TAILQ_FOREACH(range, &guest->looks, look_link)
        range_look(range, guest->ram, guest->scratch);
}

static void put_off(struct guest *guest) {
    struct range *range;

    while ((range = TAILQ_FIRST(&guest->looks))) {
        TAILQ_REMOVE(&guest->looks, range, look_link);
        range->looking = false;
    }
    guest->looking = false;
    arm(guest);
}

/* The ranges whose time has come. Returns how many pages they are. */
static uint32_t gather(struct guest *guest) {
    uint64_t now = api_of(guest)->now();
    struct range *range;
    uint32_t pages = 0;

    TAILQ_FOREACH(range, &guest->ranges, link) {
        if (range->due > now)
            continue;
        range->due = (now / range->interval + 1) * range->interval;
        range->root = (struct vmibus_guest_root){.cr3 = range->cr3 ? range->cr3 : guest->root.cr3, .levels = guest->root.levels};
        range->looking = true;
        TAILQ_INSERT_TAIL(&guest->looks, range, look_link);
        pages += pages_of(range);
    }
    return pages;
}

static void look(struct guest *guest) {
    uint32_t pages;

    if (guest->looking || !guest->ram)
        return;
    pages = gather(guest);
    if (pages == 0) {
        arm(guest);
        return;
    }
    guest->looking = true;
    if (!guest->may_block && pages <= WATCH_PAGES_ON_LOOP) {
        look_at_ranges(guest);
        looked(guest);
    } else if (api_of(guest)->work(guest->watch->host, look_at_ranges, looked, guest) < 0) {
        put_off(guest);
    }
}

static void timer_fired(void *userdata) {
    look(userdata);
}

/* --- commands ----------------------------------------------------------------------------------------------------- */

static bool epoch_fits(const struct guest *guest, uint64_t epoch) {
    return guest->epoch && (epoch == 0 || epoch == guest->epoch);
}

/* What the bus has not checked. */
static struct vmibus_ack check(const struct guest *guest, const struct vmibus_watch *command, const struct range *range) {
    const struct watch *watch = guest->watch;

    if (!epoch_fits(guest, command->epoch))
        return refusal(VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE, guest->epoch);
    if (!range->physical && guest->root.levels == 0)
        return refusal(VMIBUS_ERROR_TRANSLATION, VMIBUS_REASON_NO_ROOT, command->address);
    if (range->len > watch->octets - guest->octets)
        return refusal(VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_BYTES, watch->octets);
    if (pages_per_second(range) > watch->pages - guest->pages)
        return refusal(VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_WATCHES, watch->pages);
    return (struct vmibus_ack){};
}

static bool prepare(struct guest *guest) {
    if (!guest->timer && api_of(guest)->timer_new(guest->watch->host, timer_fired, guest, &guest->timer) < 0)
        return false;
    if (!guest->scratch)
        guest->scratch = malloc(RANGE_LEN_MAX);
    return guest->scratch;
}

static struct range *new_range(const struct guest *guest, const struct vmibus_watch *command) {
    uint32_t ms = command->interval_ms > guest->watch->interval_ms ? command->interval_ms : guest->watch->interval_ms;

    if (command->len == 0 || command->len > RANGE_LEN_MAX || command->address + (command->len - 1) < command->address)
        return NULL;
    return range_new(command, ms * WATCH_NS_PER_MS);
}

static void add(struct guest *guest, const struct vmibus_sensor_command *command, uint64_t received) {
    struct range *range = new_range(guest, &command->frame->watch);
    struct vmibus_ack ack = refusal(VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_MEMORY, 0);

    if (range)
        ack = check(guest, &command->frame->watch, range);
    if (range && !ack.error && !prepare(guest))
        ack = refusal(VMIBUS_ERROR_PRESSURE, VMIBUS_REASON_LIMIT_MEMORY, 0);
    if (ack.error) {
        range_free(range);
        answer(guest, command->id, received, &ack);
        return;
    }
    range->command = command->id;
    range->received = received;
    guest->octets += range->len;
    guest->pages += pages_per_second(range);
    TAILQ_INSERT_TAIL(&guest->ranges, range, link);
    if (guest->ram && guest->attached == guest->epoch)
        look(guest);
    else if (!guest->looking)
        attach(guest);
}

void guest_execute(struct guest *guest, const struct vmibus_sensor_command *command) {
    const struct vmibus_watch *watch = &command->frame->watch;
    uint64_t received = api_of(guest)->now();
    struct vmibus_ack ack = {};
    struct range *range;

    if (watch->operation == VMIBUS_WATCH_OPERATION_ADD) {
        add(guest, command, received);
        return;
    }
    range = find(guest, watch->watch);
    if (!range)
        ack = refusal(VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_NO_WATCH, watch->watch);
    else if (watch->operation == VMIBUS_WATCH_OPERATION_GO_ON)
        range->untaken = false;
    else
        remove_range(guest, range);
    answer(guest, command->id, received, &ack);
    settle(guest);
}

void guest_cancel(struct guest *guest, uint64_t id) {
    struct range *range;

    TAILQ_FOREACH(range, &guest->ranges, link)
        if (range->command == id && !range->removed)
            break;
    if (!range || !id)
        return;
    refuse(guest, range, refusal(VMIBUS_ERROR_EXPIRED, VMIBUS_REASON_CANCELLED, 0));
    settle(guest);
}

/* --- coming and going --------------------------------------------------------------------------------------------- */

static struct range *first(const struct guest *guest) {
    struct range *range;

    TAILQ_FOREACH(range, &guest->ranges, link)
        if (!range->removed)
            return range;
    return NULL;
}

/* The epoch is over, and all that is watched in it. */
static void end_epoch(struct guest *guest) {
    struct range *range;

    refuse_waiting(guest, refusal(VMIBUS_ERROR_STALE_EPOCH, VMIBUS_REASON_NONE, guest->epoch));
    while ((range = first(guest))) {
        tell_end(guest, range);
        remove_range(guest, range);
    }
    guest->epoch = 0;
    guest->root = (struct vmibus_guest_root){};
    settle(guest);
}

void guest_see_memctx(struct guest *guest, const struct vmibus_memctx *memctx) {
    if (guest->epoch && (memctx->state == VMIBUS_MEMCTX_STATE_NONE || memctx->epoch != guest->epoch))
        end_epoch(guest);
    if (memctx->state == VMIBUS_MEMCTX_STATE_NONE)
        return;
    guest->epoch = memctx->epoch;
    if (memctx->state == VMIBUS_MEMCTX_STATE_READY)
        guest->root = (struct vmibus_guest_root){.cr3 = memctx->cr3, .levels = memctx->levels};
}

struct guest *guest_new(struct watch *watch, struct vmibus_sensor_endpoint *endpoint) {
    struct guest *guest = calloc(1, sizeof(*guest));

    if (!guest)
        return NULL;
    guest->watch = watch;
    guest->endpoint = endpoint;
    TAILQ_INIT(&guest->ranges);
    TAILQ_INIT(&guest->looks);
    TAILQ_INSERT_TAIL(&watch->guests, guest, link);
    return guest;
}

struct guest *guest_free(struct guest *guest) {
    struct range *range;

    if (!guest)
        return NULL;
    while ((range = TAILQ_FIRST(&guest->ranges)))
        forget(guest, range);
    vmibus_guest_ram_free(guest->ram);
    api_of(guest)->timer_free(guest->timer);
    free(guest->scratch);
    TAILQ_REMOVE(&guest->watch->guests, guest, link);
    free(guest);
    return NULL;
}

void guest_vanish(struct guest *guest) {
    struct range *range;

    while ((range = first(guest)))
        remove_range(guest, range);
    guest->endpoint = NULL;
    if (!guest->looking)
        guest_free(guest);
    else if (guest->timer)
        api_of(guest)->timer_set(guest->timer, 0);
}
