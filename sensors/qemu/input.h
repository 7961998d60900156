/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Input: evdev events to QMP's input-send-event.
 *
 * Rules: a command is checked as a whole before anything of it is sent.  It is sent in batches, one
 * unanswered at a time; a batch is one report (QEMU closes it with SYN), so it never holds the same
 * key or axis twice, and it is short, because the queues of emulated devices drop silently what
 * does not fit. What is counted as accepted is what QEMU has acknowledged while the guest ran: QEMU
 * acknowledges and drops input for a paused guest, so input for one is refused, and a batch during
 * which it stopped does not count.
 *
 * Keys and buttons that may be down in the guest are known.  INPUT_RELEASE gives up what waits and
 * releases them; for a paused guest the releases are owed, and sent before anything else once it
 * runs.  What is down when the sensor ends is released then, unless another instance goes on with it.
 */
#ifndef SENSORS_QEMU_INPUT_H
#define SENSORS_QEMU_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <json-c/json.h>
#include <vmibus/sensor.h>

struct saved_machine;
struct vm;

/** Key codes looked at. */
#define INPUT_CODES 768
/** Events in one batch: a PS/2 keyboard queues 16 octets, and an event takes up to 3 of them. */
#define INPUT_BATCH_BOUND 4
/** Steps of a wheel in one event. */
#define INPUT_WHEEL_BOUND 16
/** Farthest relative motion in one event. */
#define INPUT_RELATIVE_BOUND 32767
/** Greatest absolute coordinate. */
#define INPUT_ABSOLUTE_BOUND 32767

TAILQ_HEAD(input_commands, input_command);

/** Input of one VM. */
struct input {
    struct input_commands commands; /* in order; the first is being executed */
    bool busy;                      /* a batch is unanswered */
    size_t batch;                   /* events in it */
    bool batch_releases;            /* it releases what is held */
    uint64_t batch_stops;           /* STOP events seen when it was sent */
    bool owed;                      /* what is held is to be released */
    uint64_t released;              /* ... and how much was, for the answer */
    struct vmibus_input_event batch_events[INPUT_BATCH_BOUND];
    bool batch_was_held[INPUT_BATCH_BOUND]; /* ... whose key was down before */
    uint64_t held[INPUT_CODES / 64];
};

/** How QEMU names a key, or NULL if it has none. */
const char *input_key_name(uint16_t code);

/** How QEMU names a button, or NULL if it has none. */
const char *input_button_name(uint16_t code);

/** Whether an event can be expressed. */
bool input_is_valid(const struct vmibus_input_event *event);

/**
 * Makes the arguments of the next batch.
 * @param events      valid events
 * @param n_events    their number, not 0
 * @param takenp      receives how many of them went into it, at least 1
 * @param argumentsp  receives the arguments of input-send-event
 * @return 0 or -ENOMEM
 */
int input_encode(const struct vmibus_input_event *events, size_t n_events, size_t *takenp,
                 json_object **argumentsp);

/** Prepares. */
void input_init(struct vm *vm);

/** Frees without answering. */
void input_deinit(struct vm *vm);

/** Executes CMD_INPUT or INPUT_RELEASE. Returns 0 or a negative errno. */
int input_execute(struct vm *vm, const struct vmibus_sensor_command *command);

/** Gives up a command; it is answered. */
void input_cancel(struct vm *vm, uint64_t id);

/** The run state changed: what is owed is sent, what cannot be sent is answered. */
void input_changed(struct vm *vm);

/** Adds what is held to what the next instance is to know. */
void input_save(const struct vm *vm, struct saved_machine *saved);

/** What the instance before knew to be held. */
void input_restore(struct vm *vm, const struct saved_machine *saved);

/** Nobody wants what was restored any more: it is released. */
void input_abandon(struct vm *vm);

/** The sensor ends: releases what is held, unless another instance goes on with it. */
void input_stop(struct vm *vm);

/** The VM's process is gone: so is everything that was held. */
void input_forget(struct vm *vm);

#endif
