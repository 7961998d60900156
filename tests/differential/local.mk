# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/differential: a daemon under long random sequences and faults, beside a model of what should
# come of it.

noinst_HEADERS += tests/differential/actor.h tests/differential/guest.h

check_LTLIBRARIES += libdifferential.la
libdifferential_la_SOURCES = tests/differential/actor.c tests/differential/guest.c
libdifferential_la_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
libdifferential_la_CFLAGS = $(AM_CFLAGS) $(CHECK_CFLAGS)

differential_test_programs = \
	tests/differential/test_differential \
	tests/differential/test_faults
test_programs += $(differential_test_programs)

tests_differential_test_differential_SOURCES = \
	tests/differential/connection.c tests/differential/connection.h \
	tests/differential/handover.c tests/differential/handover.h \
	tests/differential/model.c tests/differential/model.h \
	tests/differential/sequence.c tests/differential/sequence.h \
	tests/differential/steps.h \
	tests/differential/steps_lease.c \
	tests/differential/steps_memory.c \
	tests/differential/steps_power.c \
	tests/differential/test_differential.c
tests_differential_test_differential_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_differential_test_differential_LDADD = libdifferential.la $(daemon_tests)
tests_differential_test_faults_SOURCES = tests/differential/test_faults.c
tests_differential_test_faults_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_differential_test_faults_LDADD = libdifferential.la $(daemon_tests)
