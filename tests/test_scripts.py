#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests the scripts of the tree: what shellcheck and pyflakes say of them."""

import os
import shutil
import subprocess

import harness

SRC = harness.top_srcdir()
FOLDERS = (".ci", "bench", "controls", "protocol", "sensors", "src", "systemd", "tests", "tools")


def scripts():
    """Pairs of file and its first line, of every script."""
    paths = [os.path.join(SRC, "autogen.sh")]
    for folder in FOLDERS:
        for path, names, files in os.walk(os.path.join(SRC, folder)):
            names[:] = [name for name in names if name != "__pycache__"]
            paths += [os.path.join(path, file) for file in files]
    for path in sorted(paths):
        with open(path, "rb") as stream:
            first = stream.readline(200).decode("utf-8", "replace").rstrip()
        if first.startswith("#!") or path.endswith((".py", ".sh")):
            yield path, first


def check(tool, package, files):
    """That a tool has nothing to say of files."""
    if not shutil.which(tool[0]):
        harness.skip(f"{tool[0]} not found: install {package}")
    assert files
    result = subprocess.run([*tool, *files], text=True, check=False, cwd=SRC,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert result.returncode == 0, result.stdout


@harness.test
def test_shell_scripts_are_clean():
    check(["shellcheck", "-x", "-P", "SCRIPTDIR"], "shellcheck",
          [path for path, first in scripts() if first.endswith("sh") or path.endswith(".sh")])


@harness.test
def test_python_scripts_are_clean():
    check(["pyflakes3"], "pyflakes3", [path for path, first in scripts() if "python" in first or path.endswith(".py")])


@harness.test
def test_scripts_are_executable():
    wrong = [os.path.relpath(path, SRC) for path, first in scripts()
             if first.startswith("#!") and not os.access(path, os.X_OK)]
    assert not wrong, f"not executable: {', '.join(wrong)}"


harness.main()
