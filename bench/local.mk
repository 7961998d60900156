# SPDX-License-Identifier: LGPL-2.1-or-later
#
# bench: measurements, built and run by `make bench`; none is a test.  `make bench BENCH=--full` takes
# longer and boots a guest; see bench/README.md.

bench_programs = bench/apart bench/audit bench/epoch bench/roundtrip bench/fanout bench/memread bench/memwrite bench/throughput bench/idle bench/scaling bench/bystander \
	bench/walk bench/search bench/publish bench/ps bench/processes bench/symbols

EXTRA_PROGRAMS = $(bench_programs)
EXTRA_LTLIBRARIES = libbench.la bench/burst.la bench/count_allocations.la bench/meter_monitor.la
EXTRA_DIST += bench/README.md bench/burst.sensor bench/compare bench/run

libbench_la_SOURCES = \
	bench/audience.c bench/audience.h \
	bench/bench.c bench/bench.h \
	bench/dbus.c bench/dbus.h \
	bench/instance.c bench/instance.h \
	bench/pingpong.c bench/pingpong.h \
	bench/syscalls.c bench/syscalls.h
libbench_la_CFLAGS = $(AM_CFLAGS) $(SYSTEMD_CFLAGS)
libbench_la_LIBADD = libvmibus.la $(SYSTEMD_LIBS)

bench_apart_SOURCES = bench/apart.c
bench_apart_LDADD = libbench.la

bench_audit_SOURCES = bench/audit.c
bench_audit_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
bench_audit_LDADD = libbench.la

bench_epoch_SOURCES = bench/epoch.c
bench_epoch_LDADD = libbench.la

bench_roundtrip_SOURCES = bench/roundtrip.c
bench_roundtrip_LDADD = libbench.la

bench_fanout_SOURCES = bench/fanout.c
bench_fanout_LDADD = libbench.la

bench_memwrite_SOURCES = bench/memwrite.c
bench_memwrite_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
bench_memwrite_LDADD = libbench.la libbed.la

bench_memread_SOURCES = bench/memread.c
bench_memread_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
bench_memread_LDADD = libbench.la

bench_walk_SOURCES = bench/walk.c bench/fake_tables.c bench/fake_tables.h
bench_walk_LDADD = libbench.la libvmibus-guest.la

bench_publish_SOURCES = bench/publish.c bench/meter_monitor.h
bench_publish_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
bench_publish_LDADD = libbench.la libbed.la

bench_symbols_SOURCES = bench/symbols.c bench/fake_tables.c bench/fake_tables.h
bench_symbols_LDADD = libbench.la libvmibus_guest_internal.la

bench_ps_SOURCES = bench/ps.c tests/guest_lib/task_image.c tests/guest_lib/fake_btf.c
bench_ps_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests
bench_ps_LDADD = libbench.la libvmibus_guest_internal.la

bench_processes_SOURCES = bench/processes.c tests/guest_lib/task_image.c tests/guest_lib/fake_btf.c
bench_processes_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/tests -I$(top_srcdir)/sensors
bench_processes_LDADD = libbench.la libvmibus_linux.la libvmibus_guest_internal.la

bench_search_SOURCES = bench/search.c bench/fake_tables.c bench/fake_tables.h
bench_search_LDADD = libbench.la libvmibus-guest.la

bench_throughput_SOURCES = bench/throughput.c bench/private_vm.c bench/private_vm.h
bench_throughput_CPPFLAGS = $(AM_CPPFLAGS) -I$(top_srcdir)/sensors
bench_throughput_LDADD = libbench.la libvmibus-core.la

bench_idle_SOURCES = bench/idle.c
bench_idle_LDADD = libbench.la

bench_scaling_SOURCES = bench/scaling.c
bench_scaling_LDADD = libbench.la

bench_bystander_SOURCES = bench/bystander.c
bench_bystander_LDADD = libbench.la

# Neither is installed: -rpath makes libtool build what can be loaded.
bench_burst_la_SOURCES = bench/sensor_burst.c
bench_burst_la_LDFLAGS = $(sensor_ldflags) -rpath /nowhere

# Not hardened away by --gc-sections or hidden: what it replaces must be seen.
bench_count_allocations_la_SOURCES = bench/count_allocations.c
bench_count_allocations_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nowhere

bench_meter_monitor_la_SOURCES = bench/meter_monitor.c
bench_meter_monitor_la_LDFLAGS = $(AM_LDFLAGS) -module -avoid-version -shared -rpath /nowhere

bench/modules/.stamp: sensors/modules/.stamp bench/burst.la bench/burst.sensor
	$(AM_V_GEN)rm -rf bench/modules && $(MKDIR_P) bench/modules
	$(AM_V_at)for file in '$(abs_top_builddir)'/sensors/modules/* '$(abs_top_builddir)/bench/.libs/burst.so' \
		'$(abs_top_srcdir)/bench/burst.sensor'; do \
		ln -s "$$file" bench/modules/ || exit 1; \
	done
	$(AM_V_at)touch $@

BENCH = --quick

bench: all $(bench_programs) bench/count_allocations.la bench/meter_monitor.la bench/modules/.stamp
	top_builddir='$(abs_top_builddir)' VMIBUS_SOURCE_DIR='$(abs_top_srcdir)' PYTHONDONTWRITEBYTECODE=1 \
		$(PYTHON) '$(srcdir)/bench/run' $(BENCH)

clean_local += clean-bench
clean-bench:
	rm -rf bench/modules bench/results.json bench/results $(bench_programs)

.PHONY: bench clean-bench
