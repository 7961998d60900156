#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The completions of vmibusctl, asked as a shell asks them."""

import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

PROGRAM = os.path.join(harness.top_builddir(), "vmibusctl")
FOLDER = os.path.join(harness.top_srcdir(), "controls", "vmibusctl", "completion")

BASH = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_vmibusctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(*words):
    """What bash offers for the last word."""
    if not shutil.which("bash"):
        harness.skip("bash not found: install bash")
    if not os.path.exists(PROGRAM):
        harness.skip(f"{PROGRAM} is not built")
    answer = subprocess.run(["bash", "-c", BASH, "bash", os.path.join(FOLDER, "bash", "vmibusctl"), PROGRAM, *words], text=True,
                            capture_output=True, timeout=harness.scale(60), check=True)
    return set(answer.stdout.split())


def verbs():
    """The verbs that the help lists."""
    text = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^  ([a-z]+) ", text.split("Verbs:")[1].split("Options of every verb:")[0], re.MULTILINE))


@harness.test
def test_bash_offers_every_verb():
    offered = complete("")
    assert offered == verbs() and "read" in offered, offered


@harness.test
def test_bash_offers_the_options_of_a_verb():
    offered = complete("read", "--")
    assert {"--physical", "--json", "--socket", "--help"} <= offered, offered
    assert complete("read", "--phys") == {"--physical"}


@harness.test
def test_bash_offers_no_machine_without_a_bus():
    assert complete("--socket", "/nonexistent/bus.sock", "read", "") == set()


@harness.test
def test_zsh_understands_its_file():
    if not shutil.which("zsh"):
        harness.skip("zsh not found: install zsh")
    subprocess.run(["zsh", "-n", os.path.join(FOLDER, "zsh", "_vmibusctl")], check=True, timeout=harness.scale(60))


harness.main()
