#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests the test harness: that each outcome is told, counted and makes the exit status."""

import os
import subprocess
import sys
import tempfile

import harness

SANITIZER = "a sanitizer found an error or a leak"
SPECIMEN = os.path.join(harness.top_builddir(), "tests", "harness_specimen")


def execute(command, **environment):
    """Runs a program; returns exit status and the lines of its output."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("VMIBUS_TEST_")}
    result = subprocess.run(command, env={**clean, **environment}, text=True, timeout=120,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return result.returncode, result.stdout.splitlines()


def specimen(*words, **environment):
    """Runs tests of the specimen."""
    return execute([SPECIMEN, *words], VMIBUS_TEST_TIMEOUT_FACTOR="1", **environment)


def expect_failure(name, message):
    """That a test of the specimen fails with its name, a place and a message."""
    status, lines = specimen(name)
    assert status == 1, (status, lines)
    assert lines[0].startswith(f"FAIL {name}: ") and "harness_specimen.c:" in lines[0], lines
    assert message in lines[0], lines
    assert lines[-1] == "0 passed, 1 failed, 0 skipped", lines


@harness.test
def test_pass_is_counted():
    assert specimen("test_pass") == (0, [
        "PASS test_pass", "PASS test_pass_with_expected_signal", "PASS test_pass_iterated[0]",
        "PASS test_pass_iterated[1]", "SKIP test_pass_when_full: takes long, set VMIBUS_TEST_FULL=1 to run it",
        "PASS test_pass_ignored_fd", "PASS test_pass_with_fixture", "6 passed, 0 failed, 1 skipped"])


@harness.test
def test_full_runs_on_demand():
    assert specimen("test_pass_when_full", VMIBUS_TEST_FULL="1") == (
        0, ["PASS test_pass_when_full", "1 passed, 0 failed, 0 skipped"])


@harness.test
def test_failed_assertion_is_told():
    expect_failure("test_fail_assertion", "Assertion '1 == 2' failed")


@harness.test
def test_leaked_fd_is_named():
    expect_failure("test_fail_leaked_fd", "which is /dev/null")
    expect_failure("test_fail_leaky_fixture", "which is /dev/zero")


@harness.test
def test_closed_fd_is_named():
    expect_failure("test_fail_closed_fd", "closed descriptor 0")


@harness.test
def test_leaked_memory_is_a_failure():
    if specimen("test_fail_leaked_memory")[0] == 77:
        harness.skip("not a build with --enable-sanitizers")
    expect_failure("test_fail_leaked_memory", SANITIZER)


@harness.test
def test_crash_is_a_failure():
    _, lines = specimen("test_fail_crash")
    # A sanitizer catches the signal, reports and exits.
    expect_failure("test_fail_crash", SANITIZER if SANITIZER in lines[0] else "signal 7")


@harness.test
def test_early_exit_is_a_failure():
    status, lines = specimen("test_fail_exit")
    assert status == 1 and "return value 3" in lines[0], lines
    assert "exited before its end" in lines[1], lines
    assert lines[-1] == "0 passed, 2 failed, 0 skipped", lines


@harness.test
def test_timeout_is_a_failure():
    expect_failure("test_fail_timeout", "timeout")


@harness.test
def test_missing_signal_is_a_failure():
    expect_failure("test_fail_missing_signal", "expected signal 6")


@harness.test
def test_skip_is_counted():
    assert specimen("test_skip_*") == (77, [
        "SKIP test_skip_with_reason: no unicorn here", "SKIP test_skip_with_signal_and_fd: too early",
        "0 passed, 0 failed, 2 skipped"])


@harness.test
def test_one_failure_among_many_fails():
    status, lines = specimen("test_pass_with_fixture", "test_fail_crash", "test_skip_with_reason")
    assert (status, lines[-1]) == (1, "1 passed, 1 failed, 1 skipped"), lines


@harness.test
def test_unknown_name_is_an_error():
    assert specimen("nonsense") == (2, [])


@harness.test
def test_python_harness_counts_alike():
    with tempfile.TemporaryDirectory() as directory:
        script = os.path.join(directory, "specimen.py")
        with open(script, "w", encoding="utf-8") as file:
            file.write("import harness\n"
                       "@harness.test\ndef test_pass(): pass\n"
                       "@harness.test\ndef test_fail(): assert False, 'why'\n"
                       "@harness.test\ndef test_skip(): harness.skip('reason')\n"
                       "@harness.test(timeout=1)\ndef test_slow():\n    import time; time.sleep(60)\n"
                       "@harness.test(full=True)\ndef test_long(): pass\n"
                       "harness.main()\n")
        path = os.path.join(harness.top_srcdir(), "tests")
        status, lines = execute([sys.executable, script], PYTHONPATH=path)
        assert (status, lines[-1]) == (1, "1 passed, 2 failed, 2 skipped"), lines
        assert lines[0] == "PASS test_pass", lines
        assert lines[1].startswith("FAIL test_fail: ") and lines[1].endswith("specimen.py:5: why"), lines
        assert lines[2] == "SKIP test_skip: reason", lines
        assert lines[3].startswith("FAIL test_slow: ") and lines[3].endswith("timeout expired"), lines
        assert execute([sys.executable, script, "test_skip"], PYTHONPATH=path)[0] == 77


@harness.test
def test_shell_harness_counts_alike():
    script = (". \"$top_srcdir/tests/harness.sh\"\n"
              "test_pass() { :; }\ntest_fail() { fail why; }\ntest_false() { false; }\n"
              "test_skip() { skip reason; }\n"
              "for name in $*; do run $name; done\nfinish\n")

    def shell(*names):
        return execute(["sh", "-c", script, "specimen", *names], top_srcdir=harness.top_srcdir())

    assert shell("test_pass", "test_fail", "test_false", "test_skip") == (1, [
        "PASS test_pass", "FAIL test_fail: specimen: why", "FAIL test_false: specimen: exit status 1",
        "SKIP test_skip: reason", "1 passed, 2 failed, 1 skipped"])
    assert shell("test_pass")[0] == 0
    assert shell("test_skip")[0] == 77


harness.main()
