#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusd finds QEMUs in a directory of monitors as they come and go, and by command."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

BUILD = harness.top_builddir()
QEMU = "qemu-system-x86_64"


class Host:
    """A daemon that watches a directory, and QEMUs without a guest: their firmware is machine enough."""

    def __init__(self):
        if not shutil.which(QEMU):
            harness.skip(f"{QEMU} not found: install qemu-system-x86")
        self.folder = tempfile.mkdtemp(prefix="vmibus-discovery-")
        self.vms = os.path.join(self.folder, "vms")
        os.mkdir(self.vms, 0o700)
        self.children = []
        self.socket = os.path.join(self.folder, "control.sock")
        open(self.path("conf"), "w", encoding="utf-8").close()
        self.spawn(os.path.join(BUILD, "vmibusd"), "--config", self.path("conf"), "--socket", self.socket,
                   "--state-directory", self.folder, "--sensor-directory", os.environ["VMIBUS_SENSOR_DIR"],
                   "--qmp-directory", self.vms)
        self.wait(lambda: os.path.exists(self.socket), "the daemon does not serve")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children:
            child.kill()
            child.wait()
        shutil.rmtree(self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def spawn(self, *command):
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.children.append(child)
        return child

    def qemu(self, path):
        return self.spawn(QEMU, "-machine", "q35,accel=tcg,memory-backend=ram", "-m", "64", "-display", "none", "-nodefaults",
                          "-object", "memory-backend-memfd,id=ram,size=64M,share=on", "-qmp", f"unix:{path},server=on,wait=off")

    def ctl(self, *words):
        return subprocess.run([os.path.join(BUILD, "vmibusctl"), "--socket", self.socket, *words], text=True, check=False,
                              capture_output=True)

    def roster(self):
        """VMs by name, of those that the bus knows everything of."""
        found = self.ctl("list", "--json")
        return {vm["name"]: vm for vm in json.loads(found.stdout)} if found.returncode == 0 else {}

    def wait(self, condition, what):
        deadline = time.monotonic() + harness.scale(60)
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.05)

    def expect(self, *names):
        self.wait(lambda: set(self.roster()) == set(names), f"not {names} but {list(self.roster())}")


@harness.test(timeout=240)
def test_qemus_come_and_go():
    with Host() as host:
        one, two = host.qemu(os.path.join(host.vms, "one.qmp")), host.qemu(os.path.join(host.vms, "two.sock"))
        host.qemu(os.path.join(host.vms, "three.other"))
        host.expect("one", "two")
        assert host.roster()["one"]["roster"]["pid"] == one.pid
        assert host.roster()["one"]["providers"]["MEMORY"] == "qemu"
        host.wait(lambda: host.roster()["one"].get("memctx", {}).get("ram_size") == 64 << 20, "one has no RAM layout")
        os.unlink(os.path.join(host.vms, "one.qmp"))
        two.kill()
        host.expect("one")
        assert host.ctl("power", "one", "pause").returncode == 0
        one.kill()
        host.expect()
        host.qemu(os.path.join(host.vms, "one.qmp"))
        host.expect("one")


@harness.test(timeout=240)
def test_qemus_by_command():
    with Host() as host:
        path = host.path("elsewhere")
        assert host.ctl("add", f"four={path}").returncode == 0
        four = host.qemu(path)
        host.expect("four")
        assert host.ctl("add", f"four={path}").returncode == 0
        assert host.ctl("add", "four=/else").returncode == 21
        assert host.ctl("add", "four").returncode == 2
        assert host.ctl("add", "four=relative").returncode == 2
        assert host.ctl("add", "five=/else", "--sensor", "nobody").returncode == 24
        assert host.ctl("remove", "nobody").returncode == 23
        assert host.ctl("remove", "four").returncode == 0
        host.expect()
        assert four.poll() is None, "the VM itself is left alone"


harness.main()
