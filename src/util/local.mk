# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/util: mechanism.
#
# How a local.mk is written.  Paths are relative to the top of the tree.  A list may be empty: an empty
# library is built as such.  List what exists only: a name without a file stops every build.  Headers
# are listed with the sources, so that they are distributed.  Lists that are shared (EXTRA_DIST,
# CLEANFILES, test_programs, ...) are begun in Makefile.am and only ever added to, with +=.  How tests are
# added is said in tests/local.mk.

noinst_LTLIBRARIES += libvmibus_util.la
libvmibus_util_la_SOURCES = \
	src/util/arena.c src/util/arena.h \
	src/util/audit.c src/util/audit.h \
	src/util/clock.h \
	src/util/deadline.h \
	src/util/fault.c src/util/fault.h \
	src/util/fds.c src/util/fds.h \
	src/util/handover.c src/util/handover.h \
	src/util/latency.c src/util/latency.h \
	src/util/ledger.c src/util/ledger.h \
	src/util/limit_use.c src/util/limit_use.h \
	src/util/list.h \
	src/util/octets.h \
	src/util/pagemap.h \
	src/util/loop.c src/util/loop.h \
	src/util/poison.h \
	src/util/pool.c src/util/pool.h \
	src/util/refusal.c src/util/refusal.h \
	src/util/region.c src/util/region.h \
	src/util/slot_table.c src/util/slot_table.h \
	src/util/store.c src/util/store.h \
	src/util/tails.c src/util/tails.h \
	src/util/thread.c src/util/thread.h \
	src/util/unix_socket.c src/util/unix_socket.h
