# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Builds fuzz targets with clang's libFuzzer and runs them.  tests/fuzz/run calls it in the source tree, with
#
#     BUILD      a build, for the headers that are generated
#     DIRECTORY  where objects, programs, grown corpora and findings go
#     CLANG      the compiler
#     FOR        seconds that each runs
#
# `run-NAME` builds and runs one.  Each file is compiled once, whichever targets test it.

# --- what each target tests, as sources_NAME -------------------------------------------------------

btf := src/guest/linux/btf.c src/guest/linux/btf_member.c src/guest/linux/btf_record.c
# A whole bus: all but what belongs to programs, and what only a test build has.
bus := $(filter-out src/daemon/% src/audit/% src/transport/compromised.c,$(wildcard src/*/*.c)) $(wildcard sensors/stub/*.c) $(BUILD)/protocol/names.c
opener_config := src/daemon/opener_config.c src/daemon/sandbox_wish.c src/daemon/trusted_file.c
peers := $(bus) tests/fuzz/clock.c tests/fuzz/stream.c tests/fuzz/world.c

sources_audit_chain := src/audit/chain_reader.c src/audit/hash.c
sources_backends := sensors/machine/backends.c sensors/machine/monitor.c
sources_btf := $(btf)
sources_client := $(bus) tests/fuzz/stream.c tests/fuzz/world.c
sources_config := $(bus) tests/fuzz/world.c $(wildcard src/daemon/config*.c) $(opener_config) src/daemon/log.c
sources_frames := $(bus) tests/fuzz/world.c
sources_gpa2hva := sensors/machine/layout.c sensors/machine/mtree.c sensors/machine/backends.c sensors/machine/monitor.c
sources_handover := $(bus)
sources_kallsyms := src/guest/linux/kallsyms.c
sources_link_to_bus := $(peers)
sources_link_to_memory := $(peers) tests/fuzz/memory_world.c
sources_manifest := $(BUILD)/protocol/names.c src/daemon/manifest.c
sources_maps := src/memory/maps.c
sources_mtree := sensors/machine/mtree.c
sources_note := src/guest/note.c
sources_opener := src/memory/opener_protocol.c src/util/fds.c
sources_opener_config := $(opener_config) src/util/fds.c
sources_pagewalk := src/guest/pagewalk.c
sources_peers := $(peers) tests/fuzz/player.c tests/fuzz/playing_sensor.c
sources_ppm := sensors/qemu/png.c
sources_printk := src/guest/linux/log.c src/guest/linux/reading.c
sources_qmp := sensors/qemu/qmp.c sensors/machine/monitor.c
sources_registers := sensors/machine/registers.c
sources_root := src/guest/kernel_image.c src/guest/linux_root.c src/guest/note.c src/guest/pagewalk.c src/guest/sweep.c
sources_saved := sensors/machine/saved.c sensors/qemu/by_command.c
sources_scan := src/guest/pagewalk.c src/guest/pattern.c src/guest/scan.c src/guest/scatter.c src/guest/tables.c
sources_sensor_peer := $(peers)
sources_shape := src/memory/shape.c
sources_space := src/guest/linux/areas.c $(btf) src/guest/linux/fields.c src/guest/linux/maple.c src/guest/linux/mappings.c \
	src/guest/linux/path.c src/guest/linux/reading.c src/guest/linux/task.c src/guest/pagewalk.c \
	tests/guest_lib/fake_btf.c tests/guest_lib/flat_kernel.c
sources_stat := sensors/machine/process.c
sources_tasks := $(btf) src/guest/linux/fields.c src/guest/linux/files.c src/guest/linux/path.c src/guest/linux/reading.c \
	src/guest/linux/socket_owners.c src/guest/linux/sockets.c src/guest/linux/task.c src/guest/linux/task_list.c \
	src/guest/linux/task_memory.c src/guest/pagewalk.c tests/guest_lib/fake_btf.c tests/guest_lib/task_image.c
sources_vcpu_registers := sensors/machine/vcpu_registers.c

# What real QEMUs said of it: the ending of the recordings' names.
recordings_backends := memory
recordings_gpa2hva := gpa2hva
recordings_mtree := mtree
recordings_registers := registers
recordings_vcpu_registers := registers

targets := $(patsubst sources_%,%,$(filter sources_%,$(.VARIABLES)))

# --- building ------------------------------------------------------------------------------------

packages := json-c nettle inih
flags := -std=gnu11 -D_GNU_SOURCE -DFUZZ_WITH_LIBFUZZER -g -O1 -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=all -I$(BUILD)/include -Iinclude -Isrc -Isensors -Itests $(shell pkg-config --cflags $(packages)) \
	-DVMIBUS_SYSCONFDIR='"/etc"' -DVMIBUS_LOCALSTATEDIR='"/var"' -DVMIBUS_SENSOR_DIR_DEFAULT='"/nowhere"'
libraries := $(shell pkg-config --libs $(packages))

object = $(DIRECTORY)/objects/$(patsubst /%,%,$(1:.c=.o))

define rules_of_file
$(call object,$(1)): $(1)
	@mkdir -p $$(@D)
	@$$(CLANG) $$(flags) -MMD -MP -c $$< -o $$@
-include $(patsubst %.o,%.d,$(call object,$(1)))
endef

define rules_of_target
$(DIRECTORY)/fuzz_$(1): $(foreach source,tests/fuzz/fuzz_$(1).c $(sources_$(1)),$(call object,$(source)))
	@$$(CLANG) -fsanitize=fuzzer,address,undefined $$^ -Wl,--as-needed $$(libraries) -o $$@
build-$(1): $(DIRECTORY)/fuzz_$(1)
run-$(1): $(DIRECTORY)/fuzz_$(1)
	@tests/fuzz/run-one $(1) $$(DIRECTORY) $$(FOR) $(recordings_$(1))
.PHONY: build-$(1) run-$(1)
endef

$(foreach source,$(sort $(foreach target,$(targets),tests/fuzz/fuzz_$(target).c $(sources_$(target)))),\
	$(eval $(call rules_of_file,$(source))))
$(foreach target,$(targets),$(eval $(call rules_of_target,$(target))))

list:
	@echo $(sort $(targets))
.PHONY: list
