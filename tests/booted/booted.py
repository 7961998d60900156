# SPDX-License-Identifier: LGPL-2.1-or-later
"""A Debian booted with systemd, for tests of what is installed on it.

    with booted.Machine() as machine:
        machine.run("systemctl", "is-active", "vmibusd.socket")     -> subprocess.CompletedProcess
        machine.run("apt-get", "install", "-y", machine.package("vmibus"))
        machine.write("/etc/vmibus/vmibusd.conf", "[daemon]\n")

The system is made once by tests/booted/make-root, in the folder that VMIBUS_BOOTED_ROOT names, and booted from there
by systemd-nspawn: what a machine changes is in memory, and gone with it.  The packages under test are those in the folder
that VMIBUS_PACKAGES names, seen inside as /packages.  It shares the host's kernel and network, and no more.
"""

import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

BOOT_SECONDS = 120
COMMAND_SECONDS = 300
PACKAGES_INSIDE = "/packages"

# What daemons confine themselves with, which a container does not allow by itself.
SYSTEM_CALLS = ("landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self")


def packages():
    """The folder of the packages under test; skips where there is none."""
    folder = os.environ.get("VMIBUS_PACKAGES")
    if not folder or not glob.glob(os.path.join(folder, "*.deb")):
        harness.skip("VMIBUS_PACKAGES names no folder with Debian packages: tools/check --only debian builds them")
    return os.path.abspath(folder)


def _with_dependencies(folder, names):
    """The files of packages, and of those of their dependencies that are in the same folder."""
    files, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        found = [os.path.basename(path) for path in glob.glob(os.path.join(folder, f"{name}_*.deb"))]
        assert len(found) == 1 or name not in names, f"{len(found)} packages {name} in {folder}"
        if found and found[0] not in files:
            files.add(found[0])
            depends = subprocess.run(["dpkg-deb", "-f", os.path.join(folder, found[0]), "Depends"], stdout=subprocess.PIPE,
                                     text=True, check=True).stdout
            waiting += re.findall(r"(?:^|[,|]) *([a-z0-9.+-]+)", depends.replace("\n", " "))
    return files


def _root(extra):
    folder = os.environ.get("VMIBUS_BOOTED_ROOT", os.path.join(harness.top_builddir(), "booted-root"))
    folder = "+".join([folder, *extra]) # a system for each set of packages
    if os.geteuid() != 0:
        harness.skip("booting a system in a container takes root")
    for program in ("debootstrap", "systemd-nspawn", "nsenter"):
        if not shutil.which(program):
            harness.skip(f"there is no {program}")
    make_root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "make-root")
    result = subprocess.run([make_root, folder, *extra], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        harness.skip("no system can be made: " + " ".join(result.stdout.splitlines()[-3:]))
    return folder


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


class Machine:
    """A booted system. Skips the test where there can be none."""

    def __init__(self, *, packages_inside=(), arguments=()):
        """packages_inside: of Debian, beside the base system; arguments: more of systemd-nspawn."""
        self.packages = packages()
        self.root = _root(packages_inside)
        self.arguments = list(arguments)
        self.nspawn = self.leader = self.console = None

    def __enter__(self):
        self.console = tempfile.TemporaryFile(mode="w+")
        self.nspawn = subprocess.Popen(
            ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--volatile=overlay", "--console=pipe",
             "--machine=vmibus-test", "--link-journal=no", "--system-call-filter=" + " ".join(SYSTEM_CALLS), f"--bind-ro={self.packages}:{PACKAGES_INSIDE}", "-D", self.root,
             *self.arguments, "-b"],
            stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console, start_new_session=True)
        try:
            self._await_boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.leader and self.nspawn.poll() is None:
            self.run("systemctl", "poweroff", "--force", check=False)
        try:
            self.nspawn.wait(harness.scale(30))
        except subprocess.TimeoutExpired:
            os.killpg(self.nspawn.pid, signal.SIGKILL)
            self.nspawn.wait()
        self.console.close()

    def _await_boot(self):
        deadline = time.monotonic() + harness.scale(BOOT_SECONDS)
        state = ""
        while time.monotonic() < deadline:
            if self.nspawn.poll() is not None:
                break
            children = _children(self.nspawn.pid)
            if children:
                self.leader = children[0]
                state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
                if state == "running":
                    return
                if state == "degraded":
                    break
            time.sleep(0.2)
        failed = self.run("systemctl", "--failed", "--no-legend", check=False).stdout if self.leader else ""
        self.console.seek(0)
        raise AssertionError(f"the system does not boot: {state}\n{failed}{self.console.read()[-2000:]}")

    def _enter(self):
        return ["nsenter", "--target", str(self.leader), "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd",
                "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive",
                "SYSTEMD_PAGER="]

    def run(self, *command, check=True, text=None, user=None, timeout=COMMAND_SECONDS):
        """Runs a command inside, as root or as user, with text on its standard input."""
        become = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"] if user else []
        result = subprocess.run(self._enter() + become + list(command), input=text if text is not None else "", check=False,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=harness.scale(timeout))
        assert not check or result.returncode == 0, (
            f"{' '.join(command)}: exit status {result.returncode}\n{result.stdout}{result.stderr}")
        return result

    def popen(self, *command, **options):
        """Starts a command inside, as subprocess.Popen()."""
        return subprocess.Popen(self._enter() + list(command), text=True, **options)

    def write(self, path, text):
        """Makes a file inside."""
        self.run("sh", "-c", 'mkdir -p "$(dirname "$1")" && cat >"$1"', "sh", path, text=text)

    def read(self, path):
        """The text of a file inside."""
        return self.run("cat", path).stdout

    def exists(self, path):
        """Whether there is such a file inside."""
        return self.run("test", "-e", path, check=False).returncode == 0

    def install(self, *names):
        """Installs packages under test, and what they depend on."""
        files = sorted(_with_dependencies(self.packages, names))
        self.run("apt-get", "install", "-q", "-y", "--no-install-recommends",
                 *(os.path.join(PACKAGES_INSIDE, file) for file in files))
        # Those that nobody named go again with who needed them.
        dependencies = {file.split("_")[0] for file in files} - set(names)
        if dependencies:
            self.run("apt-mark", "auto", *sorted(dependencies))

    def await_true(self, what, condition, seconds=60):
        """Waits until condition() is true."""
        deadline = time.monotonic() + harness.scale(seconds)
        while not condition():
            assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
            time.sleep(0.1)
