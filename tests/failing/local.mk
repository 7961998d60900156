# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/failing: calls of the C library that fail, each in its turn.

noinst_HEADERS += tests/failing/failing.h

# In the program itself, so that these definitions come before the C library's.
check_LTLIBRARIES += libfailing.la
libfailing_la_SOURCES = tests/failing/failing.c tests/failing/walk.c
libfailing_la_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)

test_programs += tests/failing/test_walks
tests_failing_test_walks_SOURCES = tests/failing/test_walks.c $(config_sources) \
	src/daemon/incarnation.c src/daemon/log.c src/daemon/opener_gate.c src/daemon/opener_server.c src/daemon/state.c
tests_failing_test_walks_CPPFLAGS = $(AM_CPPFLAGS) $(INIH_CFLAGS)
tests_failing_test_walks_LDADD = libfailing.la libharness.la libvmibus_audit.la $(core_libraries) $(INIH_LIBS)
