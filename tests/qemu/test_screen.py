#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl screenshot and regs on a real guest: the picture is what QEMU's own dump shows, the registers what its monitor says."""

import os
import re
import struct
import sys
import time
import zlib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bed"))

import bed
import harness


def read_png(octets):
    """Decodes what the sensor encodes: width, height, and the rows of pixels. Every checksum is checked."""
    assert octets[:8] == b"\x89PNG\r\n\x1a\n", octets[:8]
    at, chunks = 8, []
    while at < len(octets):
        length, kind = struct.unpack(">I4s", octets[at:at + 8])
        data = octets[at + 8:at + 8 + length]
        assert zlib.crc32(kind + data) == struct.unpack(">I", octets[at + 8 + length:at + 12 + length])[0], kind
        chunks.append((kind, data))
        at += 12 + length
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"], chunks
    width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", chunks[0][1])
    assert (depth, colour, rest) == (8, 2, [0, 0, 0]), chunks[0]
    raw, line, rows, above = zlib.decompress(chunks[1][1]), 3 * width, [], bytes(3 * width)
    assert len(raw) == height * (1 + line), len(raw)
    for y in range(height):
        assert raw[y * (1 + line)] == 2
        row = raw[y * (1 + line) + 1:(y + 1) * (1 + line)]
        above = bytes((a + b) & 255 for a, b in zip(row, above))
        rows.append(above)
    return width, height, rows


def read_ppm(octets):
    match = re.match(rb"P6\n(\d+) (\d+)\n255\n", octets)
    assert match, octets[:32]
    width, height = int(match.group(1)), int(match.group(2))
    pixels = octets[match.end():]
    assert len(pixels) == 3 * width * height
    return width, height, [pixels[y * 3 * width:(y + 1) * 3 * width] for y in range(height)]


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def check_pictures(scene):
    path = os.path.join(scene.directory, "shot.png")
    told = scene.json("screenshot", "guest", path)
    octets = read_file(path)
    assert told == {"file": path, "octets": len(octets)}, told
    assert os.stat(path).st_mode & 0o777 == 0o600
    width, height, rows = read_png(octets)
    oracle = os.path.join(scene.guest, "oracle.ppm")
    scene.qmp("screendump", filename=oracle)
    assert (width, height) == read_ppm(read_file(oracle))[:2]
    assert len({row[i:i + 3] for row in rows for i in range(0, len(row), 3)}) > 1, "one colour only"
    # Standard output is a file like any other.
    scene.ctl("screenshot", "guest", path, "--force")
    assert read_png(scene.ctl("screenshot", "guest", "-", text=False).stdout)[:2] == (width, height)
    ppm = os.path.join(scene.directory, "shot.ppm")
    scene.ctl("screenshot", "guest", ppm, "--head", 0)
    assert read_ppm(read_file(ppm))[:2] == (width, height)
    assert scene.qmp("query-fdsets") == [], "QEMU keeps descriptors"
    return path


def check_still_picture(scene):
    """While the guest stands still, ours is QEMU's, pixel by pixel."""
    scene.qmp("stop")
    path, oracle = os.path.join(scene.directory, "still.png"), os.path.join(scene.guest, "still.ppm")
    scene.ctl("screenshot", "guest", path)
    scene.qmp("screendump", filename=oracle)
    assert read_png(read_file(path)) == read_ppm(read_file(oracle))
    scene.qmp("cont")


def check_registers(scene, vcpus):
    scene.qmp("stop")
    said = scene.hmp("info registers -a")
    told = scene.json("regs", "guest")
    assert [vcpu["vcpu"] for vcpu in told] == list(range(vcpus)), told
    for vcpu, text in zip(told, said.split("CPU#")[1:]):
        for name, number in re.findall(r"\b(R[A-Z0-9]{1,2}|CR[0234]|EFER) ?=([0-9a-f]+)", text):
            name = {"RFL": "rflags"}.get(name, name.lower())
            assert vcpu[name] == int(number, 16), (name, vcpu[name], number)
        assert vcpu["cs"] == int(re.search(r"^CS =([0-9a-f]+)", text, re.M).group(1), 16)
        assert vcpu["gs_base"] == int(re.search(r"^GS =\S+ ([0-9a-f]+)", text, re.M).group(1), 16)
        assert vcpu["idt_base"] == int(re.search(r"^IDT= +([0-9a-f]+)", text, re.M).group(1), 16)
        assert vcpu["halted"] == int(re.search(r"HLT=(\d)", text).group(1))
    one = scene.json("regs", "guest", "--vcpu", vcpus - 1)
    assert one == told[vcpus - 1:], one
    text = scene.ctl("regs", "guest").stdout
    assert f"cr3 0x{told[0]['cr3']:016x}" in text, text
    answer = scene.ctl("regs", "guest", "--vcpu", vcpus, status=11)
    assert "BAD_FIELD" in answer.stderr, answer.stderr
    scene.qmp("cont")


@harness.test
def test_screen_and_registers_of_a_guest():
    with bed.Scene(memory="512M", smp=2, append="console=tty0 loglevel=7") as scene:
        scene.wait_ready()
        path = check_pictures(scene)
        check_still_picture(scene)
        check_registers(scene, 2)
        keep = os.environ.get("VMIBUS_KEEP_PICTURE")
        if keep:
            os.replace(path, keep)
        scene.ctl("screenshot", "guest", path, "--head", "x", status=2)
        answer = scene.ctl("screenshot", "guest", path, "--head", 9, status=None)
        assert answer.returncode >= 10 and scene.qmp("query-fdsets") == [], answer
        scene.ctl("screenshot", "nobody", path, status=4)


@harness.test
def test_pictures_of_several_displays():
    with bed.Scene(firmware_only=True, qemu=["-device", "virtio-gpu-pci,id=video0,max_outputs=2"]) as scene:
        path, deadline = os.path.join(scene.directory, "shot.png"), time.monotonic() + harness.scale(60)
        while scene.ctl("screenshot", "guest", path, status=None).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        read_png(read_file(path))
        scene.ctl("screenshot", "guest", path, "--head", 1, "--force")
        read_png(read_file(path))
        assert scene.ctl("screenshot", "guest", path, "--head", 2, "--force", status=None).returncode >= 10
        assert scene.qmp("query-fdsets") == []


harness.main()
