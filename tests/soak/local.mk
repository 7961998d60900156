# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/soak: controls of all tempers on one daemon, for as long as one likes.

soak = \
	tests/soak/client.c tests/soak/client.h \
	tests/soak/soak.c tests/soak/soak.h \
	tests/soak/tempers.c tests/soak/tempers.h

test_programs += tests/soak/test_soak
tests_soak_test_soak_SOURCES = tests/soak/test_soak.c $(soak)
tests_soak_test_soak_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
tests_soak_test_soak_LDADD = $(daemon_tests)

guest_test_programs += tests/soak/test_soak_guests
tests_soak_test_soak_guests_SOURCES = tests/soak/test_soak_guests.c tests/soak/guests.c tests/soak/guests.h $(soak)
tests_soak_test_soak_guests_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors -I$(top_srcdir)/tests/bed
tests_soak_test_soak_guests_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_soak_test_soak_guests_LDADD = $(daemon_tests) libbed.la $(JSON_C_LIBS)
