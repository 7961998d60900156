#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The bus, the memory authority and a sensor, each in a process of its own, and what happens when one of them dies."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

BUILD = harness.top_builddir()
PATIENCE = 60


class Apart:
    """All three, with stub VMs, in a directory of their own."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="vmibus-apart-")
        self.processes = {}
        open(self.path("conf"), "w").close()
        for name in ("vmibus-memd", "vmibusd", "vmibus-sensord"):
            if not os.path.exists(os.path.join(BUILD, name)):
                harness.skip(f"{name} is not built")
            self.start(name)

    def path(self, name):
        return os.path.join(self.directory, name)

    def start(self, name):
        modules = os.environ.get("VMIBUS_SENSOR_DIR", os.path.join(BUILD, "sensors", "modules"))
        arguments = {
            "vmibus-memd": ["--state-directory", self.path("memory"), "--socket", self.path("m")],
            "vmibusd": ["--state-directory", self.path("state"), "--socket", self.path("s"), "--memory", self.path("m")],
            "vmibus-sensord": ["--socket", self.path("s"), "--sensor-directory", modules, "stub"],
        }[name]
        self.processes[name] = subprocess.Popen([os.path.join(BUILD, name), "--config", self.path("conf"), *arguments],
                                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                                stderr=open(self.path(f"{name}.log"), "a"))

    def kill(self, name):
        self.processes[name].kill()
        self.processes[name].wait()

    def ctl(self, *arguments):
        return subprocess.run([os.path.join(BUILD, "vmibusctl"), "--socket", self.path("s"), *arguments], text=True,
                              capture_output=True, timeout=harness.scale(PATIENCE))

    def until(self, what, *arguments):
        """Asks again until the answer is as it should be."""
        deadline = time.monotonic() + harness.scale(PATIENCE)
        while True:
            answer = self.ctl(*arguments)
            if what(answer):
                return answer
            assert time.monotonic() < deadline, (answer, self.logs())
            time.sleep(0.05)

    def works(self, octets):
        """Waits until a write and a read go through, and returns the epoch."""
        self.until(lambda answer: answer.returncode == 0, "write", "stub-0", "0x100000", "--physical", "--hex", octets)
        read = self.until(lambda answer: answer.returncode == 0, "read", "stub-0", "0x100000", "4", "--physical", "--raw")
        assert read.stdout.encode().hex() == octets, read
        return json.loads(self.ctl("info", "stub-0", "--json").stdout)["memctx"]["epoch"]

    def logs(self):
        return {name: open(self.path(f"{name}.log")).read() for name in self.processes}

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            for process in self.processes.values():
                process.kill()
        else:
            self.end()

    def end(self):
        for name, process in self.processes.items():
            process.send_signal(signal.SIGTERM)
        codes = {name: process.wait() for name, process in self.processes.items()}
        assert set(codes.values()) == {0}, (codes, self.logs())
        shutil.rmtree(self.directory)


@harness.test
def test_memory_commands_go_to_the_authority():
    with Apart() as apart:
        apart.works("41424344")
        stats = json.loads(apart.ctl("stats", "--json").stdout)
        assert stats["memory"]["MEMWRITES"] >= 1, stats
        fds = os.listdir(f"/proc/{apart.processes['vmibusd'].pid}/fd")
        names = [os.readlink(f"/proc/{apart.processes['vmibusd'].pid}/fd/{fd}") for fd in fds]
        assert not [name for name in names if "memfd:" in name and "vmibus" not in name], names


@harness.test
def test_p08_each_process_tells_its_limits():
    with Apart() as apart:
        apart.works("41424344")
        limits = json.loads(apart.ctl("stats", "--limits", "--json").stdout)
        used = {(limit["process"], limit["limit"]): limit["used"] for limit in limits if limit["total"]}
        assert used["bus", "LIMIT_CONNECTIONS"] >= 2 and used["memory", "LIMIT_CONNECTIONS"] >= 2, limits
        assert used["bus", "LIMIT_ENDPOINTS"] == 2 and used["memory", "LIMIT_ENDPOINTS"] == 0, limits


@harness.test
def test_p05_lent_lease_lasts_over_several_writes():
    with Apart() as apart:
        apart.works("41424344")
        program = os.path.join(BUILD, "vmibusctl")
        write = f"'{program}' write stub-0 0x100000 --physical --hex"
        answer = apart.ctl("lease", "stub-0", "memwrite", "--", "sh", "-c", f"{write} 31 && {write} 32 && {write} 33")
        assert answer.returncode == 0, answer


@harness.test
def test_p06_memory_authority_killed_under_load():
    with Apart() as apart:
        before = apart.works("41424344")
        # Beside what is asserted: the last write of a shell that is killed is still on its way.
        command = [os.path.join(BUILD, "vmibusctl"), "--socket", apart.path("s"), "write", "stub-0", "0x100010", "--physical", "--hex"]
        load = [subprocess.Popen(["sh", "-c", 'for i in $(seq 200); do "$@" 55; done', "sh", *command], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(2)]
        for octets in ("45464748", "494a4b4c", "4d4e4f50"):
            apart.kill("vmibus-memd")
            apart.start("vmibus-memd")
            apart.until(lambda answer: answer.returncode == 0, "write", "stub-0", "0x100008", "--physical", "--hex", octets)
        for process in load:
            process.kill()
            process.wait()
        after = apart.works("51525354")
        assert after != before, (before, after)


@harness.test
def test_p05_bus_killed():
    with Apart() as apart:
        before = apart.works("41424344")
        apart.kill("vmibusd")
        apart.start("vmibusd")
        after = apart.works("45464748")
        assert after != before, (before, after)
        log = apart.logs()["vmibus-memd"]
        assert "the link to the bus is lost" in log and log.count("the bus is linked") == 2, log


@harness.test
def test_authority_that_comes_late():
    with Apart() as apart:
        apart.works("41424344")
        apart.kill("vmibus-memd")
        apart.kill("vmibusd")
        apart.start("vmibusd")
        time.sleep(0.3)
        apart.start("vmibus-memd")
        apart.works("45464748")


@harness.test
def test_each_process_records_its_own_commands():
    """In files that bear the name of who writes them, also where both folders are looked at together."""
    with Apart() as apart:
        apart.works("11223344")
        said = {writer: apart.ctl("audit", "show", os.path.join(apart.path(folder), "audit", f"{writer}.log"))
                for writer, folder in (("bus", "state"), ("memory", "memory"))}
        assert all(answer.returncode == 0 for answer in said.values()), said
        assert "CMD_LEASE" in said["bus"].stdout and "CMD_MEMWRITE" not in said["bus"].stdout, said["bus"]
        assert "CMD_MEMWRITE" in said["memory"].stdout and "CMD_LEASE" not in said["memory"].stdout, said["memory"]


harness.main()
