# SPDX-License-Identifier: LGPL-2.1-or-later
#
# sensors/watch: changes of guest memory.  The library serves programs that hand the sensor to a bus themselves.

noinst_LTLIBRARIES += libvmibus_watch.la
libvmibus_watch_la_SOURCES = \
	sensors/watch/guest.c \
	sensors/watch/number_option.h \
	sensors/watch/range.c sensors/watch/range.h \
	sensors/watch/watch.c sensors/watch/watch.h

sensor_LTLIBRARIES += sensors/watch.la
sensors_watch_la_SOURCES =
sensors_watch_la_LIBADD = libvmibus_watch.la libvmibus-guest.la
sensors_watch_la_LDFLAGS = $(sensor_ldflags)
sensor_manifests += sensors/watch/watch.sensor
dist_man_MANS += sensors/watch/vmibus-sensor-watch.7

test_programs += tests/sensors/test_watch_sensor
tests_sensors_test_watch_sensor_SOURCES = tests/sensors/test_watch_sensor.c
tests_sensors_test_watch_sensor_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_sensors_test_watch_sensor_LDADD = libharness.la libmock_host.la libvmibus_watch.la \
	libvmibus_guest_internal.la libvmibus_util.la
