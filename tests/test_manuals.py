#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests the manual pages: what mandoc and groff say of them, that what they refer to exists, and that they tell every
option of each program (vmibusctl has a test of its own) and every key of the configuration."""

import os
import re
import shutil
import subprocess
import tempfile
import tomllib

import harness

SRC = harness.top_srcdir()
BUILD = harness.top_builddir()

# The programs whose --help and section 8 are compared.
PROGRAMS = ("vmibusd", "vmibus-memd", "vmibus-opend", "vmibus-sensord", "vmibus-metrics")

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


def read(*path):
    with open(os.path.join(SRC, *path), encoding="utf-8") as stream:
        return stream.read()


def built(program):
    path = os.path.join(BUILD, program)
    if not os.path.exists(path):
        harness.skip(f"{path} is not there: run make first")
    return path


def expect_same(what, *sets):
    """That all sets of names are the same one."""
    differ = set().union(*sets) - set.intersection(*sets)
    assert not differ, f"{what}: {', '.join(sorted(differ))} not told everywhere"


@harness.test
def test_options_are_those_of_the_help():
    for program in PROGRAMS:
        text = run(built(program), "--help").stdout
        page = read("man", f"{program}.8")
        synopsis = page.partition(".Sh SYNOPSIS")[2].partition(".Sh ")[0]
        expect_same(f"{program}(8), SYNOPSIS and DESCRIPTION, and {program} --help",
                    set(re.findall(r"^ +--([\w-]+)", text, flags=re.M)),
                    set(re.findall(r"Fl -([\w-]+)", synopsis)) | set(re.findall(r"\| -([\w-]+)", synopsis)),
                    set(re.findall(r"^\.It Fl -([\w-]+)", page, flags=re.M)))


def items(page, title):
    """The keys that a part of a page lists."""
    part = re.split(r"^\.S[sh] ", page.partition(title + "\n")[2], flags=re.M)[0]
    assert part, f"there is no part {title}"
    return set(re.findall(r"^\.It Ic ([\w-]+)", part, flags=re.M))


def compared(function, *files):
    """The texts that a function of the sources compares a key with, also by a table of numbers."""
    text = "\n".join(read("src", "daemon", file) for file in files)
    body = re.search(rf"^(?:static )?int {function}\(.*?^}}", text, flags=re.M | re.S).group()
    return set(re.findall(r'strcmp\((?:name|key), "([\w-]+)"\)', body)) \
        | set(re.findall(r'^ +\{"([\w-]+)", ', body, flags=re.M))


@harness.test
def test_keys_of_the_configuration_are_told():
    page = read("man", "vmibusd.conf.5")
    expect_same("[daemon]", items(page, ".Ss [daemon]"),
                compared("set_daemon", "config.c") | compared("set_daemon_plain", "config.c")
                | compared("reading_set_audit", "config_audit.c"))
    expect_same("[limits]", items(page, ".Ss [limits] and [limits-total]"),
                set(re.findall(r'\[RESOURCE_\w+\] = "([\w-]+)"', read("src", "daemon", "config.c"))))
    rule, _, capabilities = page.partition("The capabilities are:")
    expect_same("[rule NAME]", items(rule, ".Ss [rule NAME]"),
                compared("reading_set_rule", "config_rule.c")
                | {"write-gva", "write-gpa", "write-protect", "write-size", "write-rate"})
    expect_same("[opener]", items(read("man", "vmibus-opend.8"), ".Sh WHAT IS PERMITTED"),
                compared("opener_config_set", "opener_config.c"))
    told = next(item for item in tomllib.loads(read("protocol", "vmibus.toml"))["flags"] if item["name"] == "capability")["values"]
    expect_same("capabilities", items("\n" + capabilities, ""),
                {bit["name"].lower().replace("_", "-") for bit in told})


@harness.test
def test_examples_of_configurations_are_accepted():
    for page in ("vmibusd.conf.5", "vmibus-opend.8", "vmibus-metrics.8"):
        examples = [text for text in re.findall(r"^\.Bd -literal.*?\n(.*?)^\.Ed", read("man", page), flags=re.M | re.S)
                    if text.startswith("[")]
        assert examples, f"{page} has no configuration"
        for example in examples:
            # Who is named there need not be here.
            text = re.sub(r"^((?:memory-)?users|user|group) = .*$", r"\1 = 0", example, flags=re.M)
            with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
                file.write(text)
                file.flush()
                result = run(built("vmibusd"), "--check", "--config", file.name)
            assert result.returncode == 0, f"{page}: {result.stdout}"


harness.main()
