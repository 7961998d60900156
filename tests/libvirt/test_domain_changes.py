#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What changes in a domain that runs, on a real libvirtd with a real Linux guest: memory that is plugged and unplugged, sleep, a
watchdog that fires, a balloon that takes memory.  Each reaches a control as what it is, and the memory is known again afterwards."""

import json
import os
import socket
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import harness
from private_libvirtd import WAIT_SECONDS, Host, wait

NAME = "changing"
GUEST = """<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid>
<maxMemory slots='2' unit='MiB'>1024</maxMemory><memory unit='MiB'>256</memory>{ram}<vcpu>1</vcpu>
<os><type arch='x86_64' machine='{machine}'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
<cmdline>console=ttyS0 loglevel=4 panic=0</cmdline></os><features><acpi/></features>
<cpu mode='custom'><model>qemu64</model><numa><cell id='0' cpus='0' memory='256' unit='MiB'/></numa></cpu>
<pm><suspend-to-mem enabled='yes'/></pm>
<devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{devices}
<serial type='unix'><source mode='bind' path='{directory}/{name}.serial'/></serial></devices></domain>"""
NO_BALLOON = "<memballoon model='none'/>"
BALLOON = "<memballoon model='virtio'/>"
SHARED = "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
MEMORY = {
    "dimm": "<memory model='dimm'><target><size unit='MiB'>128</size><node>0</node></target></memory>",
    "virtio-mem": "<memory model='virtio-mem'><target><size unit='MiB'>128</size><node>0</node><block unit='MiB'>2</block>"
                  "<requested unit='MiB'>0</requested></target></memory>",
}
# The register of QEMU's ib700 that starts it, and the least time that it takes: two seconds of the guest's.
WATCHDOG = "<watchdog model='ib700' action='pause'/>"
START_WATCHDOG = r"printf '\016' | dd of=/dev/port bs=1 seek=$((0x443)) count=1 conv=notrunc"

# Pages that are used, and needed no more after that.
USE_MEMORY = ("mkdir -p /used && mount -t tmpfs -o size=80m used /used && dd if=/dev/zero of=/used/file bs=1M count=60; "
              "umount /used")


class Agent:
    """The guest's serial console, where it obeys."""

    def __init__(self, host):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(os.path.join(host.directory, NAME + ".serial"))
        self.socket.settimeout(harness.scale(WAIT_SECONDS))
        self.lines = self.socket.makefile("r", encoding="utf-8", errors="replace")

    def tell(self, command):
        """Has the guest's shell execute a command."""
        self.socket.sendall(f"exec {command}\n".encode())

    def succeeded(self):
        """Waits until the guest is done with a command, and returns whether it succeeded."""
        for line in self.lines:
            if line.startswith("OK exec"):
                return line.strip() == "OK exec status=0"
        raise AssertionError("the guest has ended")

    def ask(self, command):
        """Executes a command, and returns whether it succeeded."""
        self.tell(command)
        return self.succeeded()

    def close(self):
        """Hangs up."""
        self.lines.close()
        self.socket.close()


class Monitor:
    """A control that writes down what it is told."""

    def __init__(self, host):
        self.path = os.path.join(host.directory, "monitor.json")
        with open(self.path, "wb") as file:
            self.process = subprocess.Popen([os.path.join(host.build, "vmibusctl"), "--socket", host.socket, "monitor", "--json"],
                                            stdout=file)
        wait(lambda: self.told("ACK", None), "the control is told what is so")

    def told(self, kind, name=NAME):
        """The events of a kind, of the guest, in their order."""
        with open(self.path, encoding="utf-8") as file:
            events = [json.loads(line) for line in file.read().splitlines(keepends=True) if line.endswith("\n")]
        return [event["body"] for event in events if event.get("kind") == kind and event.get("name") == name]

    def run_states(self):
        """The run states of the guest, and what changed them."""
        return [(body["state"], body["cause"]) for body in self.told("LIFECYCLE")]

    def wait_states(self, *states):
        """Waits until these were told last, one after the other."""
        wait(lambda: self.run_states()[-len(states):] == list(states), lambda: f"{states}, not {self.run_states()}")

    def stop(self):
        """Ends it."""
        self.process.kill()
        self.process.wait()


class Scene:
    """A guest that has booted, and a control beside it."""

    def __init__(self, host, machine, devices=NO_BALLOON):
        host.start_domain(NAME, GUEST, machine=machine, ram=SHARED, devices=devices)
        host.start_daemon()
        host.wait_ready(NAME)
        wait(lambda: "vmibus-agent" in host.ctl("ps", NAME, check=False).stdout, "the guest has booted")
        self.host, self.agent, self.monitor = host, Agent(host), Monitor(host)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.agent.close()
        self.monitor.stop()

    def epoch(self):
        """The epoch of the guest's memory, once its kernel is known in it."""
        self.host.wait_ready(NAME)
        return self.host.info(NAME)["memctx"]["epoch"]

    def resident(self):
        """How much of it the host really holds, in MiB: of the file that it is in."""
        process = f"/proc/{self.monitor.told('ROSTER')[-1]['pid']}/fd"
        for fd in os.listdir(process):
            path = os.path.join(process, fd)
            if os.readlink(path).startswith("/memfd:"):
                return os.stat(path).st_blocks * 512 >> 20
        raise AssertionError("the guest's RAM is in no memfd")

    def ram(self):
        """How much of it there is, in MiB."""
        return self.host.info(NAME)["memctx"]["ram_size"] >> 20

    def expect_end(self, what, reason, change):
        """A change ends the epoch once, and is told as such; in the next one the kernel is known again."""
        before, n = self.epoch(), len(self.monitor.told("MEMCTX_INVALIDATED"))
        change()
        ends = wait(lambda: self.monitor.told("MEMCTX_INVALIDATED")[n:], lambda: f"{what} ends the epoch: {self.host.log()}")
        assert [end["reason"] for end in ends] == [reason], (what, ends)
        assert self.epoch() != before, what
        assert "vmibus-agent" in self.host.ctl("ps", NAME).stdout, what


@harness.test(full=True, timeout=900)
def test_p06_memory_is_plugged_and_unplugged():
    with Host() as host, Scene(host, "q35") as scene:
        for name, text in MEMORY.items():
            with open(os.path.join(host.directory, name), "w", encoding="ascii") as file:
                file.write(text)
        dimm = os.path.join(host.directory, "dimm")
        scene.expect_end("a DIMM that is plugged", "HOTPLUG", lambda: host.virsh("attach-device", NAME, dimm, "--live"))
        assert scene.ram() == 384, scene.ram()
        scene.expect_end("a DIMM that is unplugged", "HOTPLUG", lambda: host.virsh("detach-device", NAME, dimm, "--live"))
        assert scene.ram() == 256, scene.ram()
        host.virsh("attach-device", NAME, os.path.join(host.directory, "virtio-mem"), "--live")
        scene.expect_end("blocks of virtio-mem", "HOTPLUG",
                         lambda: host.virsh("update-memory-device", NAME, "--live", "--requested-size", "64MiB"))


@harness.test(full=True, timeout=900)
def test_p11_what_a_balloon_takes_is_not_brought_back():
    with Host() as host, Scene(host, "q35", BALLOON) as scene:
        if not scene.agent.ask("test -d /sys/bus/virtio/drivers/virtio_balloon"):
            harness.skip("the guest's kernel has no balloon")
        assert scene.agent.ask(USE_MEMORY)
        epoch, before = scene.epoch(), scene.resident()
        host.virsh("setmem", NAME, "192MiB", "--live")
        wait(lambda: scene.resident() < before - 32, lambda: f"the balloon takes memory: of {before} MiB {scene.resident()} are left")
        wait(lambda: "actual 196608" in host.virsh("dommemstat", NAME).stdout, lambda: host.virsh("dommemstat", NAME).stdout)
        after = scene.resident()
        # All that readers can be made to read.
        host.ctl("dump", NAME, os.path.join(host.directory, "dump"))
        host.ctl("search", NAME, "--physical", "--hex", "00112233445566778899aabbccddeeff", check=False)
        assert "vmibus-agent" in host.ctl("ps", NAME).stdout
        assert scene.resident() <= after + 8, (after, scene.resident())
        # And it gets back what it had.
        assert scene.epoch() == epoch and not scene.monitor.told("MEMCTX_INVALIDATED"), host.log()
        host.virsh("setmem", NAME, "256MiB", "--live")
        assert scene.agent.ask(USE_MEMORY)
        assert scene.epoch() == epoch and scene.resident() > after + 32


@harness.test(full=True, timeout=900)
def test_sleep_and_watchdog_are_told_as_what_they_are():
    with Host() as host, Scene(host, "pc", NO_BALLOON + WATCHDOG) as scene:
        if not scene.agent.ask("grep -qw deep /sys/power/mem_sleep"):
            harness.skip("the guest's kernel cannot suspend to memory")
        # As virsh dompmsuspend does by an agent in the guest, which this one has not.
        scene.agent.tell("echo deep >/sys/power/mem_sleep && echo mem >/sys/power/state")
        scene.monitor.wait_states(("SUSPENDED", "SUSPENDED"))
        assert host.virsh("domstate", NAME).stdout.strip() == "pmsuspended"
        host.virsh("dompmwakeup", NAME)
        scene.monitor.wait_states(("SUSPENDED", "SUSPENDED"), ("RUNNING", "WAKEUP"))
        assert scene.agent.succeeded()
        host.wait_ready(NAME)
        # The same by a control.
        scene.agent.tell("echo mem >/sys/power/state")
        scene.monitor.wait_states(("RUNNING", "WAKEUP"), ("SUSPENDED", "SUSPENDED"))
        host.ctl("power", NAME, "wakeup")
        scene.monitor.wait_states(("SUSPENDED", "SUSPENDED"), ("RUNNING", "WAKEUP"))
        assert scene.agent.succeeded()
        host.wait_ready(NAME)

        scene.agent.tell(START_WATCHDOG)
        scene.monitor.wait_states(("RUNNING", "WAKEUP"), ("PAUSED", "WATCHDOG"))
        assert "watchdog" in host.virsh("domstate", NAME, "--reason").stdout
        host.virsh("resume", NAME)
        scene.monitor.wait_states(("PAUSED", "WATCHDOG"), ("RUNNING", "RESUMED"))
        host.wait_ready(NAME)


harness.main()
