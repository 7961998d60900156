/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Notices that a path may have come into being: an inotify watch on the nearest directory that
 * exists, so that waiting for a VM that does not run costs nothing.
 */
#ifndef SENSORS_QEMU_ARRIVAL_H
#define SENSORS_QEMU_ARRIVAL_H

#include <vmibus/sensor.h>

struct arrival;

/**
 * Watches for a path.
 * @param path      absolute; copied
 * @param also      other inotify events next to the path that count, besides what comes into being
 * @param callback  something changed next to the path, or on the way to it; may be called without
 *                  need
 * @return 0 or a negative errno (-EMFILE, -ENOSPC: the host's inotify limits)
 */
int arrival_new(struct arrival **arrivalp, const struct vmibus_sensor_api *api,
                struct vmibus_sensor_host *host, const char *path, uint32_t also,
                void (*callback)(void *userdata), void *userdata);

/** Ends the watch; not from within the callback. Takes NULL, returns NULL. */
struct arrival *arrival_free(struct arrival *arrival);

#endif
