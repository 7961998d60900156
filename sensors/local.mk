# SPDX-License-Identifier: LGPL-2.1-or-later
#
# sensors: loadable modules, each with its manifest beside it.  Each has a local.mk in its folder:
#
#     sensor_LTLIBRARIES += sensors/stub.la
#     sensors_stub_la_SOURCES = sensors/stub/stub.c
#     sensors_stub_la_LDFLAGS = $(sensor_ldflags)
#     sensors_stub_la_LIBADD = libvmibus-guest.la
#     sensor_manifests += sensors/stub/stub.sensor
#
# In a build tree the modules and manifests are gathered in sensors/modules, which is what
# VMIBUS_SENSOR_DIR names when tests run.

pkginclude_HEADERS += include/vmibus/sensor.h

sensor_ldflags = $(AM_LDFLAGS) -module -avoid-version -shared \
	-Wl,--version-script=$(top_srcdir)/sensors/module.map
EXTRA_DIST += sensors/module.map
sensor_manifests =

include sensors/stub/local.mk
include sensors/machine/local.mk
include sensors/libvirt/local.mk
include sensors/qemu/local.mk
include sensors/example/local.mk
include sensors/linux/local.mk
include sensors/watch/local.mk

sensor_DATA += $(sensor_manifests)
EXTRA_DIST += $(sensor_manifests)

sensors/modules/.stamp: $(sensor_LTLIBRARIES) $(sensor_manifests)
	$(AM_V_GEN)rm -rf sensors/modules && $(MKDIR_P) sensors/modules
	$(AM_V_at)for module in $(notdir $(sensor_LTLIBRARIES:.la=)); do \
		ln -s "../.libs/$$module.so" sensors/modules/ || exit 1; \
	done
	$(AM_V_at)for manifest in $(sensor_manifests); do \
		ln -s "$(abs_top_srcdir)/$$manifest" sensors/modules/ || exit 1; \
	done
	$(AM_V_at)touch $@

all_local += sensors/modules/.stamp
clean_local += clean-sensors
clean-sensors:
	rm -rf sensors/modules
