# SPDX-License-Identifier: LGPL-2.1-or-later
#
# controls/vmibusctl: the command line.

# What has no main, so that tests reach it.
vmibusctl_parts = \
	controls/vmibusctl/arguments.c controls/vmibusctl/arguments.h \
	controls/vmibusctl/frame_json.c controls/vmibusctl/frame_json.h \
	controls/vmibusctl/json_list.c controls/vmibusctl/json_list.h \
	controls/vmibusctl/keys.c controls/vmibusctl/keys.h \
	controls/vmibusctl/mouse.c controls/vmibusctl/mouse.h \
	controls/vmibusctl/typing.h \
	controls/vmibusctl/units.c controls/vmibusctl/units.h \
	controls/vmibusctl/utf8.c controls/vmibusctl/utf8.h
if HAVE_XKBCOMMON
vmibusctl_parts += controls/vmibusctl/typing_xkb.c
else
vmibusctl_parts += controls/vmibusctl/typing_us.c
endif
EXTRA_DIST += controls/vmibusctl/typing_xkb.c controls/vmibusctl/typing_us.c

noinst_LTLIBRARIES += libvmibusctl_parts.la
libvmibusctl_parts_la_SOURCES = $(vmibusctl_parts)
libvmibusctl_parts_la_CFLAGS = $(program_cflags) $(JSON_C_CFLAGS) $(XKBCOMMON_CFLAGS)

bin_PROGRAMS += vmibusctl
vmibusctl_SOURCES = \
	controls/vmibusctl/audit_chain.c controls/vmibusctl/audit_chain.h \
	controls/vmibusctl/audit_record.c controls/vmibusctl/audit_record.h \
	controls/vmibusctl/authority.c controls/vmibusctl/authority.h \
	controls/vmibusctl/child.c controls/vmibusctl/child.h \
	controls/vmibusctl/elf_core.c controls/vmibusctl/elf_core.h \
	controls/vmibusctl/extents.c controls/vmibusctl/extents.h \
	controls/vmibusctl/frame_text.c controls/vmibusctl/frame_text.h \
	controls/vmibusctl/guest_memory.c controls/vmibusctl/guest_memory.h \
	controls/vmibusctl/holders.c controls/vmibusctl/holders.h \
	controls/vmibusctl/input.c controls/vmibusctl/input.h \
	controls/vmibusctl/limits.c controls/vmibusctl/limits.h \
	controls/vmibusctl/linux_facts.c controls/vmibusctl/linux_facts.h \
	controls/vmibusctl/linux_guest.c controls/vmibusctl/linux_guest.h \
	controls/vmibusctl/new_file.c controls/vmibusctl/new_file.h \
	controls/vmibusctl/process_space.c controls/vmibusctl/process_space.h \
	controls/vmibusctl/progress.c controls/vmibusctl/progress.h \
	controls/vmibusctl/report.c controls/vmibusctl/report.h \
	controls/vmibusctl/roster.c controls/vmibusctl/roster.h \
	controls/vmibusctl/standstill.c controls/vmibusctl/standstill.h \
	controls/vmibusctl/table.c controls/vmibusctl/table.h \
	controls/vmibusctl/tasks.c controls/vmibusctl/tasks.h \
	controls/vmibusctl/providers.c controls/vmibusctl/providers.h \
	controls/vmibusctl/verb_add.c \
	controls/vmibusctl/verb_audit.c \
	controls/vmibusctl/verb_dump.c \
	controls/vmibusctl/verb_dmesg.c \
	controls/vmibusctl/verb_explain.c \
	controls/vmibusctl/verb_files.c \
	controls/vmibusctl/verb_info.c \
	controls/vmibusctl/verb_key.c \
	controls/vmibusctl/verb_hold.c \
	controls/vmibusctl/verb_lease.c \
	controls/vmibusctl/verb_list.c \
	controls/vmibusctl/verb_maps.c \
	controls/vmibusctl/verb_modules.c \
	controls/vmibusctl/verb_monitor.c \
	controls/vmibusctl/verb_mouse.c \
	controls/vmibusctl/verb_power.c \
	controls/vmibusctl/verb_ps.c \
	controls/vmibusctl/verb_read.c \
	controls/vmibusctl/verb_regs.c \
	controls/vmibusctl/verb_screenshot.c \
	controls/vmibusctl/verb_search.c \
	controls/vmibusctl/verb_sockets.c \
	controls/vmibusctl/verb_stats.c \
	controls/vmibusctl/verb_symbols.c \
	controls/vmibusctl/verb_top.c \
	controls/vmibusctl/verb_translate.c \
	controls/vmibusctl/verb_type.c \
	controls/vmibusctl/verb_watch.c \
	controls/vmibusctl/verb_write.c \
	controls/vmibusctl/vmibusctl.c controls/vmibusctl/vmibusctl.h
vmibusctl_CFLAGS = $(program_cflags) $(JSON_C_CFLAGS)
vmibusctl_LDFLAGS = $(program_ldflags)
# The audit files are read by what writes them.
vmibusctl_LDADD = libvmibusctl_parts.la libvmibus.la libvmibus-guest.la libvmibus_audit.la libvmibus_protocol.la libvmibus_util.la $(JSON_C_LIBS) $(XKBCOMMON_LIBS)

dist_man_MANS += man/vmibusctl.1

bashcompletiondir = $(datadir)/bash-completion/completions
dist_bashcompletion_DATA = controls/vmibusctl/completion/bash/vmibusctl
zshcompletiondir = $(datadir)/zsh/site-functions
dist_zshcompletion_DATA = controls/vmibusctl/completion/zsh/_vmibusctl

# --- tests ---------------------------------------------------------------------------------------

test_programs += tests/vmibusctl/test_parts
tests_vmibusctl_test_parts_SOURCES = tests/vmibusctl/test_parts.c
tests_vmibusctl_test_parts_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/controls/vmibusctl -I$(top_srcdir)/tests
tests_vmibusctl_test_parts_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
tests_vmibusctl_test_parts_LDADD = \
	libharness.la libvmibusctl_parts.la libvmibus_client_internal.la libvmibus_util.la libvmibus_protocol.la \
	$(JSON_C_LIBS) $(XKBCOMMON_LIBS)

test_scripts += tests/vmibusctl/test_completion.py tests/vmibusctl/test_explain.py tests/vmibusctl/test_manual.py \
	tests/vmibusctl/test_mistakes.py tests/vmibusctl/test_show.py tests/vmibusctl/test_vmibusctl.py

guest_test_scripts += tests/qemu/test_by_command.py tests/qemu/test_discovery.py tests/qemu/test_pointer.py tests/qemu/test_screen.py tests/qemu/test_search.py tests/qemu/test_typing.py
guest_test_scripts += tests/qemu/test_dump.py tests/qemu/test_maps.py tests/qemu/test_linux_verbs.py tests/qemu/test_symbols.py
