# SPDX-License-Identifier: LGPL-2.1-or-later
#
# sensors/example: a sensor to be copied.

sensor_LTLIBRARIES += sensors/heartbeat.la
sensors_heartbeat_la_SOURCES = sensors/example/heartbeat.c
sensors_heartbeat_la_LDFLAGS = $(sensor_ldflags)
sensor_manifests += sensors/example/heartbeat.sensor

test_programs += tests/sensors/test_heartbeat
tests_sensors_test_heartbeat_SOURCES = tests/sensors/test_heartbeat.c sensors/example/heartbeat.c
# Flags of its own, so that the module compiled into the test has objects of its own.
tests_sensors_test_heartbeat_CPPFLAGS = $(AM_CPPFLAGS)
tests_sensors_test_heartbeat_LDADD = libharness.la libmock_host.la
