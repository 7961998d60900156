# shellcheck shell=sh
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# The test harness for shell scripts: the lines and the exit status of tests/harness.h.
#
#     . "${top_srcdir:-$(dirname "$0")/..}/tests/harness.sh"
#
#     test_manual_is_clean() {
#         command -v mandoc >/dev/null || { skip "mandoc not found"; return; }
#         mandoc -Tlint ... || fail "what is wrong"
#     }
#     run test_manual_is_clean
#
#     finish
#
# A test runs in a subshell; it fails by fail(), or by returning non-zero.

harness_passed=0
harness_failed=0
harness_skipped=0

# Ends the test as skipped; the reason says what is missing.
skip() {
    printf '%s\n' "$1" >"$harness_reason"
    exit 77
}

# Ends the test as failed.
fail() {
    printf '%s\n' "$1" >"$harness_reason"
    exit 1
}

# Runs a test, a function, and prints its line.
run() {
    harness_reason=$(mktemp)
    harness_status=0
    ("$1") || harness_status=$?
    case $harness_status in
    0)
        echo "PASS $1"
        harness_passed=$((harness_passed + 1))
        ;;
    77)
        echo "SKIP $1: $(cat "$harness_reason")"
        harness_skipped=$((harness_skipped + 1))
        ;;
    *)
        [ -s "$harness_reason" ] || echo "exit status $harness_status" >"$harness_reason"
        echo "FAIL $1: $0: $(cat "$harness_reason")"
        harness_failed=$((harness_failed + 1))
        ;;
    esac
    rm -f "$harness_reason"
}

# Prints the closing line and exits.
finish() {
    echo "$harness_passed passed, $harness_failed failed, $harness_skipped skipped"
    [ "$harness_failed" -eq 0 ] || exit 1
    [ "$harness_passed" -gt 0 ] || exit 77
    exit 0
}
