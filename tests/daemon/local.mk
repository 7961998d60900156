# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/daemon: a real vmibusd with stub VMs, and what hostile peers do to it.

noinst_HEADERS += tests/daemon/channels.h tests/daemon/daemon.h tests/daemon/manager.h tests/daemon/memd.h \
	tests/daemon/states.h tests/daemon/wire.h

check_LTLIBRARIES += libdaemon_test.la
libdaemon_test_la_SOURCES = \
	tests/daemon/channels.c tests/daemon/daemon.c tests/daemon/manager.c tests/daemon/memd.c tests/daemon/wire.c
libdaemon_test_la_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)

# A sensor of the tests' own; -rpath makes libtool build what can be loaded.
check_LTLIBRARIES += tests/daemon/sensor_backing.la
tests_daemon_sensor_backing_la_SOURCES = tests/daemon/sensor_backing.c
tests_daemon_sensor_backing_la_LDFLAGS = $(sensor_ldflags) -rpath /nowhere

daemon_tests = libdaemon_test.la libharness.la
daemon_test_programs = \
	tests/daemon/test_audit \
	tests/daemon/test_audit_chain \
	tests/daemon/test_commands \
	tests/daemon/test_connections \
	tests/daemon/test_exhaustion \
	tests/daemon/test_exploit \
	tests/daemon/test_frames \
	tests/daemon/test_handover \
	tests/daemon/test_leases \
	tests/daemon/test_lies \
	tests/daemon/test_lifetime \
	tests/daemon/test_limits \
	tests/daemon/test_memd \
	tests/daemon/test_memory \
	tests/daemon/test_opener \
	tests/daemon/test_opener_stall \
	tests/daemon/test_patterns \
	tests/daemon/test_policy \
	tests/daemon/test_queries \
	tests/daemon/test_restart \
	tests/daemon/test_restart_apart \
	tests/daemon/test_resume \
	tests/daemon/test_sensor_peer \
	tests/daemon/test_sandbox \
	tests/daemon/test_sensors \
	tests/daemon/test_states
test_programs += $(daemon_test_programs)

tests_daemon_test_audit_SOURCES = tests/daemon/test_audit.c
tests_daemon_test_audit_LDADD = $(daemon_tests) libvmibus_util.la
tests_daemon_test_audit_chain_SOURCES = tests/daemon/test_audit_chain.c
tests_daemon_test_audit_chain_LDADD = $(daemon_tests) libvmibus_audit.la libvmibus_protocol.la libvmibus_util.la
tests_daemon_test_commands_SOURCES = tests/daemon/test_commands.c
tests_daemon_test_commands_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_daemon_test_commands_LDADD = $(daemon_tests)
tests_daemon_test_connections_SOURCES = tests/daemon/test_connections.c
tests_daemon_test_connections_LDADD = $(daemon_tests)
tests_daemon_test_exploit_SOURCES = tests/daemon/test_exploit.c tests/daemon/exploit.c tests/daemon/exploit.h
tests_daemon_test_exploit_LDADD = $(daemon_tests)
tests_daemon_test_exploit_DEPENDENCIES = $(daemon_tests) tests/daemon/sensor_backing.la
tests_daemon_test_handover_SOURCES = tests/daemon/test_handover.c
tests_daemon_test_handover_LDADD = $(daemon_tests)
tests_daemon_test_exhaustion_SOURCES = tests/daemon/test_exhaustion.c
tests_daemon_test_exhaustion_LDADD = $(daemon_tests)
tests_daemon_test_frames_SOURCES = tests/daemon/test_frames.c
tests_daemon_test_frames_LDADD = $(daemon_tests)
tests_daemon_test_leases_SOURCES = tests/daemon/test_leases.c
tests_daemon_test_leases_LDADD = $(daemon_tests)
tests_daemon_test_limits_SOURCES = tests/daemon/test_limits.c
tests_daemon_test_limits_LDADD = $(daemon_tests)
tests_daemon_test_patterns_SOURCES = tests/daemon/test_patterns.c
tests_daemon_test_patterns_LDADD = $(daemon_tests)
tests_daemon_test_queries_SOURCES = tests/daemon/test_queries.c
tests_daemon_test_queries_LDADD = $(daemon_tests)
tests_daemon_test_memd_SOURCES = tests/daemon/test_memd.c
tests_daemon_test_memd_LDADD = $(daemon_tests)
tests_daemon_test_memory_SOURCES = tests/daemon/test_memory.c
tests_daemon_test_memory_LDADD = $(daemon_tests)
daemon_states = \
	tests/daemon/states.c src/daemon/handover_bus.c src/daemon/handover_memory.c \
	tests/fuzz/memory_world.c tests/fuzz/stream.c tests/fuzz/world.c
tests_daemon_test_lies_SOURCES = \
	tests/daemon/test_lies.c $(daemon_states)
tests_daemon_test_lies_LDADD = libharness.la $(core_libraries)
tests_daemon_test_states_SOURCES = tests/daemon/test_states.c $(daemon_states)
tests_daemon_test_states_LDADD = libharness.la $(core_libraries)
EXTRA_DIST += \
	tests/fixtures/handover/vmibusd-1 tests/fixtures/handover/vmibusd-1.fds \
	tests/fixtures/handover/vmibus-memd-1 tests/fixtures/handover/vmibus-memd-1.fds
tests_daemon_test_lifetime_SOURCES = tests/daemon/test_lifetime.c
tests_daemon_test_lifetime_LDADD = $(daemon_tests)
tests_daemon_test_policy_SOURCES = tests/daemon/test_policy.c
tests_daemon_test_policy_LDADD = $(daemon_tests)
tests_daemon_test_restart_SOURCES = tests/daemon/test_restart.c
tests_daemon_test_restart_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_daemon_test_restart_LDADD = $(daemon_tests)
tests_daemon_test_restart_apart_SOURCES = tests/daemon/test_restart_apart.c
tests_daemon_test_restart_apart_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_daemon_test_restart_apart_LDADD = $(daemon_tests)
tests_daemon_test_resume_SOURCES = tests/daemon/test_resume.c
tests_daemon_test_resume_LDADD = $(daemon_tests)
tests_daemon_test_sensor_peer_SOURCES = tests/daemon/test_sensor_peer.c
tests_daemon_test_sensor_peer_LDADD = $(daemon_tests)
tests_daemon_test_sensors_SOURCES = tests/daemon/test_sensors.c
tests_daemon_test_sensors_LDADD = $(daemon_tests)

test_scripts += tests/daemon/test_sensord.py

# vmibus-opend, and processes in whose name it opens.
test_helpers += tests/daemon/opener_target
tests_daemon_opener_target_SOURCES = tests/daemon/opener_target.c
noinst_HEADERS += tests/daemon/opener_scene.h
tests_daemon_test_opener_SOURCES = tests/daemon/test_opener.c tests/daemon/opener_scene.c
tests_daemon_test_opener_LDADD = libharness.la libvmibus_memory.la libvmibus_util.la
tests_daemon_test_opener_stall_SOURCES = \
	tests/daemon/test_opener_stall.c tests/daemon/opener_scene.c \
	src/daemon/log.c src/daemon/opener_config.c src/daemon/opener_gate.c src/daemon/opener_server.c \
	src/daemon/sandbox_wish.c src/daemon/trusted_file.c
tests_daemon_test_opener_stall_CPPFLAGS = $(AM_CPPFLAGS) $(INIH_CFLAGS)
tests_daemon_test_opener_stall_LDADD = libharness.la libvmibus_memory.la libvmibus_util.la $(INIH_LIBS)
test_scripts += tests/daemon/test_apart.py tests/daemon/test_mistakes.py tests/daemon/test_same_apart.py
guest_test_scripts += tests/daemon/test_opener_guest.py tests/qemu/test_guest_apart.py
tests_daemon_test_sandbox_SOURCES = tests/daemon/test_sandbox.c $(sandbox_sources) src/daemon/log.c
tests_daemon_test_sandbox_CPPFLAGS = $(AM_CPPFLAGS) $(SECCOMP_CFLAGS)
tests_daemon_test_sandbox_LDADD = libharness.la libvmibus_util.la $(SECCOMP_LIBS)
