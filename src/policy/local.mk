# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/policy: grants.

noinst_LTLIBRARIES += libvmibus_policy.la
libvmibus_policy_la_SOURCES = \
	src/policy/numbering.c src/policy/numbering.h \
	src/policy/policy.c src/policy/policy.h \
	src/policy/principal.c src/policy/principal.h \
	src/policy/users.c src/policy/users.h \
	src/policy/write_bounds.c src/policy/write_bounds.h
