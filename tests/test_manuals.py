#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests the manual pages: what mandoc and groff say of them, and that what they refer to exists."""

import os
import re
import shutil
import subprocess

import harness

SRC = harness.top_srcdir()
BUILD = harness.top_builddir()


def pages():
    """The manual pages: by hand in the source tree, made in the build tree."""
    found = set()
    for top in {SRC, BUILD}:
        for folder in ("man", "protocol", "sensors", "controls"):
            for path, names, files in os.walk(os.path.join(top, folder)):
                names[:] = [name for name in names if not name.startswith((".", "build"))]
                found |= {os.path.join(path, file) for file in files if re.fullmatch(r"vmibus.*\.[1-8]", file)}
    if not found:
        harness.skip("there is no manual page")
    return sorted(found)


def run(*command):
    if not shutil.which(command[0]):
        harness.skip(f"{command[0]} not found: install {command[0]}")
    return subprocess.run(command, text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@harness.test
def test_mandoc_is_content():
    # "referenced manual not found" concerns what is installed here; what exists is tested below.
    result = run("mandoc", "-T", "lint", "-W", "warning", *pages())
    assert result.returncode == 0, result.stdout


@harness.test
def test_groff_is_content():
    for page in pages():
        result = run("groff", "-ww", "-z", "-t", "-K", "utf8", "-man" if is_man(page) else "-mdoc", page)
        assert result.returncode == 0 and not result.stdout, result.stdout


def is_man(page):
    """Whether a page is written in man(7) rather than mdoc(7)."""
    with open(page, encoding="utf-8") as stream:
        return re.search(r"^\.TH ", stream.read(), flags=re.M) is not None


@harness.test
def test_own_pages_exist():
    known = {os.path.basename(page) for page in pages()}
    missing = []
    for page in pages():
        with open(page, encoding="utf-8") as stream:
            text = re.sub(r"\\f[BIRP]|\\-|\\&", lambda match: "-" if match.group() == r"\-" else "", stream.read())
        for name, section in re.findall(r"\b(vmibus[\w.-]*)(?: |\\ )?\((\d)\)", text) \
                + re.findall(r"^\.(?:BR|Xr) (vmibus[\w.-]*) \(?(\d)", text, flags=re.M):
            if f"{name}.{section}" not in known:
                missing.append(f"{os.path.basename(page)} refers to {name}({section})")
    assert not missing, "no such page:\n" + "\n".join(sorted(set(missing)))


harness.main()
