# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tools: for people who work on vmibus; none is installed.

EXTRA_DIST += tools/check tools/demo tools/install-packages tools/packages .ci/run
