# SPDX-License-Identifier: LGPL-2.1-or-later
#
# sensors/machine: what the sensors of hosts share, a machine behind a monitor.  No module: they link it.

machine_sources = \
	sensors/machine/backends.c sensors/machine/backends.h \
	sensors/machine/intent.c sensors/machine/intent.h \
	sensors/machine/layout.c sensors/machine/layout.h \
	sensors/machine/lifecycle.c sensors/machine/lifecycle.h \
	sensors/machine/machine.c sensors/machine/machine.h \
	sensors/machine/memory.c sensors/machine/memory.h \
	sensors/machine/monitor.c sensors/machine/monitor.h \
	sensors/machine/mtree.c sensors/machine/mtree.h \
	sensors/machine/power.c sensors/machine/power.h \
	sensors/machine/process.c sensors/machine/process.h \
	sensors/machine/registers.c sensors/machine/registers.h \
	sensors/machine/root.c sensors/machine/root.h \
	sensors/machine/saved.c sensors/machine/saved.h \
	sensors/machine/sample.c sensors/machine/sample.h \
	sensors/machine/vcpu_registers.c sensors/machine/vcpu_registers.h \
	sensors/machine/vcpus.c sensors/machine/vcpus.h

if WITH_MACHINE
noinst_LTLIBRARIES += libvmibus_machine.la
libvmibus_machine_la_SOURCES = $(machine_sources)
libvmibus_machine_la_CFLAGS = $(AM_CFLAGS) $(JSON_C_CFLAGS)
libvmibus_machine_la_LIBADD = $(JSON_C_LIBS)
endif
