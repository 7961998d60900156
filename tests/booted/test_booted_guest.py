#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real QEMU guest under the installed service: found by its monitor in a directory, looked into by an ordinary user."""

import json
import os
import re
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import booted
import harness
import service

UNITS = ("vmibusd", "vmibus-memd", "vmibus-opend", "vmibus-sensord@qemu", "vmibus-sensord@linux")

CONFIGURATION = """[sensor qemu]
directory = /run/vms
directory-owners = vm-web

[sensor linux]

[opener]
users = vm-web

[rule root]
user = root
capabilities = all

[rule sensors]
user = vmibus-sensor
endpoints = web
capabilities = ram-fd

[rule looker]
user = looker
endpoints = web
capabilities = observe memctx mem-read mem-write write-physical guest
"""

QEMU = ("-machine q35,memory-backend=ram -object memory-backend-memfd,id=ram,size=256M,share=on -cpu max -accel tcg -m 256M "
        "-nodefaults -display none -kernel /guest/kernel -initrd /guest/initrd -append 'console=ttyS0 quiet' "
        "-serial file:/run/vms-log/web.log -name web -qmp unix:/run/vms/web.qmp,server=on,wait=off")


def boot_files():
    """Kernel and initrd of the test guest, and the folders that they are in."""
    make = os.path.join(harness.top_srcdir(), "tests", "guest", "make-initrd")
    answer = subprocess.run([make, "--cached"], capture_output=True, text=True, check=False)
    if answer.returncode:
        harness.skip("no guest can be had: " + answer.stderr.strip().replace("\n", " "))
    files = dict(re.findall(r"^(kernel|initrd)=(.*)$", answer.stdout, flags=re.M))
    return [f"--bind-ro={os.path.realpath(files[name])}:/guest/{name}" for name in ("kernel", "initrd")]


@harness.test(full=True, timeout=1800)
def test_guest_in_a_watched_directory_is_looked_into_by_an_ordinary_user():
    with booted.Machine(packages_inside=["qemu-system-x86"], arguments=boot_files()) as machine:
        for user in ("vm-web", "looker"):
            service.add_user(machine, user)
        machine.install("vmibus-sensor-qemu", "vmibus-sensor-guest")
        machine.write("/etc/vmibus/vmibusd.conf", CONFIGURATION)
        # What connects to a monitor has to be let in by its socket: the sensors' user is in the group of the machine.
        machine.run("usermod", "-a", "-G", "vm-web", "vmibus-sensor")
        machine.run("install", "-d", "-m", "755", "-o", "vm-web", "-g", "vm-web", "/run/vms", "/run/vms-log")
        machine.run("systemctl", "start", "vmibusd.service")
        machine.run("systemd-run", "--unit=web", "--uid=vm-web", "--gid=vm-web", "--property=UMask=0007", "sh", "-c",
                    f"exec qemu-system-x86_64 {QEMU}")

        def ready():
            memctx = service.info(machine, "web").get("memctx", {})
            return memctx.get("state") == "READY"

        service.await_true(machine, "the guest's kernel is known", ready, seconds=300)
        answer = service.ctl(machine, "ps", "web", user="looker")
        assert answer.returncode == 0 and re.search(r"\bkthreadd\b", answer.stdout), (answer, service.journal(machine))
        listed = json.loads(service.ctl(machine, "list", "--json", user="looker", check=True).stdout)
        assert [vm["name"] for vm in listed] == ["web"], listed
        service.ctl(machine, "read", "web", "0x1000", "16", "--physical", user="looker", check=True)
        written = service.ctl(machine, "write", "web", "0x1000", "--physical", "--hex", "31323334", "--dry-run", user="looker")
        assert written.returncode == 0, (written, service.journal(machine))
        for unit in UNITS:
            capabilities = int(service.status(machine, unit)["CapEff"], 16)
            assert bool(capabilities) == (unit == "vmibus-opend"), (unit, capabilities)
        # Whoever dies: the guest is found and known again, and goes on meanwhile.
        for unit in UNITS:
            pid = service.pid(machine, unit)
            machine.run("sh", "-c", f"kill -KILL {pid}")
            service.await_true(machine, f"{unit} is another process", lambda: service.pid(machine, unit) not in (0, pid))
            service.await_true(machine, "the guest is known again", ready, seconds=120)
        service.ctl(machine, "ps", "web", user="looker", check=True)
        machine.run("systemctl", "stop", "web")
        service.await_true(machine, "the guest is gone", lambda: not service.info(machine, "web"))


harness.main()
