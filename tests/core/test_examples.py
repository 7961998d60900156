#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The example controls do what they are examples of: one shows what happens, one reads memory by itself and can change none."""

import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import apart
import harness

TOP = harness.top_builddir()
# stub_process_cr3(), STUB_BUFFER_GVA, STUB_FREE_GPA, stub_direct_gva() of sensors/stub/stub_map.h
PROCESS, BUFFER, FREE, DIRECT = 0x600000, 0x410000, 0xc00000, 0xffff888000000000


class Daemon:
    """A daemon with two synthetic machines."""

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="vmibus-examples-")
        self.socket = os.path.join(self.directory.name, "control.sock")
        self.environment = os.environ | {"VMIBUS_SOCKET": self.socket}
        configuration = os.path.join(self.directory.name, "vmibusd.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(f"[rule owner]\nuser = {os.getuid()}\ncapabilities = all\n")
        self.process = apart.Daemon(
            ["--config", configuration, "--stub", "--socket", self.socket,
             "--state-directory", os.path.join(self.directory.name, "state"),
             "--sensor-directory", os.path.join(TOP, "sensors", "modules")], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + harness.scale(30)
        while "READY" not in self.run("vmibusctl", "info", "stub-1", status=None).stdout:
            assert self.process.poll() is None and time.monotonic() < deadline, "the daemon does not serve"
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.stop()
        self.directory.cleanup()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(harness.scale(30))

    def run(self, program, *words, status=0):
        answer = subprocess.run([os.path.join(TOP, program), *map(str, words)], capture_output=True, text=True, check=False,
                                timeout=harness.scale(60), env=self.environment)
        assert status is None or answer.returncode == status, (program, words, answer)
        return answer


def built(program):
    if not os.path.exists(os.path.join(TOP, program)):
        harness.skip(f"{program} is not built")


@harness.test
def test_watcher_shows_what_happens():
    built("controls/example/watcher")
    with Daemon() as daemon:
        with subprocess.Popen([os.path.join(TOP, "controls/example/watcher")], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, env=daemon.environment) as watcher:
            said = [watcher.stdout.readline() for _ in range(4)]
            assert any("stub-0" in line for line in said) and sum("RUNNING" in line for line in said) == 2, said
            daemon.run("vmibusctl", "lease", "stub-0", "power", "--", os.path.join(TOP, "vmibusctl"), "power", "stub-0", "pause")
            while "PAUSED" not in (line := watcher.stdout.readline()):
                assert line, "the watcher has ended"
            daemon.stop()
            watcher.communicate(timeout=harness.scale(30))
            assert watcher.returncode == 1
        answer = daemon.run("controls/example/watcher", status=1)
        assert answer.stderr, answer


@harness.test
def test_p03_reader_reads_what_it_was_given_and_cannot_write_it():
    built("ram-reader")
    with Daemon() as daemon:
        daemon.run("vmibusctl", "write", "stub-0", hex(BUFFER), "--cr3", hex(PROCESS), "--hex", "4d61726b65725f31")
        word = "0x" + b"Marker_1"[::-1].hex()
        assert daemon.run("ram-reader", "stub-0", "word", PROCESS, BUFFER).stdout.strip() == word
        roots = daemon.run("ram-reader", "stub-0", "process", BUFFER, word).stdout.split()
        assert hex(PROCESS) in roots, roots
        daemon.run("vmibusctl", "write", "stub-0", hex(FREE), "--physical", "--hex", "48656c6c6f0a776f726c6400")
        assert daemon.run("ram-reader", "stub-0", "text", hex(DIRECT + FREE), 64).stdout == "Hello world\n"
        daemon.run("ram-reader", "stub-0", "word", PROCESS, 0, status=1)
        daemon.run("ram-reader", "stub-0", "process", BUFFER, 1, status=1)
        if os.geteuid() == 0:
            answer = daemon.run("ram-reader", "stub-0", "reopen", 65534)
            assert "SUCCEEDED" not in answer.stdout and answer.stdout.count(":") >= 2, answer
        daemon.run("ram-reader", "nothing", "word", 0, 0, status=1)
        for words in ([], ["stub-0"], ["stub-0", "fly", "1"], ["stub-0", "word"]):
            daemon.run("ram-reader", *words, status=2)


harness.main()
