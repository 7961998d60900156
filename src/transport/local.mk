# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/transport: framing, peers, descriptor passing.

noinst_LTLIBRARIES += libvmibus_transport.la
libvmibus_transport_la_SOURCES = \
	src/transport/bus_home.c src/transport/bus_home.h \
	src/transport/compromised.h \
	src/transport/control_session.c src/transport/control_session.h \
	src/transport/frame_check.c src/transport/frame_check.h \
	src/transport/handover.c src/transport/handover.h \
	src/transport/handover_link.c \
	src/transport/handover_stream.c src/transport/handover_stream.h \
	src/transport/link.c src/transport/link.h \
	src/transport/listener.c src/transport/listener.h \
	src/transport/memory_home.c src/transport/memory_home.h \
	src/transport/memory_session.c src/transport/memory_session.h \
	src/transport/peer.c src/transport/peer.h src/transport/peer_state.h \
	src/transport/receiver.c src/transport/receiver.h \
	src/transport/sender.c src/transport/sender.h \
	src/transport/sensor_check.c src/transport/sensor_check.h \
	src/transport/sensor_session.c src/transport/sensor_session.h \
	src/transport/session.h \
	src/transport/turns.c src/transport/turns.h \
	src/transport/welcome.c src/transport/welcome.h

# In a build for tests of the sandbox only: see compromised.h.
EXTRA_DIST += src/transport/compromised.c
if COMPROMISED_PARSER
libvmibus_transport_la_SOURCES += src/transport/compromised.c
endif
