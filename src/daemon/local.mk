# SPDX-License-Identifier: LGPL-2.1-or-later
#
# src/daemon: the processes.

# What takes out of reach what a daemon has no need of.
sandbox_sources = \
	src/daemon/counts.h \
	src/daemon/privileges.c src/daemon/privileges.h \
	src/daemon/sandbox.c src/daemon/sandbox.h \
	src/daemon/sandbox_basis.c \
	src/daemon/sandbox_files.c \
	src/daemon/sandbox_lookup.c \
	src/daemon/sandbox_notes.c src/daemon/sandbox_notes.h

# What reads the configuration, of which every daemon takes its part.
config_sources = \
	src/daemon/config.c src/daemon/config.h \
	src/daemon/config_audit.c \
	src/daemon/config_reading.c src/daemon/config_reading.h \
	src/daemon/config_rule.c \
	src/daemon/config_users.c \
	src/daemon/opener_config.c src/daemon/opener_config.h \
	src/daemon/sandbox_wish.c \
	src/daemon/trusted_file.c src/daemon/trusted_file.h

sbin_PROGRAMS += vmibusd
vmibusd_SOURCES = \
	$(config_sources) \
	$(sandbox_sources) \
	src/daemon/confinement.c src/daemon/confinement.h \
	src/daemon/faults.c src/daemon/faults.h \
	src/daemon/handover.c src/daemon/handover.h \
	src/daemon/handover_bus.c src/daemon/handover_bus.h \
	src/daemon/incarnation.c src/daemon/incarnation.h \
	src/daemon/leftover.c src/daemon/leftover.h \
	src/daemon/listening.c src/daemon/listening.h \
	src/daemon/log.c src/daemon/log.h \
	src/daemon/manifest.c src/daemon/manifest.h \
	src/daemon/options.c src/daemon/options.h \
	src/daemon/recording.c src/daemon/recording.h \
	src/daemon/sensor_module.c src/daemon/sensor_module.h \
	src/daemon/sensors.c src/daemon/sensors.h \
	src/daemon/service.c src/daemon/service.h \
	src/daemon/signals.c src/daemon/signals.h \
	src/daemon/state.c src/daemon/state.h \
	src/daemon/watchdog.c src/daemon/watchdog.h \
	src/daemon/vmibusd.c
vmibusd_CFLAGS = $(program_cflags) $(SECCOMP_CFLAGS) $(INIH_CFLAGS) $(SYSTEMD_CFLAGS)
vmibusd_LDFLAGS = $(program_ldflags)
vmibusd_LDADD = $(core_libraries) libvmibus_audit.la $(SECCOMP_LIBS) $(INIH_LIBS) $(SYSTEMD_LIBS)

sbin_PROGRAMS += vmibus-opend
vmibus_opend_SOURCES = \
	src/daemon/log.c src/daemon/log.h \
	src/daemon/opener_config.c src/daemon/opener_config.h \
	src/daemon/opener_gate.c src/daemon/opener_gate.h \
	src/daemon/opener_server.c src/daemon/opener_server.h \
	src/daemon/sandbox_wish.c \
	$(sandbox_sources) \
	src/daemon/service.c src/daemon/service.h \
	src/daemon/signals.c src/daemon/signals.h \
	src/daemon/trusted_file.c src/daemon/trusted_file.h \
	src/daemon/watchdog.c src/daemon/watchdog.h \
	src/daemon/vmibus-opend.c
vmibus_opend_CFLAGS = $(program_cflags) $(SECCOMP_CFLAGS) $(INIH_CFLAGS) $(SYSTEMD_CFLAGS)
vmibus_opend_LDFLAGS = $(program_ldflags)
vmibus_opend_LDADD = libvmibus_memory.la libvmibus_util.la $(SECCOMP_LIBS) $(INIH_LIBS) $(SYSTEMD_LIBS)

sbin_PROGRAMS += vmibus-memd
vmibus_memd_SOURCES = \
	$(config_sources) \
	$(sandbox_sources) \
	src/daemon/confinement.c src/daemon/confinement.h \
	src/daemon/handover.c src/daemon/handover.h \
	src/daemon/handover_memory.c src/daemon/handover_memory.h \
	src/daemon/incarnation.c src/daemon/incarnation.h \
	src/daemon/listening.c src/daemon/listening.h \
	src/daemon/log.c src/daemon/log.h \
	src/daemon/recording.c src/daemon/recording.h \
	src/daemon/service.c src/daemon/service.h \
	src/daemon/signals.c src/daemon/signals.h \
	src/daemon/state.c src/daemon/state.h \
	src/daemon/watchdog.c src/daemon/watchdog.h \
	src/daemon/vmibus-memd.c
vmibus_memd_CFLAGS = $(program_cflags) $(SECCOMP_CFLAGS) $(INIH_CFLAGS) $(SYSTEMD_CFLAGS)
vmibus_memd_LDFLAGS = $(program_ldflags)
vmibus_memd_LDADD = \
	libvmibus_transport.la libvmibus_bus.la libvmibus_memory.la libvmibus_guest_internal.la libvmibus_audit.la \
	libvmibus_policy.la libvmibus_util.la libvmibus_protocol.la $(SECCOMP_LIBS) $(INIH_LIBS) $(SYSTEMD_LIBS)

sbin_PROGRAMS += vmibus-sensord
vmibus_sensord_SOURCES = \
	$(config_sources) \
	$(sandbox_sources) \
	src/daemon/confinement.c src/daemon/confinement.h \
	src/daemon/log.c src/daemon/log.h \
	src/daemon/manifest.c src/daemon/manifest.h \
	src/daemon/remote_sensor.c src/daemon/remote_sensor.h \
	src/daemon/sensor_keeping.c src/daemon/sensor_keeping.h \
	src/daemon/sensor_undo.c src/daemon/sensor_undo.h \
	src/daemon/sensor_module.c src/daemon/sensor_module.h \
	src/daemon/service.c src/daemon/service.h \
	src/daemon/signals.c src/daemon/signals.h \
	src/daemon/watchdog.c src/daemon/watchdog.h \
	src/daemon/vmibus-sensord.c
vmibus_sensord_CFLAGS = $(program_cflags) $(SECCOMP_CFLAGS) $(INIH_CFLAGS) $(SYSTEMD_CFLAGS)
vmibus_sensord_LDFLAGS = $(program_ldflags)
vmibus_sensord_LDADD = \
	libvmibus_host.la libvmibus_client_internal.la libvmibus_policy.la libvmibus_util.la libvmibus_protocol.la \
	$(SECCOMP_LIBS) $(INIH_LIBS) $(SYSTEMD_LIBS)
