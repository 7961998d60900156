# SPDX-License-Identifier: LGPL-2.1-or-later
#
# man: manual pages.  dist_man_MANS for those written by hand, nodist_man_MANS for those made in the
# build.

dist_man_MANS += man/vmibus-audit.5 man/vmibus-memd.8 man/vmibus-memory.7 man/vmibus-opend.8 man/vmibus-sensor.7 man/vmibus-sensord.8 man/vmibusd.8 man/vmibusd.conf.5
