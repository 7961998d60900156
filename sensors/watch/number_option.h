/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Options that are numbers: a table names each key, its place and its bounds. */
#ifndef SENSORS_WATCH_NUMBER_OPTION_H
#define SENSORS_WATCH_NUMBER_OPTION_H

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vmibus/sensor.h>

/** Octets of a sentence that says what is wrong with an option. */
#define NUMBER_OPTION_MESSAGE_BOUND 256

/** One of them; a key of NULL ends the table. */
struct number_option {
    const char *key;
    uint32_t *place;
    uint32_t minimum, maximum;
};

/** Stores what is given into its place. 0; -EINVAL: @a message says why it cannot be used. */
static inline int number_option_take(const struct number_option *table, const struct vmibus_sensor_option *given,
                                     char message[NUMBER_OPTION_MESSAGE_BOUND]) {
    const struct number_option *option = table;
    unsigned long long value;
    char *end;

    while (option->key && strcmp(option->key, given->key) != 0)
        option++;
    if (!option->key) {
        snprintf(message, NUMBER_OPTION_MESSAGE_BOUND, "unknown option %.64s; the sensor's manual page lists those there are",
                 given->key);
        return -EINVAL;
    }
    errno = 0;
    value = strtoull(given->value, &end, 10);
    if (errno || *given->value < '0' || *given->value > '9' || *end || value < option->minimum || value > option->maximum) {
        snprintf(message, NUMBER_OPTION_MESSAGE_BOUND, "%s=%.64s: a number from %" PRIu32 " to %" PRIu32 " is wanted", option->key,
                 given->value, option->minimum, option->maximum);
        return -EINVAL;
    }
    *option->place = (uint32_t)value;
    return 0;
}

#endif
