#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests that nothing but the build for it can be taken over on purpose: no program of any other has code or text of that."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

SRC, BUILD = harness.top_srcdir(), harness.top_builddir()
WORDS = (b"compromised", b"TAKEN OVER")


def built():
    """Programs, libraries and modules, where libtool puts them."""
    for folder in (".", ".libs", "sensors/.libs", "sensors/modules"):
        path = os.path.join(BUILD, folder)
        for name in sorted(os.listdir(path)) if os.path.isdir(path) else ():
            file = os.path.join(path, name)
            if os.path.isfile(file) and (name.startswith("vmibus") or ".so" in name) and not name.endswith((".la", ".o", ".lai")):
                yield file


def version():
    for path in (os.path.join(BUILD, ".libs", "vmibusd"), os.path.join(BUILD, "vmibusd")):
        if os.path.exists(path):
            return subprocess.run([path, "--version"], text=True, capture_output=True, check=True).stdout
    return harness.skip("vmibusd is not built")


def is_compromised():
    return "--enable-compromised-parser" in version()


@harness.test
def test_p09_no_other_build_can_be_taken_over():
    if is_compromised():
        harness.skip("built with --enable-compromised-parser")
    found = []
    for file in built():
        with open(file, "rb") as stream:
            octets = stream.read()
        found += [f"{file}: {word.decode()}" for word in WORDS if word in octets]
    assert any(os.path.basename(file) == "vmibusd" for file in built())
    assert not found, found


@harness.test
def test_the_build_says_so_by_its_version():
    if not is_compromised():
        harness.skip("built without --enable-compromised-parser")
    assert "WAS BUILT TO BE TAKEN OVER" in version()


@harness.test
def test_packages_are_built_without_it():
    for file in ("debian/rules", ".ci"):
        path = os.path.join(SRC, file)
        names = [path] if os.path.isfile(path) else [os.path.join(path, name) for name in os.listdir(path)] if os.path.isdir(path) else []
        for name in names:
            if os.path.isfile(name):
                with open(name, encoding="utf-8") as stream:
                    assert "compromised" not in stream.read(), name


harness.main()
