# SPDX-License-Identifier: LGPL-2.1-or-later
#
# bench: measurements.  Programs are added to noinst_PROGRAMS; none is a test.
