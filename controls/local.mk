# SPDX-License-Identifier: LGPL-2.1-or-later
#
# controls: programs that use a bus.  Each has a local.mk in its folder:
#
#     bin_PROGRAMS += vmibusctl
#     vmibusctl_SOURCES = controls/vmibusctl/main.c
#     vmibusctl_CFLAGS = $(program_cflags) $(JSON_C_CFLAGS) $(XKBCOMMON_CFLAGS)
#     vmibusctl_LDFLAGS = $(program_ldflags)
#     vmibusctl_LDADD = libvmibus.la libvmibus-guest.la $(JSON_C_LIBS) $(XKBCOMMON_LIBS)

include controls/vmibusctl/local.mk
include controls/example/local.mk
include controls/metrics/local.mk
