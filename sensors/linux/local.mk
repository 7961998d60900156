# SPDX-License-Identifier: LGPL-2.1-or-later
#
# sensors/linux: processes and modules of Linux guests.  The library serves programs that hand the sensor to a bus themselves.

noinst_LTLIBRARIES += libvmibus_linux.la
libvmibus_linux_la_SOURCES = \
	sensors/linux/events.c sensors/linux/events.h \
	sensors/linux/linux.c sensors/linux/linux.h \
	sensors/linux/loaded.c sensors/linux/loaded.h \
	sensors/linux/observed.c \
	sensors/linux/processes.c sensors/linux/processes.h

sensor_LTLIBRARIES += sensors/linux.la
sensors_linux_la_SOURCES =
sensors_linux_la_LIBADD = libvmibus_linux.la libvmibus-guest.la
sensors_linux_la_LDFLAGS = $(sensor_ldflags)
sensor_manifests += sensors/linux/linux.sensor
dist_man_MANS += sensors/linux/vmibus-sensor-linux.7

test_programs += tests/sensors/test_linux_sensor
tests_sensors_test_linux_sensor_SOURCES = tests/sensors/test_linux_sensor.c
tests_sensors_test_linux_sensor_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_sensors_test_linux_sensor_LDADD = libharness.la libmock_host.la libvmibus_linux.la \
	libvmibus_guest_internal.la libvmibus_util.la

# In a kernel of the test's own, whose symbols and reader are the test's.
test_programs += tests/sensors/test_linux_processes
tests_sensors_test_linux_processes_SOURCES = tests/sensors/test_linux_processes.c \
	tests/guest_lib/task_image.c tests/guest_lib/fake_btf.c
tests_sensors_test_linux_processes_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_sensors_test_linux_processes_LDADD = libharness.la libvmibus_linux.la libvmibus_guest_internal.la libvmibus_util.la
