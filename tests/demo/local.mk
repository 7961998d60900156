# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/demo: tools/demo as a test.

guest_test_scripts += tests/demo/test_demo.sh
