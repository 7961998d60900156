# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tests/compromised: what a vmibusd that was taken over can do (--enable-compromised-parser), and that no other build is one.

EXTRA_DIST += tests/compromised/attacker.py tests/compromised/topology.py tests/compromised/wire.py

test_scripts += tests/compromised/test_absent.py tests/compromised/test_compromised.py
