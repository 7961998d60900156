# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/bed: guests for tests, from tests/guest.

EXTRA_DIST += tests/guest/agent.c tests/guest/agent.h tests/guest/processes.c tests/guest/make-initrd tests/guest/run-guest

check_LTLIBRARIES += libbed.la
libbed_la_SOURCES = tests/bed/bed.c tests/bed/bed.h
libbed_la_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
libbed_la_LIBADD = $(JSON_C_LIBS)

guest_test_programs += tests/bed/test_bed
tests_bed_test_bed_SOURCES = tests/bed/test_bed.c
tests_bed_test_bed_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_bed_test_bed_LDADD = libharness.la libbed.la $(JSON_C_LIBS)

# The same for tests in Python.
EXTRA_DIST += tests/bed/bed.py

# The unit tests under the kernel of a guest; a configuration of tools/check of its own runs it.
EXTRA_DIST += tests/guest/suites-init tests/qemu/test_stub_suite_in_guest.py
