# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/bus: tests of src/bus and src/policy.  The bus is tested on a stage: with fake controls, fake
# sensors and a fake memory authority.

test_programs += \
	tests/bus/test_command \
	tests/bus/test_cost \
	tests/bus/test_delivery \
	tests/bus/test_grant \
	tests/bus/test_lease \
	tests/bus/test_limits \
	tests/bus/test_memory \
	tests/bus/test_policy \
	tests/bus/test_write_bounds \
	tests/bus/test_handover \
	tests/bus/test_hold \
	tests/bus/test_provider \
	tests/bus/test_provider_switch \
	tests/bus/test_monitor_command \
	tests/bus/test_answer \
	tests/bus/test_resync \
	tests/bus/test_explain \
	tests/bus/test_watch

check_LTLIBRARIES += libstage.la
libstage_la_SOURCES = tests/bus/stage.c tests/bus/stage.h
libstage_la_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)

bus_test_libraries = \
	libstage.la libharness.la libvmibus_bus.la libvmibus_policy.la libvmibus_util.la libvmibus_protocol.la

EXTRA_DIST += tests/fixtures/handover/bus-1
tests_bus_test_handover_SOURCES = tests/bus/test_handover.c
tests_bus_test_handover_LDADD = $(bus_test_libraries)

tests_bus_test_command_SOURCES = tests/bus/test_command.c
tests_bus_test_command_LDADD = $(bus_test_libraries)

tests_bus_test_cost_SOURCES = tests/bus/test_cost.c
tests_bus_test_cost_LDADD = $(bus_test_libraries)

tests_bus_test_delivery_SOURCES = tests/bus/test_delivery.c
tests_bus_test_delivery_LDADD = $(bus_test_libraries)

tests_bus_test_grant_SOURCES = tests/bus/test_grant.c
tests_bus_test_grant_LDADD = $(bus_test_libraries)

tests_bus_test_lease_SOURCES = tests/bus/test_lease.c
tests_bus_test_lease_LDADD = $(bus_test_libraries)

tests_bus_test_limits_SOURCES = tests/bus/test_limits.c
tests_bus_test_limits_LDADD = $(bus_test_libraries)

tests_bus_test_memory_SOURCES = tests/bus/test_memory.c
tests_bus_test_memory_LDADD = $(bus_test_libraries)

tests_bus_test_policy_SOURCES = tests/bus/test_policy.c
tests_bus_test_policy_LDADD = libharness.la libvmibus_policy.la libvmibus_util.la libvmibus_protocol.la

tests_bus_test_write_bounds_SOURCES = tests/bus/test_write_bounds.c
tests_bus_test_write_bounds_LDADD = libharness.la libvmibus_policy.la libvmibus_util.la

tests_bus_test_provider_SOURCES = tests/bus/test_provider.c
tests_bus_test_provider_LDADD = $(bus_test_libraries)

tests_bus_test_provider_switch_SOURCES = tests/bus/test_provider_switch.c
tests_bus_test_provider_switch_LDADD = $(bus_test_libraries)

tests_bus_test_monitor_command_SOURCES = tests/bus/test_monitor_command.c
tests_bus_test_monitor_command_LDADD = $(bus_test_libraries)

tests_bus_test_resync_SOURCES = tests/bus/test_resync.c
tests_bus_test_resync_LDADD = $(bus_test_libraries)
tests_bus_test_answer_SOURCES = tests/bus/test_answer.c
tests_bus_test_answer_LDADD = $(bus_test_libraries)

tests_bus_test_explain_SOURCES = tests/bus/test_explain.c
tests_bus_test_explain_LDADD = $(bus_test_libraries)

tests_bus_test_watch_SOURCES = tests/bus/test_watch.c
tests_bus_test_watch_LDADD = $(bus_test_libraries)

tests_bus_test_hold_SOURCES = tests/bus/test_hold.c
tests_bus_test_hold_LDADD = $(bus_test_libraries)
