# SPDX-License-Identifier: LGPL-2.1-or-later
"""A real guest with a daemon on it, for tests that drive vmibusctl.

    with bed.Scene(memory="512M") as scene:
        scene.wait_ready()
        scene.ctl("read", "guest", "0x1000", "16")      -> subprocess.CompletedProcess
        scene.json("info", "guest")                     -> what it printed, parsed
        scene.ask("ps")                                 -> the agent's lines, the last one is OK ...

The guest is started by tests/guest/run-guest and runs tests/guest/agent.c, whose header lists what it
can be asked.  The oracle is a QMP monitor of the test's own: scene.hmp("info registers").
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import apart
import harness

BOOT_SECONDS = 240
ANSWER_SECONDS = 120


def _run_guest():
    return os.path.join(harness.top_srcdir(), "tests", "guest", "run-guest")


class Scene:
    """A guest named "guest", and a daemon that watches it. Skips the test where there can be none."""

    def __init__(self, *, qemu=(), policy=None, **options):
        """options are those of run-guest, with _ for -; qemu: more arguments of QEMU; policy: vmibusd.conf."""
        arguments = []
        for name, value in options.items():
            arguments += ["--" + name.replace("_", "-")] + ([] if value is True else [str(value)])
        check = ["--check"] + (["--kernel", str(options["kernel"])] if "kernel" in options else [])
        answer = subprocess.run([_run_guest(), *check], capture_output=True, text=True, check=False)
        if answer.returncode:
            harness.skip("no guest can be had: " + (answer.stderr or answer.stdout).strip().replace("\n", " "))
        if not os.path.exists(os.path.join(harness.top_builddir(), "sensors", "modules", "qemu.so")):
            harness.skip("the qemu sensor is not built")
        self.arguments, self.qemu, self.policy = arguments, list(qemu), policy
        self.directory = self.daemon = None
        self.heard = 0

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="vmibus-scene-")
        os.chmod(self.directory, 0o755)
        self.guest = os.path.join(self.directory, "guest")
        os.mkdir(self.guest)
        try:
            self._start_guest()
            self.start_daemon()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop_daemon()
        subprocess.run([_run_guest(), "--stop", "--dir", self.guest], capture_output=True, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start_guest(self):
        command = [_run_guest(), "--dir", self.guest, "--detach", *self.arguments]
        if "--firmware-only" not in self.arguments:
            command += ["--wait", str(harness.scale(BOOT_SECONDS))]
        if self.qemu:
            command += ["--", *self.qemu]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 0, answer.stdout + answer.stderr

    def start_daemon(self):
        """Starts the daemon; the rest of the scene stays."""
        top = harness.top_builddir()
        self.socket = os.path.join(self.directory, "control.sock")
        configuration = os.path.join(self.directory, "vmibusd.conf")
        with open(configuration, "w", encoding="utf-8") as file:
            file.write(self.policy or f"[rule owner]\nuser = {os.getuid()}\ncapabilities = all\n")
        with open(os.path.join(self.directory, "vmibusd.log"), "ab") as log:
            self.daemon = apart.Daemon(
                ["--config", configuration, "--socket", self.socket,
                 "--state-directory", os.path.join(self.directory, "state"),
                 "--sensor-directory", os.path.join(top, "sensors", "modules"),
                 "--qmp", "guest=" + os.path.join(self.guest, "qmp.sock")],
                stderr=log, stdout=log)
        deadline = time.monotonic() + harness.scale(30)
        while not os.path.exists(self.socket):
            assert self.daemon.poll() is None and time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def stop_daemon(self):
        """Ends the daemon, if it runs."""
        if self.daemon:
            self.daemon.terminate()
            self.daemon.wait(harness.scale(30))
        self.daemon = None

    def log(self):
        """What the daemon has logged."""
        with open(os.path.join(self.directory, "vmibusd.log"), encoding="utf-8") as file:
            return file.read()

    def ctl(self, *words, status=0, text=True, timeout=120):
        """Runs vmibusctl; status None: however it ends."""
        answer = subprocess.run([os.path.join(harness.top_builddir(), "vmibusctl"), *map(str, words), "--socket", self.socket],
                                capture_output=True, text=text, timeout=harness.scale(timeout), check=False)
        assert status is None or answer.returncode == status, (words, answer.returncode, answer.stdout[-2000:], answer.stderr)
        return answer

    def json(self, *words, **options):
        """Runs a verb with --json and gives what it printed."""
        return json.loads(self.ctl(*words, "--json", **options).stdout)

    def wait_ready(self):
        """Waits until the memory context is ready, and gives it."""
        return self.wait_memctx("READY")

    def wait_memctx(self, *states):
        """Waits until there is a memory context in one of these states (PENDING: RAM, but no kernel), and gives it."""
        deadline = time.monotonic() + harness.scale(60)
        while True:
            answer = self.ctl("info", "guest", "--json", status=None)
            memctx = json.loads(answer.stdout).get("memctx", {}) if answer.returncode == 0 else {}
            if memctx.get("state") in states:
                return memctx
            assert time.monotonic() < deadline, (answer.stdout, answer.stderr, self.log())
            time.sleep(0.1)

    # --- the agent -----------------------------------------------------------------------------------

    def _serial(self):
        with open(os.path.join(self.guest, "serial.log"), "rb") as file:
            file.seek(self.heard)
            octets = file.read()
        whole = octets[:octets.rfind(b"\n") + 1]
        self.heard += len(whole)
        return [line.rstrip("\r") for line in whole.decode("utf-8", "replace").split("\n")[:-1]]

    def ask(self, command, timeout=ANSWER_SECONDS):
        """Asks the agent; gives its lines without the closing OK."""
        self._serial()
        with open(os.path.join(self.guest, "serial.in"), "w", encoding="utf-8") as file:
            file.write(command + "\n")
        lines, deadline, word = [], time.monotonic() + harness.scale(timeout), command.split()[0]
        while True:
            for line in self._serial():
                assert not line.startswith(f"ERR {word}"), line
                if line.startswith(f"OK {word}"):
                    return lines
                lines.append(line)
            assert time.monotonic() < deadline, (command, lines[-20:])
            time.sleep(0.05)

    def facts(self, word):
        """The facts of this word that the agent has told so far, as dictionaries."""
        found = []
        with open(os.path.join(self.guest, "serial.log"), encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(word + " ") and line.endswith("\n"):  # the last one may be on its way
                    found.append(dict(field.split("=", 1) for field in line.split()[1:] if "=" in field))
        return found

    # --- the oracle ----------------------------------------------------------------------------------

    def qmp(self, command, **arguments):
        """Executes a QMP command on a monitor of the test's own."""
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(harness.scale(ANSWER_SECONDS))
            monitor.connect(os.path.join(self.guest, "oracle.sock"))
            stream = monitor.makefile("rwb")
            stream.readline()
            for name, values in (("qmp_capabilities", {}), (command, arguments)):
                stream.write(json.dumps({"execute": name, "arguments": values}).encode() + b"\n")
                stream.flush()
                while True:
                    answer = json.loads(stream.readline())
                    if "event" not in answer:
                        break
                assert "return" in answer, answer
            return answer["return"]

    def hmp(self, line):
        """Executes a command of the human monitor."""
        return self.qmp("human-monitor-command", **{"command-line": line})
