# SPDX-License-Identifier: LGPL-2.1-or-later
#
# sensors/libvirt: VMs of QEMU that libvirt manages; built with --with-libvirt or --enable-armed.  The library serves the tests,
# which put a libvirt of their own in the place of the real one.

libvirt_sources = \
	sensors/libvirt/caller.c sensors/libvirt/caller.h \
	sensors/libvirt/connection.c sensors/libvirt/connection.h \
	sensors/libvirt/domain.c sensors/libvirt/domain.h \
	sensors/libvirt/events.c sensors/libvirt/events.h \
	sensors/libvirt/exchange.c sensors/libvirt/exchange.h \
	sensors/libvirt/identity.c sensors/libvirt/identity.h \
	sensors/libvirt/keys.c sensors/libvirt/keys.h \
	sensors/libvirt/module.c sensors/libvirt/module.h \
	sensors/libvirt/options.c sensors/libvirt/options.h \
	sensors/libvirt/passage.c sensors/libvirt/passage.h \
	sensors/libvirt/sensor.h

EXTRA_DIST += sensors/libvirt/libvirt.sensor sensors/libvirt/vmibus-sensor-libvirt.7 tests/libvirt/private_libvirtd.py
noinst_HEADERS += tests/sensors/fake_libvirt.h

if WITH_LIBVIRT
noinst_LTLIBRARIES += libvmibus_libvirt.la
libvmibus_libvirt_la_SOURCES = $(libvirt_sources)
libvmibus_libvirt_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
libvmibus_libvirt_la_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS) $(LIBVIRT_CFLAGS)
libvmibus_libvirt_la_LIBADD = libvmibus_machine.la $(JSON_C_LIBS)

# A thread that hangs in libvirt when the sensor ends comes back to code that must still be there.
sensor_LTLIBRARIES += sensors/libvirt.la
sensors_libvirt_la_SOURCES =
sensors_libvirt_la_LIBADD = libvmibus_libvirt.la libvmibus-guest.la $(LIBVIRT_LIBS)
sensors_libvirt_la_LDFLAGS = $(sensor_ldflags) -Wl,-z,nodelete
sensor_manifests += sensors/libvirt/libvirt.sensor
dist_man_MANS += sensors/libvirt/vmibus-sensor-libvirt.7

test_programs += tests/sensors/test_libvirt
tests_sensors_test_libvirt_SOURCES = tests/sensors/test_libvirt.c tests/sensors/fake_libvirt.c
tests_sensors_test_libvirt_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_sensors_test_libvirt_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS) $(LIBVIRT_CFLAGS)
tests_sensors_test_libvirt_LDADD = libharness.la libmock_host.la libvmibus_libvirt.la libvmibus_guest_internal.la libvmibus_util.la

guest_test_scripts += tests/libvirt/test_libvirtd.py tests/libvirt/test_domain_changes.py
endif
