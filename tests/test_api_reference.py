#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The reference of the public API: every public function is documented, and what documents them is sound."""

import glob
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness

HEADERS = sorted(glob.glob(os.path.join(harness.top_srcdir(), "include", "vmibus", "*.h"))
                 + glob.glob(os.path.join(harness.top_builddir(), "include", "vmibus", "*.h")))


@harness.test
def test_every_public_function_has_a_docstring():
    bare = []
    for path in HEADERS:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        for match in re.finditer(r"^VMIBUS_PUBLIC [^;]*?(vmibus_\w+)\(", text, flags=re.M):
            if not text[:match.start()].rstrip().endswith("*/"):
                bare.append(f"{os.path.basename(path)}: {match.group(1)}")
    assert HEADERS and not bare, bare


@harness.test
def test_the_reference_names_every_header_and_library():
    with open(os.path.join(harness.top_srcdir(), "doc", "libraries.md"), encoding="utf-8") as file:
        page = file.read()
    missing = [os.path.basename(path) for path in HEADERS
               if f"`vmibus/{os.path.basename(path)}`" not in page and os.path.basename(path) != "visibility.h"]
    libraries = glob.glob(os.path.join(harness.top_srcdir(), "src", "*", "*.pc.in"))
    missing += [name for name in (os.path.basename(path)[:-len(".pc.in")] for path in libraries) if f"`{name}`" not in page]
    assert libraries and not missing, missing


@harness.test
def test_doxygen_finds_nothing_wrong():
    if not shutil.which("doxygen"):
        harness.skip("there is no doxygen")
    if not os.path.exists(os.path.join(harness.top_builddir(), "Makefile")):
        harness.skip("this is no build directory")
    made = subprocess.run(["make", "-C", harness.top_builddir(), "api-reference"], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    with open(os.path.join(harness.top_builddir(), "doc", "api", "html", "client_8h.html"), encoding="utf-8") as file:
        assert "vmibus_memwrite_table" in file.read()


harness.main()
