/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/sensor_place.h"

#include <string.h>

#include "bus/bus.h"
#include "bus/sensor.h"
#include "util/handover.h"

void sensor_place_begin(struct sensor *sensor) {
    sensor->preference = ++sensor->bus->sensor_places.last;
}

static bool is_taken(const struct bus *bus, uint32_t preference) {
    const struct sensor *sensor;

    list_for_each(sensor, &bus->sensors, link)
        if (sensor->preference == preference)
            return true;
    return false;
}

static void keep(struct sensor_places *places, const struct sensor *sensor) {
    if (places->n == SENSOR_PLACES)
        return;
    memcpy(places->kept[places->n].name, sensor->name, sizeof(sensor->name));
    places->kept[places->n++].preference = sensor->preference;
}

void sensor_place_take(struct sensor *sensor) {
    struct sensor_places *places = &sensor->bus->sensor_places;

    for (size_t i = 0; i < places->n; i++) {
        if (strcmp(places->kept[i].name, sensor->name) != 0)
            continue;
        if (!is_taken(sensor->bus, places->kept[i].preference))
            sensor->preference = places->kept[i].preference;
        return;
    }
    keep(places, sensor);
}

/* --- over a restart ---------------------------------------------------------------------------- */

/* Of the record; never reused. */
enum {
    PLACES_LAST = 1,
    PLACES_KEPT = 2,
};

enum {
    PLACE_SENSOR = 1,
    PLACE_PREFERENCE = 2,
};

void sensor_places_save(const struct sensor_places *places, struct handover_writer *writer) {
    handover_put_number(writer, PLACES_LAST, places->last);
    for (size_t i = 0; i < places->n; i++) {
        handover_begin(writer, PLACES_KEPT);
        handover_put(writer, PLACE_SENSOR, places->kept[i].name, strlen(places->kept[i].name));
        handover_put_number(writer, PLACE_PREFERENCE, places->kept[i].preference);
        handover_end(writer);
    }
}

static void take_kept(struct sensor_places *places, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member;
    char name[sizeof(places->kept[0].name)] = "";
    uint32_t preference = 0;

    while (handover_next(&records, &member))
        if (member.tag == PLACE_SENSOR)
            handover_copy(&member, name, sizeof(name) - 1);
        else if (member.tag == PLACE_PREFERENCE)
            preference = (uint32_t)handover_number_below(&member, UINT32_MAX);
    if (places->n == SENSOR_PLACES)
        return;
    memcpy(places->kept[places->n].name, name, sizeof(name));
    places->kept[places->n++].preference = preference;
}

void sensor_places_restore(struct sensor_places *places, const struct handover_record *record) {
    struct handover_records records = handover_in(record);
    struct handover_record member;

    places->n = 0;
    while (handover_next(&records, &member))
        if (member.tag == PLACES_LAST)
            places->last = (uint32_t)handover_number_below(&member, UINT32_MAX);
        else if (member.tag == PLACES_KEPT)
            take_kept(places, &member);
}
