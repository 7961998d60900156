#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares our reader of BTF with bpftool, an independent one: every named member of every structure of installed kernels."""

import glob
import json
import lzma
import os
import shutil
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness

READER = os.path.join(harness.top_builddir(), "tests/guest_lib/btf_members")
MODIFIERS = {"TYPEDEF", "VOLATILE", "CONST", "RESTRICT", "TYPE_TAG"}
STRUCTURES = {"STRUCT", "UNION"}


def unpack(image):
    """The kernel's ELF file out of its compressed image; None if it is packed in a way that is not known here."""
    at = image.find(b"\xfd7zXZ\x00")
    while at >= 0:
        try:
            data = lzma.LZMADecompressor().decompress(image[at:])
        except lzma.LZMAError:
            data = b""
        if data[:4] == b"\x7fELF":
            return data
        at = image.find(b"\xfd7zXZ\x00", at + 1)
    at = image.find(b"\x02\x21\x4c\x18")
    if at >= 0 and shutil.which("lz4"):
        data = subprocess.run(["lz4", "-dc"], input=image[at:], capture_output=True, check=False).stdout
        if data[:4] == b"\x7fELF":
            return data
    return None


def section(elf, wanted):
    """The octets of a section of a 64-bit ELF file."""
    offset, = struct.unpack_from("<Q", elf, 0x28)
    number, names = struct.unpack_from("<HH", elf, 0x3c)
    headers = [struct.unpack_from("<IIQQQQIIQQ", elf, offset + 64 * i) for i in range(number)]
    for header in headers:
        name = headers[names][4] + header[0]
        if elf[name:elf.index(b"\0", name)] == wanted:
            return elf[header[4]:header[4] + header[5]]
    return None


class Oracle:
    """What bpftool says of a file of BTF."""

    def __init__(self, path):
        text = subprocess.run(["bpftool", "-j", "btf", "dump", "file", path], capture_output=True, check=True).stdout
        self.types = {entry["id"]: entry for entry in json.loads(text)["types"]}

    def resolve(self, number):
        while number in self.types and self.types[number]["kind"] in MODIFIERS:
            number = self.types[number]["type_id"]
        return self.types.get(number)

    def size(self, number):
        entry = self.resolve(number)
        if entry is None:
            return None
        if entry["kind"] == "PTR":
            return 8
        if entry["kind"] == "ARRAY":
            size = self.size(entry["type_id"])
            return None if size is None else size * max(entry["nr_elems"], 1)
        return entry.get("size")

    def members(self, entry, base=0):
        """Yields name, bit offset, type and size in bits, of bit fields, through nameless structures."""
        for member in entry["members"]:
            inner = self.resolve(member["type_id"])
            if member["name"] != "(anon)":
                yield member["name"], base + member["bits_offset"], member["type_id"], member.get("bitfield_size", 0)
            elif inner and inner["kind"] in STRUCTURES:
                yield from self.members(inner, base + member["bits_offset"])

    def structures(self):
        """The first structure of each name, in the order of ids."""
        first = {}
        for number in sorted(self.types):
            entry = self.types[number]
            if entry["kind"] in STRUCTURES and entry["name"] != "(anon)":
                first.setdefault(entry["name"], entry)
        # A typedef of the same name that stands for a nameless structure comes first if its id does.
        for number in sorted(self.types):
            entry = self.types[number]
            if entry["kind"] == "TYPEDEF" and entry["name"] in first and number < first[entry["name"]]["id"]:
                target = self.resolve(number)
                if target and target["kind"] in STRUCTURES and target["name"] == "(anon)":
                    del first[entry["name"]]
        return first

    def questions(self):
        """Yields questions and the answers to them."""
        for name, entry in self.structures().items():
            yield name, str(entry["size"])
            asked = set()
            for member, bit, number, bits in self.members(entry):
                size = self.size(number)
                if member in asked or not size:
                    continue
                asked.add(member)
                if bits:
                    yield f"{name} {member}", f"{bit // 8} {(bit % 8 + bits + 7) // 8} {bit % 8} {bits}"
                else:
                    yield f"{name} {member}", f"{bit // 8} {size} 0 0"


def compare(path):
    pairs = list(Oracle(path).questions())
    answers = subprocess.run([READER, path], input="".join(f"{question}\n" for question, _ in pairs), capture_output=True,
                             text=True, check=True).stdout.splitlines()
    assert len(answers) == len(pairs)
    wrong = [(question, answer, ours) for (question, answer), ours in zip(pairs, answers) if answer != ours]
    assert not wrong, f"{len(wrong)} of {len(pairs)} differ, such as {wrong[:5]}"
    assert len(pairs) > 10000, len(pairs)


def need_bpftool():
    if not shutil.which("bpftool", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
        harness.skip("there is no bpftool (Debian: bpftool)")
    os.environ["PATH"] += ":/usr/sbin:/sbin"


@harness.test(timeout=300)
def test_installed_kernels():
    need_bpftool()
    compared = 0
    for image in sorted(glob.glob("/boot/vmlinuz-*")):
        if not os.access(image, os.R_OK):
            continue
        with open(image, "rb") as stream:
            elf = unpack(stream.read())
        btf = section(elf, b".BTF") if elf else None
        if btf is None:
            continue
        with tempfile.NamedTemporaryFile() as file:
            file.write(btf)
            file.flush()
            compare(file.name)
        compared += 1
    if not compared:
        harness.skip("no kernel with BTF is installed that can be unpacked here")


@harness.test(timeout=120)
def test_the_kernel_that_runs_here():
    need_bpftool()
    if not os.access("/sys/kernel/btf/vmlinux", os.R_OK):
        harness.skip("the kernel that runs here has no BTF to read")
    compare("/sys/kernel/btf/vmlinux")


harness.main()
