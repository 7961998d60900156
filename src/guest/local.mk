# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/guest: perception, and libvmibus-guest made of it.

pkginclude_HEADERS += include/vmibus/guest.h include/vmibus/guest_linux.h
pkgconfig_DATA += src/guest/libvmibus-guest.pc

noinst_LTLIBRARIES += libvmibus_guest_internal.la
libvmibus_guest_internal_la_SOURCES = \
	src/guest/direct.h \
	src/guest/kernel_image.c src/guest/kernel_image.h \
	src/guest/linux/areas.c src/guest/linux/areas.h \
	src/guest/linux/btf.c src/guest/linux/btf.h src/guest/linux/btf_record.c src/guest/linux/btf_record.h \
	src/guest/linux/btf_member.c \
	src/guest/linux/census.c \
	src/guest/linux/facts.c \
	src/guest/linux/fields.c src/guest/linux/fields.h \
	src/guest/linux/files.c src/guest/linux/files.h \
	src/guest/linux/kallsyms.c src/guest/linux/kallsyms.h \
	src/guest/linux/kallsyms_tables.c \
	src/guest/linux/kernel.c src/guest/linux/kernel.h \
	src/guest/linux/log.c src/guest/linux/log.h \
	src/guest/linux/maple.c src/guest/linux/maple.h \
	src/guest/linux/mappings.c \
	src/guest/linux/module_layouts.c src/guest/linux/module_layouts.h \
	src/guest/linux/module_symbols.c \
	src/guest/linux/modules.c src/guest/linux/modules.h \
	src/guest/linux/path.c src/guest/linux/path.h \
	src/guest/linux/reading.c \
	src/guest/linux/socket_owners.c src/guest/linux/socket_owners.h \
	src/guest/linux/sockets.c \
	src/guest/linux/symbols.c \
	src/guest/linux/task.c src/guest/linux/task.h \
	src/guest/linux/task_list.c \
	src/guest/linux/task_memory.c \
	src/guest/linux_root.c \
	src/guest/mapping.c src/guest/mapping.h \
	src/guest/note.c \
	src/guest/pagewalk.c \
	src/guest/paging.h \
	src/guest/pattern.c src/guest/pattern.h \
	src/guest/ram.c src/guest/ram.h \
	src/guest/ram_walk.c \
	src/guest/scan.c \
	src/guest/scatter.c \
	src/guest/sweep.c src/guest/sweep.h \
	src/guest/tables.c src/guest/tables.h \
	src/guest/walk.h

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

test_programs += tests/guest_lib/test_mapping
tests_guest_lib_test_mapping_SOURCES = tests/guest_lib/test_mapping.c tests/guest_lib/fake_guest.c
tests_guest_lib_test_mapping_LDADD = $(guest_lib_ldadd)

test_programs += tests/guest_lib/test_scan
tests_guest_lib_test_scan_SOURCES = tests/guest_lib/test_scan.c tests/guest_lib/fake_guest.c
tests_guest_lib_test_scan_LDADD = $(guest_lib_ldadd)

test_programs += tests/guest_lib/test_note
tests_guest_lib_test_note_SOURCES = tests/guest_lib/test_note.c
tests_guest_lib_test_note_LDADD = $(guest_lib_ldadd)

test_programs += tests/guest_lib/test_linux_root
tests_guest_lib_test_linux_root_SOURCES = \
	tests/guest_lib/test_linux_root.c tests/guest_lib/fake_guest.c
tests_guest_lib_test_linux_root_LDADD = $(guest_lib_ldadd)

noinst_HEADERS += tests/guest_lib/task_image.h

test_programs += tests/guest_lib/test_linux_tasks
tests_guest_lib_test_linux_tasks_SOURCES = \
	tests/guest_lib/test_linux_tasks.c tests/guest_lib/task_image.c tests/guest_lib/fake_btf.c
tests_guest_lib_test_linux_tasks_LDADD = $(guest_lib_ldadd)

test_programs += tests/guest_lib/test_linux_failing
tests_guest_lib_test_linux_failing_SOURCES = \
	tests/guest_lib/test_linux_failing.c tests/guest_lib/task_image.c tests/guest_lib/fake_btf.c
tests_guest_lib_test_linux_failing_LDADD = $(guest_lib_ldadd)

guest_test_programs += tests/qemu/test_guest_root
tests_qemu_test_guest_root_SOURCES = tests/qemu/test_guest_root.c
tests_qemu_test_guest_root_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests/bed
tests_qemu_test_guest_root_LDADD = $(guest_lib_ldadd) libbed.la

noinst_HEADERS += tests/guest_lib/fake_btf.h

test_programs += tests/guest_lib/test_btf
tests_guest_lib_test_btf_SOURCES = tests/guest_lib/test_btf.c tests/guest_lib/fake_btf.c
tests_guest_lib_test_btf_LDADD = $(guest_lib_ldadd)

noinst_HEADERS += tests/guest_lib/flat_kernel.h

test_programs += tests/guest_lib/test_address_space
tests_guest_lib_test_address_space_SOURCES = \
	tests/guest_lib/test_address_space.c tests/guest_lib/flat_kernel.c tests/guest_lib/fake_btf.c
tests_guest_lib_test_address_space_LDADD = $(guest_lib_ldadd)

test_programs += tests/guest_lib/test_fields
tests_guest_lib_test_fields_SOURCES = tests/guest_lib/test_fields.c tests/guest_lib/flat_kernel.c tests/guest_lib/fake_btf.c
tests_guest_lib_test_fields_LDADD = $(guest_lib_ldadd)

test_helpers += tests/guest_lib/btf_members
tests_guest_lib_btf_members_SOURCES = tests/guest_lib/btf_members.c
tests_guest_lib_btf_members_LDADD = libvmibus_guest_internal.la

test_scripts += tests/guest_lib/test_btf_oracle.py

noinst_HEADERS += tests/qemu/linux_bed.h

guest_test_programs += tests/qemu/test_linux_layouts
tests_qemu_test_linux_layouts_SOURCES = tests/qemu/test_linux_layouts.c tests/qemu/linux_bed.c
tests_qemu_test_linux_layouts_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests/bed
tests_qemu_test_linux_layouts_LDADD = $(guest_lib_ldadd) libbed.la

guest_test_programs += tests/qemu/test_linux_maps
tests_qemu_test_linux_maps_SOURCES = tests/qemu/test_linux_maps.c tests/qemu/compare_maps.c tests/qemu/linux_bed.c
tests_qemu_test_linux_maps_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests/bed
tests_qemu_test_linux_maps_LDADD = $(guest_lib_ldadd) libbed.la

noinst_HEADERS += tests/qemu/compare.h tests/qemu/facts.h

guest_test_programs += tests/qemu/test_linux_tasks
tests_qemu_test_linux_tasks_SOURCES = tests/qemu/test_linux_tasks.c tests/qemu/compare_tasks.c tests/qemu/compare_files.c \
	tests/qemu/compare_sockets.c tests/qemu/facts.c tests/qemu/linux_bed.c
tests_qemu_test_linux_tasks_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests/bed
tests_qemu_test_linux_tasks_LDADD = $(guest_lib_ldadd) libbed.la

guest_test_programs += tests/qemu/test_linux_other_kernels
tests_qemu_test_linux_other_kernels_SOURCES = tests/qemu/test_linux_other_kernels.c tests/qemu/compare_tasks.c \
	tests/qemu/compare_files.c tests/qemu/compare_maps.c tests/qemu/compare_sockets.c tests/qemu/compare_symbols.c \
	tests/qemu/facts.c tests/qemu/linux_bed.c
tests_qemu_test_linux_other_kernels_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests/bed
tests_qemu_test_linux_other_kernels_LDADD = $(guest_lib_ldadd) libbed.la

noinst_HEADERS += tests/guest_lib/fake_image.h tests/guest_lib/fake_kallsyms.h

test_programs += tests/guest_lib/test_kallsyms
tests_guest_lib_test_kallsyms_SOURCES = tests/guest_lib/test_kallsyms.c tests/guest_lib/fake_guest.c \
	tests/guest_lib/fake_image.c tests/guest_lib/fake_kallsyms.c
tests_guest_lib_test_kallsyms_LDADD = $(guest_lib_ldadd)

test_programs += tests/guest_lib/test_linux_log
tests_guest_lib_test_linux_log_SOURCES = tests/guest_lib/test_linux_log.c tests/guest_lib/fake_guest.c \
	tests/guest_lib/fake_image.c
tests_guest_lib_test_linux_log_LDADD = $(guest_lib_ldadd)

test_programs += tests/guest_lib/test_linux_modules
tests_guest_lib_test_linux_modules_SOURCES = tests/guest_lib/test_linux_modules.c tests/guest_lib/fake_guest.c \
	tests/guest_lib/fake_image.c
tests_guest_lib_test_linux_modules_LDADD = $(guest_lib_ldadd)

guest_test_programs += tests/qemu/test_linux_symbols
tests_qemu_test_linux_symbols_SOURCES = tests/qemu/test_linux_symbols.c tests/qemu/compare_symbols.c tests/qemu/linux_bed.c
tests_qemu_test_linux_symbols_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests/bed
tests_qemu_test_linux_symbols_LDADD = $(guest_lib_ldadd) libbed.la

