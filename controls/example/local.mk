# SPDX-License-Identifier: LGPL-2.1-or-later
#
# controls/example: the shortest useful control, and one that reads RAM by itself; built and not installed.

noinst_PROGRAMS += controls/example/watcher
controls_example_watcher_SOURCES = \
	controls/example/watcher.c controls/example/watcher.h \
	controls/example/watcher_socket.c
controls_example_watcher_CFLAGS = $(program_cflags)
controls_example_watcher_LDFLAGS = $(program_ldflags)
controls_example_watcher_LDADD = libvmibus.la

noinst_PROGRAMS += ram-reader
ram_reader_SOURCES = controls/example/ram_reader.c
ram_reader_CFLAGS = $(program_cflags)
ram_reader_LDFLAGS = $(program_ldflags)
ram_reader_LDADD = libvmibus.la libvmibus-guest.la
