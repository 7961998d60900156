# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/host: what serves a sensor module, the same in the bus's process and in one of its own.

noinst_LTLIBRARIES += libvmibus_host.la
libvmibus_host_la_SOURCES = \
	src/host/sensor_api.c src/host/sensor_api.h \
	src/host/sensor_host.c src/host/sensor_host.h \
	src/host/sensor_inbox.c src/host/sensor_inbox.h \
	src/host/sensor_observer.c src/host/sensor_observer.h \
	src/host/sensor_unsaid.c src/host/sensor_unsaid.h \
	src/host/sensor_worker.c src/host/sensor_worker.h
