#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests SECURITY.md: the tests, files, capabilities and configurations that it names are there, and it covers every promise."""

import glob
import os
import re
import subprocess
import tempfile

import harness

SRC = harness.top_srcdir()
BUILD = harness.top_builddir()

REFERENCE = re.compile(r"`(tests/[\w./-]+): (test_\w+)`")
SECTION = re.compile(r"^### Promise (\d+):.*\n((?:(?!^##).*\n)*)", flags=re.M)


def read(file):
    with open(os.path.join(SRC, file), encoding="utf-8") as stream:
        return stream.read()


def is_file(path):
    return os.path.isfile(os.path.join(SRC, path))


def defines(file, name):
    """Whether a file has a test of that name, in C or in Python."""
    return re.search(rf"^(?:\w*TEST\({name}\s*[,)]|def {name}\()", read(file), flags=re.M) is not None


def is_packaged(file):
    """Whether a file has to be there: a release tarball is without debian/."""
    return not file.startswith("debian/") or os.path.isdir(os.path.join(SRC, "debian"))


def expect_none(problems):
    problems = sorted(set(problems))
    assert not problems, f"{len(problems)} found:\n" + "\n".join(problems)


@harness.test
def test_what_it_refers_to_exists():
    references = REFERENCE.findall(read("SECURITY.md"))
    assert references, "SECURITY.md names no test"
    expect_none([f"{path}: no such file" for path, _ in references if not is_file(path)]
                + [f"{path}: has no {name}" for path, name in references if is_file(path) and not defines(path, name)])


@harness.test
def test_no_test_is_named_without_its_file():
    rest = REFERENCE.sub("", read("SECURITY.md"))
    expect_none(re.findall(r"\btest_\w+", rest))


@harness.test
def test_files_it_names_exist():
    paths = re.findall(r"`((?:src|tests|sensors|systemd|man|debian|include)/[\w./-]+)`", read("SECURITY.md"))
    expect_none(f"{path}: no such file" for path in paths if not is_file(path))


@harness.test
def test_every_promise_is_shown():
    promises = re.findall(r"^\| (\d+) \| .*`test_p\d+_`", read("HACKING.md"), flags=re.M)
    sections = dict(SECTION.findall(read("SECURITY.md")))
    assert promises, "HACKING.md has no promises"
    assert list(sections) == promises, f"sections of {', '.join(sections)}; promises {', '.join(promises)}"
    expect_none(f"promise {number}: none of its tests bears its number" for number, text in sections.items()
                if not any(f"_p{int(number):02}_" in name for _, name in REFERENCE.findall(text)))


@harness.test
def test_capabilities_are_those_of_the_units():
    text = read("SECURITY.md")
    told = re.search(r"in that unit ((?:CAP_\w+(?:, | and )?)+)", " ".join(text.split()))
    assert told and re.findall(r"CAP_\w+", told.group(1)) == bounding_set("vmibusd-alone"), "vmibusd-alone"
    rows = re.findall(r"^\| `(vmibus[\w@-]*)` \| `([\w-]+)` \| ([^|]*) \|", text, flags=re.M)
    assert len(rows) >= 5, rows
    for unit, user, capabilities in rows:
        assert re.findall(r"CAP_\w+", capabilities) == bounding_set(unit), unit
        assert setting(unit, "User") == user, unit
        assert re.search(rf"^u {user} ", read("systemd/vmibus.sysusers"), flags=re.M), f"there is no user {user}"


@harness.test
def test_units_explain_their_exceptions():
    # What a process would be kept from by default, were it not for a reason: it stands above the line.
    weak = re.compile(r"^(?:PrivateUsers=no|PrivateTmp=no|ProtectProc=default|ProtectHome=read-only|AmbientCapabilities=.+)$")
    for path in glob.glob(os.path.join(SRC, "systemd", "*.service.in")):
        lines = read(path).splitlines()
        for number, line in enumerate(lines):
            if weak.match(line):
                above = lines[number - 1]
                assert above.startswith(("#", "CapabilityBoundingSet=")), f"{path}: {line}: why?"


def setting(unit, name):
    """The value of a setting of a unit; None: it has none."""
    found = re.search(rf"^{name}=(.*)$", read(f"systemd/{unit}.service.in"), flags=re.M)
    return found and found.group(1)


def bounding_set(unit):
    return setting(unit, "CapabilityBoundingSet").split()


@harness.test
def test_its_configurations_are_accepted():
    daemon = os.path.join(BUILD, "vmibusd")
    if not os.path.exists(daemon):
        harness.skip(f"{daemon} is not there: run make first")
    examples = re.findall(r"^```\n(\[.*?)^```$", read("SECURITY.md"), flags=re.M | re.S)
    assert examples, "SECURITY.md has no configuration"
    for example in examples:
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(example)
            file.flush()
            result = subprocess.run([daemon, "--check", "--config", file.name], text=True, check=False,
                                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert result.returncode == 0, result.stdout


@harness.test
def test_who_needs_it_finds_it():
    expect_none([f"{file}: does not refer to SECURITY.md" for file in ("README.md", "HACKING.md")
                 if "SECURITY.md" not in read(file)]
                + [f"{file}: SECURITY.md is not installed" for file in ("Makefile.am", "debian/vmibus.docs")
                   if is_packaged(file) and "SECURITY.md" not in read(file).split()])


harness.main()
