#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# tools/demo, as a test: on a real guest where one can be had, and on synthetic machines.
# shellcheck disable=SC2317 # run() calls the functions
set -u
top=${top_srcdir:-$(cd "$(dirname "$0")/../.." && pwd)}
# shellcheck source=tests/harness.sh
. "$top/tests/harness.sh"

# The tour must come to its end, and each thing it expects must have been seen.
tour() {
    log=$(mktemp)
    "$top/tools/demo" --no-install --build "${top_builddir:-$top}" "$@" >"$log" 2>&1
    status=$?
    missed=$(grep -F '✗' "$log")
    seen=$(grep -cF '✓' "$log")
    [ "$status" -eq 0 ] || cat "$log" >&2
    rm -f "$log"
    [ -z "$missed" ] || fail "$missed"
    [ "$status" -eq 0 ] || fail "it ended with status $status"
    [ "$seen" -gt 10 ] || fail "it showed only $seen things"
}

test_demo_on_synthetic_machines() {
    tour --stub
}

test_demo_on_a_real_guest() {
    [ -e "${top_builddir:-$top}/sensors/modules/qemu.so" ] || skip "this build has no QEMU sensor"
    "$top/tests/guest/run-guest" --check >/dev/null 2>&1 || skip "no guest: $("$top/tests/guest/run-guest" --check 2>&1 | tail -n 1)"
    tour
}

run test_demo_on_synthetic_machines
run test_demo_on_a_real_guest
finish
