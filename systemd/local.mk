# SPDX-License-Identifier: LGPL-2.1-or-later
#
# systemd: units (systemdsystemunit_DATA); the directory comes from configure. The rest is where systemd and the daemons look for
# it with the usual prefix.

dist_systemdsystemunit_DATA = \
	systemd/vmibus-memd.socket \
	systemd/vmibus-metrics-textfile.timer \
	systemd/vmibus-metrics.socket \
	systemd/vmibus-opend.socket \
	systemd/vmibusd-alone.socket \
	systemd/vmibusd.socket
systemd_services = \
	systemd/vmibus-memd.service \
	systemd/vmibus-metrics-textfile.service \
	systemd/vmibus-metrics.service \
	systemd/vmibus-opend.service \
	systemd/vmibus-sensord@.service \
	systemd/vmibusd-alone.service \
	systemd/vmibusd.service
nodist_systemdsystemunit_DATA = $(systemd_services)
EXTRA_DIST += \
	systemd/service.conf \
	systemd/vmibus-memd.service.in \
	systemd/vmibus-metrics-textfile.service.in \
	systemd/vmibus-metrics.service.in \
	systemd/vmibus-opend.service.in \
	systemd/vmibus-sensord@.service.in \
	systemd/vmibus.sysusers \
	systemd/vmibus.tmpfiles \
	systemd/vmibusd-alone.service.in \
	systemd/vmibusd.service.in
CLEANFILES += $(systemd_services)

$(systemd_services): %: %.in Makefile
	$(AM_V_GEN)$(MKDIR_P) systemd && sed -e 's|@sbindir[@]|$(sbindir)|g' -e 's|@bindir[@]|$(bindir)|g' $< > $@

# Sensors that come with the bus; each starts only where the configuration has it.
service_sensors = libvirt linux qemu stub watch

install-data-local:
	$(MKDIR_P) $(DESTDIR)$(systemdsystemunitdir)/vmibusd.service.wants
	for sensor in $(service_sensors); do \
	    $(LN_S) -f ../vmibus-sensord@.service \
	        $(DESTDIR)$(systemdsystemunitdir)/vmibusd.service.wants/vmibus-sensord@$$sensor.service || exit 1; \
	done
	$(MKDIR_P) $(DESTDIR)$(prefix)/lib/sysusers.d $(DESTDIR)$(prefix)/lib/tmpfiles.d $(DESTDIR)$(sysconfdir)/vmibus/vmibusd.conf.d
	$(INSTALL_DATA) $(srcdir)/systemd/vmibus.sysusers $(DESTDIR)$(prefix)/lib/sysusers.d/vmibus.conf
	$(INSTALL_DATA) $(srcdir)/systemd/vmibus.tmpfiles $(DESTDIR)$(prefix)/lib/tmpfiles.d/vmibus.conf
	$(INSTALL_DATA) $(srcdir)/systemd/service.conf $(DESTDIR)$(sysconfdir)/vmibus/vmibusd.conf.d/10-service.conf

uninstall-local:
	rm -f $(DESTDIR)$(prefix)/lib/sysusers.d/vmibus.conf $(DESTDIR)$(prefix)/lib/tmpfiles.d/vmibus.conf
	rm -f $(DESTDIR)$(sysconfdir)/vmibus/vmibusd.conf.d/10-service.conf
	rm -rf $(DESTDIR)$(systemdsystemunitdir)/vmibusd.service.wants

# Where journalctl --update-catalog looks, with the usual prefix.
catalogdir = $(prefix)/lib/systemd/catalog
dist_catalog_DATA = systemd/vmibus.catalog
