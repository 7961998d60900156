# SPDX-License-Identifier: LGPL-2.1-or-later
"""The test harness for Python: the lines and the exit status of tests/harness.h.

    import harness

    @harness.test
    def test_manifest_is_read():
        assert ...

    @harness.test(full=True)
    def test_that_takes_long():
        if not possible():
            harness.skip("what is missing")

    harness.main()

Tests run in the order of definition, in this process.  An exception is a failure, and so is a test
that takes longer than its time limit, TIMEOUT unless @harness.test(timeout=SECONDS) says otherwise;
VMIBUS_TEST_TIMEOUT_FACTOR multiplies it.
"""

import fnmatch
import os
import signal
import sys
import traceback

EXIT_SKIPPED = 77
EXIT_USAGE = 2
TIMEOUT = 120

_tests = []


class Skip(Exception):
    """Ends a test that cannot run here."""


def skip(reason):
    """Ends the running test as skipped; the reason says what is missing."""
    raise Skip(reason)


def is_full():
    """Whether VMIBUS_TEST_FULL=1."""
    return os.environ.get("VMIBUS_TEST_FULL") == "1"


def top_srcdir():
    """The top of the source tree."""
    return os.path.abspath(os.environ.get("top_srcdir")
                           or os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), ".."))


def top_builddir():
    """The top of the build tree: from the environment, or the working directory."""
    return os.path.abspath(os.environ.get("top_builddir") or ".")


def scale(limit):
    """A time limit in seconds, multiplied as the tests' own are."""
    return limit * int(os.environ.get("VMIBUS_TEST_TIMEOUT_FACTOR") or 1)


def test(function=None, *, full=False, timeout=TIMEOUT):
    """Decorates a test."""
    def add(function):
        _tests.append((function.__name__, function, full, timeout))
        return function

    return add(function) if function else add


def _place(error):
    """Where the test was when it raised."""
    frames = traceback.extract_tb(error.__traceback__)
    folder = os.path.dirname(os.path.abspath(sys.argv[0]))
    own = [frame for frame in frames if os.path.dirname(os.path.abspath(frame.filename)) == folder
           and os.path.abspath(frame.filename) != os.path.abspath(__file__)]
    frame = (own or frames)[-1]
    return f"{os.path.relpath(frame.filename, top_srcdir())}:{frame.lineno}"


def _expire(_number, _frame):
    raise TimeoutError("test timeout expired")


def _run(name, function, full, timeout):
    """Runs one test, prints its line, returns PASS, FAIL or SKIP."""
    if full and not is_full():
        print(f"SKIP {name}: takes long, set VMIBUS_TEST_FULL=1 to run it", flush=True)
        return "SKIP"
    try:
        signal.alarm(scale(timeout))
        try:
            function()
        finally:
            signal.alarm(0)
    except Skip as reason:
        print(f"SKIP {name}: {reason}", flush=True)
        return "SKIP"
    except Exception as error:  # a test may raise anything
        text = str(error) or type(error).__name__
        print(f"FAIL {name}: {_place(error)}: " + text.replace("\n", "\n    "), flush=True)
        return "FAIL"
    print(f"PASS {name}", flush=True)
    return "PASS"


def main():
    """Runs the tests whose name contains or matches an argument, or all; exits."""
    words = sys.argv[1:]
    if words == ["--list"]:
        print("\n".join(name for name, *_ in _tests))
        sys.exit(0)
    if words and words[0].startswith("-"):
        print(f"usage: {sys.argv[0]} [--list] [NAME-OR-PATTERN...]", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
    signal.signal(signal.SIGALRM, _expire)
    for name, *rest in _tests:
        if not words or any(word in name or fnmatch.fnmatchcase(name, word) for word in words):
            counts[_run(name, *rest)] += 1
    if not any(counts.values()):
        print(f"{sys.argv[0]}: no test selected; --list lists them", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    print(f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped", flush=True)
    if counts["FAIL"]:
        sys.exit(1)
    sys.exit(0 if counts["PASS"] else EXIT_SKIPPED)
