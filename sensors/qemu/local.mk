# SPDX-License-Identifier: LGPL-2.1-or-later
#
# sensors/qemu: VMs of QEMU by their monitors; built with --with-qemu or --enable-armed.  The library serves
# the tests, and programs that hand the sensor to a bus themselves.

qemu_sources = \
	sensors/qemu/arrival.c sensors/qemu/arrival.h \
	sensors/qemu/by_command.c sensors/qemu/by_command.h \
	sensors/qemu/directory.c sensors/qemu/directory.h \
	sensors/qemu/input.c sensors/qemu/input.h \
	sensors/qemu/keys.c \
	sensors/qemu/png.c sensors/qemu/png.h \
	sensors/qemu/qemu.c sensors/qemu/qemu.h \
	sensors/qemu/qmp.c sensors/qemu/qmp.h \
	sensors/qemu/screen.c sensors/qemu/screen.h \
	sensors/qemu/vm.c sensors/qemu/vm.h

EXTRA_DIST += sensors/qemu/qemu.sensor sensors/qemu/vmibus-sensor-qemu.7 tests/fixtures/qemu
noinst_HEADERS += tests/sensors/fake_qemu.h

if WITH_QEMU
noinst_LTLIBRARIES += libvmibus_qemu.la
libvmibus_qemu_la_SOURCES = $(qemu_sources)
libvmibus_qemu_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
libvmibus_qemu_la_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
libvmibus_qemu_la_LIBADD = libvmibus_machine.la $(JSON_C_LIBS)

sensor_LTLIBRARIES += sensors/qemu.la
sensors_qemu_la_SOURCES =
sensors_qemu_la_LIBADD = libvmibus_qemu.la libvmibus-guest.la
sensors_qemu_la_LDFLAGS = $(sensor_ldflags)
sensor_manifests += sensors/qemu/qemu.sensor
dist_man_MANS += sensors/qemu/vmibus-sensor-qemu.7

qemu_test_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
qemu_test_cflags = $(AM_CFLAGS) $(JSON_C_CFLAGS)
qemu_test_libs = libharness.la libmock_host.la libvmibus_qemu.la libvmibus_guest_internal.la libvmibus_util.la

test_programs += \
	tests/sensors/test_qemu_answers \
	tests/sensors/test_qemu_backends \
	tests/sensors/test_qemu_by_command \
	tests/sensors/test_qemu_directory \
	tests/sensors/test_qemu_hold \
	tests/sensors/test_qemu_input \
	tests/sensors/test_qemu_mtree \
	tests/sensors/test_qemu_process \
	tests/sensors/test_qemu_qmp \
	tests/sensors/test_qemu_root \
	tests/sensors/test_qemu_screen \
	tests/sensors/test_qemu_vm

tests_sensors_test_qemu_answers_SOURCES = tests/sensors/test_qemu_answers.c tests/sensors/fake_qemu.c \
	tests/guest_lib/fake_guest.c
tests_sensors_test_qemu_answers_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_answers_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_answers_LDADD = $(qemu_test_libs)

tests_sensors_test_qemu_backends_SOURCES = tests/sensors/test_qemu_backends.c
tests_sensors_test_qemu_backends_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_backends_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_backends_LDADD = $(qemu_test_libs)

tests_sensors_test_qemu_by_command_SOURCES = tests/sensors/test_qemu_by_command.c tests/sensors/fake_qemu.c
tests_sensors_test_qemu_by_command_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_by_command_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_by_command_LDADD = $(qemu_test_libs)

tests_sensors_test_qemu_directory_SOURCES = tests/sensors/test_qemu_directory.c tests/sensors/fake_qemu.c
tests_sensors_test_qemu_directory_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_directory_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_directory_LDADD = $(qemu_test_libs)

tests_sensors_test_qemu_hold_SOURCES = tests/sensors/test_qemu_hold.c tests/sensors/fake_qemu.c
tests_sensors_test_qemu_hold_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_hold_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_hold_LDADD = $(qemu_test_libs)

tests_sensors_test_qemu_input_SOURCES = tests/sensors/test_qemu_input.c
tests_sensors_test_qemu_input_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_input_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_input_LDADD = $(qemu_test_libs)

tests_sensors_test_qemu_mtree_SOURCES = tests/sensors/test_qemu_mtree.c
tests_sensors_test_qemu_mtree_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_mtree_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_mtree_LDADD = $(qemu_test_libs)
tests_sensors_test_qemu_process_SOURCES = tests/sensors/test_qemu_process.c
tests_sensors_test_qemu_process_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_process_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_process_LDADD = $(qemu_test_libs)

tests_sensors_test_qemu_qmp_SOURCES = tests/sensors/test_qemu_qmp.c tests/sensors/fake_qemu.c
tests_sensors_test_qemu_qmp_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_qmp_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_qmp_LDADD = $(qemu_test_libs)

tests_sensors_test_qemu_root_SOURCES = tests/sensors/test_qemu_root.c tests/sensors/fake_qemu.c tests/guest_lib/fake_guest.c
tests_sensors_test_qemu_root_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_root_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_root_LDADD = $(qemu_test_libs)

tests_sensors_test_qemu_screen_SOURCES = tests/sensors/test_qemu_screen.c tests/sensors/fake_qemu.c
tests_sensors_test_qemu_screen_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_screen_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_screen_LDADD = $(qemu_test_libs)

tests_sensors_test_qemu_vm_SOURCES = tests/sensors/test_qemu_vm.c tests/sensors/fake_qemu.c
tests_sensors_test_qemu_vm_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_vm_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_vm_LDADD = $(qemu_test_libs)

guest_test_programs += tests/sensors/test_qemu_hold_guest
tests_sensors_test_qemu_hold_guest_SOURCES = tests/sensors/test_qemu_hold_guest.c
tests_sensors_test_qemu_hold_guest_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_hold_guest_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_hold_guest_LDADD = $(qemu_test_libs) libbed.la

guest_test_programs += tests/sensors/test_qemu_guest
tests_sensors_test_qemu_guest_SOURCES = tests/sensors/test_qemu_guest.c
tests_sensors_test_qemu_guest_CPPFLAGS = $(qemu_test_cppflags)
tests_sensors_test_qemu_guest_CFLAGS = $(qemu_test_cflags)
tests_sensors_test_qemu_guest_LDADD = $(qemu_test_libs) libbed.la

scene = tests/qemu/scene.c tests/qemu/scene.h
scene_cppflags = $(AM_CPPFLAGS) -I$(top_srcdir)/tests/bed
scene_libs = libharness.la libvmibus-core.la libvmibus.la libbed.la $(JSON_C_LIBS)

guest_test_programs += tests/qemu/test_hold
tests_qemu_test_hold_SOURCES = tests/qemu/test_hold.c $(scene)
tests_qemu_test_hold_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_hold_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_qemu_test_hold_LDADD = $(scene_libs)

perceiver = tests/qemu/perceiver.c tests/qemu/perceiver.h $(scene)

guest_test_programs += tests/qemu/test_watch
tests_qemu_test_watch_SOURCES = tests/qemu/test_watch.c $(perceiver)
tests_qemu_test_watch_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_watch_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_qemu_test_watch_LDADD = $(scene_libs)

guest_test_programs += tests/qemu/test_processes
tests_qemu_test_processes_SOURCES = tests/qemu/test_processes.c $(perceiver)
tests_qemu_test_processes_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_processes_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_qemu_test_processes_LDADD = $(scene_libs)

guest_test_programs += tests/qemu/test_input_release
tests_qemu_test_input_release_SOURCES = tests/qemu/test_input_release.c
tests_qemu_test_input_release_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_input_release_LDADD = libharness.la libvmibus.la libbed.la $(JSON_C_LIBS)

test_helpers += tests/qemu/hold_input
tests_qemu_hold_input_SOURCES = tests/qemu/hold_input.c
tests_qemu_hold_input_LDADD = libvmibus.la

guest_test_programs += tests/qemu/test_torn
tests_qemu_test_torn_SOURCES = tests/qemu/test_torn.c $(scene) tests/torn/hunt.c tests/torn/hunt.h
tests_qemu_test_torn_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_torn_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_qemu_test_torn_LDADD = $(scene_libs)

guest_test_programs += tests/qemu/test_translated_code
tests_qemu_test_translated_code_SOURCES = tests/qemu/test_translated_code.c $(scene)
tests_qemu_test_translated_code_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_translated_code_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_qemu_test_translated_code_LDADD = $(scene_libs)

guest_test_programs += tests/qemu/test_private_ram
tests_qemu_test_private_ram_SOURCES = tests/qemu/test_private_ram.c
tests_qemu_test_private_ram_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_private_ram_LDADD = libharness.la libbed.la $(JSON_C_LIBS)

guest_test_programs += tests/qemu/test_sampled_root
tests_qemu_test_sampled_root_SOURCES = tests/qemu/test_sampled_root.c $(scene)
tests_qemu_test_sampled_root_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_sampled_root_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_qemu_test_sampled_root_LDADD = $(scene_libs)

guest_test_programs += tests/qemu/test_epochs
tests_qemu_test_epochs_SOURCES = tests/qemu/test_epochs.c $(scene)
tests_qemu_test_epochs_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_epochs_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_qemu_test_epochs_LDADD = $(scene_libs)

layout_check = tests/qemu/layout_check.c tests/qemu/layout_check.h
layout_check_libs = libharness.la libvmibus-core.la libvmibus.la libvmibus-guest.la libbed.la $(JSON_C_LIBS)

guest_test_programs += tests/qemu/test_layouts
tests_qemu_test_layouts_SOURCES = tests/qemu/test_layouts.c $(layout_check) $(scene)
tests_qemu_test_layouts_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_layouts_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_qemu_test_layouts_LDADD = $(layout_check_libs)

guest_test_programs += tests/qemu/test_layout_changes
tests_qemu_test_layout_changes_SOURCES = tests/qemu/test_layout_changes.c $(layout_check) $(scene)
tests_qemu_test_layout_changes_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_layout_changes_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_qemu_test_layout_changes_LDADD = $(layout_check_libs)

guest_test_programs += tests/qemu/test_migration
tests_qemu_test_migration_SOURCES = tests/qemu/test_migration.c $(scene)
tests_qemu_test_migration_CPPFLAGS = $(scene_cppflags)
tests_qemu_test_migration_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_qemu_test_migration_LDADD = $(scene_libs)
endif
