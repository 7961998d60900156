# SPDX-License-Identifier: LGPL-2.1-or-later
#
# controls/metrics: what a bus counts, for monitoring.

bin_PROGRAMS += vmibus-metrics
vmibus_metrics_SOURCES = \
	controls/metrics/exposition.c controls/metrics/exposition.h \
	controls/metrics/families.c controls/metrics/families.h \
	controls/metrics/server.c controls/metrics/server.h \
	controls/metrics/vmibus-metrics.c
vmibus_metrics_CFLAGS = $(program_cflags) $(SYSTEMD_CFLAGS)
vmibus_metrics_LDFLAGS = $(program_ldflags)
vmibus_metrics_LDADD = libvmibus.la $(SYSTEMD_LIBS)

dist_man_MANS += man/vmibus-metrics.8

test_scripts += tests/metrics/test_metrics.py
