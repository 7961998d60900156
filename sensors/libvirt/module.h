/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The libvirt sensor as an embedder names it; loaded as a module it is found as vmibus_sensor_module.
 */
#ifndef SENSORS_LIBVIRT_MODULE_H
#define SENSORS_LIBVIRT_MODULE_H

#include <vmibus/sensor.h>

/** QEMU's VMs that libvirt manages. Options: vmibus-sensor-libvirt(7). */
extern const struct vmibus_sensor_module vmibus_libvirt_sensor;

#endif
