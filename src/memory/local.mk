# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/memory: the memory authority.  Of src/guest it needs the page walk only
# (libvmibus_guest_internal.la).

noinst_LTLIBRARIES += libvmibus_memory.la
libvmibus_memory_la_SOURCES = \
	src/memory/answer.c src/memory/answer.h \
	src/memory/attachment.c src/memory/attachment.h \
	src/memory/authority.c src/memory/authority.h \
	src/memory/backing.c src/memory/backing.h \
	src/memory/bus_link.c \
	src/memory/buffer.c src/memory/buffer.h \
	src/memory/canary.c src/memory/canary.h \
	src/memory/command.h \
	src/memory/command_attach.c \
	src/memory/command_buffer.c \
	src/memory/command_identity.c \
	src/memory/command_propose.c \
	src/memory/command_root.c \
	src/memory/command_query.c \
	src/memory/command_read.c \
	src/memory/command_write.c \
	src/memory/copier.c src/memory/copier.h \
	src/memory/endpoint.c src/memory/endpoint.h \
	src/memory/epoch_page.c src/memory/epoch_page.h \
	src/memory/fence.c src/memory/fence.h \
	src/memory/gate.c src/memory/gate.h \
	src/memory/handout.c src/memory/handout.h \
	src/memory/handover.c src/memory/handover.h src/memory/handover_record.h \
	src/memory/handover_client.c src/memory/handover_endpoint.c src/memory/handover_memctx.c \
	src/memory/job.c src/memory/job.h \
	src/memory/layout.c src/memory/layout.h \
	src/memory/maps.c src/memory/maps.h \
	src/memory/memctx.c src/memory/memctx.h \
	src/memory/meter.c src/memory/meter.h \
	src/memory/mounts.c src/memory/mounts.h \
	src/memory/object.c src/memory/object.h \
	src/memory/opener.h \
	src/memory/opener_local.c \
	src/memory/opener_protocol.c src/memory/opener_protocol.h \
	src/memory/opener_remote.c src/memory/opener_remote.h \
	src/memory/plan.c src/memory/plan.h \
	src/memory/private.c src/memory/private.h \
	src/memory/protect.c src/memory/protect.h \
	src/memory/quiesce.c src/memory/quiesce.h \
	src/memory/read.c src/memory/read.h \
	src/memory/reader.c src/memory/reader.h \
	src/memory/retire.c src/memory/retire.h \
	src/memory/root.c src/memory/root.h \
	src/memory/sessions.c src/memory/sessions.h \
	src/memory/shape.c src/memory/shape.h \
	src/memory/state.h \
	src/memory/tables.c src/memory/tables.h \
	src/memory/view.c src/memory/view.h \
	src/memory/worker.c src/memory/worker.h \
	src/memory/write_digest.c src/memory/write_digest.h \
	src/memory/write.c src/memory/write.h \
	src/memory/writer.c src/memory/writer.h

# --- tests -----------------------------------------------------------------------------------------

memory_test_libraries = \
	libharness.la libvmibus_memory.la libvmibus_guest_internal.la libvmibus_policy.la \
	libvmibus_util.la
memory_fixture = tests/memory/fixture.c tests/memory/fixture.h
memory_table = tests/memory/table.c tests/memory/table.h

test_programs += tests/memory/test_attach
tests_memory_test_attach_SOURCES = tests/memory/test_attach.c $(memory_fixture)
tests_memory_test_attach_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_attacker
tests_memory_test_attacker_SOURCES = \
	tests/memory/test_attacker.c tests/memory/buffers.c tests/memory/buffers.h $(memory_fixture)
tests_memory_test_attacker_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_backing
tests_memory_test_backing_SOURCES = tests/memory/test_backing.c $(memory_fixture)
tests_memory_test_backing_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_buffer
tests_memory_test_buffer_SOURCES = \
	tests/memory/test_buffer.c tests/memory/buffers.c tests/memory/buffers.h $(memory_fixture)
tests_memory_test_buffer_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_epoch
tests_memory_test_epoch_SOURCES = tests/memory/test_epoch.c $(memory_fixture)
tests_memory_test_epoch_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_handover
tests_memory_test_handover_SOURCES = \
	tests/memory/test_handover.c tests/memory/buffers.c tests/memory/buffers.h $(memory_fixture)
tests_memory_test_handover_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_failure
tests_memory_test_failure_SOURCES = tests/memory/test_failure.c $(memory_fixture)
tests_memory_test_failure_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_fence
tests_memory_test_fence_SOURCES = tests/memory/test_fence.c $(memory_fixture)
tests_memory_test_fence_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_growth
tests_memory_test_growth_SOURCES = \
	tests/memory/test_growth.c tests/memory/buffers.c tests/memory/buffers.h $(memory_fixture)
tests_memory_test_growth_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_identity
tests_memory_test_identity_SOURCES = tests/memory/test_identity.c $(memory_fixture)
tests_memory_test_identity_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_layout
tests_memory_test_layout_SOURCES = tests/memory/test_layout.c $(memory_fixture)
tests_memory_test_layout_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_link
tests_memory_test_link_SOURCES = tests/memory/test_link.c $(memory_fixture)
tests_memory_test_link_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_maps
tests_memory_test_maps_SOURCES = tests/memory/test_maps.c
tests_memory_test_maps_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_bounds
tests_memory_test_bounds_SOURCES = tests/memory/test_bounds.c $(memory_fixture)
tests_memory_test_bounds_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_meter
tests_memory_test_meter_SOURCES = tests/memory/test_meter.c
tests_memory_test_meter_LDADD = libharness.la libvmibus_memory.la libvmibus_policy.la libvmibus_util.la

test_programs += tests/memory/test_protect
tests_memory_test_protect_SOURCES = tests/memory/test_protect.c tests/guest_lib/fake_guest.c
tests_memory_test_protect_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_resident
tests_memory_test_resident_SOURCES = \
	tests/memory/test_resident.c tests/memory/buffers.c tests/memory/buffers.h $(memory_fixture) $(memory_table)
tests_memory_test_resident_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_retire
tests_memory_test_retire_SOURCES = tests/memory/test_retire.c $(memory_fixture)
tests_memory_test_retire_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_source
tests_memory_test_source_SOURCES = tests/memory/test_source.c $(memory_fixture)
tests_memory_test_source_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_table
tests_memory_test_table_SOURCES = tests/memory/test_table.c $(memory_table) $(memory_fixture)
tests_memory_test_table_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_tail
tests_memory_test_tail_SOURCES = tests/memory/test_tail.c $(memory_table) $(memory_fixture)
tests_memory_test_tail_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_undo
tests_memory_test_undo_SOURCES = tests/memory/test_undo.c $(memory_table) $(memory_fixture)
tests_memory_test_undo_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_read
tests_memory_test_read_SOURCES = \
	tests/memory/test_read.c tests/memory/buffers.c tests/memory/buffers.h $(memory_fixture)
tests_memory_test_read_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_quiesce
tests_memory_test_quiesce_SOURCES = tests/memory/test_quiesce.c $(memory_fixture)
tests_memory_test_quiesce_LDADD = $(memory_test_libraries)

test_programs += tests/memory/test_write
tests_memory_test_write_SOURCES = tests/memory/test_write.c $(memory_fixture)
tests_memory_test_write_LDADD = $(memory_test_libraries)

test_programs += tests/kernel/test_memory_kernel
tests_kernel_test_memory_kernel_SOURCES = tests/kernel/test_memory_kernel.c
tests_kernel_test_memory_kernel_LDADD = libharness.la libvmibus_util.la

# --- bench -----------------------------------------------------------------------------------------

noinst_PROGRAMS += bench/bench_memory
bench_bench_memory_SOURCES = bench/bench_memory.c bench/bench.c bench/bench.h
bench_bench_memory_LDADD = \
	libvmibus_memory.la libvmibus_guest_internal.la libvmibus_policy.la libvmibus_util.la
