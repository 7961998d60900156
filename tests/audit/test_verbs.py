#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl audit on the chain of a real daemon; the format, checked by nothing of ours; the catalog."""

import hashlib
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

BUILD = harness.top_builddir()
SRC = harness.top_srcdir()
MODULES = os.environ.get("VMIBUS_SENSOR_DIR") or os.path.join(BUILD, "sensors", "modules")


class Daemon:
    """A vmibusd with stub machines, and a journal of the test's own."""

    def __enter__(self):
        for program in ("vmibusd", "vmibusctl"):
            if not os.path.exists(os.path.join(BUILD, program)):
                harness.skip(f"{program} is not built")
        self.folder = tempfile.mkdtemp(prefix="vmibus-audit.")
        self.audit = os.path.join(self.folder, "state", "audit")
        self.journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.journal.bind(os.path.join(self.folder, "journal"))
        self.config = os.path.join(self.folder, "conf")
        self.start()
        return self

    def start(self, keys=""):
        with open(self.config, "w", encoding="utf-8") as file:
            file.write(f"[daemon]\naudit-journal = {self.folder}/journal\naudit-commit-ms = 1\n{keys}")
        self.process = subprocess.Popen(
            [os.path.join(BUILD, "vmibusd"), "--config", self.config, "--socket", f"{self.folder}/bus.sock", "--state-directory",
             f"{self.folder}/state", "--sensor-directory", MODULES, "--stub"], stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "serving at" in line:
                return
        assert False, "the daemon did not start"

    def stop(self):
        self.process.terminate()
        assert self.process.wait(harness.scale(30)) == 0
        self.process.stderr.close()

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()
        self.journal.close()
        shutil.rmtree(self.folder)

    def run(self, *words, status=0):
        result = subprocess.run([os.path.join(BUILD, "vmibusctl"), "--socket", f"{self.folder}/bus.sock", *words], text=True,
                                capture_output=True, timeout=harness.scale(60), check=False)
        assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
        return result

    def json(self, *words, status=0):
        return json.loads(self.run(*words, "--json", status=status).stdout)

    def write(self):
        self.run("write", "stub-0", "0x410000", "--cr3", "0x600000", "--hex", "0011223344556677")

    def messages(self):
        self.journal.setblocking(False)
        found = []
        try:
            while True:
                found.append(dict(line.split("=", 1) for line in self.journal.recv(65536).decode().splitlines()))
        except BlockingIOError:
            return found


def check_by_hand(path, previous):
    """The hashes of a file as its manual describes them. Returns the last one."""
    with open(path, "rb") as file:
        octets = file.read()
    assert octets[:8] == b"VMICHN1\0" and octets[128:160] == previous
    assert hashlib.sha256(octets[:160]).digest() == octets[160:192]
    previous, at = octets[160:192], 192
    while at < len(octets):
        magic, _, _, length = struct.unpack_from("<4sHHI", octets, at)
        assert magic == b"VMIR" and octets[at + 32:at + 64] == previous
        previous = octets[at + length - 32:at + length]
        assert hashlib.sha256(octets[at:at + length - 32]).digest() == previous
        at += length
    return previous


@harness.test
def test_chain_is_shown_verified_and_as_the_manual_says():
    with Daemon() as daemon:
        daemon.write()
        daemon.stop()
        result = daemon.json("audit", "verify", daemon.audit)
        assert result["verdict"] == "good" and result["stopped"] and result["missing"] == 0, result
        head = check_by_hand(os.path.join(daemon.audit, "bus.00000001.chain"), bytes(32)).hex()
        assert head == result["head"]
        assert daemon.json("audit", "verify", daemon.audit, "--head", head)["verdict"] == "good"
        assert daemon.json("audit", "verify", daemon.audit, "--head", "00" * 32, status=7)["verdict"] == "other-head"
        assert "The chain is good" in daemon.run("audit", "verify", daemon.audit).stdout
        write = [record["command"] for record in daemon.json("audit", "show", daemon.audit, "--commands")
                 if record["command"]["kind"] == "CMD_MEMWRITE"]
        assert len(write) == 1 and write[0]["name"] == "stub-0" and write[0]["uid"] == os.geteuid(), write
        assert write[0]["digest_new"] == hashlib.sha256(bytes.fromhex("0011223344556677")).hexdigest()
        assert len(daemon.run("audit", "show", daemon.audit, "--count", "3").stdout.splitlines()) == 3
        messages = daemon.messages()
        assert any(message.get("VMIBUS_ENDPOINT") == "stub-0" and message["VMIBUS_COMMAND"] == "CMD_MEMWRITE"
                   for message in messages), messages
        assert any(message.get("VMIBUS_CHAIN_HASH") == head for message in messages), messages


@harness.test
def test_rule_that_decided_is_told():
    """By every way that tells of a command; what decided then, whatever the configuration says since."""
    with Daemon() as daemon:
        daemon.stop()
        rules = (f"[rule operators]\nuser = {os.geteuid()}\ncapabilities = observe memctx mem-write\n"
                 f"[rule askers]\nuser = {os.geteuid()}\nendpoints = stub-*\ncapabilities = stats mem-write\n")
        daemon.start(keys=rules)
        daemon.write()
        daemon.run("stats")
        daemon.run("regs", "stub-0", status=12)
        with open(daemon.config, "w", encoding="utf-8") as file:
            file.write("# a line\n[daemon]\n" + rules.replace("operators", "others"))
        daemon.process.send_signal(1)
        for line in daemon.process.stderr:
            if "the policy was read anew" in line:
                break
        daemon.write()
        daemon.stop()
        assert daemon.json("audit", "verify", daemon.audit)["verdict"] == "good"
        for path in (daemon.audit, os.path.join(daemon.audit, "bus.log")):
            shown = [record.get("command", record) for record in daemon.json("audit", "show", path)]
            writes = [(record["rule"], record["rule_source"], record["rule_line"]) for record in shown
                      if record.get("kind") == "CMD_MEMWRITE"]
            assert writes == [("operators", daemon.config, 5), ("others", daemon.config, 4)], writes
            assert [(record["decided"], record.get("rule")) for record in shown if record.get("kind") == "REGISTERS"] == [
                ("none", None)], shown
            assert ("rule", "askers") in {(record["decided"], record.get("rule")) for record in shown
                                          if record.get("kind") == "QUERY"}, shown
        text = daemon.run("audit", "show", daemon.audit).stdout
        assert f"OK, [rule operators] at {daemon.config}:5\n" in text and "no rule allows it" in text, text
        messages = daemon.messages()
        assert [(message["VMIBUS_RULE"], message["VMIBUS_RULE_PLACE"]) for message in messages
                if message.get("VMIBUS_COMMAND") == "CMD_MEMWRITE"] == [
                    ("operators", f"{daemon.config}:5"), ("others", f"{daemon.config}:4")], messages
        assert [message["VMIBUS_RULE_PLACE"] for message in messages if message.get("VMIBUS_COMMAND") == "REGISTERS"] == [
            "none"], messages


@harness.test
def test_damage_is_told_with_its_place():
    with Daemon() as daemon:
        daemon.write()
        daemon.stop()
        path = os.path.join(daemon.audit, "bus.00000001.chain")
        with open(path, "r+b") as file:
            file.seek(300)
            octet = file.read(1)
            file.seek(300)
            file.write(bytes([octet[0] ^ 1]))
        result = daemon.json("audit", "verify", daemon.audit, status=7)
        assert result["verdict"] == "damaged" and result["bad_segment"] == 1 and result["bad_sequence"] == 1, result
        daemon.run("audit", "verify", os.path.join(daemon.folder, "nothing"), status=1)
        daemon.run("audit", "verify", daemon.audit, "--head", "12", status=2)


@harness.test
def test_what_is_found_is_said_in_words():
    with Daemon() as daemon:
        daemon.write()
        running = daemon.run("audit", "verify", daemon.audit).stdout
        assert "the last writer is running, or died\n" in running, running
        daemon.stop()
        path = os.path.join(daemon.audit, "bus.00000001.chain")
        with open(path, "rb") as file:
            whole = file.read()
        good = daemon.run("audit", "verify", daemon.audit).stdout
        assert good.startswith("The chain is good.\n1 files (1 to 1), ") and "the last writer ended as it should\n" in good, good
        head = check_by_hand(path, bytes(32)).hex()
        assert good.endswith(f"head {head}\n"), good
        other = daemon.run("audit", "verify", daemon.audit, "--head", "00" * 32, status=7).stdout
        assert other.startswith("THIS IS ANOTHER CHAIN: it is whole, but does not hold the hash that was given.\n"), other
        # The end is missing, as a writer leaves it that dies: everything before it counts.
        with open(path, "wb") as file:
            file.write(whole[:-10])
        torn = daemon.run("audit", "verify", daemon.audit).stdout
        records = int(re.search(r", (\d+) records, ", good)[1])
        assert torn.startswith("The chain is good up to an unfinished write at its end: "), torn
        assert re.search(rf"^bus\.00000001\.chain: octet \d+, where record {records} should be: ", torn, flags=re.M), torn
        assert f", {records - 1} records, " in torn and head not in torn, torn
        # What follows is no end that was torn off.
        with open(path, "wb") as file:
            file.write(whole[:300] + bytes([whole[300] ^ 1]) + whole[301:])
        damaged = daemon.run("audit", "verify", daemon.audit, status=7).stdout
        assert damaged.startswith("THE CHAIN IS DAMAGED: "), damaged
        assert "\nbus.00000001.chain: octet 192, where record 1 should be: " in damaged, damaged
        assert "the chain is damaged; 'vmibusctl audit verify' tells more" in daemon.run("audit", "show", daemon.audit).stderr
        # What cannot be looked at is no verdict.
        for verb in ("verify", "show"):
            assert "there is no chain of this writer" in daemon.run("audit", verb, daemon.folder, status=1).stderr


SMALL_FILES = "audit-segment-bytes = 65536\n"


def write_until(daemon, condition):
    """Fills the chain; that a file of 65536 octets never ends would be found."""
    for _ in range(300):
        if condition():
            return
        daemon.write()
    assert False, "the chain does not come to that"


@harness.test
def test_killed_writer_and_files_that_are_gone_are_told():
    with Daemon() as daemon:
        daemon.stop()
        daemon.start(keys=SMALL_FILES)
        files = [os.path.join(daemon.audit, f"bus.0000000{number}.chain") for number in (1, 2)]
        write_until(daemon, lambda: os.path.exists(files[1]))
        daemon.process.kill()
        daemon.process.wait(harness.scale(30))
        daemon.process.stderr.close()
        killed = daemon.run("audit", "verify", daemon.audit).stdout
        assert "the last writer is running, or died\n" in killed, killed
        daemon.start(keys=SMALL_FILES)
        daemon.stop()
        whole = daemon.run("audit", "verify", daemon.audit).stdout
        assert re.match(r"The chain is good\.\n\d files \(1 to \d\), ", whole) and "ended as it should" in whole, whole
        assert "what was before" not in whole, whole
        os.remove(files[0])
        rest = daemon.run("audit", "verify", daemon.audit).stdout
        assert re.match(r"The chain is good\.\n\d files \(2 to \d\), ", rest), rest
        assert "what was before file 2 is not there\n" in rest, rest


@harness.test
def test_tail_goes_on_in_the_next_file_and_ends_at_damage():
    with Daemon() as daemon:
        daemon.stop()
        daemon.start(keys=SMALL_FILES)
        tail = subprocess.Popen([os.path.join(BUILD, "vmibusctl"), "audit", "tail", daemon.audit], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)
        try:
            second = os.path.join(daemon.audit, "bus.00000002.chain")
            write_until(daemon, lambda: os.path.exists(second))
            daemon.stop()
            written = len(re.findall(" CMD_MEMWRITE", daemon.run("audit", "show", daemon.audit, "--commands").stdout))
            # A record once more is whole, and in the wrong place.
            with open(second, "r+b") as file:
                octets = file.read()
                file.write(octets[192:192 + struct.unpack_from("<I", octets, 200)[0]])
            shown, complaint = tail.communicate(timeout=harness.scale(30))
            assert tail.returncode == 1 and "the chain is damaged: " in complaint, (tail.returncode, complaint)
            assert len(re.findall(" CMD_MEMWRITE", shown)) == written > 0, (written, shown)
        finally:
            tail.kill()
            tail.wait()


@harness.test
def test_tail_follows():
    with Daemon() as daemon:
        tail = subprocess.Popen([os.path.join(BUILD, "vmibusctl"), "audit", "tail", daemon.audit, "--json", "--commands"],
                                stdout=subprocess.PIPE, text=True)
        try:
            for _ in range(2):
                daemon.write()
                for line in tail.stdout:
                    if json.loads(line)["command"]["kind"] == "CMD_MEMWRITE":
                        break
        finally:
            tail.kill()
            tail.wait()
            tail.stdout.close()


@harness.test
def test_catalog_explains_every_message():
    with open(os.path.join(SRC, "src", "audit", "messages.h"), encoding="utf-8") as file:
        known = set(re.findall(r'"([0-9a-f]{32})"', file.read()))
    with open(os.path.join(SRC, "systemd", "vmibus.catalog"), encoding="utf-8") as file:
        entries = re.findall(r"^-- ([0-9a-f]{32})\n((?:[A-Z][\w-]*: .+\n)+)\n(.+)", file.read(), flags=re.M)
    assert {entry[0] for entry in entries} == known and len(entries) == len(known)
    assert all("Subject: " in entry[1] and "Defined-By: vmibus\n" in entry[1] for entry in entries)


@harness.test
def test_journalctl_takes_the_catalog():
    if not shutil.which("journalctl"):
        harness.skip("journalctl not found: install systemd")
    with tempfile.TemporaryDirectory() as root:
        folder = os.path.join(root, "usr", "lib", "systemd", "catalog")
        os.makedirs(folder)
        os.makedirs(os.path.join(root, "var", "lib", "systemd", "catalog"))
        shutil.copy(os.path.join(SRC, "systemd", "vmibus.catalog"), folder)
        result = subprocess.run(["journalctl", f"--root={root}", "--update-catalog"], text=True, capture_output=True, check=False)
        assert result.returncode == 0 and not result.stderr, result.stderr
        listed = subprocess.run(["journalctl", f"--root={root}", "--list-catalog"], text=True, capture_output=True,
                                check=False).stdout
        assert len(re.findall(r"^[0-9a-f]{32} vmibus: ", listed, flags=re.M)) == 7, listed


harness.main()
