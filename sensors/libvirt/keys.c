/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/input-event-codes.h>

#include "domain.h"

/* Codes beyond these are buttons, or keys of which no keyboard of QEMU's has one. */
#define KEYS_CODES 0x100

struct keys_command {
    TAILQ_ENTRY(keys_command) link;
    struct domain *domain;
    uint64_t id;
    uint64_t stops; /* seen when it was sent */
    size_t n_events;
};

/* --- events to chords ---------------------------------------------------------------------------- */

static struct held_key *find(struct keys *keys, uint16_t code) {
    for (size_t i = 0; i < keys->n_held; i++)
        if (keys->held[i].code == code)
            return &keys->held[i];

    return NULL;
}

/* All that is held is pressed together. */
static void press(struct keys *keys, struct chord *chord) {
    chord->n_keys = (int)keys->n_held;
    for (size_t i = 0; i < keys->n_held; i++) {
        chord->keys[i] = keys->held[i].code;
        keys->held[i].pressed = true;
    }
}

static void let_go(struct keys *keys, struct held_key *key) {
    size_t after = keys->n_held - (size_t)(key - keys->held) - 1;

    memmove(key, key + 1, after * sizeof(*key));
    keys->n_held--;
}

static bool take(struct keys *keys, const struct vmibus_input_event *event, struct chord *chords, size_t *n_chordsp) {
    struct held_key *key;

    if (event->type != VMIBUS_INPUT_TYPE_KEY || !event->code || event->code >= KEYS_CODES)
        return false;
    key = find(keys, event->code);
    if (event->value && !key) {
        if (keys->n_held == KEYS_HELD_BOUND)
            return false;
        keys->held[keys->n_held++] = (struct held_key){.code = event->code};
    } else if (!event->value && key) {
        if (!key->pressed)
            press(keys, &chords[(*n_chordsp)++]);
        let_go(keys, key);
    }

    return true;
}

size_t keys_take(struct keys *keys, const struct vmibus_input_event *events, size_t n_events, struct chord *chords,
                 size_t *n_chordsp) {
    size_t n = 0;

    *n_chordsp = 0;
    while (n < n_events && take(keys, &events[n], chords, n_chordsp))
        n++;

    return n;
}

/* --- commands ------------------------------------------------------------------------------------ */

static void refuse(struct domain *domain, uint64_t id, enum vmibus_error error, enum vmibus_reason reason, uint64_t value) {
    machine_complete(&domain->machine, id, VMIBUS_KIND_CMD_INPUT, error, reason, value, 0);
}

static void on_pressed(void *userdata, const struct monitor_reply *reply) {
    struct keys_command *command = userdata;
    struct domain *domain = command->domain;

    TAILQ_REMOVE(&domain->keys.commands, command, link);
    if (reply->outcome == MONITOR_ERROR)
        refuse(domain, command->id, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_SENSOR_FAILED, EPERM);
    else if (reply->outcome == MONITOR_LOST)
        refuse(domain, command->id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ETIMEDOUT);
    else if (command->stops != domain->machine.lifecycle.stops)
        refuse(domain, command->id, VMIBUS_ERROR_BUSY, VMIBUS_REASON_GUEST_PAUSED, 0); /* a stopped guest drops keys */
    else
        machine_complete(&domain->machine, command->id, VMIBUS_KIND_CMD_INPUT, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0,
                         command->n_events);
    free(command);
}

static int send(struct domain *domain, uint64_t id, const struct chord *chords, size_t n_chords, size_t n_events) {
    struct keys_command *command = calloc(1, sizeof(*command));
    int r;

    if (!command)
        return -ENOMEM;
    *command = (struct keys_command){
        .domain = domain, .id = id, .stops = domain->machine.lifecycle.stops, .n_events = n_events};
    TAILQ_INSERT_TAIL(&domain->keys.commands, command, link);
    r = passage_send_keys(&domain->passage, chords, n_chords, on_pressed, command);
    if (r < 0) {
        TAILQ_REMOVE(&domain->keys.commands, command, link);
        free(command);
    }

    return r;
}

static int execute_events(struct domain *domain, uint64_t id, const struct vmibus_input_event *events, size_t n) {
    struct chord *chords = calloc(n, sizeof(*chords));
    struct held_key before[KEYS_HELD_BOUND];
    size_t n_before = domain->keys.n_held, n_chords, taken;
    int r = 0;

    if (!chords)
        return -ENOMEM;
    memcpy(before, domain->keys.held, sizeof(before));
    taken = keys_take(&domain->keys, events, n, chords, &n_chords);
    if (taken < n) {
        /* As a whole or not at all. */
        memcpy(domain->keys.held, before, sizeof(before));
        domain->keys.n_held = n_before;
        refuse(domain, id, VMIBUS_ERROR_UNSUPPORTED, VMIBUS_REASON_BAD_FIELD, taken);
    } else if (n_chords) {
        r = send(domain, id, chords, n_chords, n);
    } else {
        machine_complete(&domain->machine, id, VMIBUS_KIND_CMD_INPUT, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0, n);
    }
    free(chords);

    return r;
}

int keys_execute(struct domain *domain, const struct vmibus_sensor_command *command) {
    const struct vmibus_frame *frame = command->frame;
    const struct vmibus_cmd_input *body = &frame->cmd_input;
    const struct vmibus_input_event *events = body->events;
    size_t n = body->count;

    if (frame->header.kind == VMIBUS_KIND_INPUT_RELEASE) {
        domain->keys.n_held = 0; /* in the guest nothing is held */
        machine_complete(&domain->machine, command->id, VMIBUS_KIND_INPUT_RELEASE, VMIBUS_ERROR_OK, VMIBUS_REASON_NONE, 0, 0);
        return 0;
    }
    if (frame->header.tail_length)
        events = command->tail;
    if (!n || (frame->header.tail_length ? frame->header.tail_length != n * sizeof(*events)
                                         : n > sizeof(body->events) / sizeof(*body->events))) {
        refuse(domain, command->id, VMIBUS_ERROR_VALIDATION, VMIBUS_REASON_BAD_LENGTH, n);
        return 0;
    }
    if (!machine_is_usable(&domain->machine)) {
        refuse(domain, command->id, VMIBUS_ERROR_IO, VMIBUS_REASON_SENSOR_FAILED, ENOTCONN);
        return 0;
    }
    if (!lifecycle_takes_input(&domain->machine)) {
        refuse(domain, command->id, VMIBUS_ERROR_BUSY, VMIBUS_REASON_GUEST_PAUSED, 0);
        return 0;
    }

    return execute_events(domain, command->id, events, n);
}

/* --- over a restart ------------------------------------------------------------------------------ */

/* What the sensor adds to the record of a machine, in the order in which they went down; members are only ever appended. */
struct saved_keys {
    uint32_t n;
    struct {
        uint16_t code;
        uint16_t pressed;
    } keys[KEYS_HELD_BOUND];
};

_Static_assert(sizeof(struct saved_keys) <= SAVED_OWN, "the record has no room for it");

void keys_save(const struct keys *keys, struct saved_machine *saved) {
    struct saved_keys own = {.n = (uint32_t)keys->n_held};

    for (size_t i = 0; i < keys->n_held; i++) {
        own.keys[i].code = keys->held[i].code;
        own.keys[i].pressed = keys->held[i].pressed;
    }
    memcpy(saved->own, &own, sizeof(own));
}

void keys_restore(struct keys *keys, const struct saved_machine *saved) {
    struct saved_keys own;

    memcpy(&own, saved->own, sizeof(own));
    keys->n_held = 0;
    for (size_t i = 0; i < own.n && i < KEYS_HELD_BOUND; i++)
        if (own.keys[i].code && own.keys[i].code < KEYS_CODES)
            keys->held[keys->n_held++] =
                (struct held_key){.code = own.keys[i].code, .pressed = own.keys[i].pressed != 0};
}

void keys_init(struct keys *keys) {
    *keys = (struct keys){0};
    TAILQ_INIT(&keys->commands);
}

void keys_deinit(struct keys *keys) {
    struct keys_command *command;

    while ((command = TAILQ_FIRST(&keys->commands))) {
        TAILQ_REMOVE(&keys->commands, command, link);
        free(command);
    }
    keys->n_held = 0;
}
