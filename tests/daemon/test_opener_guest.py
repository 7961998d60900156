#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibus-opend between real QEMUs and a vmibusd, or a vmibus-memd, that has no privilege: what is proven all the same."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

BUILD = harness.top_builddir()
QEMU_UID, BUS_UID, MEMORY_UID, SENSOR_UID = 64251, 64253, 64254, 64255
MEMFD = ["-object", "memory-backend-memfd,id=ram,size=256M,share=on", "-machine", "q35,memory-backend=ram", "-m", "256"]
PRIVATE = ["-m", "128"]
CONFIG = """[daemon]
opener-socket = {0}/opener.sock
[opener]
socket = {0}/opener.sock
users = {1}
memory-users = {2} {3}
"""
APART = """[daemon]
bus-user = {1}
sensor-users = {2}
[rule bus]
user = {1}
capabilities = all
[sensor qemu]
monitor.{3} = {0}/guests/{3}
"""


def become(uid):
    """What makes a child another user, without capabilities, that ends with the test."""
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--pdeathsig=KILL"]


def wait_for(condition, what, seconds=60):
    """Waits until a condition is met."""
    deadline = time.monotonic() + harness.scale(seconds)
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.05)


class Host:
    """The processes, in a directory of their own."""

    def __init__(self, directory):
        self.directory = directory
        for name, uid in (("guests", QEMU_UID), ("state", BUS_UID)):
            os.mkdir(self.path(name))
            os.chown(self.path(name), uid, uid)
        with open(self.path("vmibusd.conf"), "w", encoding="utf-8") as stream:
            stream.write(CONFIG.format(directory, QEMU_UID, BUS_UID, MEMORY_UID))

    def path(self, name):
        return os.path.join(self.directory, name)

    def run(self, stack, *command):
        """Starts a process that ends with the stack."""
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        stack.callback(lambda: (process.kill(), process.wait()))
        return process

    def start_qemu(self, stack, name, arguments):
        monitor = self.path(f"guests/{name}")
        process = self.run(stack, *become(QEMU_UID), "qemu-system-x86_64", "-display", "none", *arguments,
                           "-qmp", f"unix:{monitor},server=on,wait=off")
        wait_for(lambda: os.path.exists(monitor), monitor)
        os.chmod(monitor, 0o777)
        return process

    def start_opener(self, stack):
        process = self.run(stack, os.path.join(BUILD, "vmibus-opend"), "--config", self.path("vmibusd.conf"))
        wait_for(lambda: os.path.exists(self.path("opener.sock")), "opener.sock")
        return process

    def start_bus(self, stack, *names):
        monitors = [f"--qmp={name}={self.path('guests/' + name)}" for name in names]
        process = self.run(stack, *become(BUS_UID), "--inh-caps=-all", "--bounding-set=-all", os.path.join(BUILD, "vmibusd"),
                           "--config", self.path("vmibusd.conf"), "--socket", self.path("state/control.sock"),
                           "--state-directory", self.path("state"), "--sensor-directory",
                           os.path.join(BUILD, "sensors", "modules"), *monitors)
        wait_for(lambda: os.path.exists(self.path("state/control.sock")), "control.sock")
        return process

    def start_apart(self, stack, name):
        """Bus, memory authority and sensor, each without privilege and with a user of its own."""
        memory, control = self.path("memory/memory.sock"), self.path("state/control.sock")
        for folder, uid in (("memory", MEMORY_UID), ("sensor", SENSOR_UID)):
            os.mkdir(self.path(folder))
            os.chown(self.path(folder), uid, uid)
        with open(self.path("vmibusd.conf"), "a", encoding="utf-8") as stream:
            stream.write(APART.format(self.directory, BUS_UID, SENSOR_UID, name))
        sensor = ["--memory", memory, "--sensor-directory", os.path.join(BUILD, "sensors", "modules"), "qemu"]
        started = []
        for program, uid, folder, arguments in (
                ("vmibus-memd", MEMORY_UID, "memory", ["--socket", memory]),
                ("vmibusd", BUS_UID, "state", ["--socket", control, "--memory", memory, "--sensors-apart"]),
                ("vmibus-sensord", SENSOR_UID, "sensor", ["--socket", control, *sensor])):
            started.append(self.run(stack, *become(uid), "--inh-caps=-all", "--bounding-set=-all", os.path.join(BUILD, program),
                                    "--config", self.path("vmibusd.conf"), "--state-directory", self.path(folder), *arguments))
            wait_for(lambda: os.path.exists(memory), "memory.sock")
        wait_for(lambda: os.path.exists(control), "control.sock")
        return started

    def ctl(self, *arguments):
        return subprocess.run([*become(BUS_UID), os.path.join(BUILD, "vmibusctl"), "--socket", self.path("state/control.sock"),
                               *arguments], capture_output=True, text=True, check=False)

    def layout(self, name):
        """The memory context of a machine, once its layout is proven; None before."""
        answer = self.ctl("info", name, "--json")
        found = json.loads(answer.stdout).get("memctx") if answer.returncode == 0 else None
        return found if found and found.get("ram_size") else None


@contextlib.contextmanager
def host():
    """A host for a test, or the reason why there is none."""
    if os.geteuid() != 0:
        harness.skip("it takes root to run as three users")
    for program in ("qemu-system-x86_64", "setpriv"):
        if not shutil.which(program):
            harness.skip(f"{program} not found")
    if not os.path.exists(os.path.join(BUILD, "sensors", "modules", "qemu.so")):
        harness.skip("the qemu sensor is not built")
    with tempfile.TemporaryDirectory(prefix="vmibus-opener-") as directory, contextlib.ExitStack() as stack:
        os.chmod(directory, 0o755)
        yield Host(directory), stack


def capabilities(process):
    with open(f"/proc/{process.pid}/status", encoding="utf-8") as stream:
        return int(re.search(r"CapPrm:\s*(\w+)", stream.read()).group(1), 16)


@harness.test
def test_p12_layouts_are_proven_by_what_the_opener_brings():
    with host() as (here, stack):
        here.start_qemu(stack, "shared", MEMFD)
        here.start_qemu(stack, "private", PRIVATE)
        here.start_opener(stack)
        bus = here.start_bus(stack, "shared", "private")
        assert capabilities(bus) == 0
        for name in ("shared", "private"):
            layout = wait_for(lambda machine=name: here.layout(machine), f"the layout of {name}")
            assert "LAYOUT_MAPS" in layout["evidence"], layout
            answer = here.ctl("read", name, "0xffff0", "16", "--physical", "--hex")
            assert re.search(r"ea ?5b ?e0 ?00 ?f0", answer.stdout), answer  # the reset vector of its firmware
            answer = here.ctl("write", name, "0x1000", "--physical", "--hex", "766d69627573")
            assert answer.returncode == 0, answer.stderr
            assert "vmibus" in here.ctl("read", name, "0x1000", "16", "--physical").stdout


def linux(here):
    """Arguments of a QEMU that boots the test guest's kernel, from copies that its user can read."""
    make = os.path.join(harness.top_srcdir(), "tests", "guest", "make-initrd")
    answer = subprocess.run([make, "--cached"], capture_output=True, text=True, check=False)
    if answer.returncode:
        harness.skip("no guest can be had: " + answer.stderr.strip().replace("\n", " "))
    for name, path in re.findall(r"^(kernel|initrd)=(.*)$", answer.stdout, flags=re.M):
        shutil.copyfile(path, here.path(name))
        os.chmod(here.path(name), 0o644)
    return ["-nodefaults", "-accel", "tcg", "-cpu", "max", "-m", "256", "-kernel", here.path("kernel"), "-initrd",
            here.path("initrd"), "-append", "console=ttyS0 quiet", "-serial", "null"]


@harness.test(full=True, timeout=900)
def test_p12_root_in_private_memory_is_found_by_a_sensor_apart():
    """Neither the sensor nor the authority could open the memory of that process, nor open it anew: the opener does, to read."""
    with host() as (here, stack):
        here.start_qemu(stack, "private", linux(here))
        here.start_opener(stack)
        daemons = here.start_apart(stack, "private")
        assert not any(capabilities(process) for process in daemons)

        def root():
            memctx = here.layout("private")
            return memctx and memctx.get("confidence") == "PROVEN" and memctx
        found = wait_for(root, "the root", seconds=600)
        assert "MEDIATED" in found["access"] and found["note"], found


@harness.test
def test_p10_no_opener_means_no_layout_and_no_harm():
    with host() as (here, stack):
        here.start_qemu(stack, "shared", MEMFD)
        bus = here.start_bus(stack, "shared")
        wait_for(lambda: here.ctl("info", "shared").returncode == 0, "the machine")
        assert not here.layout("shared")
        opener = here.start_opener(stack)
        opener.send_signal(signal.SIGTERM)
        assert opener.wait() == 0
        assert bus.poll() is None and here.ctl("list").returncode == 0


harness.main()
