/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Places of sensors among their equals: whoever was added first is preferred (provider.h), and stays so when it goes and comes
 * again, as a sensor in a process of its own does that is started anew.  A place is kept under the sensor's name; of two that have
 * the same name at one time the later one has a place of its own, which is forgotten with it.
 *
 * They are handed over to the bus that follows, whose sensors come back in any order.  As many names as SENSOR_PLACES are kept; who
 * comes after those has a new place each time.
 */
#ifndef BUS_SENSOR_PLACE_H
#define BUS_SENSOR_PLACE_H

#include <stddef.h>
#include <stdint.h>

#define SENSOR_PLACES 32

struct sensor;
struct handover_record;
struct handover_writer;

/** A bus's part; embedded in it, all zeros at first. */
struct sensor_places {
    uint32_t last;              /**< preference given last */
    size_t n;
    struct {
        char name[32];
        uint32_t preference;
    } kept[SENSOR_PLACES];
};

/** A sensor has come, whose name is not known yet: it is the last one. */
void sensor_place_begin(struct sensor *sensor);

/** Writes them. */
void sensor_places_save(const struct sensor_places *places, struct handover_writer *writer);

/** Reads them, before any sensor has come. */
void sensor_places_restore(struct sensor_places *places, const struct handover_record *record);

/** Its name is known: it takes the place that it had. */
void sensor_place_take(struct sensor *sensor);

#endif
