# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service as it is installed, on synthetic machines: what tests of it share.

    with booted.Machine() as machine:
        service.install(machine)
        service.await_works(machine)
        service.pid(machine, "vmibusd")
"""

import json
import os
import re
import signal
import subprocess

STUB = "vmibus-sensord@stub"
UNITS = ("vmibusd", "vmibus-memd", "vmibus-opend", STUB)

# Synthetic machines run in the sensor's process, whose memory files the opener may tighten.
CONFIGURATION = """[sensor stub]

[opener]
users = vmibus-sensor
"""

ROOT = """[rule root]
user = root
capabilities = all
"""


def install(machine, rules=""):
    """Installs the packages, with a stub sensor and rules of the policy."""
    machine.install("vmibus-sensor-stub")
    machine.write("/etc/vmibus/vmibusd.conf", CONFIGURATION + rules)


def ctl(machine, *words, user=None, check=False):
    """Runs vmibusctl."""
    return machine.run("vmibusctl", *words, user=user, check=check)


def info(machine, name="stub-0"):
    """What vmibusctl info tells, or nothing."""
    answer = ctl(machine, "info", name, "--json")
    return json.loads(answer.stdout) if answer.returncode == 0 else {}


def epoch(machine):
    """The epoch of the first machine; None: it has no memory context."""
    return info(machine).get("memctx", {}).get("epoch")


def works(machine, octets="41424344"):
    """Whether a write goes through and is read again: what takes all processes."""
    if ctl(machine, "write", "stub-0", "0x100000", "--physical", "--hex", octets).returncode:
        return False
    answer = ctl(machine, "read", "stub-0", "0x100000", str(len(octets) // 2), "--physical", "--raw")
    return answer.returncode == 0 and answer.stdout.encode().hex() == octets


def journal(machine):
    """What was logged by the service and of it, for who reads a failure."""
    return machine.run("journalctl", "--no-pager", "-n", "60", "-u", "vmibus*").stdout


def await_true(machine, what, condition, seconds=60):
    """Waits until condition() is true, and tells with the journal if it does not become so."""
    try:
        machine.await_true(what, condition, seconds)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{journal(machine)}") from None


def await_works(machine, octets="41424344"):
    """Waits until everything is there."""
    await_true(machine, "a write and a read go through", lambda: works(machine, octets))


def show(machine, unit, name):
    """A property of a unit."""
    return machine.run("systemctl", "show", "-P", name, unit).stdout.strip()


def pid(machine, unit):
    """The main process of a unit; 0: it has none."""
    return int(show(machine, unit, "MainPID"))


def status(machine, unit):
    """/proc/PID/status of a unit's main process."""
    text = machine.read(f"/proc/{pid(machine, unit)}/status")
    return dict(re.findall(r"^(\w+):\s*(.*)$", text, flags=re.M))


def add_user(machine, name):
    """An ordinary user."""
    machine.run("useradd", "--user-group", name)


class Background:
    """A shell command inside, until stop()."""

    def __init__(self, machine, command):
        self.process = machine.popen("sh", "-c", command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL, start_new_session=True)

    def runs(self):
        """Whether it goes on."""
        return self.process.poll() is None

    def stop(self):
        """Ends it with all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Monitor(Background):
    """A control that is told everything, and writes it down."""

    OUTPUT = "/run/monitor.json"

    def __init__(self, machine):
        self.machine = machine
        super().__init__(machine, f"exec vmibusctl monitor --json >{self.OUTPUT} 2>&1")
        await_true(machine, "the control is told something", lambda: machine.run("test", "-s", self.OUTPUT, check=False).returncode == 0)

    def finish(self):
        """Checks that it was connected all the time, and was delivered everything."""
        log = journal(self.machine)
        assert self.runs(), f"the control was disconnected:\n{self.machine.read(self.OUTPUT)[-2000:]}\n{log}"
        self.stop()
        # What is killed leaves its last line as it is.
        lines = self.machine.read(self.OUTPUT).splitlines(keepends=True)
        expect_no_gap([json.loads(line) for line in lines if line.startswith("{") and line.endswith("}\n")], log)


def expect_no_gap(events, log):
    """That a control was delivered everything: what vmibusctl monitor --json printed."""
    numbers = [event["delivery"] for event in events if "delivery" in event]
    assert len(numbers) > 1, (events[:3], log)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), (numbers, log)
    assert not [event for event in events if event.get("kind") == "GAP"], log
