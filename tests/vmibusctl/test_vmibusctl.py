#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl against a bus that is played here: what it prints and how it ends."""

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import apart
import harness

PROGRAM = os.path.join(harness.top_builddir(), "vmibusctl")
HEADER = struct.Struct("<HBBHBBIIIIQQQQQ")
WELCOME, ROSTER, LIFECYCLE, MEMCTX, LEASE, ACK, GAP, ERROR = 2, 0x101, 0x102, 0x103, 0x105, 0x106, 0x107, 0x109
HELLO, SUBSCRIBE, CMD_LEASE, CMD_INPUT, QUERY, CMD_MEMWRITE, MEM_ATTACH = 1, 0x201, 0x202, 0x203, 0x206, 0x301, 0x302
MEM_READ, BUFFER, CMD_VM = 0x304, 0x305, 0x205
MEM_QUERY = 0x306
HERE, SOCKET, CHANNEL_BUS = 1, 2, 1
MAGIC = 0x0031535542494D56
GENERATION, TOKEN, EPOCH = 0x700000001, 0x700000005, 0x700000002
RAM_SIZE = 0x10000


class Bus:
    """Plays a bus with one VM, "guest", for as many connections as come."""

    def __init__(self, **behaviour):
        if not os.path.exists(PROGRAM):
            harness.skip(f"{PROGRAM} is not built")
        self.behaviour = behaviour
        self.commands = []
        self.buffers = {}
        self.directory = tempfile.TemporaryDirectory(prefix="vmibusctl-")
        self.path = os.path.join(self.directory.name, "bus.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.ram = os.memfd_create("ram")
        os.truncate(self.ram, RAM_SIZE)
        threading.Thread(target=self.accept, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listener.close()
        os.close(self.ram)
        self.directory.cleanup()

    def accept(self):
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        self.delivery = 0
        with peer, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while True:
                frame = peer.recv(128, socket.MSG_WAITALL)
                if len(frame) < 128:
                    return
                header = HEADER.unpack_from(frame)
                tail = peer.recv(header[7], socket.MSG_WAITALL) if header[7] else b""
                self.commands.append((header, frame[64:], tail))
                self.answer(peer, header, frame[64:], tail)

    def send(self, peer, kind, body=b"", tail=b"", correlation=0, fds=(), slot=1, delivery=None):
        if delivery is None:
            self.delivery += 1
            delivery = self.delivery
        frame = HEADER.pack(kind, 1, 1, 0, 1, len(fds), 0, len(tail), slot, 0, GENERATION, 0, delivery, correlation, 0)
        frame += body.ljust(64, b"\0") + tail
        socket.send_fds(peer, [frame], list(fds)) if fds else peer.sendall(frame)

    def ack(self, peer, header, error=0, reason=0, value=0, count=0, token=0, epoch=EPOCH, tail=b"", fds=()):
        body = struct.pack("<HHHBxQQQQ", error, reason, header[0], 0, value, count, token, epoch)
        self.send(peer, ACK, body, tail, header[13], fds)

    def answer(self, peer, header, body, tail):
        kind = header[0]
        if kind == HELLO:
            features = 0x21 if "page" in self.behaviour else 1
            if "closed" in self.behaviour:
                error, reason, used, bound = self.behaviour["closed"]
                self.send(peer, ERROR, struct.pack("<HHHBxQQ", error, reason, HELLO, 1, used, bound), slot=0, delivery=0)
                raise ConnectionResetError
            # Apart, the memory channel is another connection to the same place.
            memory, path = (SOCKET, self.path.encode()) if apart.is_apart() and body[13] == CHANNEL_BUS else (HERE, b"")
            welcome = struct.pack("<QQ16sIIIIIHBB", MAGIC, features, b"s" * 16, 7, 1 << 20, 64, 8, 4, 1, memory, 16)
            self.send(peer, WELCOME, welcome, path, correlation=header[13], slot=0, delivery=0)
        elif kind == SUBSCRIBE:
            self.replay(peer, struct.unpack_from("<Q", body)[0])
            self.ack(peer, header)
        elif kind in self.behaviour.get("refuse", {}):
            self.ack(peer, header, *self.behaviour["refuse"][kind])
        elif kind == CMD_LEASE:
            self.ack(peer, header, token=TOKEN)
        elif kind == CMD_INPUT:
            self.ack(peer, header, count=struct.unpack_from("<H", body, 12)[0])
        elif kind == CMD_MEMWRITE and body[20] & 4:
            extents, = struct.unpack_from("<I", body, 44)
            length, = struct.unpack_from("<I", body, 16)
            results = b""
            for index in range(extents):
                _, gpa, size, _ = struct.unpack_from("<QQII", tail, 24 * index)
                results += struct.pack("<QQIHHB7x", gpa, 0, size, 0, 0, 0)
            self.ack(peer, header, count=length, tail=results)
        elif kind == CMD_MEMWRITE:
            length, = struct.unpack_from("<I", body, 16)
            os.pwrite(self.ram, tail or body[40:40 + length], struct.unpack_from("<Q", body, 8)[0])
            self.ack(peer, header, count=length)
        elif kind == MEM_ATTACH and self.behaviour.get("private"):
            self.ack(peer, header, reason=104, count=1, tail=struct.pack("<QQQHHI", 0, RAM_SIZE, 0, 0, 0, 0))
        elif kind == BUFFER:
            self.answer_buffer(peer, header, body)
        elif kind == MEM_READ:
            _, gpa, _, offset, length, number = struct.unpack_from("<QQQQII", body)
            octets = os.pread(self.ram, length, gpa)
            os.pwrite(self.buffers[number], octets, offset)
            short = len(octets) < length
            self.ack(peer, header, count=len(octets), error=9 if short else 0, reason=83 if short else 0,
                     value=gpa + len(octets))
        elif kind == MEM_ATTACH and "page" in self.behaviour:
            page = self.make_page(self.behaviour["page"])
            self.ack(peer, header, count=1, tail=struct.pack("<QQQHHI", 0, RAM_SIZE, 0, 0, 0, 0), fds=[self.ram, page])
            os.close(page)
        elif kind == MEM_ATTACH:
            self.ack(peer, header, count=1, tail=struct.pack("<QQQHHI", 0, RAM_SIZE, 0, 0, 0, 0), fds=[self.ram])
        elif kind == MEM_QUERY:
            holders = self.behaviour.get("holders", ())
            self.ack(peer, header, count=len(holders), tail=b"".join(struct.pack("<QQIII4x", *row) for row in holders))
        else:
            self.ack(peer, header)

    @staticmethod
    def make_page(epoch):
        page = os.memfd_create("page", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(page, struct.pack("<QQQQ", epoch, GENERATION, 1, 0).ljust(4096, b"\0"))
        fcntl.fcntl(page, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        return page

    def answer_buffer(self, peer, header, body):
        size, number, operation = struct.unpack_from("<QIB", body)
        if operation == 2:
            os.close(self.buffers.pop(number))
            self.ack(peer, header)
            return
        number = next(i for i in range(1, 65) if i not in self.buffers)
        size = (size + 4095) // 4096 * 4096
        buffer = os.memfd_create("buffer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.truncate(buffer, size)
        fcntl.fcntl(buffer, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self.buffers[number] = buffer
        self.ack(peer, header, value=number, count=size, fds=[buffer])

    def replay(self, peer, kinds):
        if self.behaviour.get("empty"):
            return
        if kinds >> 1 & 1:
            self.send_roster(peer)
        if self.behaviour.get("hole"):
            self.delivery += 1
        if self.behaviour.get("gap"):
            self.send(peer, GAP, struct.pack("<HHI", LIFECYCLE, 0, 3), slot=0)
        if kinds >> 2 & 1:
            self.send(peer, LIFECYCLE, struct.pack("<BBH", 1, 0, 0))
        if kinds >> 3 & 1:
            self.send(peer, MEMCTX, struct.pack("<QQQQQIHHHBBBB", EPOCH, 0x1000, RAM_SIZE, 0, 0, self.behaviour.get("evidence", 0), 0, 1, 1, 4, 2,
                                                   self.behaviour.get("confidence", 3), 1),
                      struct.pack("<QQQHHI", 0, RAM_SIZE, 0, 0, 0, 0))
        if kinds >> 5 & 1:
            self.send(peer, LEASE, struct.pack("<QQBBHIIII", TOKEN, 0, 3, 1, 0, 1000, 77, 2, 0))

    def send_roster(self, peer):
        self.send(peer, ROSTER, struct.pack("<B3xIQ16sI", 1, 4711, 5, bytes(range(16)), 15), b"gue\x1bst\n"
                  if self.behaviour.get("rude") else b"guest")

    def run(self, *words, status=0, environment=None, text=True):
        result = subprocess.run([PROGRAM, *words], text=text, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=os.environ | {"VMIBUS_SOCKET": self.path, "PROGRAM": PROGRAM} | (environment or {}))
        assert result.returncode == status, f"{words}: {result.returncode}, not {status}: {result.stdout} {result.stderr}"
        return result

    def json(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options).stdout)

    def sent(self, kind):
        return [command for command in self.commands if command[0][0] == kind]


@harness.test
def test_list():
    with Bus() as bus:
        lines = bus.run("list").stdout.splitlines()
        assert lines[0].split() == ["SLOT", "NAME", "STATE", "RAM", "MEMCTX", "PID", "UUID"]
        assert lines[1].split()[:4] == ["1", "guest", "RUNNING", "64"], lines
        entry, = bus.json("list")
        assert entry["name"] == "guest" and entry["slot"] == 1 and entry["generation"] == GENERATION
        assert entry["roster"]["pid"] == 4711 and entry["roster"]["uuid"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
        assert entry["lifecycle"]["state"] == "RUNNING" and entry["memctx"]["cr3"] == 0x1000
        assert entry["leases"][0]["class"] == "MEMWRITE"


@harness.test
def test_empty_roster():
    with Bus(empty=True) as bus:
        assert bus.json("list") == []
        assert "empty" in bus.run("info", "guest", status=4).stderr


@harness.test
def test_vm_by_name_uuid_and_slot():
    with Bus() as bus:
        for word in ("guest", "00010203-0405-0607-0809-0A0B0C0D0E0F", "1"):
            entry = bus.json("info", word)
            assert entry["name"] == "guest"
            assert entry["memctx"]["ranges"] == [{"gpa": 0, "len": RAM_SIZE, "offset": 0, "object": 0, "flags": []}]
        assert "guest." in bus.run("info", "other", status=4).stderr


@harness.test
def test_names_cannot_command_the_terminal():
    with Bus(rude=True) as bus:
        for words in (["list"], ["info", "1"], ["monitor", "--count", "1"]):
            output = bus.run(*words).stdout
            assert "\x1b" not in output and "gue?st?" in output, output
        assert bus.json("list")[0]["name"] == "gue\x1bst\n"


@harness.test
def test_p07_monitor_shows_gaps_and_holes():
    with Bus(gap=True) as bus:
        result = bus.run("monitor", "--count", "5")
        assert "GAP dropped LIFECYCLE count 3" in result.stdout and not result.stderr, result
        events = [json.loads(line) for line in bus.run("--json", "monitor", "--for", "1").stdout.splitlines()]
        assert [event["delivery"] for event in events] == [1, 2, 3, 4, 5, 6] and events[5]["kind"] == "ACK"
        assert events[0]["kind"] == "ROSTER" and events[0]["tail"] == "guest"
        assert events[2]["name"] == "guest" and events[2]["body"]["state"] == "RUNNING"
    with Bus(hole=True) as bus:
        assert "HOLE: delivery 3 follows 1" in bus.run("monitor", "--count", "3", status=5).stderr


@harness.test
def test_monitor_asks_for_kinds():
    with Bus() as bus:
        output = bus.run("monitor", "gu*", "--kinds", "lease,Lifecycle", "--for", "1").stdout
        assert "ROSTER" not in output and "guest LIFECYCLE" in output
        _, body, tail = bus.sent(SUBSCRIBE)[-1]
        assert tail == b"gu*" and struct.unpack_from("<Q", body)[0] == 1 << 5 | 1 << 2
        bus.run("monitor", "--kinds", "hello", status=2)


@harness.test
def test_read():
    with Bus() as bus:
        os.pwrite(bus.ram, b"0123456789abcdefXYZ", 0x2000)
        output = bus.run("read", "guest", "0x2000", "19", "--physical").stdout
        assert "0x0000000000002000  30 31" in output and "|XYZ|" in output
        assert bus.run("read", "guest", "8192", "3", "--physical", "--raw", text=False).stdout == b"012"
        answer = bus.json("read", "guest", "0x2000", "4", "--physical")
        assert answer == {"gpa": 0x2000, "epoch": EPOCH, "len": 4, "data": "30313233"}
        result = bus.run("read", "guest", hex(RAM_SIZE - 4), "8", "--physical", "--raw", status=19, text=False)
        assert result.stdout == b"" or len(result.stdout) == 4


@harness.test
def test_search():
    with Bus() as bus:
        for at, octets in ((0x2000, b"a needle"), (0x3ffd, b"needle"), (RAM_SIZE - 6, b"needle")):
            os.pwrite(bus.ram, octets, at)
        places = [0x2002, 0x3ffd, RAM_SIZE - 6]
        for words in ([], ["--mediated"]):
            assert bus.run("search", "guest", "needle", "--physical", *words).stdout == \
                "".join(f"0x{place:016x}\n" for place in places)
            answer = bus.json("search", "guest", "6e 65 00 64", "--hex", "--mask", "ffff00ff", "--physical", *words)
            assert answer == {"epoch": EPOCH, "gpas": places, "complete": True}, answer
            answer = bus.json("search", "guest", "needle", "--physical", "--from", "0x2003", "--to", hex(RAM_SIZE), *words)
            assert answer["gpas"] == places[1:]
            answer = bus.json("search", "guest", "needle", "--physical", "--to", hex(RAM_SIZE - 1), "--align", "2", *words)
            assert answer["gpas"] == places[:1]
            result = bus.run("search", "guest", "needle", "--physical", "--max", "2", *words)
            assert len(result.stdout.splitlines()) == 2 and "go on with --from 0x3ffe" in result.stderr, result
            result = bus.run("search", "guest", "no such thing", "--physical", *words, status=6)
            assert result.stdout == result.stderr == ""
        for words in (["x", "--text", "--hex"], ["", "--text"], ["xyz", "--hex"], ["x", "--mask", "ffff"], ["x", "--mask", "00"],
                      ["x", "--align", "3"], ["x", "--max", "0"], ["x", "--from", "5", "--to", "5"], ["x" * 4097]):
            bus.run("search", "guest", *words, "--physical", status=2)
    with Bus(page=EPOCH + 1) as bus:
        assert bus.run("search", "guest", "needle", "--physical", status=15).stdout == ""


@harness.test
def test_search_follows_page_tables():
    for behaviour in ({}, {"private": True}):
        with Bus(**behaviour) as bus:
            for at, value in ((0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000 + 5 * 8, 0x8001), (0x4000 + 6 * 8, 0x6001)):
                os.pwrite(bus.ram, struct.pack("<Q", value), at)
            os.pwrite(bus.ram, b"nee", 0x8ffd)
            os.pwrite(bus.ram, b"dle", 0x6000)
            assert bus.json("search", "guest", "needle")["gvas"] == [0x5ffd]
            bus.run("search", "guest", "needle", "--from", "0x5ffe", status=6)


@harness.test
def test_p09_search_of_one_page_that_is_mapped_everywhere_ends():
    """Four tables map 2^48 octets, all of them one page: the limit is named, and where to go on."""
    with Bus() as bus:
        for at, entry in ((0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000, 0x8003)):
            os.pwrite(bus.ram, struct.pack("<Q", entry) * 512, at)
        result = bus.run("search", "guest", "nowhere", "--json", status=19)
        answer = json.loads(result.stdout)
        assert answer["gvas"] == [] and answer["complete"] is False and answer["limit"] == 4 << 30, answer
        assert 1 << 30 < answer["next"] < 1 << 40, answer
        assert "4 GiB (16 times its RAM" in result.stderr and f"--from {hex(answer['next'])}" in result.stderr, result.stderr
        # A match is told, whatever comes after it.
        os.pwrite(bus.ram, b"needle", 0x8100)
        answer = bus.json("search", "guest", "needle", "--from", hex(answer["next"]), "--max", "2")
        assert len(answer["gvas"]) == 2 and answer["next"] == answer["gvas"][1] + 1 and "limit" not in answer, answer


@harness.test
def test_p06_read_looks_at_the_epoch_page():
    """No message tells that the epoch has ended: the page does, and nothing that was read is shown."""
    with Bus(page=EPOCH) as bus:
        os.pwrite(bus.ram, b"0123", 0x2000)
        assert bus.run("read", "guest", "0x2000", "4", "--physical", "--raw").stdout == "0123"
    for shown in (0, EPOCH + 1):
        with Bus(page=shown) as bus:
            os.pwrite(bus.ram, b"0123", 0x2000)
            result = bus.run("read", "guest", "0x2000", "4", "--physical", "--raw", status=15)
            assert result.stdout == "" and "the epoch ended while it was read" in result.stderr, result
            result = bus.run("translate", "guest", "0x2000", status=15)
            assert result.stdout == "", result


@harness.test
def test_info_says_why_a_root_is_believed():
    with Bus(evidence=0b11001, confidence=1) as bus:
        output = bus.run("info", "guest").stdout
        for words in ("sampled from vCPU registers", "agrees with the process's mappings", "A live vCPU's tables", "canary is armed"):
            assert words in output, f"{words}: {output}"
        assert "VMCOREINFO" not in output
        memctx = bus.json("info", "guest")["memctx"]
        assert memctx["confidence"] == "SAMPLED" and memctx["evidence"] == ["LAYOUT_MAPS", "VCPU_CR3", "CANARY"]
    with Bus(evidence=0b11111, confidence=3) as bus:
        output = bus.run("info", "guest").stdout
        assert "confirmed by a live vCPU's tables" in output and "A VMCOREINFO note names the root" in output, output


@harness.test
def test_info_shows_who_holds_memory():
    with Bus(holders=[(EPOCH, 0, 1000, 4711, 2), (EPOCH - 1, 1, 1001, 4712, 0)]) as bus:
        lines = [line.split() for line in bus.run("info", "guest").stdout.splitlines()]
        first = next(line for line in lines if line[:2] == ["1000", "4711"])
        assert first == ["1000", "4711", hex(EPOCH), "2", "current"], first
        second = next(line for line in lines if line[:2] == ["1001", "4712"])
        assert second[2:6] == [hex(EPOCH - 1), "0", "overdue", "for"], second
        holders = bus.json("info", "guest")["holders"]
        assert [holder["uid"] for holder in holders] == [1000, 1001]
        assert holders[1]["overdue"] == 1 and holders[1]["epoch"] == EPOCH - 1
    with Bus() as bus:
        assert "held by" not in bus.run("info", "guest").stdout


@harness.test
def test_read_without_descriptors():
    """The same octets through the memory authority, by choice or because there are no descriptors."""
    for behaviour, words in (({}, ["--mediated"]), ({"private": True}, [])):
        with Bus(**behaviour) as bus:
            os.pwrite(bus.ram, b"0123456789abcdefXYZ", 0x2000)
            output = bus.run("read", "guest", "0x2000", "19", "--physical", *words).stdout
            assert "0x0000000000002000  30 31" in output and "|XYZ|" in output
            assert bus.run("read", "guest", hex(RAM_SIZE - 4), "8", "--physical", "--raw", *words, status=19,
                           text=False).stdout == bytes(4)
            assert len(bus.sent(MEM_READ)) == 2
            operations = [command[1][12] for command in bus.sent(BUFFER)]
            assert operations.count(1) == operations.count(2) > 0
    refused = {MEM_READ: (2, 21, 1 << 4)}
    with Bus(private=True, refuse=refused) as bus:
        said = bus.run("read", "guest", "0x2000", "19", "--physical", status=12).stderr
        assert "MEM_READ" in said and "memory-backend-memfd" in said and "memoryBacking" in said, said


@harness.test
def test_translate_without_descriptors():
    with Bus(private=True) as bus:
        for at, value in ((0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000 + 5 * 8, 0x6001)):
            os.pwrite(bus.ram, struct.pack("<Q", value), at)
        assert bus.json("translate", "guest", "0x5123")["gpa"] == 0x6123
        assert len(bus.sent(MEM_READ)) == 4


@harness.test
def test_translate():
    with Bus() as bus:
        for at, value in ((0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4003), (0x4000 + 5 * 8, 0x6001)):
            os.pwrite(bus.ram, struct.pack("<Q", value), at)
        answer = bus.json("translate", "guest", "0x5123")
        assert answer["gpa"] == 0x6123 and answer["page_size"] == 4096 and answer["rights"] == []
        assert [entry["level"] for entry in answer["entries"]] == [4, 3, 2, 1]
        os.pwrite(bus.ram, b"behind the tables", 0x6000)
        assert bus.run("read", "guest", "0x5000", "6", "--raw").stdout == "behind"
        answer = bus.json("translate", "guest", "0x7000", status=19)
        assert answer["translated"] is False and "gpa" not in answer
        os.pwrite(bus.ram, struct.pack("<QQ", 0x2083, 0xffffff003), 0x3008)
        for address, words in (("0x5123", "page of 4 KiB at 0x6000"), ("0x5123", "table at 0x4000"),
                               ("0x5123", "4 KiB: read-only, kernel only, executable")):
            assert words in bus.run("translate", "guest", address).stdout, words
        for address, words in (("0x200000", "reserved bits 0x2000"), ("0x400000", "cannot be read"), ("0x7000", "not present")):
            assert words in bus.run("translate", "guest", address, status=19).stdout, words
        bus.run("translate", "guest", "0x5123", "--cr3", "0x4000", status=19)


@harness.test
def test_write():
    with Bus() as bus:
        assert "wrote 4 octets" in bus.run("write", "guest", "0x100", "--physical", "--hex", "deadbeef").stdout
        assert os.pread(bus.ram, 4, 0x100) == b"\xde\xad\xbe\xef"
        # Taken for the call, and given back.
        assert [body[12] for _, body, _ in bus.sent(CMD_LEASE)] == [1, 3]
        _, body, _ = bus.sent(CMD_MEMWRITE)[0]
        assert struct.unpack_from("<QQIIQQ", body) == (0, 0x100, 4, 0x80, TOKEN, EPOCH)
        with tempfile.NamedTemporaryFile() as file:
            file.write(b"x" * 5000)
            file.flush()
            assert bus.json("write", "guest", "0x200", "--file", file.name, "--token", "9")["count"] == 5000
        assert len(bus.sent(CMD_LEASE)) == 2
        # A token that is given is believed, even one that cannot be, and so is an epoch.
        bus.run("write", "guest", "0x200", "--hex", "00", "--token", "0", "--epoch", "77")
        assert len(bus.sent(CMD_LEASE)) == 2
        assert struct.unpack_from("<QQ", bus.sent(CMD_MEMWRITE)[-1][1], 24) == (0, 77)
        bus.run("write", "guest", "0x100", status=2)
        bus.run("write", "guest", "0x100", "--hex", "abc", status=2)
        bus.run("write", "guest", "0x100", "--hex", "ab", "--expect", "abcd", status=2)
        bus.run("write", "guest", "0x100", "--hex", "ab", "--cr3", "1", "--physical", status=2)


@harness.test
def test_write_extents():
    with Bus() as bus, tempfile.NamedTemporaryFile("w") as file:
        print("# two of them\n0x1000 aabb expect=0102 gpa=0x11000\n\n  0x2000  cc:dd:ee expect=030405 gpa=0x12000 # and this", file=file,
              flush=True)
        answer = bus.json("write", "guest", "--extents", file.name, "--quiesce")
        assert answer["count"] == 5, answer
        assert [(extent["gva"], extent["gpa"], extent["len"], extent["written"], extent["error"]) for extent in answer["extents"]] \
            == [(0x1000, 0x11000, 2, 2, "OK"), (0x2000, 0x12000, 3, 3, "OK")], answer
        _, body, tail = bus.sent(CMD_MEMWRITE)[0]
        assert struct.unpack_from("<QQII", body) == (0, 0, 5, 0x1 | 0x4 | 0x8 | 0x10 | 0x100)
        assert tail[48:] == bytes.fromhex("0102030405aabbccddee"), tail
        assert "wrote 5 octets in 2 extents" in bus.run("write", "guest", "--extents", file.name).stdout
        assert "would write" in bus.run("write", "guest", "0x100", "--hex", "ab", "--expect-gpa", "0x55", "--dry-run").stdout
        _, body, tail = bus.sent(CMD_MEMWRITE)[-1]
        assert struct.unpack("<QQII", tail[:24]) == (0x100, 0x55, 1, 0) and tail[24:] == b"\xab"
        for text in ("0x1000", "0x1000 abc", "zz ab", "0x1000 ab expect=abcd", "0x1000 ab gpa=x", "0x1000 ab cd", "0x1 ab\n0x2 ab gpa=1",
                     "0x1 ab gpa=1\n0x2 ab", "0x1 ab gpa=1 gpa=1", "", "# nothing"):
            with tempfile.NamedTemporaryFile("w") as bad:
                bad.write(text)
                bad.flush()
                assert bad.name in bus.run("write", "guest", "--extents", bad.name, status=1).stderr, text
        for extra in (["0x100"], ["--hex", "ab"], ["--expect", "ab"], ["--expect-gpa", "1"]):
            bus.run("write", "guest", "--extents", file.name, *extra, status=2)
        bus.run("write", "guest", "--hex", "ab", status=2)


@harness.test
def test_refused_extents_are_told():
    with Bus(refuse={CMD_MEMWRITE: (9, 0, 5)}) as bus, tempfile.NamedTemporaryFile("w") as file:
        print("0x1000 aabb\n0x2000 cc", file=file, flush=True)
        result = bus.run("write", "guest", "--extents", file.name, "--token", "1", "--json", status=19)
        assert [extent["error"] for extent in json.loads(result.stdout)["extents"]] == [json.loads(result.stdout)["error"]] * 2
        assert "extent 2 at 0x2000" in result.stderr, result.stderr


@harness.test
def test_refusals_name_object_reason_and_remedy():
    with Bus(refuse={CMD_LEASE: (11, 30), CMD_MEMWRITE: (2, 21, 32)}) as bus:
        stderr = bus.run("write", "guest", "0", "--hex", "00", status=21).stderr
        assert "MEMWRITE lease of guest" in stderr and "HELD" in stderr and "process 77 of user 1000" in stderr, stderr
        result = bus.run("write", "guest", "0", "--hex", "00", "--token", "1", "--json", status=12)
        assert "MEM_WRITE" in result.stderr and "vmibusctl explain" in result.stderr, result.stderr
        assert json.loads(result.stdout)["reason"] == "NO_CAPABILITY"


@harness.test
def test_bounds_are_told_as_what_they_are():
    """A bound of 256 octets is no capability, though one of them has that bit, and the cap on memory is none of [limits]."""
    for (error, reason, value), words in (((2, 27, 256), "WRITE_SIZE 256 octets"), ((2, 26, 32), "WRITE_RANGE 0x20."),
                                          ((2, 29, 64), "PROTECTED 0x40."), ((11, 28, 1500), "WRITE_RATE 2 ms"),
                                          ((1, 102, 128), "TARGET_MOVED 0x80."), ((8, 62, 4096), "LIMIT_MEMORY memory-cap")):
        with Bus(refuse={CMD_MEMWRITE: (error, reason, value)}) as bus:
            said = bus.run("write", "guest", "0", "--hex", "00", "--token", "1", status=10 + error).stderr
            assert all(word in said for word in words.split()), said
            assert "The capability is" not in said and "'memory'" not in said, said


@harness.test
def test_input():
    with Bus() as bus:
        bus.run("key", "guest", "ctrl-alt-f2", "a")
        bus.run("mouse", "guest", "move", "-5", "3")
        assert bus.json("type", "guest", "aB") == {"count": 6}
        events = [struct.unpack_from("<HHi", body, 16) for _, body, _ in bus.sent(CMD_INPUT)]
        assert events == [(1, 29, 1), (1, 30, 1), (2, 0, -5), (1, 30, 1), (1, 42, 1)], events
        before = len(bus.sent(CMD_LEASE))
        bus.run("key", "guest", "a", "hyper-b", status=2)
        bus.run("type", "guest", "a\u00e4", status=2)
        bus.run("type", "guest", "a", "--layout", "nosuchlayout", status=2)
        assert len(bus.sent(CMD_LEASE)) == before


@harness.test
def test_lease_is_lent():
    with Bus() as bus:
        script = '"$PROGRAM" write guest 0x10 --physical --hex 01 && "$PROGRAM" list && exit 7'
        result = bus.run("lease", "guest", "memwrite", "--ttl", "5000", "--mode=queue", "--", "sh", "-c", script, status=7)
        assert "wrote 1 octets" in result.stdout and "RUNNING" in result.stdout
        leases = bus.sent(CMD_LEASE)
        assert [struct.unpack_from("<IBBB", body, 8) for _, body, _ in leases] == [(5000, 1, 3, 2), (0, 3, 3, 0)], leases
        assert struct.unpack_from("<Q", bus.sent(CMD_MEMWRITE)[0][1], 24)[0] == TOKEN
        # One connection, on which the lender, two borrowers and the lender again said HELLO.
        assert len([body for _, body, _ in bus.sent(HELLO) if body[13] == CHANNEL_BUS]) == 4


@harness.test
def test_lease_tells_how_its_command_ended():
    with Bus() as bus:
        bus.run("lease", "guest", "input", "--", "sh", "-c", "kill -TERM $$", status=143)
        assert "cannot run" in bus.run("lease", "guest", "input", "--", "/nonexistent/command", status=127).stderr
        bus.run("lease", "guest", "input", status=2)
        bus.run("lease", "guest", "sleep", "--", "true", status=2)
        # A command that leaves half a frame behind cannot keep the lease.
        bus.run("lease", "guest", "input", "--", "python3", "-c",
                "import os, socket; socket.socket(fileno=int(os.environ['VMIBUS_LENT_FD'])).send(b'half')")


@harness.test
def test_hold_lasts_as_long_as_its_command():
    with Bus() as bus:
        bus.run("hold", "guest", "--", "sh", "-c", "exit 7", status=7)
        operations = [body[8] for _, body, _ in bus.sent(CMD_VM)]
        assert operations == [3, 4], operations  # HOLD, LET_GO
        bus.run("hold", "guest", "--", "true")
        bus.run("hold", "guest", status=2)
        bus.run("power", "guest", "hold", status=2)  # it would end with the call


@harness.test
def test_wrong_command_lines():
    with Bus() as bus:
        for words in ([], ["fly"], ["--fly"], ["list", "--fly"], ["list", "word"], ["read", "guest", "0"],
                      ["read", "guest", "zero", "1"], ["read", "guest", "0", "0"], ["read", "guest", "0xffffffffffffffff", "2"],
                      ["read", "guest", "0", "1", "--raw", "--json"], ["monitor", "--count", "0"], ["power", "guest", "fly"],
                      ["mouse", "guest", "fly", "1"], ["write", "guest", "0", "--hex", "00", "--token", "x"]):
            assert "vmibusctl" in bus.run(*words, status=2).stderr, words


@harness.test
def test_no_bus():
    if not os.path.exists(PROGRAM):
        harness.skip(f"{PROGRAM} is not built")
    for environment, word in (({"VMIBUS_SOCKET": "/nonexistent/bus"}, "/nonexistent/bus"), ({"VMIBUS_LENT_FD": "999"}, "VMIBUS_LENT_FD")):
        result = subprocess.run([PROGRAM, "list"], text=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=os.environ | environment)
        assert result.returncode == 3 and word in result.stderr, result.stderr


def intents(records, capacity=8, written=None):
    """An intents log as src/util/audit.h lays it out."""
    header = struct.pack("<QQQIIq", 0x0032445541494D56, capacity, len(records) if written is None else written, 7, 99, 0)
    return header.ljust(256, b"\0") + b"".join(record.ljust(256, b"\0") for record in records) + \
        bytes(256 * (capacity - len(records)))


def intent(sequence, error, address):
    return struct.pack("<QQQQIIIHHHBBIQQQQQQ", sequence, 10**9, 2 * 10**9, GENERATION, 1, 1000, 77, CMD_MEMWRITE, error, 0, 0, 0, 8,
                       TOKEN, EPOCH, 0x1000, address, 8, 3)


@harness.test
def test_p08_refused_connection_tells_limit_use_and_bound():
    limit = 50
    for error, used, bound, words in ((7, 16, 16, ["QUOTA", "16 of 16", f"uid {os.geteuid()}", "[limits]"]),
                                      (8, 900, 1024, ["PRESSURE", "900 of 1024", "a share", "[limits-total]"])):
        with Bus(closed=(error, limit, used, bound)) as bus:
            said = bus.run("list", status=10 + error).stderr
            assert all(word in said for word in ["LIMIT_CONNECTIONS", "'connections'", *words]), said
    with Bus(closed=(2, 20, 0, 0)) as bus:
        said = bus.run("list", status=12).stderr
        assert "DENIED" in said and "NO_GRANT" in said and " of 0" not in said, said


@harness.test
def test_audit():
    with Bus() as bus, tempfile.NamedTemporaryFile() as file:
        file.write(intents([intent(1, 0, 0x100), intent(2, 0xFFFF, 0x200), intent(0, 0, 0)]))
        file.flush()
        result = bus.run("audit", file.name)
        assert "8 octets at 0x100" in result.stdout and "PENDING" in result.stdout and "1 records" in result.stderr, result
        records = bus.json("audit", file.name, "--count", "2")
        assert [record["gva"] for record in records] == [0x200] and records[0]["error"] == "PENDING"
        for wrong in (b"", b"x" * 4096, intents([], capacity=8)[:512], intents([], capacity=8, written=2**64 - 1)[:-1]):
            file.seek(0)
            file.truncate()
            file.write(wrong)
            file.flush()
            assert "intents log" in bus.run("audit", file.name, status=1).stderr
        file.seek(0)
        file.write(intents([], written=2**64 - 1))
        file.flush()
        assert bus.json("audit", file.name) == []


harness.main()
