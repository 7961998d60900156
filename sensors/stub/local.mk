# SPDX-License-Identifier: LGPL-2.1-or-later
#
# sensors/stub: synthetic VMs.  The library serves programs that hand the sensor to a bus themselves.

noinst_LTLIBRARIES += libvmibus_stub.la
libvmibus_stub_la_SOURCES = \
	sensors/stub/stub.c sensors/stub/stub.h \
	sensors/stub/stub_command.c sensors/stub/stub_command.h \
	sensors/stub/stub_guest.c sensors/stub/stub_guest.h \
	sensors/stub/stub_input.c sensors/stub/stub_input.h \
	sensors/stub/stub_loan.c sensors/stub/stub_loan.h \
	sensors/stub/stub_map.h \
	sensors/stub/stub_options.c sensors/stub/stub_options.h \
	sensors/stub/stub_saved.c sensors/stub/stub_saved.h \
	sensors/stub/stub_ram.c sensors/stub/stub_ram.h \
	sensors/stub/stub_show.c sensors/stub/stub_show.h \
	sensors/stub/stub_vm.c sensors/stub/stub_vm.h \
	sensors/stub/stub_watch.c sensors/stub/stub_watch.h

sensor_LTLIBRARIES += sensors/stub.la
sensors_stub_la_SOURCES =
sensors_stub_la_LIBADD = libvmibus_stub.la
sensors_stub_la_LDFLAGS = $(sensor_ldflags)
sensor_manifests += sensors/stub/stub.sensor
dist_man_MANS += sensors/stub/vmibus-sensor-stub.7

noinst_HEADERS += tests/sensors/mock_host.h

check_LTLIBRARIES += libmock_host.la
libmock_host_la_SOURCES = tests/sensors/mock_host.c

test_programs += tests/sensors/test_stub
tests_sensors_test_stub_SOURCES = tests/sensors/test_stub.c
tests_sensors_test_stub_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_sensors_test_stub_LDADD = libharness.la libmock_host.la libvmibus_stub.la libvmibus_guest_internal.la libvmibus_util.la
