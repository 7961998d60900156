#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl dump of a real guest, read back by this test, by readelf, and by crash where its debug kernel is installed."""

import os
import random
import shutil
import struct
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bed"))

import bed
import harness

PT_LOAD, PT_NOTE, NT_PRSTATUS = 1, 4, 1


class Core:
    """An ELF core, as this test reads it."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.octets = memoryview(file.read(1 << 20)).toreadonly()
        self.file = open(path, "rb")
        assert self.octets[:4] == b"\x7fELF"
        kind, machine = struct.unpack_from("<HH", self.octets, 16)
        assert (kind, machine) == (4, 62)
        offset, = struct.unpack_from("<Q", self.octets, 32)
        size, count = struct.unpack_from("<HH", self.octets, 54)
        self.segments = [struct.unpack_from("<IIQQQQQQ", self.octets, offset + size * index) for index in range(count)]
        self.loads = [segment for segment in self.segments if segment[0] == PT_LOAD]

    def notes(self):
        """The notes: (name, type, octets)."""
        found = []
        for kind, _, offset, _, _, size, _, _ in self.segments:
            end = offset + size
            while kind == PT_NOTE and offset < end:
                name_size, size, number = struct.unpack_from("<III", self.octets, offset)
                name = bytes(self.octets[offset + 12:offset + 12 + name_size]).rstrip(b"\0").decode()
                offset += 12 + (name_size + 3 & ~3)
                found.append((name, number, bytes(self.octets[offset:offset + size])))
                offset += size + 3 & ~3
        return found

    def read(self, gpa, size):
        """Guest-physical memory."""
        for _, _, offset, _, begin, length, _, _ in self.loads:
            if begin <= gpa and gpa + size <= begin + length:
                self.file.seek(offset + gpa - begin)
                return self.file.read(size)
        raise AssertionError(f"{gpa:#x} is not in the core")


def crash_with(core, version, *commands):
    """What crash says to these commands; skips where it, or its kernel, is not installed."""
    kernel = f"/usr/lib/debug/boot/vmlinux-{version}"
    if not shutil.which("crash"):
        harness.skip("crash is not installed")
    if not os.path.exists(kernel):
        harness.skip(f"the debug kernel is not installed: {kernel} (package linux-image-{version}-dbg)")
    answer = subprocess.run(["crash", "-s", kernel, core], input="\n".join((*commands, "quit")) + "\n", capture_output=True,
                            text=True, timeout=harness.scale(240), check=False)
    return answer.stdout + answer.stderr


def check_notes(scene, core, memctx):
    notes = core.notes()
    texts = [octets.decode() for name, _, octets in notes if name == "VMCOREINFO"]
    assert len(texts) == 1 and texts[0].startswith("OSRELEASE="), notes
    statuses = [octets for name, number, octets in notes if (name, number) == ("CORE", NT_PRSTATUS)]
    assert len(statuses) == 2, "one for each vCPU"
    release = texts[0].split("\n", 1)[0].removeprefix("OSRELEASE=")
    assert core.read(memctx["note"], 20).startswith(b"OSRELEASE=")
    return release


def check_memory(scene, core, memctx):
    """Page tables and text stand still: what is in the core is what the guest has."""
    for gpa in (memctx["cr3"], memctx["note"]):
        now = scene.ctl("read", "guest", hex(gpa), "64", "--physical", "--raw", text=False).stdout
        assert core.read(gpa, 64)[:64] == now
    for load in core.loads:
        for _ in range(8):
            gpa = load[4] + random.randrange(load[5] // 4096) * 4096
            core.read(gpa, 4096)


@harness.test(timeout=600)
def test_dump_of_a_running_guest():
    with bed.Scene(memory="512M", smp=2) as scene:
        memctx = scene.wait_ready()
        path = os.path.join(scene.directory, "guest.core")
        told = scene.json("dump", "guest", path)
        assert told["note"] and told["len"] == memctx["ram_size"] and told["unreadable"] == 0, told
        status = os.stat(path)
        assert status.st_mode & 0o777 == 0o600
        assert status.st_blocks * 512 < status.st_size, "the file has holes"
        core = Core(path)
        release = check_notes(scene, core, memctx)
        assert sum(load[5] for load in core.loads) == memctx["ram_size"]
        check_memory(scene, core, memctx)
        assert scene.qmp("query-status")["running"]
        refused = scene.ctl("dump", "guest", path, status=1)
        assert "exists" in refused.stderr
        scene.ctl("dump", "guest", path, "--force", "--quiesce")
        assert scene.qmp("query-status")["running"], "it goes on afterwards"
        readelf = subprocess.run(["readelf", "-h", "-l", "-n", path], capture_output=True, text=True, check=False)
        assert "CORE (Core file)" in readelf.stdout and "VMCOREINFO" in readelf.stdout, readelf
        assert not readelf.stderr, readelf.stderr
        processes = {fields["comm"] for fields in scene.facts("VAR")}
        # Its own `ps` knows two tasks of this kernel only, in a dump of QEMU's too: the list is followed instead.
        said = crash_with(path, release, "list task_struct.tasks -s task_struct.comm -h init_task")
        for comm in processes | {"kthreadd"}:
            assert comm in said, (comm, said[-4000:])


@harness.test(timeout=600)
def test_dump_of_private_ram_goes_through_the_authority():
    with bed.Scene(memory="256M", ram="private") as scene:
        memctx = scene.wait_ready()
        path = os.path.join(scene.directory, "guest.core")
        told = scene.json("dump", "guest", path)
        assert told["len"] == memctx["ram_size"] and told["unreadable"] == 0, told
        core = Core(path)
        assert core.read(memctx["note"], 20).startswith(b"OSRELEASE=")


@harness.test(timeout=300)
def test_dump_that_fails_leaves_nothing():
    with bed.Scene(memory="256M", firmware_only=True) as scene:
        scene.wait_memctx("PENDING", "READY")
        path = os.path.join(scene.directory, "no", "such", "folder")
        scene.ctl("dump", "guest", path, status=None)
        assert not os.path.exists(path)
        full = scene.ctl("dump", "guest", "/dev/full", status=1)
        assert "exists" in full.stderr


harness.main()
