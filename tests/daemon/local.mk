# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/daemon: a real vmibusd with stub VMs, and what hostile peers do to it.

noinst_HEADERS += tests/daemon/daemon.h tests/daemon/wire.h

check_LTLIBRARIES += libdaemon_test.la
libdaemon_test_la_SOURCES = tests/daemon/daemon.c tests/daemon/wire.c
libdaemon_test_la_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)

daemon_tests = libdaemon_test.la libharness.la
daemon_test_programs = \
	tests/daemon/test_audit \
	tests/daemon/test_commands \
	tests/daemon/test_connections \
	tests/daemon/test_frames \
	tests/daemon/test_hoarding \
	tests/daemon/test_lifetime \
	tests/daemon/test_policy \
	tests/daemon/test_sensors
test_programs += $(daemon_test_programs)

tests_daemon_test_audit_SOURCES = tests/daemon/test_audit.c
tests_daemon_test_audit_LDADD = $(daemon_tests) libvmibus_util.la
tests_daemon_test_commands_SOURCES = tests/daemon/test_commands.c
tests_daemon_test_commands_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_daemon_test_commands_LDADD = $(daemon_tests)
tests_daemon_test_connections_SOURCES = tests/daemon/test_connections.c
tests_daemon_test_connections_LDADD = $(daemon_tests)
tests_daemon_test_frames_SOURCES = tests/daemon/test_frames.c
tests_daemon_test_frames_LDADD = $(daemon_tests)
tests_daemon_test_hoarding_SOURCES = tests/daemon/test_hoarding.c
tests_daemon_test_hoarding_LDADD = $(daemon_tests)
tests_daemon_test_lifetime_SOURCES = tests/daemon/test_lifetime.c
tests_daemon_test_lifetime_LDADD = $(daemon_tests)
tests_daemon_test_policy_SOURCES = tests/daemon/test_policy.c
tests_daemon_test_policy_LDADD = $(daemon_tests)
tests_daemon_test_sensors_SOURCES = tests/daemon/test_sensors.c
tests_daemon_test_sensors_LDADD = $(daemon_tests)
