# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/memory: the memory authority.  Of src/guest it needs the page walk only
# (libvmibus_guest_internal.la).

noinst_LTLIBRARIES += libvmibus_memory.la
libvmibus_memory_la_SOURCES = \
	src/memory/answer.c src/memory/answer.h \
	src/memory/authority.c src/memory/authority.h \
	src/memory/canary.c src/memory/canary.h \
	src/memory/command.h \
	src/memory/command_attach.c \
	src/memory/command_propose.c \
	src/memory/command_write.c \
	src/memory/endpoint.c src/memory/endpoint.h \
	src/memory/fence.c src/memory/fence.h \
	src/memory/gate.c src/memory/gate.h \
	src/memory/handout.c src/memory/handout.h \
	src/memory/layout.c src/memory/layout.h \
	src/memory/maps.c src/memory/maps.h \
	src/memory/memctx.c src/memory/memctx.h \
	src/memory/object.c src/memory/object.h \
	src/memory/opener.h \
	src/memory/opener_local.c \
	src/memory/plan.c src/memory/plan.h \
	src/memory/reader.c src/memory/reader.h \
	src/memory/root.c src/memory/root.h \
	src/memory/state.h \
	src/memory/view.c src/memory/view.h \
	src/memory/worker.c src/memory/worker.h \
	src/memory/write.c src/memory/write.h \
	src/memory/writer.c src/memory/writer.h

# --- tests -----------------------------------------------------------------------------------------

memory_test_libraries = \
	libharness.la libvmibus_memory.la libvmibus_guest_internal.la libvmibus_policy.la \
	libvmibus_util.la
memory_fixture = tests/memory/fixture.c tests/memory/fixture.h

test_programs += tests/memory/test_attach
tests_memory_test_attach_SOURCES = tests/memory/test_attach.c $(memory_fixture)
tests_memory_test_attach_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_backing
tests_memory_test_backing_SOURCES = tests/memory/test_backing.c $(memory_fixture)
tests_memory_test_backing_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_epoch
tests_memory_test_epoch_SOURCES = tests/memory/test_epoch.c $(memory_fixture)
tests_memory_test_epoch_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_failure
tests_memory_test_failure_SOURCES = tests/memory/test_failure.c $(memory_fixture)
tests_memory_test_failure_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_fence
tests_memory_test_fence_SOURCES = tests/memory/test_fence.c $(memory_fixture)
tests_memory_test_fence_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_layout
tests_memory_test_layout_SOURCES = tests/memory/test_layout.c $(memory_fixture)
tests_memory_test_layout_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_maps
tests_memory_test_maps_SOURCES = tests/memory/test_maps.c
tests_memory_test_maps_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_write
tests_memory_test_write_SOURCES = tests/memory/test_write.c $(memory_fixture)
tests_memory_test_write_LDADD = $(memory_test_libraries)

test_programs += tests/kernel/test_memory_kernel
tests_kernel_test_memory_kernel_SOURCES = tests/kernel/test_memory_kernel.c
tests_kernel_test_memory_kernel_LDADD = libharness.la libvmibus_util.la

EXTRA_DIST += tests/fuzz/fuzz_maps.c

# --- bench -----------------------------------------------------------------------------------------

noinst_PROGRAMS += bench/bench_memory
bench_bench_memory_SOURCES = bench/bench_memory.c bench/bench.c bench/bench.h
bench_bench_memory_LDADD = \
	libvmibus_memory.la libvmibus_guest_internal.la libvmibus_policy.la libvmibus_util.la
