# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service as it is deployed, each process with a user of its own, and a QEMU, of whose memory only one user may know.

    with topology.Host() as host:
        attacker = host.attack()        -> an Attacker, connected to the vmibusd
        host.is_untouched()
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import attacker
import harness

BUILD = harness.top_builddir()
QEMU, BUS, MEMORY, OPENER, SENSOR, PERMITTED, CONTROL = range(64261, 64268)
PATIENCE = 60

# What is in the guest's memory, and where.
MARKER, MARKER_AT = 0x5345435245543031, 0x100000
VM, OTHER_UUID = "secret", "11111111-2222-3333-4444-555555555555"

CONFIG = """[daemon]
sandbox = require
bus-user = {BUS}
sensor-users = {SENSOR}
[opener]
sandbox = require
socket = {directory}/opener/opener.sock
users = {QEMU}
memory-users = {MEMORY}
[rule permitted]
user = {PERMITTED}
endpoints = secret
capabilities = all
[rule elsewhere]
user = {CONTROL}
endpoints = other*
capabilities = all
[rule elsewhere-by-uuid]
user = {CONTROL}
endpoints = uuid:{OTHER_UUID}
capabilities = all
[sensor qemu]
monitor.secret = {directory}/guests/monitor
"""


def become(uid, *capabilities):
    kept = "".join(f",+{name}" for name in capabilities)
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--pdeathsig=KILL", f"--inh-caps=-all{kept}",
            f"--ambient-caps=-all{kept}", f"--bounding-set=-all{kept}"]


def wait_for(condition, what):
    deadline = time.monotonic() + harness.scale(PATIENCE)
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.05)


def program(name):
    for path in (os.path.join(BUILD, ".libs", name), os.path.join(BUILD, name)):
        if os.path.exists(path):
            return path
    return harness.skip(f"{name} is not built")


def is_compromised():
    """Whether this is the build that can be taken over."""
    answer = subprocess.run([program("vmibusd"), "--version"], text=True, capture_output=True, check=True)
    return "--enable-compromised-parser" in answer.stdout


def check():
    """Skips where this cannot be."""
    if not is_compromised():
        harness.skip("built without --enable-compromised-parser")
    if os.geteuid() != 0:
        harness.skip("it takes root to have processes of several users")
    if os.uname().machine != "x86_64":
        harness.skip("the guest is one of x86_64")
    if not shutil.which("qemu-system-x86_64"):
        harness.skip("there is no qemu-system-x86_64")
    if not os.path.exists(os.path.join(BUILD, "sensors", "modules", "qemu.so")):
        harness.skip("the qemu sensor is not built")


class Host:
    """All processes, in a directory of their own."""

    def __init__(self):
        check()
        self.directory = tempfile.mkdtemp(prefix="vmibus-compromised-")
        os.chmod(self.directory, 0o755)
        self.processes = {}
        for name, uid in (("etc", 0), ("guests", QEMU), ("bus", BUS), ("memory", MEMORY), ("opener", OPENER)):
            self._folder(name, uid, 0o755)
        for name, uid in (("bus-state", BUS), ("memory-state", MEMORY), ("sensor-state", SENSOR), ("watch-state", SENSOR)):
            self._folder(name, uid, 0o700)
        with open(self.path("etc", "vmibusd.conf"), "w", encoding="utf-8") as stream:
            stream.write(CONFIG.format(directory=self.directory, **{name: globals()[name] for name in
                                       ("QEMU", "BUS", "MEMORY", "SENSOR", "PERMITTED", "CONTROL", "OTHER_UUID")}))

    def _folder(self, name, uid, mode):
        os.mkdir(self.path(name), mode)
        os.chown(self.path(name), uid, uid)

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def _run(self, name, *command):
        with open(self.path(f"{name}.log"), "a", encoding="utf-8") as log:
            self.processes[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log,
                                                    cwd="/")

    def start_guest(self):
        self._run("qemu", *become(QEMU), "qemu-system-x86_64", "-display", "none", "-nodefaults", "-S", "-accel", "tcg", "-m", "64",
                  "-name", VM, "-object", "memory-backend-memfd,id=ram,size=64M,share=on", "-machine", "q35,memory-backend=ram",
                  "-device", f"loader,addr={MARKER_AT:#x},data={MARKER:#x},data-len=8",
                  "-qmp", f"unix:{self.path('guests', 'monitor')},server=on,wait=off",
                  "-qmp", f"unix:{self.path('guests', 'oracle')},server=on,wait=off")
        wait_for(lambda: os.path.exists(self.path("guests", "oracle")), "the monitor")
        os.chown(self.path("guests", "monitor"), QEMU, SENSOR)
        os.chmod(self.path("guests", "monitor"), 0o770)

    def start(self, name):
        """Starts a daemon."""
        memory, control = self.path("memory", "memory.sock"), self.path("bus", "control.sock")
        config = ["--config", self.path("etc", "vmibusd.conf")]
        modules = os.environ.get("VMIBUS_SENSOR_DIR") or os.path.join(BUILD, "sensors", "modules")
        commands = {
            "vmibus-opend": [*become(OPENER, "sys_ptrace", "dac_override", "fowner"), program("vmibus-opend"), *config],
            "vmibus-memd": [*become(MEMORY), program("vmibus-memd"), *config, "--socket", memory, "--opener",
                            self.path("opener", "opener.sock"), "--state-directory", self.path("memory-state")],
            "vmibusd": [*become(BUS), program("vmibusd"), *config, "--socket", control, "--memory", memory, "--sensors-apart",
                        "--state-directory", self.path("bus-state")],
            "vmibus-sensord": [*become(SENSOR), program("vmibus-sensord"), *config, "--socket", control, "--memory", memory,
                               "--sensor-directory", modules, "--state-directory", self.path("sensor-state"), "qemu"],
        }
        commands["vmibus-sensord-watch"] = [*commands["vmibus-sensord"][:-3], "--state-directory", self.path("watch-state"), "watch"]
        self._run(name, *commands[name])
        socket_of = {"vmibusd": control, "vmibus-memd": memory, "vmibus-opend": self.path("opener", "opener.sock")}.get(name)
        if socket_of:
            wait_for(lambda: self._answers(socket_of, name) or self.processes[name].poll() is not None, f"{name}: {self.log(name)}")
            assert self.processes[name].poll() is None, self.log(name)

    @staticmethod
    def _answers(path, name):
        kind = socket.SOCK_SEQPACKET if name == "vmibus-opend" else socket.SOCK_STREAM
        with socket.socket(socket.AF_UNIX, kind) as end:
            return end.connect_ex(path) == 0

    def __enter__(self):
        try:
            self.start_guest()
            for name in ("vmibus-opend", "vmibus-memd", "vmibusd", "vmibus-sensord"):
                self.start(name)
            wait_for(self.works, f"the permitted user's memory: {self.logs()}")
            self.start("vmibus-sensord-watch")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def revive(self):
        """Starts the vmibusd anew, as a service manager would."""
        self.processes["vmibusd"].kill()
        self.processes["vmibusd"].wait()
        self.start("vmibusd")

    def pid(self, name):
        return self.processes[name].pid

    def log(self, name):
        with open(self.path(f"{name}.log"), encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def logs(self):
        return {name: self.log(name) for name in self.processes}

    def ctl(self, uid, *arguments):
        return subprocess.run([*become(uid), os.path.join(BUILD, "vmibusctl"), "--socket", self.path("bus", "control.sock"),
                               *arguments], text=True, capture_output=True, timeout=harness.scale(PATIENCE), cwd="/", check=False)

    def works(self):
        """Whether who may read the guest can do so: what fails for the others fails for no other reason."""
        answer = self.ctl(PERMITTED, "read", VM, hex(MARKER_AT), "8", "--physical", "--raw")
        return answer.returncode == 0 and answer.stdout.encode() == MARKER.to_bytes(8, "little")

    def address(self):
        """Slot and generation of the guest's endpoint."""
        told = json.loads(wait_for(lambda: self.ctl(PERMITTED, "info", VM, "--json").stdout, "the endpoint"))
        return told["slot"], told["generation"]

    def attack(self):
        return attacker.Attacker(self.path("bus", "control.sock"), CONTROL)

    def is_untouched(self):
        """Whether the guest's memory is what it was, by QEMU's own word."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as monitor:
            monitor.settimeout(PATIENCE)
            monitor.connect(self.path("guests", "oracle"))
            stream = monitor.makefile("rw")
            stream.readline()
            for command in ('{"execute": "qmp_capabilities"}', '{"execute": "human-monitor-command", "arguments": '
                            f'{{"command-line": "xp /1gx {MARKER_AT:#x}"}}}}'):
                stream.write(command + "\n")
                stream.flush()
                answer = stream.readline()
            return f"{MARKER:#018x}" in answer

    def terminate(self, name):
        self.processes[name].send_signal(signal.SIGTERM)
