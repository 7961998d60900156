#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibus-sensord: the stub sensor in a process of its own, killed, stopped and started anew beside a bus that goes on."""

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

WAIT_SECONDS = 60


class Home:
    """A vmibusd without sensors, and as many vmibus-sensords as are started."""

    def __init__(self, configuration=""):
        top = harness.top_builddir()
        self.modules = os.path.join(top, "sensors", "modules")
        if not os.path.exists(os.path.join(self.modules, "stub.so")):
            harness.skip("the stub sensor is not built")
        self.directory = tempfile.mkdtemp(prefix="vmibus-sensord-")
        self.socket = os.path.join(self.directory, "socket")
        self.log_path = os.path.join(self.directory, "log")
        self.configuration = os.path.join(self.directory, "vmibusd.conf")
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write(configuration)
        self.processes = []

    def __enter__(self):
        try:
            self.start_bus()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()
            if process.stdin:
                process.stdin.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self, program, *arguments):
        with open(self.log_path, "ab") as log:
            process = subprocess.Popen(
                [os.path.join(harness.top_builddir(), program), "--config", self.configuration, "--socket", self.socket,
                 "--state-directory", os.path.join(self.directory, "state"), "--sensor-directory", self.modules, *arguments],
                stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def start_memory(self):
        """A memory authority apart; returns the arguments that lead the others to it."""
        path = self.socket + ".memory"
        with open(self.log_path, "ab") as log:
            self.processes.append(subprocess.Popen(
                [os.path.join(harness.top_builddir(), "vmibus-memd"), "--config", self.configuration, "--socket", path,
                 "--state-directory", os.path.join(self.directory, "memory-state")], stdout=log, stderr=log))
        self.wait(lambda: os.path.exists(path))
        return ["--memory", path]

    def start_bus(self, *arguments):
        self.bus = self.start("vmibusd", *arguments)
        self.wait(lambda: os.path.exists(self.socket))

    def start_sensor(self, *arguments):
        return self.start("vmibus-sensord", *arguments)

    def kill(self, process, number=signal.SIGKILL):
        process.send_signal(number)
        status = process.wait(harness.scale(WAIT_SECONDS))
        self.processes.remove(process)
        return status

    def log(self):
        with open(self.log_path, encoding="utf-8") as file:
            return file.read()

    def wait(self, condition):
        deadline = time.monotonic() + harness.scale(WAIT_SECONDS)
        while not condition():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def run(self, *words):
        return subprocess.run([os.path.join(harness.top_builddir(), "vmibusctl"), *words, "--socket", self.socket],
                              capture_output=True, text=True, timeout=harness.scale(WAIT_SECONDS), check=False)

    def ctl(self, *words):
        answer = self.run(*words)
        assert answer.returncode == 0, (words, answer.returncode, answer.stdout, answer.stderr, self.log())
        return answer.stdout

    def vms(self):
        """The VMs by name."""
        answer = self.run("list", "--json")
        return {vm["name"]: vm for vm in json.loads(answer.stdout)} if answer.returncode == 0 and answer.stdout.strip() else {}

    def is_ready(self, name):
        answer = self.run("info", name, "--json")
        return answer.returncode == 0 and json.loads(answer.stdout).get("memctx", {}).get("state") == "READY"

    def wait_ready(self, *names):
        for name in names:
            self.wait(lambda name=name: self.is_ready(name))


@harness.test
def test_a_sensor_apart_serves_what_one_in_process_does():
    with Home() as home:
        home.start_sensor("--set", "vms=2", "stub")
        home.wait_ready("stub-0", "stub-1")
        home.ctl("write", "stub-0", "0x1000", "--physical", "--hex", "c0ffee")
        assert "c0 ff ee" in home.ctl("read", "stub-0", "0x1000", "16", "--physical")
        home.ctl("key", "stub-0", "a")
        home.ctl("screenshot", "stub-0", os.path.join(home.directory, "picture.png"))
        with open(os.path.join(home.directory, "picture.png"), "rb") as file:
            assert file.read(4) == b"\x89PNG"
        home.ctl("regs", "stub-0")
        before = home.ctl("info", "stub-0", "--json")
        home.ctl("power", "stub-0", "reset")
        home.wait_ready("stub-0")
        assert json.loads(before)["memctx"]["epoch"] != json.loads(home.ctl("info", "stub-0", "--json"))["memctx"]["epoch"]
        home.ctl("power", "stub-1", "quit")
        home.wait(lambda: "stub-1" not in home.vms())


@harness.test
def test_sensors_apart_look_at_each_others_vms():
    with Home() as home:
        home.start_sensor("--set", "vms=1", "stub")
        home.start_sensor("watch")
        home.wait_ready("stub-0")
        home.wait(lambda: home.ctl("info", "stub-0", "--json") and "sensor watch: READY" in home.log())
        home.ctl("write", "stub-0", "0x1000", "--physical", "--hex", "c0ffee")


@harness.test
def test_p05_what_a_killed_sensor_had_ends_in_order():
    with Home() as home:
        sensor = home.start_sensor("--set", "vms=1", "stub")
        home.wait_ready("stub-0")
        first = home.vms()["stub-0"]
        events = os.path.join(home.directory, "events")
        with open(events, "wb") as file:
            monitor = subprocess.Popen([os.path.join(harness.top_builddir(), "vmibusctl"), "monitor", "--json", "--socket",
                                        home.socket], stdout=file)
        home.processes.append(monitor)
        holder = subprocess.Popen([os.path.join(harness.top_builddir(), "vmibusctl"), "lease", "stub-0", "INPUT", "--socket",
                                   home.socket, "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        home.processes.append(holder)

        def heard():
            with open(events, encoding="utf-8") as file:
                return [json.loads(line) for line in file.read().splitlines() if line.endswith("}")]

        def find(kind, member, value):
            return [i for i, event in enumerate(heard()) if event["kind"] == kind and event["body"].get(member, value) == value]

        home.wait(lambda: find("LEASE", "state", "HELD"))
        home.kill(sensor)
        home.wait(lambda: find("ROSTER", "change", "REMOVED"))
        gone = find("ROSTER", "change", "REMOVED")[0]
        invalidated = [i for i, event in enumerate(heard()) if event["kind"] == "MEMCTX_INVALIDATED"]
        assert invalidated and invalidated[-1] < gone, heard()
        assert all(event["slot"] == 0 for event in heard()[gone + 1:]), heard()
        assert [event["delivery"] for event in heard()] == list(range(heard()[0]["delivery"], heard()[-1]["delivery"] + 1))
        assert "stub-0" not in home.vms()
        home.start_sensor("--set", "vms=1", "stub")
        home.wait_ready("stub-0")
        assert home.vms()["stub-0"]["generation"] > first["generation"]
        home.ctl("key", "stub-0", "a") # under a lease of its own, though the first holder is still there
        assert holder.poll() is None


@harness.test
def test_p10_a_sensor_outlives_its_bus():
    with Home() as home:
        sensor = home.start_sensor("--set", "vms=1", "stub")
        home.wait_ready("stub-0")
        home.kill(home.bus)
        os.unlink(home.socket)
        home.wait(lambda: "connection was lost" in home.log())
        home.start_bus()
        home.wait_ready("stub-0")
        assert sensor.poll() is None


@harness.test
def test_p10_a_sensor_waits_for_its_bus():
    with Home() as home:
        home.kill(home.bus)
        os.unlink(home.socket)
        sensor = home.start_sensor("--set", "vms=1", "stub")
        home.wait(lambda: "cannot be reached" in home.log())
        home.start_bus()
        home.wait_ready("stub-0")
        assert home.kill(sensor, signal.SIGTERM) == 0
        home.wait(lambda: "stub-0" not in home.vms())


@harness.test
def test_p09_a_sensor_that_is_stopped_hurts_nobody():
    with Home("[daemon]\nsensor-answer-timeout-ms = 500\n") as home:
        sensor = home.start_sensor("--set", "vms=1", "stub")
        home.start_sensor("heartbeat")
        home.wait_ready("stub-0")
        home.wait(lambda: len(home.vms()) == 2)
        other = next(name for name in home.vms() if name != "stub-0")
        sensor.send_signal(signal.SIGSTOP)
        answer = home.run("power", "stub-0", "reset")
        assert answer.returncode != 0 and "GONE" in answer.stderr.upper(), (answer.returncode, answer.stderr)
        home.wait(lambda: "stub-0" not in home.vms())
        assert other in home.vms()
        sensor.send_signal(signal.SIGCONT)
        home.wait(lambda: "SENSOR_SILENT" in home.log())
        home.wait_ready("stub-0")
        home.ctl("power", "stub-0", "reset")


@harness.test
def test_a_sensor_that_is_apart_is_not_loaded():
    with Home("[sensor stub]\nvms = 3\napart = yes\n") as home:
        home.wait(lambda: "serving" in home.log())
        assert not home.vms()
        home.start_sensor("stub")
        home.wait_ready("stub-2")


@harness.test
def test_p01_who_may_not_be_a_sensor_is_told_how_to():
    with Home("[daemon]\nsensor-users = 65534\n") as home:
        home.start_sensor("stub")
        home.wait(lambda: "sensor-users" in home.log())
        assert not home.vms()


@harness.test
def test_options():
    program = os.path.join(harness.top_builddir(), "vmibus-sensord")

    def run(*words):
        return subprocess.run([program, *words], capture_output=True, text=True, timeout=harness.scale(WAIT_SECONDS), check=False)

    assert run("--help").returncode == 0 and "Usage: vmibus-sensord" in run("--help").stdout
    assert run("--version").returncode == 0
    assert run().returncode == 2
    assert run("stub", "watch").returncode == 2
    assert run("--no-such-option", "stub").returncode == 2
    assert run("--config", "/dev/null", "--set", "nonsense", "stub").returncode == 2
    answer = run("--config", "/dev/null", "--sensor-directory", "/nonexistent", "stub")
    assert answer.returncode == 1 and "is the package of that sensor installed?" in answer.stderr
    assert run("--config", "/nonexistent/file", "stub").returncode == 1


@harness.test
def test_p10_no_folder_to_keep_state_in_is_told_with_the_remedy():
    with Home() as home:
        if not os.path.exists(os.path.join(home.modules, "qemu.so")):
            harness.skip("the qemu sensor is not built")
        home.start_sensor("--state-directory", os.path.join(home.directory, "none"), "qemu")
        home.wait(lambda: "No such file or directory; give a directory with --state-directory" in home.log())
        home.wait(lambda: "sensor qemu: connected" in home.log())


@harness.test(timeout=300)
def test_p05_bus_that_lost_its_state_rises_above_what_was_numbered():
    """A memory authority that goes on knows higher tokens than a bus gives that begins anew, which then could be used by nobody."""
    with Home() as home:
        def begin(what=""):
            home.kill(home.bus)
            if what:
                shutil.rmtree(os.path.join(home.directory, "state"))
            os.unlink(home.socket)
            home.start_bus(*memory)
            if what:
                home.wait(lambda: f"heard from a bus of incarnation {what}" in home.log())
            home.wait_ready("stub-0")
            home.ctl("write", "stub-0", "0x1000", "--physical", "--hex", "c0ffee")
            with open(os.path.join(home.directory, "state", "incarnation"), encoding="utf-8") as file:
                return int(file.read())

        memory = home.start_memory()
        home.start_sensor(*memory, "stub")
        first = begin()
        assert begin() == first + 1
        assert begin(what=str(first + 1)) == first + 2
        assert begin() == first + 3
        # Also where the number is the same, by accident.
        home.kill(home.bus)
        os.unlink(home.socket)
        with open(os.path.join(home.directory, "state", "incarnation"), "w", encoding="utf-8") as file:
            file.write(f"{first + 2}\n")
        home.start_bus(*memory)
        home.wait(lambda: f"heard from a bus of incarnation {first + 3}" in home.log())
        home.wait_ready("stub-0")
        home.ctl("write", "stub-0", "0x1000", "--physical", "--hex", "c0ffee")


@harness.test(timeout=300)
def test_p05_so_many_lost_starts_are_not_believed():
    """Or a memory authority in wrong hands could use up all the numbers there are with one word."""
    with Home() as home:
        def begin_with(incarnation):
            home.kill(home.bus)
            os.unlink(home.socket)
            with open(os.path.join(home.directory, "state", "incarnation"), "w", encoding="utf-8") as file:
                file.write(f"{incarnation}\n")
            home.start_bus(*memory)

        memory = home.start_memory()
        home.start_sensor(*memory, "stub")
        begin_with(20_000_000)
        home.wait_ready("stub-0")
        begin_with(1)
        home.wait(lambda: "bus of incarnation 20000001, and" in home.log() and "so many starts are not believed" in home.log())
        with open(os.path.join(home.directory, "state", "incarnation"), encoding="utf-8") as file:
            assert file.read() == "2\n"
        # As the message says.
        begin_with(20_000_001)
        home.wait_ready("stub-0")
        home.ctl("write", "stub-0", "0x1000", "--physical", "--hex", "c0ffee")


harness.main()
