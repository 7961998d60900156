# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/audit: tests of src/audit.

test_programs += tests/audit/test_chain tests/audit/test_waiting

audit_test_libraries = libharness.la libvmibus_audit.la libvmibus_protocol.la libvmibus_util.la

tests_audit_test_chain_SOURCES = tests/audit/test_chain.c tests/audit/scene.c tests/audit/scene.h
tests_audit_test_chain_LDADD = $(audit_test_libraries)

# Its disk does what the test says.
tests_audit_test_waiting_SOURCES = \
	tests/audit/test_waiting.c tests/audit/fake_disk.c tests/audit/fake_disk.h tests/audit/scene.c tests/audit/scene.h
tests_audit_test_waiting_LDADD = $(audit_test_libraries)

test_scripts += tests/audit/test_verbs.py

