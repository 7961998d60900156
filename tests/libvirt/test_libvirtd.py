#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The libvirt sensor on a real libvirtd with real guests: they are found, looked into, paused and lost again."""

import json
import os
import signal
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness
from private_libvirtd import WAIT_SECONDS, Host, wait

RAM = {"shared": "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>", "private": ""}
GUEST = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><memory unit='MiB'>256</memory>{ram}<vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
<cmdline>console=ttyS0 loglevel=4 panic=0</cmdline></os><features><acpi/></features><cpu mode='custom'><model>qemu64</model></cpu>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/>
<serial type='unix'><source mode='bind' path='{directory}/{name}.serial'/></serial></devices></domain>"""
# Its disk cannot be read, and it stops at that; no Linux.
BAD = """<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'><name>bad</name><uuid>{uuid}</uuid>
<memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator><memballoon model='none'/></devices><qemu:commandline>
<qemu:arg value='-drive'/>
<qemu:arg value='file=blkdebug:{directory}/blkdebug.conf:{directory}/disk,format=raw,if=none,id=d,rerror=stop,werror=stop'/>
<qemu:arg value='-device'/><qemu:arg value='virtio-blk-pci,drive=d,bootindex=1,addr=0x10'/></qemu:commandline></domain>"""


def start_guest(host, name):
    """Defines and starts a guest."""
    if name != "bad":
        host.start_domain(name, GUEST, ram=RAM[name])
        return
    with open(os.path.join(host.directory, "blkdebug.conf"), "w", encoding="ascii") as file:
        file.write('[inject-error]\nevent = "read_aio"\nerrno = "5"\n')
    with open(os.path.join(host.directory, "disk"), "wb") as file:
        file.truncate(8 << 20)
        if host.user:
            os.fchown(file.fileno(), host.user["user"], host.user["group"])
    host.start_domain(name, BAD)


def generation(host, name):
    """What names this occupant of the VM's slot."""
    info = host.info(name)
    return info["slot"], info["generation"]


def look_inside(host, name):
    """Processes are found, and memory is read and written."""
    host.wait_ready(name)
    wait(lambda: "vmibus-agent" in host.ctl("ps", name, check=False).stdout, "the guest has booted")
    host.ctl("write", name, "0x8000", "--physical", "--quiesce", "--hex", "4142434445464748")
    assert host.ctl("read", name, "0x8000", "8", "--physical", "--raw").stdout == "ABCDEFGH"
    assert host.virsh("domstate", name).stdout.strip() == "running"


def pause_and_resume(host):
    """Nobody else's pause is resumed; what the bus did bears its mark."""
    host.virsh("suspend", "shared")
    host.wait_state("shared", "PAUSED", "PAUSED")
    host.ctl("write", "shared", "0x8000", "--physical", "--quiesce", "--hex", "41")
    assert host.virsh("domstate", "shared").stdout.strip() == "paused"
    host.virsh("resume", "shared")
    host.wait_state("shared", "RUNNING", "RESUMED")
    host.ctl("power", "shared", "pause")
    host.wait_state("shared", "PAUSED", "PAUSED")
    assert host.info("shared")["lifecycle"]["flags"] == ["BY_BUS"]
    host.ctl("power", "shared", "resume")
    host.wait_state("shared", "RUNNING", "RESUMED")
    host.wait_ready("shared")


def type_a_key(host):
    """A key reaches the guest, though nobody but libvirt provides input."""
    with socket.socket(socket.AF_UNIX) as serial:
        serial.connect(os.path.join(host.directory, "private.serial"))
        serial.settimeout(harness.scale(WAIT_SECONDS))
        serial.sendall(b"evdev on\n")
        host.ctl("key", "private", "shift-a")
        heard = b""
        while b"code=30 value=0" not in heard:
            heard += serial.recv(4096)
        assert b"code=42 value=1" in heard, heard


def stop_libvirtd(host):
    """A libvirtd that stands still disturbs nobody else, and is waited for."""
    before = generation(host, "shared")
    host.libvirtd.send_signal(signal.SIGSTOP)
    call = subprocess.Popen([os.path.join(host.build, "vmibusctl"), "--socket", host.socket, "power", "shared", "pause"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stub = json.loads(host.ctl("list", "--json").stdout)
    stub = next(vm["name"] for vm in stub if vm["name"] not in host.domains)
    answered = 0
    while call.poll() is None:
        host.ctl("write", stub, "0x1000", "--physical", "--hex", "42")
        answered += 1
    assert answered > 1 and call.returncode != 0, (answered, call.returncode)
    host.wait_state("shared", "UNKNOWN", "OBSERVED")
    host.libvirtd.send_signal(signal.SIGCONT)
    host.wait_ready("shared")
    wait(lambda: host.state("shared")[0] == "RUNNING", "the guest runs")
    assert generation(host, "shared") == before


def kill_libvirtd(host):
    """A VM stays the same while libvirtd is replaced."""
    before = generation(host, "shared")
    host.libvirtd.kill()
    host.libvirtd.wait()
    host.wait_state("shared", "UNKNOWN", "OBSERVED")
    assert "DEGRADED" in host.log()
    host.start_libvirtd()
    host.wait_ready("shared")
    assert generation(host, "shared") == before
    assert host.log().rstrip().endswith("READY"), host.log()


@harness.test(timeout=600)
def test_existing_domains_are_followed():
    with Host() as host:
        start_guest(host, "shared")
        start_guest(host, "private")
        host.start_daemon()
        look_inside(host, "shared")
        look_inside(host, "private")
        assert "FD" in host.info("shared")["memctx"]["access"] and "MEDIATED" in host.info("private")["memctx"]["access"]
        pause_and_resume(host)
        type_a_key(host)
        stop_libvirtd(host)
        kill_libvirtd(host)
        host.ctl("power", "private", "quit")
        wait(lambda: not host.info("private"), "private is gone")
        start_guest(host, "bad")
        host.wait_state("bad", "PAUSED", "IO_ERROR")
        host.virsh("destroy", "bad")
        wait(lambda: not host.info("bad"), "bad is gone")


def is_tainted(host, name):
    """Whether libvirt has noted that somebody talked to QEMU past it."""
    path = os.path.join(host.env["XDG_CONFIG_HOME"], "libvirt", "qemu", "log", name + ".log")
    candidates = [path, os.path.join(host.env["XDG_CACHE_HOME"], "libvirt", "qemu", "log", name + ".log")]
    text = ""
    for path in candidates:
        if os.path.exists(path):
            with open(path, encoding="utf-8", errors="replace") as file:
                text += file.read()
    assert text, f"no log of {name} in {candidates}"
    return "custom-monitor" in text


@harness.test(timeout=300)
def test_p01_a_forbidden_monitor_taints_nothing():
    with Host() as host:
        start_guest(host, "bad")
        host.start_daemon("monitor.b* = no")
        wait(lambda: host.info("bad"), "the VM is there")
        host.ctl("power", "bad", "reset")
        assert "MEMORY" not in host.info("bad")["roster"]["groups"]
        assert host.ctl("regs", "bad", check=False).returncode != 0
        assert not is_tainted(host, "bad")
        host.stop_daemon()
        host.start_daemon()
        wait(lambda: host.info("bad").get("memctx", {}).get("state") == "PENDING", "its RAM is known")
        assert is_tainted(host, "bad")


harness.main()
