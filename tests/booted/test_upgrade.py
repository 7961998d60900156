#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""A package of a higher version is installed over the service, and one of a lower version, while a control listens."""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import booted
import harness
import service

UPGRADED = ("vmibus", "vmibus-sensor-stub")
INSIDE = "/upgrade"


def repack(folder, into, name, suffix):
    """Makes a package of another version of one in folder; what it depends on in exactly its own version, too."""
    [package] = glob.glob(os.path.join(folder, f"{name}_*.deb"))
    with tempfile.TemporaryDirectory() as tree:
        subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
        control = os.path.join(tree, "DEBIAN", "control")
        with open(control, encoding="utf-8") as file:
            text = file.read()
        version = next(line.split()[1] for line in text.splitlines() if line.startswith("Version:"))
        text = text.replace(f"Version: {version}", f"Version: {version}{suffix}").replace(f"vmibus (= {version})",
                                                                                         f"vmibus (= {version}{suffix})")
        with open(control, "w", encoding="utf-8") as file:
            file.write(text)
        subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, into], check=True, stdout=subprocess.DEVNULL)


def change_version(machine, folder):
    """Installs the packages in a folder inside, and gives the processes that serve then."""
    before = {unit: service.pid(machine, unit) for unit in service.UNITS}
    machine.run("apt-get", "install", "-q", "-y", "--allow-downgrades", "--no-install-recommends",
                *(path for name in UPGRADED for path in machine.run("sh", "-c", f"echo {folder}/{name}_*.deb").stdout.split()))
    service.await_true(machine, "all are other processes", lambda: all(
        service.pid(machine, unit) not in (0, pid) for unit, pid in before.items() if unit != "vmibus-opend"))
    service.await_works(machine)


@harness.test(timeout=600)
def test_p07_change_of_version_loses_nothing():
    folder = tempfile.mkdtemp(prefix="vmibus-upgrade-")
    try:
        os.chmod(folder, 0o755)
        for name in UPGRADED:
            repack(booted.packages(), folder, name, "+1")
        with booted.Machine(arguments=[f"--bind-ro={folder}:{INSIDE}"]) as machine:
            service.install(machine)
            service.await_works(machine)
            monitor = service.Monitor(machine)
            first = machine.run("dpkg-query", "-W", "-f", "${Version}", "vmibus").stdout
            change_version(machine, INSIDE)
            assert machine.run("dpkg-query", "-W", "-f", "${Version}", "vmibus").stdout == f"{first}+1"
            change_version(machine, booted.PACKAGES_INSIDE)
            assert machine.run("dpkg-query", "-W", "-f", "${Version}", "vmibus").stdout == first
            monitor.finish()
            assert machine.read("/etc/vmibus/vmibusd.conf") == service.CONFIGURATION
            failed = machine.run("systemctl", "--failed", "--no-legend").stdout
            assert not failed, failed
    finally:
        shutil.rmtree(folder)


harness.main()
