/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The QEMU sensor as an embedder names it; loaded as a module it is found as vmibus_sensor_module.
 */
#ifndef SENSORS_QEMU_QEMU_H
#define SENSORS_QEMU_QEMU_H

#include <vmibus/sensor.h>

/** QEMU's VMs by their monitors. Options: vmibus-sensor-qemu(7). */
extern const struct vmibus_sensor_module vmibus_qemu_sensor;

#endif
