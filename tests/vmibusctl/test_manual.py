#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl(1) and `vmibusctl --help` tell of the same verbs, options and exit statuses."""

import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

SRC = os.path.abspath(os.environ.get("top_srcdir") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
PROGRAM = os.path.join(harness.top_builddir(), "vmibusctl")
COMMON = {"--json", "--socket", "--help"}


def page():
    with open(os.path.join(SRC, "man", "vmibusctl.1"), encoding="utf-8") as stream:
        return stream.read()


def help_of(*words):
    if not os.path.exists(PROGRAM):
        harness.skip(f"{PROGRAM} is not built")
    return subprocess.run([PROGRAM, *words, "--help"], text=True, check=True, stdout=subprocess.PIPE).stdout


def verbs_of_help():
    part = help_of().partition("Verbs:\n")[2].partition("\n\n")[0]
    return set(re.findall(r"^  (\w+)", part, flags=re.M))


def options_of_help(text):
    return set(re.findall(r"^  (--[\w-]+)", text, flags=re.M))


def sections_of_page():
    """The options that the page tells below each verb."""
    found, verb = {}, None
    for line in page().splitlines():
        if line.startswith(".Sh ") and verb:
            break
        match = re.match(r"\.It Cm (\w+)", line)
        if match:
            verb = match.group(1)
            found.setdefault(verb, set())
        match = re.match(r"\.It Fl -([\w-]+)", line)
        if match and verb:
            found[verb].add("--" + match.group(1))
    return found


@harness.test
def test_same_verbs():
    assert verbs_of_help() == set(sections_of_page()), verbs_of_help() ^ set(sections_of_page())


@harness.test
def test_same_options():
    for verb, told in sections_of_page().items():
        options = options_of_help(help_of(verb))
        assert COMMON <= options, f"{verb}: {options}"
        assert options - COMMON == told, f"{verb}: {(options - COMMON) ^ told}"


@harness.test
def test_options_come_before_what_is_run():
    """What follows -- belongs to the command that is run: neither help nor page places options there."""
    running = re.findall(r"^\.It Cm (\w+) (.*)Fl - Ar cmd", page(), flags=re.M)
    assert {verb for verb, _ in running} == {"lease", "hold"}, running
    for verb, before in running:
        assert before.endswith("Oo Ar options Oc "), verb
        assert re.match(rf"vmibusctl {verb} [A-Z ]+ \[OPTIONS\] -- CMD \[ARGUMENTS\]\n", help_of(verb)), verb


@harness.test
def test_same_options_of_the_program():
    told = {"--" + name for name in re.findall(r"^\.It Fl -([\w-]+)", page().partition(".Ss Looking")[0], flags=re.M)}
    assert options_of_help(help_of()) == told, options_of_help(help_of()) ^ told


@harness.test
def test_exit_statuses_are_told():
    with open(os.path.join(SRC, "controls", "vmibusctl", "vmibusctl.h"), encoding="utf-8") as stream:
        statuses = set(re.findall(r"STATUS_\w+ = (\d+)", stream.read()))
    part = page().partition(".Sh EXIT STATUS")[2].partition(".Sh ")[0]
    assert set(re.findall(r"^\.It (\d+)", part, flags=re.M)) == statuses
    with open(os.path.join(SRC, "protocol", "vmibus.toml"), "rb") as stream:
        import tomllib
        errors = next(enum for enum in tomllib.load(stream)["enum"] if enum["name"] == "error")["values"]
    for error in errors:
        if error["value"]:
            assert f"{10 + error['value']} {error['name']}" in part.replace("\n", " "), error["name"]


harness.main()
