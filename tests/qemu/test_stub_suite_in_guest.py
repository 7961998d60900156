#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Runs the suites of this build under the kernel of Debian 12, which is older than many a developer's.

A guest sees the host's files, without a way to write to them, and runs each unit test program of the build; each test
in it counts as one here.  What only a guest can tell is what an older kernel refuses: calls it does not have, options
and files that came later.  tests/guest/suites-init is what runs inside.

VMIBUS_GUEST_SUITES="tests/bus/test_loop ..." runs these only; VMIBUS_GUEST_KERNEL names another kernel as
tests/guest/make-initrd knows them.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

SRC = harness.top_srcdir()
BUILD = harness.top_builddir()
# What mounts the host's files, and what tests use.
MODULES = ("netfs", "fscache", "9pnet", "9pnet_virtio", "9p", "fuse")
# A translated processor is that much slower.
TIMEOUT_FACTOR = 10
SUITE_SECONDS = 1200
ALL_SECONDS = 4 * 3600

CLOSING = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$")


def give_up(reason):
    """Ends as a suite that was skipped."""
    print(f"SKIP suites: {reason}\n0 passed, 0 failed, 1 skipped")
    sys.exit(harness.EXIT_SKIPPED)


def suites():
    """The unit test programs of the build."""
    chosen = os.environ.get("VMIBUS_GUEST_SUITES")
    if chosen:
        return chosen.split()
    answer = subprocess.run(["make", "-s", "--no-print-directory", "-C", BUILD, "print-test-programs"], text=True, check=True,
                            stdout=subprocess.PIPE)
    return answer.stdout.split()


def linux():
    """What goes together, as tests/guest/make-initrd says: kernel, version, initrd."""
    answer = subprocess.run([os.path.join(SRC, "tests", "guest", "make-initrd"), "--cached", "--kernel",
                             os.environ.get("VMIBUS_GUEST_KERNEL", "amd64")], text=True, check=False, capture_output=True)
    if answer.returncode:
        give_up("no guest can be had: " + answer.stderr.strip())
    return dict(line.split("=", 1) for line in answer.stdout.splitlines())


def add_modules(version, folder):
    """Copies modules, in the order in which they are loaded; what the kernel has built in is left out."""
    names = []
    for module in MODULES:
        answer = subprocess.run(["modinfo", "-k", version, "-n", module], text=True, check=False, capture_output=True)
        path = answer.stdout.strip()
        if path.startswith("/"):
            shutil.copy(path, folder)
            names.append("/suites/" + os.path.basename(path))
    with open(os.path.join(folder, "modules"), "w", encoding="utf-8") as file:
        file.write("".join(name + "\n" for name in names))


def make_initrd(base, version, names, target):
    """The guest's initrd, and behind it an archive with what runs the suites: Linux unpacks one after the other."""
    with tempfile.TemporaryDirectory() as stage:
        folder = os.path.join(stage, "suites")
        os.mkdir(folder)
        add_modules(version, folder)
        shutil.copy(os.path.join(SRC, "tests", "guest", "suites-init"), os.path.join(folder, "init"))
        with open(os.path.join(folder, "list"), "w", encoding="utf-8") as file:
            file.write("".join(name + "\n" for name in names))
        with open(os.path.join(folder, "environment"), "w", encoding="utf-8") as file:
            file.write(f"source='{SRC}' build='{BUILD}' timeout={SUITE_SECONDS}\n"
                       f"top_srcdir='{SRC}' top_builddir='{BUILD}' VMIBUS_SOURCE_DIR='{SRC}' CC='cc'\n"
                       f"VMIBUS_SENSOR_DIR='{BUILD}/sensors/modules' VMIBUS_TEST_TIMEOUT_FACTOR={TIMEOUT_FACTOR}\n"
                       "PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8\n")
        files = "\n".join(["suites"] + [f"suites/{name}" for name in sorted(os.listdir(folder))]) + "\n"
        archive = subprocess.run(["cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0"], cwd=stage, input=files.encode(),
                                 stdout=subprocess.PIPE, check=True).stdout
    with open(target, "wb") as out:
        with open(base, "rb") as file:
            shutil.copyfileobj(file, out)
        out.write(b"\0" * (-out.tell() % 4) + archive)


def run_guest(kernel, initrd, log):
    """Boots the guest and waits for its end."""
    # On a busy host the first ticks of the guest's timer come late, which a kernel takes for a timer that does not work.
    boot = "console=ttyS0 quiet panic=-1 no_timer_check rdinit=/suites/init"
    share = "local,path=/,mount_tag={0},security_model=none,readonly=on,multidevs=remap"
    command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35",
               "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "3G", "-kernel", kernel, "-initrd", initrd,
               "-append", boot,
               "-chardev", f"file,id=console,path={log}.console", "-serial", "chardev:console",
               "-chardev", f"file,id=suites,path={log}", "-serial", "chardev:suites",
               "-virtfs", share.format("host"), "-virtfs", share.format("kept")]
    return subprocess.run(command, timeout=ALL_SECONDS, check=False, text=True, capture_output=True)


class Verdict:
    """Counts the tests of the suites and prints their lines."""

    def __init__(self):
        self.counts = [0, 0, 0]

    def tell(self, name, lines, status):
        """One suite, from what it printed."""
        closing = next((match for line in reversed(lines) if (match := CLOSING.match(line))), None)
        numbers = [int(text) for text in closing.groups()] if closing else [0, 0, 0]
        if not closing or (numbers[1] == 0 and status not in (0, harness.EXIT_SKIPPED)):
            numbers[1] += 1
            print(f"FAIL {name}: the suite ended with status {status}{'' if closing else ', without its closing line'}")
        for line in lines:
            if line.startswith(("PASS ", "FAIL ", "SKIP ")):
                print(f"{line[:5]}{name}: {line[5:]}")
            elif numbers[1] and not CLOSING.match(line):
                print("    " + line)
        self.counts = [old + more for old, more in zip(self.counts, numbers)]

    def fail(self, text):
        """Something that went wrong outside of the suites."""
        self.counts[1] += 1
        print("FAIL suites: " + text.replace("\n", "\n    "))


def read_log(verdict, lines, names):
    """Tells what each suite printed; which of them never began is a failure too."""
    missing = list(names)
    name, heard = None, []
    for line in lines:
        if line.startswith("SUITE "):
            name, heard = line.split()[1], []
        elif name and line.startswith(f"STATUS {name} "):
            verdict.tell(name, heard, int(line.split()[2]))
            missing.remove(name)
            name = None
        elif line.startswith("BROKEN "):
            verdict.fail(line)
        else:
            heard.append(line)
    if missing:
        verdict.fail("did not end: " + " ".join(missing))


def main():
    """Runs the suites; exits as a suite does."""
    if not harness.is_full() and "VMIBUS_GUEST_SUITES" not in os.environ:
        give_up("takes long, set VMIBUS_TEST_FULL=1 to run it")
    for tool, package in (("qemu-system-x86_64", "qemu-system-x86"), ("cpio", "cpio"), ("modinfo", "kmod")):
        if not shutil.which(tool):
            give_up(f"{tool} not found: install {package}")
    guest, names = linux(), suites()
    print(f"kernel {guest['version']}")
    verdict = Verdict()
    with tempfile.TemporaryDirectory(prefix="vmibus-suites-") as folder:
        initrd, log = os.path.join(folder, "initrd"), os.path.join(folder, "log")
        make_initrd(guest["initrd"], guest["version"], names, initrd)
        answer = run_guest(guest["kernel"], initrd, log)
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.rstrip("\r\n") for line in file]
        read_log(verdict, lines, names)
        if "ALL SUITES RAN" not in lines:
            with open(log + ".console", encoding="utf-8", errors="replace") as file:
                verdict.fail("the guest ended early: " + answer.stderr + file.read()[-4000:])
    print("{} passed, {} failed, {} skipped".format(*verdict.counts))
    sys.exit(1 if verdict.counts[1] else 0)


main()
