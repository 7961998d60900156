# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/core: libvmibus-core, linked as an embedder links it, with the example control.

test_scripts += tests/core/test_examples.py

test_programs += tests/core/test_embedded
tests_core_test_embedded_SOURCES = \
	tests/core/test_embedded.c controls/example/watcher.c
tests_core_test_embedded_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/controls
tests_core_test_embedded_LDADD = libharness.la libvmibus-core.la libvmibus.la

# The core's own functions, which the library does not export.
test_programs += tests/core/test_monitor
tests_core_test_monitor_SOURCES = tests/core/test_monitor.c
tests_core_test_monitor_LDADD = libharness.la $(core_libraries)

test_programs += tests/core/test_switch
tests_core_test_switch_SOURCES = tests/core/test_switch.c
tests_core_test_switch_LDADD = libharness.la libvmibus-core.la libvmibus.la

test_programs += tests/core/test_mediated
tests_core_test_mediated_SOURCES = tests/core/test_mediated.c
tests_core_test_mediated_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_core_test_mediated_LDADD = libharness.la libvmibus-core.la libvmibus.la libvmibus-guest.la

test_programs += tests/core/test_push
tests_core_test_push_SOURCES = tests/core/test_push.c
tests_core_test_push_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_core_test_push_LDADD = libharness.la libvmibus-core.la libvmibus.la
