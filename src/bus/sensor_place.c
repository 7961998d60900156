/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus/sensor_place.h"

#include <string.h>

#include "bus/bus.h"
#include "bus/sensor.h"

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
