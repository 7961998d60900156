# SPDX-License-Identifier: LGPL-2.1-or-later
"""A vmibusd for Python tests; where $VMIBUS_TEST_APART is set, as several processes.

    process = apart.Daemon(["--stub", "--config", path, "--socket", socket, ...], stderr=log)

is used like the subprocess.Popen of a vmibusd.  Apart, a vmibus-memd with the same configuration is started beside it, and
a vmibus-sensord for each sensor that the arguments name (--stub, --sensor, --qmp).  They end with it, and have to end well.
"""

import os
import signal
import subprocess
import sys

import harness


def is_apart():
    """Whether daemons of tests are several processes."""
    return bool(os.environ.get("VMIBUS_TEST_APART"))


def _program(name):
    path = os.path.join(harness.top_builddir(), name)
    if not os.path.exists(path):
        harness.skip(f"{path} is not built")
    return path


def _sort(arguments):
    """Those of vmibusd alone, those of every program by name, and the options of each sensor."""
    own, shared, sensors = [], {}, {}
    rest = iter(arguments)
    for argument in rest:
        if argument == "--stub" or argument.startswith("--stub="):
            sensors.setdefault("stub", []).extend(["vms=" + argument[7:]] if "=" in argument else [])
        elif argument == "--sensor":
            name, _, option = next(rest).partition(":")
            sensors.setdefault(name, []).extend([option] if option else [])
        elif argument == "--qmp":
            sensors.setdefault("qemu", []).append("monitor." + next(rest))
        elif argument in ("--config", "--socket", "--state-directory", "--sensor-directory"):
            shared[argument] = next(rest)
        else:
            own.append(argument)
    return own, shared, sensors


class Daemon(subprocess.Popen):
    """A vmibusd, with what belongs to it apart."""

    def __init__(self, arguments, **options):
        self.memd, self.sensords = None, []
        if not is_apart():
            super().__init__([_program("vmibusd"), *arguments], **options)
            return
        own, shared, sensors = _sort(arguments)
        memory = shared["--socket"] + ".memory"
        self.memd = subprocess.Popen([_program("vmibus-memd"), "--config", shared["--config"], "--socket", memory,
                                      "--state-directory", shared["--state-directory"] + "-memory"], **options)
        flat = [word for pair in shared.items() for word in pair]
        super().__init__([_program("vmibusd"), *flat, "--memory", memory, *own], **options)
        shared["--config"] = shared["--socket"] + ".sensord.conf"
        with open(shared["--config"], "w", encoding="utf-8"):
            pass
        flat = [word for pair in shared.items() for word in pair]
        for name, settings in sensors.items():
            sets = [word for setting in settings for word in ("--set", setting)]
            self.sensords.append(subprocess.Popen([_program("vmibus-sensord"), *flat, *sets, name], **options))

    def send_signal(self, sig):
        """Sends vmibusd a signal; SIGHUP to the memory authority too."""
        if self.memd and sig == signal.SIGHUP:
            self.memd.send_signal(sig)
        super().send_signal(sig)

    def wait(self, timeout=None):
        """Waits for vmibusd, and ends what belongs to it."""
        status = super().wait(timeout)
        others, self.sensords, self.memd = self.sensords + [self.memd] * bool(self.memd), [], None
        for process in others:
            process.terminate()
        for process in others:
            ended = process.wait(timeout)
            assert ended == 0, (process.args, ended)
        return status


def run_again(*path, timeout=600):
    """Runs another test with its daemons apart; it has to pass. What it skips is shown."""
    program = os.path.join(harness.top_srcdir() if path[-1].endswith(".py") else harness.top_builddir(), "tests", *path)
    if not os.path.exists(program):
        harness.skip(f"{program} is not built")
    command = [sys.executable, program] if path[-1].endswith(".py") else [program]
    answer = subprocess.run(command, env={**os.environ, "VMIBUS_TEST_APART": "1"}, text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, timeout=harness.scale(timeout), check=False)
    lines = answer.stdout.splitlines()
    for line in lines:
        if line.startswith("SKIP "):
            print("NOTE apart, " + line, flush=True)
    assert answer.returncode == 0 and " passed, 0 failed, " in lines[-1], "\n".join(
        [line for line in lines if not line.startswith("PASS ")][-40:])
