#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The folder of configuration files, and vmibusctl explain about what it says."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import apart
import harness

OWNER = f"[rule owner]\nuser = {os.getuid()}\ncapabilities = all\n"
DENIED = 12
TOP = harness.top_builddir()


class Configured:
    """A daemon with a configuration of several files."""

    def __init__(self, main, **parts):
        self.directory = tempfile.mkdtemp(prefix="vmibus-explain-")
        self.path = os.path.join(self.directory, "bus.conf")
        self.folder = self.path + ".d"
        self.socket = os.path.join(self.directory, "control.sock")
        self.log = os.path.join(self.directory, "log")
        self.process = None
        os.mkdir(self.folder)
        self.put(self.path, main)
        for name, text in parts.items():
            self.put(self.part(name), text)

    def part(self, name):
        return os.path.join(self.folder, name.lstrip("_") + ".conf")

    def put(self, path, text, mode=0o644):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.terminate()
            self.process.wait(harness.scale(30))
        subprocess.run(["rm", "-r", self.directory], check=True)

    def check(self):
        return subprocess.run([os.path.join(TOP, "vmibusd"), "--config", self.path, "--check"], capture_output=True, text=True, check=False)

    def serve(self):
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = apart.Daemon(
                ["--config", self.path, "--stub", "--socket", self.socket, "--state-directory", os.path.join(self.directory, "state"),
                            "--sensor-directory", os.path.join(TOP, "sensors", "modules")], stderr=log)
        self.await_log("serving at")

    def await_log(self, text):
        deadline = time.monotonic() + harness.scale(30)
        while True:
            with open(self.log, encoding="utf-8") as log:
                if text in log.read():
                    return
            assert time.monotonic() < deadline and self.process.poll() is None, f"it does not say {text!r}"
            time.sleep(0.05)

    def explain(self, *words, status=0):
        answer = subprocess.run([os.path.join(TOP, "vmibusctl"), "--socket", self.socket, "explain", *words],
                                capture_output=True, text=True, check=False, timeout=harness.scale(60))
        assert answer.returncode == status, (words, answer)
        return answer.stdout


PARTS = {
    "_10-writers": "[rule writers]\nuser = 54321\nendpoints = web*\ncapabilities = observe memctx mem-write\nwrite-size = 4096\n",
    "_20-readers": "[rule readers]\neverybody = yes\nendpoints = stub-0\ncapabilities = observe memctx mem-read\n",
}


@harness.test
def test_what_allows_is_named_with_its_place():
    with Configured(OWNER, **PARTS) as bus:
        bus.serve()
        told = bus.explain("web1", "write", "--user", "54321")
        assert "54321 may write on web1." in told, told
        assert f"mem-write: allowed\n    by [rule writers] at {bus.part('_10-writers')}:2; at most 4096 octets at once" in told, told
        assert json.loads(bus.explain("web1", "write", "--user", "54321", "--json"))["missing"] == []


@harness.test
def test_the_rule_that_it_proposes_allows_it():
    with Configured(OWNER, **PARTS) as bus:
        bus.serve()
        told = bus.explain("stub-1", "write", "--user", "54321", status=DENIED)
        assert f"not by [rule writers] at {bus.part('_10-writers')}:2: its endpoints = web*" in told, told
        assert "mem-write: not allowed\n    not by [rule owner]" in told, told
        assert json.loads(bus.explain("stub-1", "write", "--user", "54321", "--json", status=DENIED))["missing"] == [
            "OBSERVE", "MEMCTX", "MEM_WRITE"]
        bus.put(bus.part("_30"), told[told.rindex("[rule "):])
        bus.process.send_signal(signal.SIGHUP)
        bus.await_log("the policy was read anew")
        assert "54321 may write on stub-1." in bus.explain("stub-1", "write", "--user", "54321")


@harness.test
def test_of_several_capabilities_one_may_be_enough():
    with Configured(OWNER, **PARTS) as bus:
        bus.serve()
        told = bus.explain("stub-0", "read", "--user", "54321")
        assert "mem-read: allowed\n    by [rule readers]" in told and "ram-fd: not allowed" in told, told
        told = bus.explain("stub-0", "--user", "54321")
        assert "power: not allowed" in told and "observe: allowed" in told, told


@harness.test
def test_questions_that_are_none():
    with Configured(OWNER) as bus:
        bus.serve()
        bus.explain("stub-0", "frobnicate", status=2)
        bus.explain("stub-0", "read", "--user", "no such user", status=2)
        bus.explain("", "read", status=2)


@harness.test
def test_files_are_read_in_the_order_of_their_names():
    with Configured(OWNER + "[limits]\nwaiters = 1\n", _20="[limits]\nwaiters = 3\n", _10="[limits]\nwaiters = 2\n") as bus:
        bus.put(os.path.join(bus.folder, "99-other"), "no configuration\n")
        bus.put(os.path.join(bus.folder, ".hidden.conf"), "no configuration\n")
        bus.serve()
        told = subprocess.run([os.path.join(TOP, "vmibusctl"), "--socket", bus.socket, "stats", "--limits", "--json"],
                              capture_output=True, text=True, check=True).stdout
        assert [use["bound"] for use in json.loads(told) if use["limit"] == "LIMIT_WAITERS" and not use["total"]][0] == 3


@harness.test
def test_a_mistake_is_told_with_its_file():
    with Configured(OWNER, _10="[limits]\n\nwhat = 3\n") as bus:
        answer = bus.check()
        assert answer.returncode == 1 and f"{bus.part('_10')}:3: unknown key 'what'" in answer.stderr, answer.stderr


@harness.test
def test_two_rules_of_one_name_are_a_mistake():
    with Configured(OWNER, _10=OWNER) as bus:
        answer = bus.check()
        assert answer.returncode == 1 and f"there is a [rule owner] at {bus.path}:2 already" in answer.stderr, answer.stderr


@harness.test
def test_p01_a_file_that_others_can_change_is_refused():
    with Configured(OWNER, _10="[limits]\nwaiters = 2\n") as bus:
        assert bus.check().returncode == 0
        os.chmod(bus.part("_10"), 0o666)
        answer = bus.check()
        assert answer.returncode == 1 and f"{bus.part('_10')}: everybody can write to it" in answer.stderr, answer.stderr
        if os.geteuid() != 0:
            harness.skip("giving a file to another user takes root")
        os.chmod(bus.part("_10"), 0o644)
        os.chown(bus.part("_10"), 54321, -1)
        answer = bus.check()
        assert answer.returncode == 1 and "it belongs to uid 54321" in answer.stderr, answer.stderr


harness.main()
