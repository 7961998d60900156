# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/fuzz: targets for fuzzers.  tests/fuzz/run makes programs of them with libFuzzer; here all are in one, which shows each
# its committed corpus.

EXTRA_DIST += tests/fuzz/corpus tests/fuzz/fuzz.mk tests/fuzz/make-frames-corpus tests/fuzz/make-linux-corpus tests/fuzz/run \
	tests/fuzz/run-one

# Those of the sensors of hosts, which read what a monitor says.
fuzz_host_sources = \
	tests/fuzz/fuzz_backends.c \
	tests/fuzz/fuzz_gpa2hva.c \
	tests/fuzz/fuzz_mtree.c \
	tests/fuzz/fuzz_ppm.c \
	tests/fuzz/fuzz_qmp.c \
	tests/fuzz/fuzz_registers.c \
	tests/fuzz/fuzz_stat.c \
	tests/fuzz/fuzz_vcpu_registers.c
EXTRA_DIST += $(fuzz_host_sources)

fuzz_sources = \
	tests/fuzz/clock.c tests/fuzz/clock.h \
	tests/fuzz/corpus.c tests/fuzz/corpus.h \
	tests/fuzz/fuzz_audit_chain.c \
	tests/fuzz/fuzz_btf.c \
	tests/fuzz/fuzz_client.c \
	tests/fuzz/fuzz_config.c \
	tests/fuzz/fuzz_frames.c \
	tests/fuzz/fuzz_handover.c \
	tests/fuzz/fuzz_kallsyms.c \
	tests/fuzz/fuzz_link_to_bus.c \
	tests/fuzz/fuzz_link_to_memory.c \
	tests/fuzz/fuzz_manifest.c \
	tests/fuzz/fuzz_maps.c \
	tests/fuzz/fuzz_note.c \
	tests/fuzz/fuzz_opener.c \
	tests/fuzz/fuzz_opener_config.c \
	tests/fuzz/fuzz_pagewalk.c \
	tests/fuzz/fuzz_peers.c \
	tests/fuzz/fuzz_root.c \
	tests/fuzz/fuzz_scan.c \
	tests/fuzz/fuzz_sensor_peer.c \
	tests/fuzz/fuzz_shape.c \
	tests/fuzz/memory_world.c tests/fuzz/memory_world.h \
	tests/fuzz/player.c tests/fuzz/player.h \
	tests/fuzz/playing_sensor.c tests/fuzz/playing_sensor.h \
	tests/fuzz/stream.c tests/fuzz/stream.h \
	tests/fuzz/target.h \
	tests/fuzz/test_corpora.c \
	tests/fuzz/world.c tests/fuzz/world.h

test_programs += tests/fuzz/test_corpora
tests_fuzz_test_corpora_SOURCES = \
	$(fuzz_sources) \
	$(config_sources) src/daemon/log.c src/daemon/manifest.c
tests_fuzz_test_corpora_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors $(INIH_CFLAGS)
tests_fuzz_test_corpora_LDADD = \
	libharness.la libvmibus_stub.la $(core_libraries) libvmibus_guest_internal.la libvmibus_audit.la $(INIH_LIBS)
if WITH_QEMU
tests_fuzz_test_corpora_SOURCES += $(fuzz_host_sources)
tests_fuzz_test_corpora_CPPFLAGS += $(JSON_C_CFLAGS) -DHAVE_JSON_C
tests_fuzz_test_corpora_LDADD += libvmibus_qemu.la
endif

test_programs += tests/fuzz/test_corpus_printk tests/fuzz/test_corpus_space tests/fuzz/test_corpus_tasks
corpus_alone_sources = tests/fuzz/test_corpus_alone.c tests/fuzz/corpus.c
tests_fuzz_test_corpus_printk_SOURCES = $(corpus_alone_sources) tests/fuzz/fuzz_printk.c
tests_fuzz_test_corpus_printk_CPPFLAGS = $(AM_CPPFLAGS) -DTARGET_ALONE=printk
tests_fuzz_test_corpus_printk_LDADD = $(guest_lib_ldadd)
tests_fuzz_test_corpus_space_SOURCES = \
	$(corpus_alone_sources) tests/fuzz/fuzz_space.c tests/guest_lib/fake_btf.c tests/guest_lib/flat_kernel.c
tests_fuzz_test_corpus_space_CPPFLAGS = $(AM_CPPFLAGS) -DTARGET_ALONE=space
tests_fuzz_test_corpus_space_LDADD = $(guest_lib_ldadd)
tests_fuzz_test_corpus_tasks_SOURCES = \
	$(corpus_alone_sources) tests/fuzz/fuzz_tasks.c tests/guest_lib/fake_btf.c tests/guest_lib/task_image.c
tests_fuzz_test_corpus_tasks_CPPFLAGS = $(AM_CPPFLAGS) -DTARGET_ALONE=tasks
tests_fuzz_test_corpus_tasks_LDADD = $(guest_lib_ldadd)
if WITH_QEMU
test_programs += tests/fuzz/test_corpus_saved
tests_fuzz_test_corpus_saved_SOURCES = \
	$(corpus_alone_sources) tests/fuzz/fuzz_saved.c sensors/machine/saved.c sensors/qemu/by_command.c
tests_fuzz_test_corpus_saved_CPPFLAGS = \
	$(AM_CPPFLAGS) -I$(top_srcdir)/sensors $(JSON_C_CFLAGS) -DTARGET_ALONE=saved
tests_fuzz_test_corpus_saved_LDADD = libharness.la
endif
