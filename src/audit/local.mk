# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/audit: records that last.  Only programs link it, for it needs libraries.

noinst_LTLIBRARIES += libvmibus_audit.la
libvmibus_audit_la_SOURCES = \
	src/audit/chain.c src/audit/chain.h \
	src/audit/chain_files.c src/audit/chain_files.h \
	src/audit/chain_reader.c src/audit/chain_reader.h \
	src/audit/disk.c src/audit/disk.h \
	src/audit/hash.c src/audit/hash.h \
	src/audit/journal.c src/audit/journal.h \
	src/audit/messages.h \
	src/audit/recorder.c src/audit/recorder.h \
	src/audit/verify.c src/audit/verify.h
libvmibus_audit_la_CFLAGS = $(AM_CFLAGS) $(NETTLE_CFLAGS) $(LIBURING_CFLAGS)
libvmibus_audit_la_LIBADD = $(NETTLE_LIBS) $(LIBURING_LIBS)
