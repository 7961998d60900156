# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a peer has a vmibusd of the build --enable-compromised-parser execute: lists of system calls (src/transport/compromised.h)."""

import errno
import os
import re
import socket
import struct
import subprocess

import wire

KIND = 0x7ffe
NUMBER, DATA, RESULT = 0, 1, 2


def _numbers():
    """System calls of this machine by name."""
    command = [*(os.environ.get("CC") or "cc").split(), "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", "/dev/null"]
    text = subprocess.run(command, text=True, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", text)}


NUMBERS = _numbers()


class Died(Exception):
    """The daemon closed the connection, or ended, in the middle of what it was told to do."""


class At:
    """An argument: the address of octets of the program's data."""

    def __init__(self, offset):
        self.offset = offset


class Of:
    """An argument: the result of a call before."""

    def __init__(self, call):
        self.call = call


class Program:
    """Calls, and the data that they point to."""

    def __init__(self):
        self.calls, self.patches, self.data = [], [], bytearray()

    def put(self, octets):
        """Adds data, aligned to 8 octets."""
        self.data += b"\0" * (-len(self.data) % 8)
        self.data += octets
        return At(len(self.data) - len(octets))

    def text(self, string):
        return self.put(os.fsencode(string) + b"\0")

    def room(self, n):
        return self.put(b"\0" * n)

    def pointer(self, at, to):
        """Has the data hold an address of data."""
        self.patches.append((at.offset, to.offset))

    def call(self, name, *arguments):
        """Adds a call; its number in the order is what Of() wants."""
        number = NUMBERS[name] if isinstance(name, str) else name
        values, meanings = [0] * 6, [NUMBER] * 8
        for i, argument in enumerate(arguments):
            if isinstance(argument, At):
                values[i], meanings[i] = argument.offset, DATA
            elif isinstance(argument, Of):
                values[i], meanings[i] = argument.call, RESULT
            else:
                values[i] = argument & (1 << 64) - 1
        self.calls.append(struct.pack("<7Q8B", number, *values, *meanings))
        return len(self.calls) - 1

    def message(self, octets, room_for_descriptors=0):
        """A struct msghdr with one piece of data: (header, data, control)."""
        data = self.put(octets)
        piece = self.put(struct.pack("<QQ", 0, len(octets)))
        self.pointer(piece, data)
        control = self.room(64)
        header = self.put(struct.pack("<QIIQQQQII", 0, 0, 0, 0, 1, 0, 64 if room_for_descriptors else 0, 0, 0))
        self.pointer(At(header.offset + 16), piece)
        if room_for_descriptors:
            self.pointer(At(header.offset + 32), control)
        return header, data, control

    def octets(self):
        return struct.pack("<4I", len(self.calls), len(self.patches), len(self.data), 0) + b"".join(self.calls) + \
            b"".join(struct.pack("<II", *patch) for patch in self.patches) + bytes(self.data)


class Outcome:
    """Results in the order of the calls, negative errno for failures, and the data afterwards."""

    def __init__(self, n_calls, octets):
        self.results = struct.unpack_from(f"<{n_calls}q", octets)
        self.data = octets[8 * n_calls:]

    def at(self, at, n):
        return self.data[at.offset:at.offset + n]

    def names(self):
        """The results, failures by name."""
        return [errno.errorcode.get(-result, result) if result < 0 else result for result in self.results]


class Attacker:
    """A control that has the daemon execute what it likes."""

    def __init__(self, path, uid):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(60)
        os.setegid(uid)
        os.seteuid(uid)
        try:
            self.socket.connect(path)
        finally:
            os.seteuid(0)
            os.setegid(0)
        self.socket.sendall(wire.hello())
        kind, self.welcome, self.body, self.welcome_octets, _ = self.receive()
        assert kind == "WELCOME", (kind, self.body)

    def _read(self, n):
        octets = b""
        while len(octets) < n:
            try:
                piece = self.socket.recv(n - len(octets))
            except ConnectionResetError:
                piece = b""
            if not piece:
                raise Died
            octets += piece
        return octets

    def receive(self):
        """The next frame: kind, header, body, its octets, its tail."""
        octets = self._read(wire.SIZE)
        kind, header, body = wire.parse(octets)
        return kind, header, body, octets, self._read(header["tail_length"])

    def send(self, program):
        self.socket.sendall(wire.frame(KIND, program.octets()))

    def run(self, program):
        """Has a program executed, and waits for its outcome."""
        try:
            self.send(program)
        except (BrokenPipeError, ConnectionResetError):
            raise Died from None
        while True:
            kind, _, _, _, tail = self.receive()
            if kind == KIND:
                return Outcome(len(program.calls), tail)

    def call(self, name, *arguments, program=None):
        """One call; its result."""
        program = program or Program()
        index = program.call(name, *arguments)
        return self.run(program).results[index]

    def read_file(self, path, n=65536, flags=os.O_RDONLY):
        """The octets of a file, or a negative errno."""
        program = Program()
        room = program.room(n)
        fd = program.call("openat", -100, program.text(path), flags)
        got = program.call("read", Of(fd), room, n)
        program.call("close", Of(fd))
        outcome = self.run(program)
        if outcome.results[fd] < 0:
            return outcome.results[fd]
        return outcome.at(room, outcome.results[got]) if outcome.results[got] >= 0 else outcome.results[got]

    def close(self):
        self.socket.close()
