#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Domains of a real libvirtd under the installed service: found as they are, looked into by an ordinary user, and known again after
a restart of whoever takes part."""

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

UNITS = ("vmibusd", "vmibus-memd", "vmibus-opend", "vmibus-sensord@libvirt", "vmibus-sensord@linux")
PACKAGES = ["libvirt-clients", "libvirt-daemon-system", "qemu-system-x86"]

# All that an administrator writes, as vmibus-sensor-libvirt(7) has it: the opener looks into libvirt-qemu's processes by itself.
CONFIGURATION = """[sensor libvirt]

[sensor linux]

[rule root]
user = root
capabilities = all

[rule sensors]
user = vmibus-sensor
endpoints = *
capabilities = ram-fd

[rule looker]
user = looker
endpoints = web-*
capabilities = observe memctx mem-read mem-write write-physical guest
"""

DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>256</memory>{ram}<vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>/var/lib/libvirt/images/kernel</kernel>
<initrd>/var/lib/libvirt/images/initrd</initrd><cmdline>console=ttyS0 quiet</cmdline></os>
<features><acpi/></features><cpu mode='custom'><model>qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/>
<serial type='null'/></devices></domain>"""
RAM = {"web-shared": "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>", "web-private": ""}

# The controllers of the host's control groups are not the container's to set.
QEMU_CONF = "cgroup_controllers = []\n"


def boot_files():
    """Kernel and initrd of the test guest, and the folders that they are in."""
    make = os.path.join(harness.top_srcdir(), "tests", "guest", "make-initrd")
    answer = subprocess.run([make, "--cached"], capture_output=True, text=True, check=False)
    if answer.returncode:
        harness.skip("no guest can be had: " + answer.stderr.strip().replace("\n", " "))
    files = dict(re.findall(r"^(kernel|initrd)=(.*)$", answer.stdout, flags=re.M))
    return [f"--bind-ro={os.path.realpath(files[name])}:/guest/{name}" for name in ("kernel", "initrd")]


def memctx(machine, name):
    """What is known of a domain's memory."""
    return service.info(machine, name).get("memctx", {})


def await_ready(machine, *names):
    """Waits until the guests' kernels are known."""
    for name in names:
        service.await_true(machine, f"the kernel of {name} is known",
                           lambda: memctx(machine, name).get("state") == "READY", seconds=300)


def state(machine, name):
    """A domain's run state, and what changed it."""
    lifecycle = service.info(machine, name).get("lifecycle", {})
    return lifecycle.get("state"), lifecycle.get("cause")


def await_state(machine, name, *expected):
    """Waits for a run state, and what changed it."""
    service.await_true(machine, f"{name} is {expected}", lambda: state(machine, name) == expected)


def occupant(machine, name):
    """What names this run of a domain."""
    info = service.info(machine, name)
    return info["slot"], info["generation"]


def install(machine):
    """Installs the packages, and sets up what an administrator does."""
    machine.write("/etc/libvirt/qemu.conf", QEMU_CONF)
    machine.run("systemctl", "restart", "libvirtd")
    machine.run("install", "-m", "644", "/guest/kernel", "/guest/initrd", "/var/lib/libvirt/images/")
    service.add_user(machine, "looker")
    machine.install("vmibus-sensor-libvirt", "vmibus-sensor-guest")
    machine.write("/etc/vmibus/vmibusd.conf", CONFIGURATION)
    machine.run("systemctl", "start", "vmibusd.service")


def define(machine, name):
    """Defines a domain and starts it."""
    machine.write(f"/root/{name}.xml", DOMAIN.format(name=name, ram=RAM[name]))
    machine.run("virsh", "define", f"/root/{name}.xml")
    machine.run("virsh", "start", name)


def look_inside(machine, name):
    """Processes of the guest are listed and memory is read, by an ordinary user."""
    await_ready(machine, name)

    def listed():
        return re.search(r"\bkthreadd\b", service.ctl(machine, "ps", name, user="looker").stdout)

    service.await_true(machine, f"processes of {name} are listed", listed)
    service.ctl(machine, "read", name, "0x1000", "16", "--physical", user="looker", check=True)
    service.ctl(machine, "write", name, "0x8000", "--physical", "--hex", "31323334", user="looker", check=True)
    read = service.ctl(machine, "read", name, "0x8000", "4", "--physical", "--raw", user="looker", check=True)
    assert read.stdout == "1234", read


def look_around(machine):
    """What an ordinary user sees is what the rules give, and the live view shows it."""
    listed = json.loads(service.ctl(machine, "list", "--json", user="looker", check=True).stdout)
    assert sorted(vm["name"] for vm in listed) == sorted(RAM), listed
    for name, access in (("web-shared", "FD"), ("web-private", "MEDIATED")):
        assert access in memctx(machine, name)["access"], (name, memctx(machine, name))
    assert service.ctl(machine, "power", "web-shared", "pause", user="looker").returncode != 0
    top = service.ctl(machine, "top", "--count", "1", check=True)
    assert "web-shared" in top.stdout and "web-private" in top.stdout, top
    machine.run("runuser", "-u", "vmibus-sensor", "--", "virsh", "-c", "qemu:///system", "list")
    for unit in UNITS:
        capabilities = int(service.status(machine, unit)["CapEff"], 16)
        assert bool(capabilities) == (unit == "vmibus-opend"), (unit, capabilities)


def change_power(machine):
    """What libvirt does is told, and what the bus does is libvirt's too."""
    machine.run("virsh", "suspend", "web-shared")
    await_state(machine, "web-shared", "PAUSED", "PAUSED")
    machine.run("virsh", "resume", "web-shared")
    await_state(machine, "web-shared", "RUNNING", "RESUMED")
    service.ctl(machine, "power", "web-shared", "pause", check=True)
    assert machine.run("virsh", "domstate", "web-shared").stdout.strip() == "paused"
    service.ctl(machine, "power", "web-shared", "resume", check=True)
    await_state(machine, "web-shared", "RUNNING", "RESUMED")
    await_ready(machine, "web-shared")


def start_anew(machine):
    """A domain that ends goes, and comes as another one."""
    before = occupant(machine, "web-private")
    machine.run("virsh", "destroy", "web-private")
    service.await_true(machine, "web-private is gone", lambda: not service.info(machine, "web-private"))
    machine.run("virsh", "start", "web-private")
    look_inside(machine, "web-private")
    assert occupant(machine, "web-private") != before


def restart_libvirtd(machine):
    """Domains stay what they are while libvirtd is replaced, and are followed again."""
    before = {name: occupant(machine, name) for name in RAM}
    pid = service.pid(machine, "libvirtd")
    machine.run("systemctl", "restart", "libvirtd")
    assert service.pid(machine, "libvirtd") not in (0, pid)
    await_ready(machine, *RAM)
    assert {name: occupant(machine, name) for name in RAM} == before
    change_power(machine)


def restart_service(machine):
    """A restart of the bus loses nothing; whoever dies, the domains are known again."""
    before = {name: occupant(machine, name) for name in RAM}
    machine.run("systemctl", "restart", "vmibusd")
    await_ready(machine, *RAM)
    assert {name: occupant(machine, name) for name in RAM} == before
    for unit in UNITS:
        pid = service.pid(machine, unit)
        machine.run("sh", "-c", f"kill -KILL {pid}")
        service.await_true(machine, f"{unit} is another process", lambda: service.pid(machine, unit) not in (0, pid))
        await_ready(machine, *RAM)
    for name in RAM:
        look_inside(machine, name)


@harness.test(full=True, timeout=1800)
def test_domains_of_libvirt_are_looked_into_by_an_ordinary_user():
    with booted.Machine(packages_inside=PACKAGES, arguments=boot_files()) as machine:
        install(machine)
        define(machine, "web-shared")
        define(machine, "web-private")
        look_inside(machine, "web-shared")
        look_inside(machine, "web-private")
        look_around(machine)
        change_power(machine)
        start_anew(machine)
        restart_libvirtd(machine)
        restart_service(machine)
        machine.run("virsh", "destroy", "web-shared")
        service.await_true(machine, "shared is gone", lambda: not service.info(machine, "web-shared"))
        failed = machine.run("systemctl", "--failed", "--no-legend").stdout
        assert not failed, failed


harness.main()
