#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The Debian packages on a booted Debian: installed, used as a service, upgraded, removed, purged."""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import booted
import harness

STUB = "[sensor stub]\n"


def vm_names(machine):
    return [vm["name"] for vm in json.loads(machine.run("vmibusctl", "list", "--json").stdout)]


def use_stub(machine):
    machine.install("vmibus-sensor-stub")
    machine.write("/etc/vmibus/vmibusd.conf", STUB)


@harness.test(timeout=600)
def test_the_first_client_starts_the_service():
    with booted.Machine() as machine:
        use_stub(machine)
        assert machine.run("systemctl", "is-active", "vmibusd.socket").stdout.strip() == "active"
        assert machine.run("systemctl", "is-active", "vmibusd.service", check=False).stdout.strip() == "inactive"
        vm_names(machine)
        assert machine.run("systemctl", "is-active", "vmibusd.service").stdout.strip() == "active"
        # Sensors come with the bus.
        machine.await_true("the sensor's machines are there", lambda: len(vm_names(machine)) > 0)


@harness.test(timeout=600)
def test_what_the_package_brings_goes_with_a_purge():
    with booted.Machine() as machine:
        before = set(machine.run("find", "/etc", "/usr", "/var/lib", "-not", "-path", "/var/lib/dpkg/*").stdout.split("\n"))
        use_stub(machine)
        vm_names(machine)
        assert machine.exists("/var/lib/vmibus/incarnation")
        machine.run("apt-get", "remove", "-q", "-y", "vmibus")
        assert not machine.exists("/run/vmibus/control.sock"), "the socket is still there"
        assert machine.exists("/var/lib/vmibus/incarnation"), "tokens that were given out would be given out again"
        assert machine.exists("/etc/vmibus/vmibusd.conf")
        machine.run("apt-get", "purge", "-q", "-y", "vmibus")
        machine.run("apt-get", "autoremove", "--purge", "-q", "-y")
        after = set(machine.run("find", "/etc", "/usr", "/var/lib", "-not", "-path", "/var/lib/dpkg/*").stdout.split("\n"))
        left = sorted(path for path in after - before if "vmibus" in path)
        assert not left, left


harness.main()
