# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/util: tests of src/util.

noinst_HEADERS += tests/util/lies.h

test_programs += \
	tests/util/test_arena \
	tests/util/test_audit \
	tests/util/test_deadline \
	tests/util/test_fault \
	tests/util/test_fds \
	tests/util/test_handover \
	tests/util/test_latency \
	tests/util/test_ledger \
	tests/util/test_loop \
	tests/util/test_pool \
	tests/util/test_tails

util_test_libraries = libharness.la libvmibus_util.la

tests_util_test_arena_SOURCES = tests/util/test_arena.c
tests_util_test_arena_LDADD = $(util_test_libraries)

tests_util_test_audit_SOURCES = tests/util/test_audit.c
tests_util_test_audit_LDADD = $(util_test_libraries)

tests_util_test_deadline_SOURCES = tests/util/test_deadline.c
tests_util_test_deadline_LDADD = $(util_test_libraries)

tests_util_test_fault_SOURCES = tests/util/test_fault.c
tests_util_test_fault_LDADD = $(util_test_libraries)

tests_util_test_fds_SOURCES = tests/util/test_fds.c
tests_util_test_fds_LDADD = $(util_test_libraries)

tests_util_test_latency_SOURCES = tests/util/test_latency.c
tests_util_test_latency_LDADD = $(util_test_libraries)

tests_util_test_handover_SOURCES = tests/util/test_handover.c
tests_util_test_handover_LDADD = $(util_test_libraries)

tests_util_test_ledger_SOURCES = tests/util/test_ledger.c
tests_util_test_ledger_LDADD = $(util_test_libraries)

tests_util_test_loop_SOURCES = tests/util/test_loop.c
tests_util_test_loop_LDADD = $(util_test_libraries)

tests_util_test_pool_SOURCES = tests/util/test_pool.c
tests_util_test_pool_LDADD = $(util_test_libraries)

tests_util_test_tails_SOURCES = tests/util/test_tails.c
tests_util_test_tails_LDADD = $(util_test_libraries)
