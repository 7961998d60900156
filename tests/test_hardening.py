#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests how programs, libraries and modules were linked: what an exploit could use is switched off."""

import os
import subprocess

import harness

BUILD = harness.top_builddir()


def is_elf(path):
    if os.path.islink(path) or not os.path.isfile(path):
        return False
    with open(path, "rb") as stream:
        return stream.read(4) == b"\x7fELF"


def built(*folders):
    """What was linked, in folders of the build tree."""
    for folder in folders:
        path = os.path.join(BUILD, folder)
        for name in sorted(os.listdir(path) if os.path.isdir(path) else []):
            if is_elf(os.path.join(path, name)) and not name.endswith(".o"):
                yield os.path.join(path, name)


def readelf(option, path):
    try:
        return subprocess.run(["readelf", "--wide", option, path], text=True, check=True, stdout=subprocess.PIPE).stdout
    except FileNotFoundError:
        harness.skip("readelf not found: install binutils")


def expect(rule, holds):
    """That a rule holds for everything that is installed."""
    files = list(built("", ".libs", "sensors/.libs"))
    if not files:
        harness.skip("nothing was built: run make first")
    wrong = [os.path.relpath(path, BUILD) for path in files if not holds(path)]
    assert not wrong, f"not {rule}: {', '.join(wrong)}"


@harness.test
def test_everything_is_position_independent():
    expect("position-independent", lambda path: "DYN (" in readelf("--file-header", path))


@harness.test
def test_relocations_become_read_only():
    expect("linked with -z relro", lambda path: "GNU_RELRO" in readelf("--program-headers", path))
    expect("linked with -z now", lambda path: "NOW" in readelf("--dynamic", path))


@harness.test
def test_no_stack_is_executable():
    def holds(path):
        lines = [line.split() for line in readelf("--program-headers", path).splitlines() if "GNU_STACK" in line]
        return lines and all("E" not in "".join(line[6:-1]) for line in lines)

    expect("free of an executable stack", holds)


@harness.test
def test_no_code_is_relocated():
    expect("free of text relocations", lambda path: "TEXTREL" not in readelf("--dynamic", path))


harness.main()
