/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stub sensor as an embedder names it; loaded as a module it is found as vmibus_sensor_module.
 * 
 */
#ifndef STUB_H
#define STUB_H

#include <vmibus/sensor.h>

/** Synthetic VMs for systems and tests that have none. Options: vmibus-sensor-stub(7). */
extern const struct vmibus_sensor_module vmibus_stub_sensor;

#endif
