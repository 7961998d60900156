# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/guest: perception, and libvmibus-guest made of it.

pkginclude_HEADERS += include/vmibus/guest.h
pkgconfig_DATA += src/guest/libvmibus-guest.pc

noinst_LTLIBRARIES += libvmibus_guest_internal.la
libvmibus_guest_internal_la_SOURCES = \
	src/guest/linux_root.c \
	src/guest/note.c \
	src/guest/pagewalk.c \
	src/guest/paging.h \
	src/guest/ram.c \
	src/guest/sweep.c src/guest/sweep.h

# The installed library: what the internal one has, less what src/guest/libvmibus-guest.map does not list.
lib_LTLIBRARIES += libvmibus-guest.la
libvmibus_guest_la_SOURCES =
libvmibus_guest_la_LIBADD = libvmibus_guest_internal.la
libvmibus_guest_la_LDFLAGS = $(AM_LDFLAGS) -version-info 0:0:0 \
	-Wl,--version-script=$(top_srcdir)/src/guest/libvmibus-guest.map
EXTRA_libvmibus_guest_la_DEPENDENCIES = src/guest/libvmibus-guest.map
EXTRA_DIST += src/guest/libvmibus-guest.map

# --- tests ---------------------------------------------------------------------------------------

noinst_HEADERS += tests/guest_lib/fake_guest.h

guest_lib_ldadd = libharness.la libvmibus_guest_internal.la

test_programs += tests/guest_lib/test_pagewalk
tests_guest_lib_test_pagewalk_SOURCES = tests/guest_lib/test_pagewalk.c tests/guest_lib/fake_guest.c
tests_guest_lib_test_pagewalk_LDADD = $(guest_lib_ldadd)

test_programs += tests/guest_lib/test_ram
tests_guest_lib_test_ram_SOURCES = tests/guest_lib/test_ram.c
tests_guest_lib_test_ram_LDADD = $(guest_lib_ldadd)

test_programs += tests/guest_lib/test_note
tests_guest_lib_test_note_SOURCES = tests/guest_lib/test_note.c
tests_guest_lib_test_note_LDADD = $(guest_lib_ldadd)

test_programs += tests/guest_lib/test_linux_root
tests_guest_lib_test_linux_root_SOURCES = \
	tests/guest_lib/test_linux_root.c tests/guest_lib/fake_guest.c
tests_guest_lib_test_linux_root_LDADD = $(guest_lib_ldadd)

guest_test_programs += tests/qemu/test_guest_root
tests_qemu_test_guest_root_SOURCES = tests/qemu/test_guest_root.c
tests_qemu_test_guest_root_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests/bed
tests_qemu_test_guest_root_LDADD = $(guest_lib_ldadd) libbed.la

# Fuzz targets are no part of the build: tests/fuzz/run compiles them.
EXTRA_DIST += tests/fuzz/run tests/fuzz/fuzz_note.c tests/fuzz/fuzz_pagewalk.c
