# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/transport: framing, peers, descriptor passing.

noinst_LTLIBRARIES += libvmibus_transport.la
libvmibus_transport_la_SOURCES = \
	src/transport/frame_check.c src/transport/frame_check.h \
	src/transport/listener.c src/transport/listener.h \
	src/transport/peer.c src/transport/peer.h \
	src/transport/receiver.c src/transport/receiver.h \
	src/transport/sender.c src/transport/sender.h \
	src/transport/session.c src/transport/session.h \
	src/transport/turns.c src/transport/turns.h
