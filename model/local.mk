# SPDX-License-Identifier: LGPL-2.1-or-later
#
# model: what leases, fences and epochs promise, for spin to check.

EXTRA_DIST += model/vmibus.pml

model_tests = tests/model/test_model.py
