#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests tools/check: that it counts what suites tell, and that no way to fail goes unnoticed."""

import os
import shutil
import subprocess
import tempfile

import harness

CHECK = os.path.join(harness.top_srcdir(), "tools", "check")

# Collects the suites of a configuration as tools/check does, and prints what it prints at the end.
COLLECT = """
source "$1"
top=$2 builds=$2 logs=$2
collect_suites configuration
echo "$passed passed, $failed failed, $skipped skipped"
"""

# Runs a command as a step.
STEP = """
source "$1"
top=$2 builds=$2 logs=$2 step_limit=1
step configuration command "${@:3}"
echo "$passed passed, $failed failed, $skipped skipped"
"""


# The seconds that a step may take where one configuration is asked for.
LIMIT = """
source "$1"
full=0 minutes=30 selected=("$2")
limit_of_steps
"""


def bash(script, *arguments):
    """Runs a script with the functions of tools/check; returns the lines of its output."""
    if not shutil.which("bash"):
        harness.skip("bash not found: install bash")
    result = subprocess.run(["bash", "-c", script, "bash", CHECK, *arguments], text=True, check=True, timeout=60,
                            stdout=subprocess.PIPE)
    return result.stdout.splitlines()


def collect(suites):
    """What tools/check says of suites: {name: (automake's result, lines of the log)}."""
    with tempfile.TemporaryDirectory() as directory:
        for name, (result, lines) in suites.items():
            path = os.path.join(directory, "configuration", "tests", name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(f"{path}.log", "w", encoding="utf-8") as log:
                log.write("\n".join(lines) + f"\n{result} tests/{name} (exit status: 0)\n")
            with open(f"{path}.trs", "w", encoding="utf-8") as trs:
                trs.write(f":test-result: {result}\n:global-test-result: {result}\n")
        return [line.strip() for line in bash(COLLECT, directory)]


@harness.test
def test_counts_are_summed():
    lines = collect({
        "one": ("PASS", ["PASS a", "SKIP b: nothing there", "1 passed, 0 failed, 1 skipped"]),
        "below/two": ("FAIL", ["PASS a", "report of b", "FAIL b: x.c:3: why", "PASS c", "2 passed, 1 failed, 0 skipped"]),
        "three": ("SKIP", ["SKIP a: none", "0 passed, 0 failed, 1 skipped"]),
    })
    assert lines[-1] == "3 passed, 1 failed, 2 skipped", lines
    assert "SKIP configuration/one: b: nothing there" in lines, lines
    assert "FAIL configuration/below/two: b: x.c:3: why" in lines, lines
    assert "report of b" in lines, lines


@harness.test
def test_suite_that_breaks_off_is_a_failure():
    lines = collect({"suite": ("FAIL", ["PASS a", "Segmentation fault"])})
    assert lines[-1] == "0 passed, 1 failed, 0 skipped", lines
    assert "Segmentation fault" in lines, lines


@harness.test
def test_silent_suite_is_a_failure():
    assert collect({"suite": ("PASS", ["all is well"])})[-1] == "0 passed, 1 failed, 0 skipped"


@harness.test
def test_suite_that_fails_without_a_failed_test_is_a_failure():
    lines = collect({"suite": ("FAIL", ["PASS a", "1 passed, 0 failed, 0 skipped"])})
    assert lines[-1] == "1 passed, 1 failed, 0 skipped", lines


@harness.test
def test_steps_are_counted():
    with tempfile.TemporaryDirectory() as directory:
        assert bash(STEP, directory, "true")[-1] == "1 passed, 0 failed, 0 skipped"
        lines = bash(STEP, directory, "sh", "-c", "echo error: this is why; exit 3")
        assert lines[-1] == "0 passed, 1 failed, 0 skipped", lines
        assert any("error: this is why" in line for line in lines), lines
        assert any("exit status 3" in line for line in lines), lines
        lines = bash(STEP, directory, "sleep", "60")
        assert lines[-1] == "0 passed, 1 failed, 0 skipped", lines


@harness.test
def test_every_configuration_is_listed_and_has_its_function():
    result = subprocess.run([CHECK, "--list"], check=True, text=True, stdout=subprocess.PIPE)
    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert {"gcc-stub", "gcc-faults", "fuzz", "soak"} <= set(names), names
    assert all(len(line.split()) > 1 for line in result.stdout.splitlines()), result.stdout
    defined = bash('source "$1"; declare -F | sed "s/.* //"')
    for name in names:
        assert "check_" + name.replace("-", "_") in defined, name


@harness.test
def test_wrong_calls_are_refused():
    for arguments in (["--only", "nonsense"], ["--only"], ["--nonsense"], ["nonsense"], ["--minutes"], ["--minutes", "0"],
                      ["--minutes", "101"], ["--minutes", "many"]):
        result = subprocess.run([CHECK, *arguments], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert result.returncode == 2 and result.stderr, arguments


@harness.test
def test_long_configurations_get_more_time():
    assert bash(LIMIT, "gcc-stub") == ["3000"]
    assert bash(LIMIT, "valgrind") == ["7200"]


harness.main()
