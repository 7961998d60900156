# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/soak: controls of all tempers on one daemon, for as long as one likes.

test_programs += tests/soak/test_soak
tests_soak_test_soak_SOURCES = \
	tests/soak/client.c tests/soak/client.h \
	tests/soak/tempers.c tests/soak/tempers.h \
	tests/soak/test_soak.c
tests_soak_test_soak_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_soak_test_soak_LDADD = $(daemon_tests)
