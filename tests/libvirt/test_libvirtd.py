#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The libvirt sensor on a real libvirtd with real guests.

The libvirtd is a private one, of a user's session, with folders of its own; run as root, it is started as nobody,
since one of root's would be the host's.  What the host's own libvirtd does is of no concern here.
"""

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

WAIT_SECONDS = 120
UUIDS = {"shared": "11111111-1111-4111-8111-111111111111", "private": "22222222-2222-4222-8222-222222222222",
         "bad": "33333333-3333-4333-8333-333333333333"}
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


def wait(condition, what, seconds=WAIT_SECONDS):
    """Waits until a condition holds, and returns what it was."""
    deadline = time.monotonic() + harness.scale(seconds)
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.1)


class Host:
    """A private libvirtd, and a daemon with the libvirt sensor and a synthetic VM."""

    def __init__(self):
        for program in ("libvirtd", "virsh", "qemu-system-x86_64"):
            if not shutil.which(program):
                harness.skip(f"there is no {program}")
        self.build = harness.top_builddir()
        if not os.path.exists(os.path.join(self.build, "sensors", "modules", "libvirt.so")):
            harness.skip("the libvirt sensor is not built")
        self.user = {"user": pwd.getpwnam("nobody").pw_uid, "group": pwd.getpwnam("nobody").pw_gid,
                     "extra_groups": []} if os.getuid() == 0 else {}
        made = subprocess.run([os.path.join(harness.top_srcdir(), "tests", "guest", "make-initrd"), "--cached"],
                              capture_output=True, text=True, check=False)
        if made.returncode:
            harness.skip("no guest can be had: " + made.stderr.strip().replace("\n", " "))
        self.boot = dict(line.split("=", 1) for line in made.stdout.splitlines())
        self.libvirtd = self.daemon = None

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="vmibus-lv-")
        os.chmod(self.directory, 0o755)
        self.initrd = os.path.join(self.directory, "initrd")
        shutil.copy(self.boot["initrd"], self.initrd)
        os.chmod(self.initrd, 0o644)
        with open(os.path.join(self.directory, "blkdebug.conf"), "w", encoding="ascii") as file:
            file.write('[inject-error]\nevent = "read_aio"\nerrno = "5"\n')
        with open(os.path.join(self.directory, "disk"), "wb") as file:
            file.truncate(8 << 20)
        self.env = dict(os.environ, HOME=self.directory)
        for name in ("RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME"):
            self.env["XDG_" + name] = os.path.join(self.directory, name.lower())
            os.mkdir(self.env["XDG_" + name], 0o700)
        if self.user:
            for path, names, files in os.walk(self.directory):
                for name in [".", *names, *files]:
                    os.chown(os.path.join(path, name), self.user["user"], self.user["group"])
        self.uri = f"qemu:///session?socket={self.env['XDG_RUNTIME_DIR']}/libvirt/libvirt-sock"
        try:
            self.start_libvirtd()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        self.stop_daemon()
        if self.libvirtd:
            self.libvirtd.send_signal(signal.SIGCONT)
            for name in UUIDS:
                self.virsh("destroy", name, check=False)
            self.libvirtd.terminate()
            self.libvirtd.wait()
        self.end_logd()
        shutil.rmtree(self.directory, ignore_errors=True)

    def end_logd(self):
        """Ends the virtlogd that libvirtd has started."""
        try:
            with open(os.path.join(self.env["XDG_RUNTIME_DIR"], "libvirt", "virtlogd.pid"), encoding="ascii") as file:
                os.kill(int(file.read()), signal.SIGTERM)
        except OSError:
            pass

    def start_libvirtd(self):
        """Starts libvirtd, and waits until it answers."""
        with open(os.path.join(self.directory, "libvirtd.log"), "ab") as log:
            self.libvirtd = subprocess.Popen(["libvirtd", "--timeout", "0"], env=self.env, stdout=log, stderr=log, **self.user)
        wait(lambda: self.virsh("uri", check=False).returncode == 0, "libvirtd answers", 30)

    def virsh(self, *words, check=True):
        """Runs virsh."""
        result = subprocess.run(["virsh", "-q", "-c", self.uri, *words], env=self.env, capture_output=True, text=True, check=False,
                                timeout=60)
        assert not check or result.returncode == 0, result.stderr
        return result

    def start_guest(self, name):
        """Defines and starts a guest."""
        text = BAD if name == "bad" else GUEST
        path = os.path.join(self.directory, name + ".xml")
        with open(path, "w", encoding="ascii") as file:
            file.write(text.format(name=name, uuid=UUIDS[name], ram=RAM.get(name, ""), directory=self.directory,
                                   kernel=self.boot["kernel"], initrd=self.initrd))
        self.virsh("define", path)
        self.virsh("start", name)

    def start_daemon(self, *options):
        """Starts the daemon; options are those of the sensor."""
        self.socket = os.path.join(self.directory, "control.sock")
        configuration = os.path.join(self.directory, "vmibusd.conf")
        with open(configuration, "w", encoding="ascii") as file:
            file.write("\n".join([f"[rule owner]\nuser = {os.getuid()}\ncapabilities = all\n[sensor libvirt]", f"uri = {self.uri}",
                                  *options, ""]))
        with open(os.path.join(self.directory, "vmibusd.log"), "wb") as log:
            self.daemon = subprocess.Popen(
                [os.path.join(self.build, "vmibusd"), "--config", configuration, "--socket", self.socket, "--stub=1",
                 "--state-directory", os.path.join(self.directory, "state"),
                 "--sensor-directory", os.path.join(self.build, "sensors", "modules")], stdout=log, stderr=log)
        wait(lambda: os.path.exists(self.socket), "the daemon serves", 30)

    def stop_daemon(self):
        """Ends the daemon, if it runs."""
        if self.daemon:
            self.daemon.terminate()
            assert self.daemon.wait(timeout=harness.scale(30)) == 0, self.log()
        self.daemon = None

    def log(self):
        """What the daemon said."""
        with open(os.path.join(self.directory, "vmibusd.log"), encoding="utf-8") as file:
            return file.read()

    def ctl(self, *words, check=True):
        """Runs vmibusctl."""
        result = subprocess.run([os.path.join(self.build, "vmibusctl"), "--socket", self.socket, *words], capture_output=True,
                                text=True, check=False, timeout=120)
        assert not check or result.returncode == 0, result.stderr + self.log()
        return result

    def info(self, name):
        """What vmibusctl knows of a VM; empty: there is none."""
        result = self.ctl("info", "--json", name, check=False)
        return json.loads(result.stdout) if result.returncode == 0 else {}

    def state(self, name):
        """Run state and what changed it."""
        lifecycle = self.info(name).get("lifecycle", {})
        return lifecycle.get("state"), lifecycle.get("cause")

    def wait_state(self, name, *state):
        """Waits for a run state, and what changed it."""
        wait(lambda: self.state(name) == state, f"{name} is {state}, not {self.state(name)}: {self.log()}")

    def wait_ready(self, name):
        """Waits for a memory context with a root."""
        wait(lambda: self.info(name).get("memctx", {}).get("state") == "READY", f"{name} has a memory context: {self.log()}")


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
    stub = next(vm["name"] for vm in stub if vm["name"] not in UUIDS)
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
        host.start_guest("shared")
        host.start_guest("private")
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
        host.start_guest("bad")
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
        host.start_guest("bad")
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
