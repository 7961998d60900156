#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What vmibusctl says to mistakes, of each verb: the exit status tells whose it is, the text what is wanted instead."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import apart
import harness

PROGRAM = os.path.join(harness.top_builddir(), "vmibusctl")
FAILED, USAGE, NO_BUS, NOT_FOUND, DENIED, UNSUPPORTED_HERE = 1, 2, 3, 4, 12, 24
UINT64 = str(2**64)

# Words, and what the answer names. Nobody need be asked to know that they are wrong.
WRONG = (
    (["add", "web"], "NAME=PATH"),
    (["add", "=/run/web"], "NAME=PATH"),
    (["add", "web=run/web"], "absolute path"),
    (["add", "web=/run/web", "--sensor", ""], "31 octets"),
    (["add", "web=/run/web", "--sensor", "x" * 32], "31 octets"),
    (["add", "web=/" + "x" * 600], "511 octets"),
    (["remove"], "VM"),
    (["remove", "a", "b"], "remove"),
    (["audit", "fly", "a"], "show, verify or tail"),
    (["audit", "show", "a", "--count", "0"], "--count"),
    (["audit", "verify", "a", "--head", "00"], "--head"),
    (["audit", "verify", "a", "--count", "1"], "--count"),
    (["dump", "guest"], "FILE"),
    (["explain", "guest", "fly"], "capability"),
    (["explain", "guest", "--user", "nobody-here"], "user"),
    (["explain", ""], "VM"),
    (["explain", "x" * 256], "255 octets"),
    (["files"], "VM"),
    (["hold", "guest"], "CMD"),
    (["info", "guest", "--quiesce"], "--linux"),
    (["info", "guest", "--mediated"], "--linux"),
    (["key", "guest"], "KEYS"),
    (["key", "guest", "fly-up"], "fly"),
    (["lease", "guest", "fly", "--", "true"], "input, power or memwrite"),
    (["lease", "guest", "power", "--mode", "fly", "--", "true"], "fail, queue or preempt"),
    (["lease", "guest", "power", "--ttl", "soon", "--", "true"], "milliseconds"),
    (["list", "--json", "--json"], "--json"),
    (["list", "--json=1"], "--json"),
    (["list", "--socket"], "--socket"),
    (["maps", "guest"], "PID"),
    (["monitor", ""], "255 octets"),
    (["monitor", "--kinds", "fly"], "fly"),
    (["monitor", "--kinds", ","], "events are"),
    (["monitor", "--for", "0"], "seconds"),
    (["monitor", "--count", "many"], "--count"),
    (["modules"], "VM"),
    (["mouse", "guest", "to", "1"], "move DX DY"),
    (["mouse", "guest", "click", "fourth"], "move DX DY"),
    (["mouse", "guest", "drag", "1", "2", "3"], "move DX DY"),
    (["mouse", "guest", "scroll", UINT64], "move DX DY"),
    (["power", "guest", "explode"], "reset"),
    (["ps", "guest", "1", "--tree"], "leave out the pid"),
    (["ps", "guest", "1", "--threads"], "leave out the pid"),
    (["ps", "guest", "1", "--arguments"], "leave out the pid"),
    (["read", "guest", UINT64, "1"], "address"),
    (["read", "guest", "0", "1X"], "octets"),
    (["read", "guest", "0", "1", "--raw", "--hex"], "--raw"),
    (["read", "guest", "0", "17M", "--json"], "16M"),
    (["read", "guest", "0", "1", "--pid", "1", "--cr3", "0x1000"], "--pid or --cr3"),
    (["read", "guest", "0", "1", "--pid", "1", "--physical"], "--pid or --physical"),
    (["regs", "guest", "--vcpu", "first"], "--vcpu"),
    (["regs", "guest", "--vcpu", UINT64], "--vcpu"),
    (["screenshot", "guest", "a.png", "--head", "left"], "--head"),
    (["screenshot", "guest", "-", "--json"], "--json"),
    (["search", "guest", "x", "--hex", "--text"], "--hex or --text"),
    (["search", "guest", "0g", "--hex"], "hexadecimal"),
    (["search", "guest", "", "--text"], "4096"),
    (["search", "guest", "00", "--hex", "--mask", "0000"], "as many octets"),
    (["search", "guest", "00", "--hex", "--align", "3"], "power of two"),
    (["search", "guest", "00", "--hex", "--max", "0"], "1000000"),
    (["search", "guest", "00", "--hex", "--from", "x"], "--from"),
    (["search", "guest", "00", "--hex", "--from", "2", "--to", "1"], "--to"),
    (["symbols", "guest", "printk", "--match", "x"], "--match"),
    (["top", "--count", "0"], "--count"),
    (["translate", "guest", "here"], "address"),
    (["translate", "guest", "0", "--pid", "1", "--cr3", "1"], "--pid"),
    (["type", "guest", b"\xff"], "UTF-8"),
    (["type", "guest", "x", "--delay", "10001"], "--delay"),
    (["type", "guest", "x", "--layout", "no-such-layout"], "--layout"),
    (["watch", "guest", "x", "1"], "address"),
    (["watch", "guest", "0", "65537"], "64K"),
    (["watch", "guest", "0", "0"], "64K"),
    (["watch", "guest", "0", "1", "--cr3", "x"], "--cr3"),
    (["watch", "guest", "0", "1", "--cr3", "0x1000", "--physical"], "--cr3"),
    (["watch", "guest", "0", "1", "--interval", "soon"], "--interval"),
    (["watch", "guest", "0", "1", "--count", "0"], "--count"),
    (["write", "guest"], "vmibusctl"),
    (["write", "guest", "0"], "--hex"),
    (["write", "guest", "0", "--hex", "00", "--file", "a"], "--hex"),
)

# What looks into a Linux guest; a machine without one says so.
LINUX = (["dmesg"], ["files"], ["files", "1"], ["maps", "1"], ["modules"], ["ps"], ["ps", "1"], ["sockets"],
         ["symbols"], ["symbols", "printk"])


class Daemon:
    """A daemon with a synthetic machine, at its configuration's mercy."""

    def __init__(self, rule="capabilities = all", more=""):
        self.configuration = f"[rule owner]\nuser = {os.getuid()}\n{rule}\n{more}"

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="vmibus-mistakes-")
        self.socket = os.path.join(self.directory.name, "control.sock")
        path = os.path.join(self.directory.name, "vmibusd.conf")
        with open(path, "w", encoding="utf-8") as file:
            file.write(self.configuration)
        self.process = apart.Daemon(
            ["--config", path, "--stub=1", "--sensor", "watch", "--socket", self.socket,
             "--state-directory", os.path.join(self.directory.name, "state"),
             "--sensor-directory", os.path.join(harness.top_builddir(), "sensors", "modules")], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + harness.scale(30)
        while run("info", "stub-0", socket=self.socket, status=None).returncode:
            assert self.process.poll() is None and time.monotonic() < deadline, "the daemon does not serve"
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(harness.scale(30))
        self.directory.cleanup()

    def run(self, *words, **options):
        return run(*words, socket=self.socket, **options)

    def await_ready(self):
        deadline = time.monotonic() + harness.scale(30)
        while "READY" not in self.run("info", "stub-0").stdout:
            assert time.monotonic() < deadline, "the memory of the machine is not ready"
            time.sleep(0.05)


def run(*words, socket="/nonexistent/bus", status=0, said="", stdout=subprocess.PIPE):
    end = words.index("--") if "--" in words else len(words)
    answer = subprocess.run([PROGRAM, "--socket", socket, *words[:end], *words[end:]], stdout=stdout, stderr=subprocess.PIPE,
                            text=True, errors="replace", timeout=harness.scale(60), check=False)
    assert status is None or answer.returncode == status, (words, answer)
    assert said in answer.stderr, (words, said, answer)
    return answer


@harness.test
def test_wrong_words_are_told_before_anybody_is_asked():
    if not os.path.exists(PROGRAM):
        harness.skip(f"{PROGRAM} is not built")
    wrong = []
    for words, named in WRONG:
        answer = run(*words, status=None)
        if answer.returncode != USAGE or named not in answer.stderr:
            wrong.append((words, answer.returncode, answer.stderr))
    assert not wrong, "\n".join(map(str, wrong))


@harness.test
def test_each_verb_helps_and_needs_a_bus():
    verbs = [line.split()[0] for line in run("--help").stdout.splitlines() if line.startswith("  ") and line.split()[0].isalpha()]
    assert len(verbs) > 20, verbs
    for verb in verbs:
        assert verb in run(verb, "--help").stdout
    for words in (["list"], ["info", "guest"], ["stats"], ["monitor"], ["top", "--count", "1"], ["read", "guest", "0", "1"],
                  ["ps", "guest"], ["dump", "guest", "/nonexistent/core"], ["power", "guest", "reset"], ["key", "guest", "a"],
                  ["type", "guest", "a"], ["mouse", "guest", "click", "left"], ["watch", "guest", "0", "1"], ["add", "a=/b"],
                  ["remove", "guest"], ["explain", "guest", "observe"], ["regs", "guest"], ["search", "guest", "00", "--hex"],
                  ["lease", "guest", "power", "--", "true"], ["hold", "guest", "--", "true"],
                  ["write", "guest", "0", "--hex", "00"], ["translate", "guest", "0"], ["screenshot", "guest", "/nonexistent/a.png"]):
        run(*words, status=NO_BUS, said="/nonexistent/bus")


@harness.test
def test_what_is_not_there_is_named():
    with Daemon() as daemon:
        daemon.await_ready()
        for words in (["info", "nothing"], ["read", "nothing", "0", "1"], ["ps", "nothing"], ["power", "nothing", "reset"],
                      ["key", "nothing", "a"], ["watch", "nothing", "0", "1"], ["regs", "nothing"],
                      ["dump", "nothing", "core"], ["lease", "nothing", "power", "--", "true"], ["hold", "nothing", "--", "true"],
                      ["screenshot", "nothing", "a.png"], ["search", "nothing", "00", "--hex"], ["translate", "nothing", "0"],
                      ["write", "nothing", "0", "--hex", "00"], ["type", "nothing", "a"], ["mouse", "nothing", "click", "left"]):
            daemon.run(*words, status=NOT_FOUND, said="nothing")
        daemon.run("regs", "stub-0", "--vcpu", "4000000000", status=None, said="vmibusctl")
        daemon.run("add", "web=/run/web", "--sensor", "none-such", status=UNSUPPORTED_HERE, said="cannot add web=/run/web")
        daemon.run("remove", "nothing", status=UNSUPPORTED_HERE, said="cannot remove nothing")
        for words in (["--hex", "0"], ["--hex", "0g"], ["--hex", "00", "--expect", "0000"], ["--hex", "00", "--expect", "0"]):
            daemon.run("write", "stub-0", "0xc00000", "--physical", *words, status=USAGE, said=words[-2])
        daemon.run("write", "stub-0", "0xc00000", "--physical", "--file", "/nonexistent/octets", status=FAILED,
                   said="/nonexistent/octets")
        daemon.run("write", "stub-0", "0xc00000", "--physical", "--file", "/dev/null", status=FAILED, said="empty")
        daemon.run("lease", "stub-0", "power", "--", "/nonexistent/program", status=127, said="/nonexistent/program")
        daemon.run("lease", "stub-0", "power", "--", daemon.directory.name, status=126, said=daemon.directory.name)
        assert daemon.run("lease", "stub-0", "power", "--", "sh", "-c", "kill -TERM $$", status=None).returncode == 128 + 15


@harness.test
def test_machine_without_linux_is_told():
    with Daemon() as daemon:
        daemon.await_ready()
        for verb, *words in LINUX:
            for more in ([], ["--mediated"], ["--quiesce"]):
                answer = daemon.run(verb, "stub-0", *words, *more, status=None)
                assert answer.returncode not in (0, USAGE) and "stub-0" in answer.stderr, (verb, words, more, answer)
        for words in (["read", "stub-0", "0", "1", "--pid", "1"], ["translate", "stub-0", "0", "--pid", "1"],
                      ["watch", "stub-0", "0", "1", "--pid", "1"]):
            answer = daemon.run(*words, status=None)
            assert answer.returncode not in (0, USAGE) and "stub-0" in answer.stderr, (words, answer)
            daemon.run(*words[:-1], "zero", status=USAGE, said="--pid")


@harness.test
def test_p01_what_the_policy_lacks_is_named():
    with Daemon("capabilities = observe") as daemon:
        for words in (["read", "stub-0", "0", "1", "--physical"], ["write", "stub-0", "0", "--physical", "--hex", "00"],
                      ["power", "stub-0", "reset"], ["key", "stub-0", "a"], ["type", "stub-0", "a"], ["regs", "stub-0"],
                      ["mouse", "stub-0", "click", "left"], ["stats"], ["top", "--count", "1"],
                      ["hold", "stub-0", "--", "true"], ["lease", "stub-0", "power", "--", "true"],
                      ["watch", "stub-0", "0", "1", "--physical"], ["screenshot", "stub-0", "a.png"],
                      ["dump", "stub-0", "core"], ["add", "web=/run/web"], ["remove", "stub-0"],
                      ["search", "stub-0", "00", "--hex", "--physical"]):
            answer = daemon.run(*words, status=None)
            assert answer.returncode == DENIED and "DENIED" in answer.stderr, (words, answer)
        assert not os.path.exists("core") and not os.path.exists("a.png")


@harness.test
def test_p08_limits_tell_who_holds_what():
    with Daemon(more="[limits]\nleases = 1\nconnections = 6\n") as daemon:
        text = daemon.run("stats", "--limits").stdout
        rows = json.loads(daemon.run("stats", "--limits", "--json").stdout)
        assert "connections" in text and "leases" in text, text
        assert any(row["limit"] == "LIMIT_LEASES" and row["bound"] == 1 for row in rows), rows
        answer = daemon.run("lease", "stub-0", "power", "--", "sh", "-c",
                            f'"{PROGRAM}" --socket {daemon.socket} lease stub-0 input -- true', status=None)
        assert answer.returncode != 0 and "'leases'" in answer.stderr and "[limits]" in answer.stderr, answer
        for words in (["stats"], ["stats", "--json"], ["top", "--count", "2", "--interval", "10"],
                      ["top", "--count", "1", "--json"]):
            assert "stub" in daemon.run(*words).stdout, words


@harness.test
def test_files_are_neither_replaced_nor_left_half_written():
    with Daemon() as daemon:
        daemon.await_ready()
        core, picture = os.path.join(daemon.directory.name, "core"), os.path.join(daemon.directory.name, "shot.ppm")
        daemon.run("dump", "stub-0", core)
        with open(core, "rb") as file:
            assert file.read(4) == b"\x7fELF"
        assert stat.S_IMODE(os.stat(core).st_mode) == 0o600
        before = os.stat(core).st_ino
        daemon.run("dump", "stub-0", core, status=FAILED, said="--force")
        assert os.stat(core).st_ino == before
        daemon.run("dump", "stub-0", core, "--force", "--quiesce", "--json")
        assert os.stat(core).st_ino != before
        daemon.run("dump", "stub-0", core, "--force", "--mediated")
        daemon.run("screenshot", "stub-0", picture)
        daemon.run("screenshot", "stub-0", picture, status=FAILED, said="--force")
        daemon.run("screenshot", "stub-0", picture, "--force", "--json")
        for verb in ("dump", "screenshot"):
            daemon.run(verb, "stub-0", os.path.join(daemon.directory.name, "nowhere", "file.png"), status=FAILED, said="nowhere")
        with open("/dev/full", "w", encoding="utf-8") as full:
            daemon.run("screenshot", "stub-0", "-", status=FAILED, stdout=full)
            daemon.run("read", "stub-0", "0", "65536", "--physical", "--raw", status=FAILED, stdout=full)
        assert sorted(os.listdir(daemon.directory.name))[:1] == ["control.sock"]
        assert not [name for name in os.listdir(daemon.directory.name) if name.startswith(("core.", "shot.ppm."))]


harness.main()
