# SPDX-License-Identifier: LGPL-2.1-or-later
#
# systemd: units (systemdsystemunit_DATA); the directory comes from configure.

dist_systemdsystemunit_DATA = systemd/vmibusd.socket
nodist_systemdsystemunit_DATA = systemd/vmibusd.service
EXTRA_DIST += systemd/vmibusd.service.in
CLEANFILES += systemd/vmibusd.service

systemd/vmibusd.service: systemd/vmibusd.service.in Makefile
	$(AM_V_GEN)$(MKDIR_P) systemd && sed -e 's|@sbindir[@]|$(sbindir)|g' $(srcdir)/systemd/vmibusd.service.in > $@
