#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl screenshot, regs and watch with a daemon that has synthetic VMs."""

import json
import os
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import apart
import harness

WATCHED = 0xc00000  # STUB_FREE_GPA of sensors/stub/stub_map.h


class Daemon:
    """A daemon with two synthetic VMs, and more options of its own."""

    def __init__(self, *options):
        self.options = options

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="vmibus-show-")
        self.socket = os.path.join(self.directory.name, "control.sock")
        top = harness.top_builddir()
        self.ctl_path = os.path.join(top, "vmibusctl")
        configuration = os.path.join(self.directory.name, "vmibusd.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(f"[rule owner]\nuser = {os.getuid()}\ncapabilities = all\n")
        self.process = apart.Daemon(
            ["--config", configuration, "--stub", *self.options, "--socket", self.socket,
             "--state-directory", os.path.join(self.directory.name, "state"),
             "--sensor-directory", os.path.join(top, "sensors", "modules")], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + harness.scale(30)
        while "READY" not in self.run("info", "stub-0", status=None).stdout:
            assert self.process.poll() is None and time.monotonic() < deadline, "the daemon does not serve"
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(harness.scale(30))
        self.directory.cleanup()

    def run(self, *words, status=0, text=True):
        answer = subprocess.run([self.ctl_path, *map(str, words), "--socket", self.socket], capture_output=True, text=text,
                                timeout=harness.scale(60), check=False)
        assert status is None or answer.returncode == status, (words, answer)
        return answer

    def start(self, *words):
        return subprocess.Popen([self.ctl_path, *map(str, words), "--socket", self.socket], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)


def pixels(png):
    """Width, and the unfiltered rows of the stub's picture."""
    width, height = struct.unpack(">II", png[16:24])
    start = png.index(b"IDAT") + 4
    length, = struct.unpack(">I", png[start - 8:start - 4])
    raw = zlib.decompress(png[start:start + length])
    return width, [raw[y * (1 + 3 * width) + 1:(y + 1) * (1 + 3 * width)] for y in range(height)]


@harness.test
def test_screenshot():
    with Daemon() as daemon:
        path = os.path.join(daemon.directory.name, "shot.png")
        with open(path, "w", encoding="utf-8") as file:
            file.write("what was there before")
        refused = daemon.run("screenshot", "stub-1", path, status=1)
        assert "exists" in refused.stderr and "--force" in refused.stderr, refused
        with open(path, encoding="utf-8") as file:
            assert file.read() == "what was there before"
        daemon.run("screenshot", "stub-1", path, "--force")
        with open(path, "rb") as file:
            width, rows = pixels(file.read())
        assert width == 64 and len(rows) == 48 and rows[10][3 * 20:3 * 21] == bytes((80, 50, 1)), rows[10]
        assert daemon.run("screenshot", "stub-0", "-", text=False).stdout[:8] == b"\x89PNG\r\n\x1a\n"
        path = os.path.join(daemon.directory.name, "shot.ppm")
        told = json.loads(daemon.run("screenshot", "stub-0", path, "--json").stdout)
        assert told == {"file": path, "octets": os.stat(path).st_size}, told
        assert "BAD_FIELD" in daemon.run("screenshot", "stub-0", path, "--head", 1, status=11).stderr
        daemon.run("screenshot", "stub-0", path, "--head", -1, status=2)
        daemon.run("screenshot", "stub-0", "-", "--json", status=2)
        daemon.run("screenshot", "stub-0", "/nowhere/shot.png", status=1)


@harness.test
def test_regs():
    with Daemon() as daemon:
        vcpu, = json.loads(daemon.run("regs", "stub-0", "--json").stdout)
        assert vcpu["cr3"] == 0x600000 and vcpu["cpl"] == 3 and vcpu["vcpu"] == 0, vcpu
        text = daemon.run("regs", "stub-0", "--vcpu", 0).stdout
        assert text.startswith("vCPU 0: privilege level 3") and "cr3 0x0000000000600000" in text, text
        daemon.run("regs", "stub-0", "--vcpu", 1, status=11)
        daemon.run("regs", "stub-0", "--vcpu", "x", status=2)


def change(daemon, octets):
    daemon.run("write", "stub-0", hex(WATCHED + 8), "--physical", "--hex", octets)


@harness.test
def test_watch():
    with Daemon() as daemon:
        watching = daemon.start("watch", "stub-0", hex(WATCHED), 64, "--physical", "--interval", 10, "--count", 1)
        # A change before the watch has begun is not seen: it is made again until one is.
        for octet in range(1, 200):
            change(daemon, f"{octet:02x}")
            try:
                watching.wait(harness.scale(0.5))
                break
            except subprocess.TimeoutExpired:
                pass
        out, err = watching.communicate(timeout=harness.scale(30))
        assert watching.returncode == 0 and out.startswith(f"0x{WATCHED + 8:016x} 1  ") and " -> " in out, (out, err)
        # It ends with its epoch.
        watching = daemon.start("watch", "stub-0", hex(WATCHED), 64, "--physical", "--json")
        deadline = time.monotonic() + harness.scale(30)
        while not any(limit["limit"] == "LIMIT_WATCHES" and limit["total"] and limit["used"] for limit in
                      json.loads(daemon.run("stats", "--limits", "--json").stdout)):
            assert time.monotonic() < deadline and watching.poll() is None
        daemon.run("power", "stub-0", "reset")
        out, err = watching.communicate(timeout=harness.scale(30))
        assert watching.returncode == 15 and "ENDED" in out and "its epoch has ended" in err, (out, err)
        # Interrupted, it leaves nothing behind; who is started in the background may have been told to ignore that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        watching = daemon.start("watch", "stub-1", hex(WATCHED), 64, "--physical")
        time.sleep(0)
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=harness.scale(30))
        for wrong in (["x", 8], ["0x1000", 0], ["0x1000", "65K"], ["0x1000", 8, "--interval", "x"], ["0x1000", 8, "--count", 0],
                      ["0x1000", 8, "--physical", "--cr3", "0x1000"]):
            daemon.run("watch", "stub-0", *wrong, status=2)


@harness.test
def test_top_tells_what_happens_between_two_pictures():
    with Daemon() as daemon:
        top = daemon.start("top", "--count", 2, "--interval", 2, "--json")
        first = json.loads(top.stdout.readline())
        for _ in range(3):
            daemon.run("write", "stub-0", hex(WATCHED), "--physical", "--hex", "00")
        second = json.loads(top.stdout.readline())
        assert top.wait(harness.scale(30)) == 0 and not top.stdout.read()
        assert first["rates"]["COMMANDS_RECEIVED"] == 0
        assert second["rates"]["MEMWRITES"] > 0 and second["counters"]["MEMWRITES"] - first["counters"]["MEMWRITES"] == 3
        assert [vm["name"] for vm in second["vms"]] == ["stub-0", "stub-1"]
        written = [latency for latency in second["latencies"] if latency["command"] == "CMD_MEMWRITE"]
        assert written[0]["count"] == 3 and sum(bucket["count"] for bucket in written[0]["buckets"]) == 3


@harness.test
def test_top_is_a_page_for_people():
    with Daemon() as daemon:
        page = daemon.run("top", "--count", 1).stdout
        assert "\033" not in page, "no terminal is here"
        assert page.startswith("bus: 2 VMs, ") and "stub-1  RUNNING" in page and "CMD_LEASE" not in page
        daemon.run("top", "--interval", 0, status=2)
        daemon.run("top", "--count", "x", status=2)


@harness.test
def test_run_state_that_is_told_before_the_roster_entry_is_kept():
    """A sensor that joins has the roster entry published anew, behind the state that is retained."""
    with Daemon("--sensor", "watch") as daemon:
        vms = json.loads(daemon.run("list", "--json").stdout)
        assert [vm["lifecycle"]["state"] for vm in vms] == ["RUNNING", "RUNNING"], vms
        assert all("WATCH" in vm["roster"]["groups"] for vm in vms), vms


harness.main()
