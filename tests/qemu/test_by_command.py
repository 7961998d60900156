#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A QEMU that was added by command, over restarts of vmibusd and of vmibus-sensord: endpoint, epoch and lease stay."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness
import service_manager

BUILD = harness.top_builddir()
QEMU = "qemu-system-x86_64"


def has_systemd():
    with open(os.path.join(BUILD, "Makefile"), encoding="utf-8") as file:
        return "-DHAVE_SYSTEMD=1" in file.read()


class Host:
    """QEMUs without a guest, and a vmibusd that is run by a service manager, with its sensor within or apart."""

    def __init__(self, *configured, apart=False):
        if not shutil.which(QEMU):
            harness.skip(f"{QEMU} not found: install qemu-system-x86")
        if not has_systemd():
            harness.skip("built without libsystemd: nothing is handed over")
        self.folder = tempfile.mkdtemp(prefix="vmibus-by-command-")
        self.children, self.managers = [], []
        self.socket = self.path("control.sock")
        options = [word for name in configured for word in (f"monitor.{name}={self.path(name)}",)]
        flag, module = ("--set", ["qemu"]) if apart else ("--sensor", [])
        sensor = [word for option in options for word in (flag, option if apart else f"qemu:{option}")] + module
        common = ["--config", self.path("conf"), "--socket", self.socket, "--sensor-directory", os.environ["VMIBUS_SENSOR_DIR"]]
        with open(self.path("conf"), "w", encoding="utf-8") as file:
            file.write("" if apart else "[sensor qemu]\n")
        self.daemon = self.start("vmibusd", *common, "--state-directory", self.path("state"), *([] if apart else sensor))
        self.sensord = self.start("vmibus-sensord", *common, *sensor) if apart else None

    def start(self, name, *words):
        os.mkdir(self.path("manager-" + name))
        manager = service_manager.Manager(self.path("manager-" + name)).__enter__()
        self.managers.append(manager)
        log = open(self.path("log"), "ab")
        with log:
            process = manager.start([os.path.join(BUILD, name), *words], stderr=log)
        process.manager = manager
        self.children.append(process)
        return process

    def restart(self, process):
        with open(self.path("log"), "ab") as log:
            following = process.manager.restart(process, stderr=log)
        following.manager = process.manager
        self.children.append(following)
        return following

    def __enter__(self):
        return self

    def __exit__(self, *failure):
        for child in self.children:
            child.kill()
            child.wait()
        for manager in self.managers:
            manager.__exit__()
        if failure[0]:
            with open(self.path("log"), encoding="utf-8") as log:
                sys.stderr.write(log.read())
        shutil.rmtree(self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def qemu(self, name):
        """One whose firmware tells what it does."""
        child = subprocess.Popen([QEMU, "-machine", "q35,accel=tcg,memory-backend=ram", "-m", "64", "-display", "none",
                                  "-nodefaults", "-chardev", f"file,id=told,path={self.path(name)}.told",
                                  "-device", "isa-debugcon,iobase=0x402,chardev=told", "-object", "memory-backend-memfd,id=ram,size=64M,share=on",
                                  "-qmp", f"unix:{self.path(name)},server=on,wait=off"])
        self.children.append(child)
        return child

    def command(self, *words):
        return [os.path.join(BUILD, "vmibusctl"), "--socket", self.socket, *words]

    def ctl(self, *words):
        answer = subprocess.run(self.command(*words), text=True, check=False, capture_output=True)
        assert answer.returncode == 0, (words, answer)
        return answer.stdout

    def vms(self):
        """By name."""
        return {vm["name"]: vm for vm in json.loads(self.ctl("list", "--json"))}

    def wait(self, condition, what):
        deadline = time.monotonic() + harness.scale(60)
        while not condition():
            assert time.monotonic() < deadline, what
            time.sleep(0.05)

    def identity(self, name):
        vm = self.vms()[name]
        return {"slot": vm["slot"], "generation": vm["generation"], "epoch": vm["memctx"]["epoch"], "pid": vm["roster"]["pid"]}

    def wait_ready(self, name):
        def is_ready():
            vm = self.vms().get(name, {})
            return vm.get("memctx", {}).get("ram_size") == 64 << 20 and vm.get("providers", {}).get("POWER") == "qemu"

        self.wait(is_ready, f"{name} is not ready")

    def add(self, name):
        """Once its firmware, which changes the layout, has ended: the epoch stays with what the sensor reads then."""
        def has_ended():
            if not os.path.exists(self.path(name) + ".told"):
                return False
            with open(self.path(name) + ".told", "rb") as file:
                return b"No bootable device" in file.read()

        self.wait(has_ended, "the firmware does not end")
        self.ctl("add", f"{name}={self.path(name)}")
        self.wait_ready(name)
        return self.identity(name)

    def hold_lease(self, name):
        """A lease that is used once the file GO is there."""
        held = self.path("held")
        holder = subprocess.Popen(self.command(
            "lease", name, "power", "--", "sh", "-c",
            f"touch {held}; until test -e {self.path('go')}; do test -e {held} || exit; sleep 0.1; done; exec {BUILD}/vmibusctl power {name} pause"))
        self.children.append(holder)
        self.wait(lambda: os.path.exists(held), "the lease is not granted")
        return holder

    def use_lease(self, holder):
        open(self.path("go"), "wb").close()
        assert holder.wait(harness.scale(60)) == 0, "the lease is not good any more"


@harness.test(timeout=240)
def test_p07_vm_added_by_command_survives_a_restart_of_vmibusd():
    with Host("web") as host:
        host.qemu("web")
        host.qemu("four")
        before = host.add("four")
        host.wait_ready("web")
        holder = host.hold_lease("four")
        host.ctl("remove", "web")
        host.daemon = host.restart(host.daemon)
        host.daemon = host.restart(host.daemon)
        host.wait_ready("four")
        assert host.identity("four") == before, (before, host.vms()["four"])
        host.use_lease(holder)
        # What was removed stays so, until it is added.
        assert list(host.vms()) == ["four"], host.vms()
        host.ctl("add", f"web={host.path('web')}")
        host.ctl("remove", "four")
        host.daemon = host.restart(host.daemon)
        host.wait_ready("web")
        assert list(host.vms()) == ["web"], host.vms()


@harness.test(timeout=240)
def test_p07_vm_added_by_command_survives_a_restart_of_vmibus_sensord():
    with Host(apart=True) as host:
        host.qemu("four")
        before = host.add("four")
        holder = host.hold_lease("four")
        host.sensord = host.restart(host.sensord)
        host.wait_ready("four")
        assert host.identity("four") == before, (before, host.vms()["four"])
        host.daemon = host.restart(host.daemon)
        host.wait_ready("four")
        assert host.identity("four") == before, (before, host.vms()["four"])
        host.use_lease(holder)


harness.main()
