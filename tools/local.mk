# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tools: for people who work on vmibus; none is installed.

EXTRA_DIST += tools/analysis-known tools/analyze tools/check tools/coverage tools/demo tools/install-packages tools/packages .ci/run
