# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/bus: semantics.

noinst_LTLIBRARIES += libvmibus_bus.la
libvmibus_bus_la_SOURCES = \
	src/bus/acknowledge.c src/bus/acknowledge.h \
	src/bus/binding.c src/bus/binding.h \
	src/bus/bus.c src/bus/bus.h \
	src/bus/claim.c src/bus/claim.h \
	src/bus/command.c src/bus/command.h \
	src/bus/control.c src/bus/control.h \
	src/bus/endpoint.c src/bus/endpoint.h \
	src/bus/event.c src/bus/event.h \
	src/bus/explain.c src/bus/explain.h \
	src/bus/handover.c src/bus/handover.h src/bus/handover_record.h \
	src/bus/handover_command.c src/bus/handover_control.c src/bus/handover_endpoint.c \
	src/bus/handover_event.c src/bus/handover_hold.c src/bus/handover_lease.c src/bus/handover_outbox.c \
	src/bus/hold.c src/bus/hold.h \
	src/bus/lease.c src/bus/lease.h \
	src/bus/offer.c src/bus/offer.h \
	src/bus/outbox.c src/bus/outbox.h \
	src/bus/pressed.h \
	src/bus/provider.c src/bus/provider.h \
	src/bus/query.c src/bus/query.h \
	src/bus/resync.c src/bus/resync.h \
	src/bus/retained.c src/bus/retained.h \
	src/bus/sensor.c src/bus/sensor.h \
	src/bus/sensor_place.c src/bus/sensor_place.h \
	src/bus/submission.c \
	src/bus/subscription.c src/bus/subscription.h \
	src/bus/watch.c src/bus/watch.h
