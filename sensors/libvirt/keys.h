/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Input by libvirt's send-key, for VMs whose input nobody else provides.
 *
 * send-key presses keys together and releases them again, so a key is pressed in the guest when it is
 * released here, with all that is held then: what types text, or a key with its modifiers, works; holding
 * a key down does not, and there are no buttons and no motion.  Nothing is ever left held in the guest.
 */
#ifndef SENSORS_LIBVIRT_KEYS_H
#define SENSORS_LIBVIRT_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <vmibus/sensor.h>

#include "passage.h"

/** Keys that may be held at a time. */
#define KEYS_HELD_BOUND PASSAGE_CHORD_BOUND

struct domain;
struct keys_command;
struct saved_machine;

TAILQ_HEAD(keys_commands, keys_command);

/** A key that is down, for whoever holds the lease. */
struct held_key {
    uint16_t code;
    bool pressed; /* it was part of a chord already */
};

/** Input of one domain. */
struct keys {
    struct held_key held[KEYS_HELD_BOUND];
    size_t n_held;
    struct keys_commands commands; /* under way */
};

/** Prepares. */
void keys_init(struct keys *keys);

/** Frees without answering. */
void keys_deinit(struct keys *keys);

/** Executes CMD_INPUT or INPUT_RELEASE. Returns as the module's execute(). */
int keys_execute(struct domain *domain, const struct vmibus_sensor_command *command);

/** Adds what is held to what the next instance is to know. */
void keys_save(const struct keys *keys, struct saved_machine *saved);

/** What the instance before knew to be held. */
void keys_restore(struct keys *keys, const struct saved_machine *saved);

/**
 * Takes events, in order.
 * @param chords     room for as many as there are events
 * @param n_chordsp  receives how many they make
 * @return how many events were taken; fewer than there are: the next one is none that can be expressed
 */
size_t keys_take(struct keys *keys, const struct vmibus_input_event *events, size_t n_events, struct chord *chords,
                 size_t *n_chordsp);

#endif
