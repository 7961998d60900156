# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/daemon: the processes.

sbin_PROGRAMS += vmibusd
vmibusd_SOURCES = \
	src/daemon/config.c src/daemon/config.h \
	src/daemon/faults.c src/daemon/faults.h \
	src/daemon/incarnation.c src/daemon/incarnation.h \
	src/daemon/leftover.c src/daemon/leftover.h \
	src/daemon/log.c src/daemon/log.h \
	src/daemon/manifest.c src/daemon/manifest.h \
	src/daemon/options.c src/daemon/options.h \
	src/daemon/sensors.c src/daemon/sensors.h \
	src/daemon/service.c src/daemon/service.h \
	src/daemon/state.c src/daemon/state.h \
	src/daemon/vmibusd.c
vmibusd_CFLAGS = $(program_cflags) $(INIH_CFLAGS) $(SYSTEMD_CFLAGS)
vmibusd_LDFLAGS = $(program_ldflags)
vmibusd_LDADD = $(core_libraries) $(INIH_LIBS) $(SYSTEMD_LIBS)
