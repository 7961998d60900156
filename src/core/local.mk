# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/core: the bus and the memory authority in one process, and libvmibus-core made of them.

pkginclude_HEADERS += include/vmibus/core.h
pkgconfig_DATA += src/core/libvmibus-core.pc

noinst_LTLIBRARIES += libvmibus_core_internal.la
libvmibus_core_internal_la_SOURCES = \
	src/core/core.c src/core/core.h \
	src/core/handover.c src/core/handover.h \
	src/core/local_link.c \
	src/core/local_sensor.c src/core/local_sensor.h \
	src/core/memory_link.c src/core/memory_link.h \
	src/core/monitor.c src/core/monitor.h \
	src/core/process_usage.c src/core/process_usage.h

# What a program links that uses the core's own functions, in link order.  Not to be linked together
# with libvmibus-core.la.
core_libraries = \
	libvmibus_core_internal.la libvmibus_host.la libvmibus_client_internal.la libvmibus_transport.la libvmibus_memory.la \
	libvmibus_bus.la libvmibus_policy.la libvmibus_guest_internal.la libvmibus_util.la libvmibus_protocol.la

# The installed library: what these have, less what src/core/libvmibus-core.map does not list.
lib_LTLIBRARIES += libvmibus-core.la
libvmibus_core_la_SOURCES =
libvmibus_core_la_LIBADD = \
	libvmibus_core_internal.la libvmibus_host.la libvmibus_memory.la libvmibus_bus.la libvmibus_policy.la \
	libvmibus_transport.la libvmibus_guest_internal.la libvmibus_util.la libvmibus.la
libvmibus_core_la_LDFLAGS = $(AM_LDFLAGS) -version-info 0:0:0 \
	-Wl,--version-script=$(top_srcdir)/src/core/libvmibus-core.map
EXTRA_libvmibus_core_la_DEPENDENCIES = src/core/libvmibus-core.map
EXTRA_DIST += src/core/libvmibus-core.map
