#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests the shape of the tree: which folder may depend on which, and what the libraries call and export."""

import os
import re
import subprocess

import harness

SRC = harness.top_srcdir()
BUILD = harness.top_builddir()

# Headers of <vmibus/...> that carry the protocol, or what any source says of itself.
PROTOCOL = {"audit.h", "protocol.h", "names.h", "syscalls.h", "visibility.h"}

# What each folder may include: own headers by folder, and public ones beside the protocol.
LAYERS = {
    "protocol": (set(), set()),
    "src/util": (set(), set()),
    "src/guest": ({"util"}, {"guest.h", "guest_linux.h"}),
    "src/audit": ({"util"}, set()),
    "src/policy": ({"util"}, set()),
    "src/bus": ({"util", "policy"}, set()),
    "src/memory": ({"util", "policy"}, {"guest.h"}),
    "src/transport": ({"util", "policy", "bus", "memory"}, set()),
    "src/client": ({"util"}, {"client.h", "guest.h"}), # guest.h: the results of a reader, which it provides
    "src/host": ({"util"}, {"sensor.h"}),
    "src/core": ({"util", "policy", "bus", "memory", "transport", "client", "host"},
                 {"client.h", "core.h", "sensor.h", "guest.h"}),
    "src/daemon": ({"util", "audit", "policy", "bus", "memory", "transport", "client", "host", "core"},
                   {"client.h", "core.h", "sensor.h", "guest.h"}),
    "sensors": (set(), {"sensor.h", "guest.h", "guest_linux.h"}),
    "controls": ({"audit"}, {"client.h", "guest.h", "guest_linux.h"}),
}

# The folders of which libraries are made.
LIBRARY_FOLDERS = [folder for folder in LAYERS if folder.startswith("src/") and folder != "src/daemon"]
# The libraries that are not installed, by folder.
ARCHIVES = {
    "protocol": "protocol", "src/util": "util", "src/guest": "guest_internal", "src/policy": "policy",
    "src/audit": "audit",
    "src/bus": "bus", "src/memory": "memory", "src/transport": "transport",
    "src/client": "client_internal", "src/host": "host", "src/core": "core_internal",
}

SLEEPS = {"sleep", "usleep", "nanosleep", "clock_nanosleep"}
OPENS_FILES = {"open", "open64", "openat", "openat64", "fopen", "fopen64", "freopen", "fdopen", "creat", "mkstemp",
               "mkostemp", "opendir", "fopenat", "open_by_handle_at", "shm_open", "memfd_create"}
CONNECTS = {"socket", "connect", "bind", "listen", "accept", "accept4", "socketpair"}
BLOCKS = SLEEPS | {"poll", "ppoll", "select", "pselect", "epoll_wait", "epoll_pwait", "wait", "waitpid", "waitid",
                   "system", "popen", "fsync", "fdatasync", "recv", "recvmsg", "send", "sendmsg",
                   "read", "write", "pread", "pwrite", "pread64", "pwrite64", "preadv", "pwritev"}
SPEAKS = {"printf", "vprintf", "puts", "putchar", "putc", "fputs", "fputc", "fprintf", "vfprintf", "dprintf", "vdprintf",
          "perror", "psignal", "error", "warn", "warnx", "err", "errx", "syslog", "vsyslog", "openlog",
          "sd_journal_print", "sd_journal_send", "stdout", "stderr", "exit", "_exit", "_Exit", "quick_exit"}


# Where our own files are, beside the top.
FOLDERS = ("bench", "controls", "include", "man", "model", "protocol", "sensors", "src", "systemd", "tests", "tools", ".ci")


def walk(*folders):
    """The files of folders, relative to the top, without builds and hidden files."""
    for folder in folders:
        for path, names, files in os.walk(os.path.join(SRC, folder)):
            names[:] = [name for name in names if not name.startswith((".", "build", "__pycache__"))
                        and not os.path.exists(os.path.join(path, name, "config.status"))]
            for file in files:
                yield os.path.relpath(os.path.join(path, file), SRC)


def sources(*folders):
    """The C files and headers of folders."""
    return sorted(file for file in walk(*folders) if file.endswith((".c", ".h")))


def is_script(file):
    with open(os.path.join(SRC, file), "rb") as stream:
        return stream.read(2) == b"#!"


def read(file):
    with open(os.path.join(SRC, file), encoding="utf-8") as stream:
        return stream.read()


def includes(file):
    """Pairs of line number and what is included, "quoted" or <bracketed>."""
    for number, line in enumerate(read(file).splitlines(), 1):
        match = re.match(r'\s*#\s*include\s*(["<][^">]+[">])', line)
        if match:
            yield number, match.group(1)


def expect_none(problems):
    """Fails with a list of problems, if there are any."""
    problems = list(problems)
    assert not problems, f"{len(problems)} found:\n" + "\n".join(problems)


def may_include(file, folder, name):
    """Whether a file of a folder may include a name, "quoted" or <bracketed>."""
    folders, public = LAYERS[folder]
    target = name[1:-1]
    if target.startswith("vmibus/"):
        return target[len("vmibus/"):] in PROTOCOL | public
    if name[0] == "<":
        return True
    if "/" not in target:
        return os.path.exists(os.path.join(SRC, os.path.dirname(file), target))
    if folder == "controls" and target.split("/")[0] in folders:
        return True # the audit files, which no library reads
    if folder.startswith("src/"):
        return target.split("/")[0] in folders | {os.path.basename(folder)}
    # A sensor or control is one folder, and includes from that one alone; sensors of hosts share a library.
    if folder == "sensors" and target.startswith("machine/"):
        return True
    return "/".join(target.split("/")[:-1]) == "/".join(file.split("/")[1:-1]) and ".." not in target


@harness.test
def test_includes_point_down_only():
    expect_none(f"{file}:{number}: {folder} may not include {name}"
                for folder in LAYERS for file in sources(folder) for number, name in includes(file)
                if not may_include(file, folder, name))


@harness.test
def test_every_source_folder_is_a_layer():
    folders = {"/".join(file.split("/")[:2]) for file in sources("src")}
    assert folders <= set(LAYERS), f"add to LAYERS: {', '.join(sorted(folders - set(LAYERS)))}"


@harness.test
def test_public_headers_include_public_headers_only():
    expect_none(f"{file}:{number}: includes {name}"
                for file in sources("include") for number, name in includes(file) if name[0] == '"')


@harness.test
def test_libraries_need_the_system_only():
    foreign = ("systemd/", "json-c/", "json.h", "ini.h", "xkbcommon/", "libvirt/", "check.h")
    expect_none(f"{file}:{number}: a library may not need {name}"
                for file in sources(*LIBRARY_FOLDERS) for number, name in includes(file) if name[1:].startswith(foreign))


@harness.test
def test_sources_are_listed():
    """What no local.mk lists is neither built nor distributed."""
    listed = " ".join(read(file) for file in walk(".") if file.endswith((".mk", "Makefile.am"))).split()
    # autogen.sh leaves generated scripts at the top and in build-aux, which are not ours.
    needed = sources(".") + [file for file in walk(*FOLDERS) if is_script(file)]
    expect_none(f"{file}: not listed in a local.mk" for file in needed
                if file not in listed and not any(file.startswith(f"{folder}/") for folder in listed))


@harness.test
def test_p09_sensors_load_from_no_guest():
    """They run in the bus's process, where a signal for a page that the host cannot bring would end everybody."""
    expect_none(f"{file}: calls vmibus_guest_ram_new(): take vmibus_guest_ram_new_unmapped()"
                for file in sources("sensors") if "vmibus_guest_ram_new(" in read(file))


# --- what libraries call ---------------------------------------------------------------------------


def nm(*arguments):
    tool = os.environ.get("NM") or "nm"
    try:
        result = subprocess.run([tool, *arguments], text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        harness.skip(f"{tool} not found: install binutils")
    assert result.returncode == 0 or "no symbols" in result.stderr, result.stderr
    return result.stdout.splitlines()


def archive(folder):
    """The path of a folder's library that is not installed."""
    path = os.path.join(BUILD, ".libs", f"libvmibus_{ARCHIVES[folder]}.a")
    if not os.path.exists(path):
        path = os.path.join(BUILD, f"libvmibus_{ARCHIVES[folder]}.a")
    if not os.path.exists(path):
        harness.skip(f"{path} is not there: run make first")
    return path


def plain(symbol):
    """A function's name in the source: without the compiler's fortification and the C library's versions."""
    symbol = symbol.split("@")[0]
    for pattern in (r"__(\w+)_chk$", r"__isoc\d+_(\w+)$", r"__(open|openat)(?:64)?_2$"):
        match = re.match(pattern, symbol)
        if match:
            return match.group(1)
    return symbol


def calls(folder):
    """Pairs of object and function that a folder's library calls outside its own object."""
    for line in nm("-A", "-u", archive(folder)):
        match = re.match(r".*?([\w.-]+\.o):\s+[UwW]\s+(\S+)", line)
        if match:
            yield match.group(1), plain(match.group(2))


def expect_no_call(folders, functions, rule):
    expect_none(f"{folder}: {item} uses {function}: {rule}"
                for folder in folders for item, function in calls(folder) if function in functions)


@harness.test
def test_p02_nothing_sleeps():
    expect_no_call(ARCHIVES, SLEEPS, "every wakeup is a descriptor")
    pattern = re.compile(r"\b(" + "|".join(SLEEPS) + r")\s*\(")
    expect_none(f"{file}: {match.group(0)}...): every wakeup is a descriptor"
                for file in sources("src/daemon", "sensors") for match in pattern.finditer(without_comments(read(file))))


@harness.test
def test_bus_opens_no_file():
    expect_no_call(["src/bus"], OPENS_FILES, "the bus opens no file")


@harness.test
def test_bus_makes_no_blocking_call():
    expect_no_call(["src/bus"], CONNECTS | BLOCKS, "the bus makes no blocking call")


@harness.test
def test_libraries_neither_speak_nor_exit():
    expect_no_call(ARCHIVES, SPEAKS, "a library says and decides nothing")


def without_comments(text):
    """C source without comments and the contents of strings."""
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', lambda match: '""' if match.group()[0] == '"' else " ",
                  text, flags=re.S)


@harness.test
def test_modules_neither_speak_nor_exit():
    """A sensor is loaded into the bus's process, and bound by the same rule."""
    pattern = re.compile(r"(?<![\w.>])(" + "|".join(sorted(SPEAKS - {"error"})) + r")\s*\(")
    expect_none(f"{file}: calls {match.group(1)}(): a module says and decides nothing"
                for file in sources("sensors") for match in pattern.finditer(without_comments(read(file))))


# --- what libraries export -------------------------------------------------------------------------


def exported(path):
    """The symbols that a shared object defines for others."""
    for line in nm("-D", "--defined-only", path):
        kind, name = line.split()[-2:]
        if kind != "A":  # A: the name of a version
            yield name.split("@")[0]


def shared_objects(folder, pattern):
    path = os.path.join(BUILD, folder)
    found = sorted(os.path.join(path, name) for name in (os.listdir(path) if os.path.isdir(path) else [])
                   if re.fullmatch(pattern, name))
    if not found:
        harness.skip(f"{path} has none: configured without shared libraries, or none was made")
    return found


def declared():
    """The functions that public headers declare as public."""
    text = "\n".join(read(file) for file in sources("include"))
    for file in ("protocol.h", "names.h"):
        path = os.path.join(BUILD, "include", "vmibus", file)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                text += stream.read()
    text = re.sub(r"^\s*#(?:.*\\\n)*.*$", "", without_comments(text), flags=re.M)
    return set(re.findall(r"VMIBUS_PUBLIC[^;({]*?\b(vmibus_\w+)\s*[\[(;]", text))


@harness.test
def test_exported_symbols_are_ours():
    expect_none(f"{os.path.basename(path)} exports {name}: does not begin with vmibus_"
                for path in shared_objects(".libs", r"libvmibus.*\.so") for name in exported(path)
                if not name.startswith("vmibus_"))


@harness.test
def test_exported_symbols_are_declared():
    public = declared()
    expect_none(f"{os.path.basename(path)} exports {name}: no public header declares it VMIBUS_PUBLIC"
                for path in shared_objects(".libs", r"libvmibus.*\.so") for name in exported(path) if name not in public)


@harness.test
def test_declared_symbols_are_exported():
    have = {name for path in shared_objects(".libs", r"libvmibus.*\.so") for name in exported(path)}
    expect_none(f"{name} is declared VMIBUS_PUBLIC, and no library exports it" for name in sorted(declared() - have)
                if name != "vmibus_sensor_module")


@harness.test
def test_no_symbol_is_exported_twice():
    owners = {}
    for path in shared_objects(".libs", r"libvmibus.*\.so"):
        for name in exported(path):
            owners.setdefault(name, []).append(os.path.basename(path))
    expect_none(f"{name} is exported by {' and '.join(paths)}" for name, paths in owners.items() if len(paths) > 1)


@harness.test
def test_modules_export_their_description_only():
    expect_none(f"{os.path.basename(path)} exports {name}"
                for path in shared_objects("sensors/.libs", r".*\.so") for name in exported(path)
                if name != "vmibus_sensor_module")


# --- headers and licences --------------------------------------------------------------------------


def compiler(variable, fallback):
    command = (os.environ.get(variable) or fallback).split()
    try:
        subprocess.run([*command, "--version"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        harness.skip(f"{command[0]} does not work")
    return command


def compile_headers(command, *flags):
    """That each public header compiles alone."""
    paths = [f"-I{os.path.join(top, 'include')}" for top in (BUILD, SRC)]
    for file in sources("include") + ["include/vmibus/protocol.h", "include/vmibus/names.h"]:
        name = os.path.relpath(file, "include")
        result = subprocess.run([*command, *flags, "-fsyntax-only", "-Wall", "-Wextra", "-Werror", *paths, "-"],
                                input=f"#include <{name}>\n", text=True, check=False,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert result.returncode == 0, f"<{name}> does not compile alone:\n{result.stderr}"


@harness.test
def test_public_headers_compile_alone():
    compile_headers(compiler("CC", "cc"), "-x", "c", "-std=gnu11", "-Wstrict-prototypes", "-Wundef")


@harness.test
def test_public_headers_compile_as_cxx():
    compile_headers(compiler("CXX", "c++"), "-x", "c++", "-std=c++17")


@harness.test
def test_every_source_has_a_licence():
    suffixes = (".c", ".h", ".py", ".sh", ".mk", ".am", ".ac", ".m4", ".toml", ".map", ".pml", ".service", ".socket", ".conf",
                ".bt", ".stp")
    top = ["Makefile.am", "configure.ac", "autogen.sh", "m4/vmibus.m4"]
    expect_none(f"{file}: no SPDX-License-Identifier in the first five lines"
                for file in [*top, *walk(*FOLDERS)] if (file.endswith(suffixes) or is_script(file))
                and "SPDX-License-Identifier: LGPL-2.1-or-later" not in "\n".join(read(file).splitlines()[:5]))


harness.main()
