# SPDX-License-Identifier: LGPL-2.1-or-later
"""A libvirtd with guests that belong to a test, and a daemon with the libvirt sensor beside it.

    with private_libvirtd.Host() as host:
        host.start_domain("shared", XML, ram="...")     -> fills in {name}, {uuid}, {directory}, {kernel}, {initrd}, {ram}
        host.start_daemon()
        host.wait_ready("shared")

The libvirtd is a private one, of a user's session, with folders of its own; run as root, it is started as nobody,
since one of root's would be the host's.  What the host's own libvirtd does is of no concern here.
"""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

WAIT_SECONDS = 120

# AddressSanitizer stands before functions of libtirpc, and finds these only if that is loaded when the program starts;
# libvirt, with which it comes, is loaded by the sensor. No effect in other builds.
PRELOADED = {"LD_PRELOAD": "libtirpc.so.3",
             "ASAN_OPTIONS": ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), "verify_asan_link_order=0"]))}


def wait(condition, what, seconds=WAIT_SECONDS):
    """Waits until a condition holds, and returns what it was. What is waited for is text, or what gives it when it is too late."""
    deadline = time.monotonic() + harness.scale(seconds)
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"waited in vain: {what() if callable(what) else what}"
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
        self.domains = []

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="vmibus-lv-")
        os.chmod(self.directory, 0o755)
        self.initrd = os.path.join(self.directory, "initrd")
        shutil.copy(self.boot["initrd"], self.initrd)
        os.chmod(self.initrd, 0o644)
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
            for name in self.domains:
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

    def start_domain(self, name, text, **fields):
        """Defines and starts a domain."""
        path = os.path.join(self.directory, name + ".xml")
        with open(path, "w", encoding="ascii") as file:
            file.write(text.format(name=name, uuid=uuid.uuid5(uuid.NAMESPACE_URL, name), directory=self.directory,
                                   kernel=self.boot["kernel"], initrd=self.initrd, **fields))
        self.virsh("define", path)
        self.domains.append(name)
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
                 "--sensor-directory", os.path.join(self.build, "sensors", "modules")],
                stdout=log, stderr=log, env={**os.environ, **PRELOADED})
        wait(lambda: os.path.exists(self.socket) or self.daemon.poll() is not None, "the daemon serves", 30)

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
        assert self.daemon.poll() is None, f"the daemon has ended: {self.log()}"
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
        wait(lambda: self.state(name) == state, lambda: f"{name} is {state}, not {self.state(name)}: {self.log()}")

    def wait_ready(self, name):
        """Waits for a memory context with a root."""
        wait(lambda: self.info(name).get("memctx", {}).get("state") == "READY",
             lambda: f"{name} has a memory context: {self.log()}")
