#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl type by layout, shown right in a guest: a console with the same layout gets the text that was typed.

The console's keymap is made here from libxkbcommon's by another way than the product takes: level by level, for the kernel's
own tables; dead keys are put together by the kernel.
"""

import base64
import ctypes
import ctypes.util
import os
import struct
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bed"))

import bed
import harness

TEXTS = {
    "us": r"""The quick brown fox: "jumps" over {the} [lazy] <dog> ~`!@#$%^&*()_+-=|\/?'; 0123456789""",
    "de": r"""Zyklus: "Grüße" an Öl & Übermut, Straße 42 @home {[]} \ ~ | <> ^ ` ' #*+ µ²³ é è ê á §$%/()=? 0123456789 yzYZ""",
    "fr": r"""Voilà: "ça" coûte l'été, où qu'il aille; @ # {[]} \ ~ | ^ ` $ % * ! § £ µ ê ë ï ü û 0123456789 azqwAZQW""",
}

# Linux, include/uapi/linux/keyboard.h: K(type, value), and characters as U(x) = x ^ 0xf000.
DEAD = {0xfe50: 0x400, 0xfe51: 0x401, 0xfe52: 0x402, 0xfe53: 0x403, 0xfe57: 0x404, 0xfe5b: 0x405}  # K(KT_DEAD, ...)
SHIFTS = 7
HOLE = 0x200  # K_HOLE: the key says nothing


def open_xkb():
    name = ctypes.util.find_library("xkbcommon")
    if not name:
        harness.skip("there is no libxkbcommon")
    library = ctypes.CDLL(name)
    for function, result in (("xkb_context_new", ctypes.c_void_p), ("xkb_keymap_new_from_names", ctypes.c_void_p),
                             ("xkb_keymap_key_get_syms_by_level", ctypes.c_int), ("xkb_keysym_to_utf32", ctypes.c_uint32)):
        getattr(library, function).restype = result
    return library


class Names(ctypes.Structure):
    _fields_ = [(name, ctypes.c_char_p) for name in ("rules", "model", "layout", "variant", "options")]


def keysyms(library, layout):
    """The keysym of each key on each of four levels: plain, Shift, AltGr, both."""
    context = ctypes.c_void_p(library.xkb_context_new(0))
    names = Names(b"evdev", b"pc105", layout.encode(), b"", b"")
    keymap = library.xkb_keymap_new_from_names(context, ctypes.byref(names), 0)
    if not keymap:
        harness.skip(f"libxkbcommon does not know the layout {layout}")
    for code in range(1, 128):
        for level in range(4):
            symbols = ctypes.POINTER(ctypes.c_uint32)()
            n = library.xkb_keymap_key_get_syms_by_level(ctypes.c_void_p(keymap), code + 8, 0, level, ctypes.byref(symbols))
            if n == 1:
                yield code, level, symbols[0]


def keymap_of(library, layout, old):
    """A keymap as busybox loads it, in which characters and dead keys are the layout's and all else stays."""
    # Shift and AltGr must be keys in every table, or the kernel would not see them let go.
    modifiers = [entry if entry >> 8 == SHIFTS else HOLE for entry in old[0]]
    tables = {level: list(old.get(level, modifiers)) for level in range(4)}
    for code, level, symbol in keysyms(library, layout):
        character = library.xkb_keysym_to_utf32(symbol)
        if symbol in DEAD:
            tables[level][code] = DEAD[symbol]
        elif 0x20 < character < 0xf000 and character != 0x7f and code not in range(71, 84):
            tables[level][code] = character ^ 0xf000 if character > 0xff else character
    flags = bytes(1 if i in tables or i in old else 0 for i in range(256))
    merged = {**old, **tables}
    return b"bkeymap" + flags + b"".join(struct.pack("<128H", *merged[i]) for i in sorted(merged))


def parse_keymap(octets):
    assert octets[:7] == b"bkeymap", octets[:16]
    at, tables = 7 + 256, {}
    for i in range(256):
        if octets[7 + i]:
            tables[i] = struct.unpack("<128H", octets[at:at + 256])
            at += 256
    return tables


def run(scene, command):
    """Runs a command in the guest; gives its output."""
    return "\n".join(line[4:] for line in scene.ask("exec " + command) if line.startswith("OUT "))


def send(scene, octets, path):
    run(scene, f"rm -f {path}")
    text = base64.b64encode(octets).decode()
    for at in range(0, len(text), 400):
        run(scene, f"echo {text[at:at + 400]} >> {path}.64")
    run(scene, f"base64 -d {path}.64 > {path}; rm {path}.64")


def typed(scene, layout, text, delay):
    """Types a line at the console; gives what somebody who reads there got."""
    run(scene, "rm -f /tmp/typed; (head -n 1 < /dev/tty1 > /tmp/typed.new; mv /tmp/typed.new /tmp/typed) > /dev/null 2>&1 &")
    scene.ctl("type", "guest", text, "--layout", layout, "--delay", delay)
    scene.ctl("key", "guest", "enter")
    deadline = time.monotonic() + harness.scale(60)
    while "there" not in run(scene, "[ -e /tmp/typed ] && echo there"):
        assert time.monotonic() < deadline, (layout, run(scene, "ls -l /tmp; cat /tmp/typed.new"))
        time.sleep(0.2)
    return base64.b64decode(run(scene, "base64 /tmp/typed").replace("\n", "")).decode().rstrip("\n")


@harness.test(timeout=400)
def test_text_is_shown_right_by_layout():
    library = open_xkb()
    with bed.Scene(memory="512M") as scene:
        scene.wait_ready()
        old = parse_keymap(base64.b64decode(run(scene, "dumpkmap < /dev/tty1 | base64").replace("\n", "")))
        for layout, text in TEXTS.items():
            send(scene, keymap_of(library, layout, old), "/tmp/keymap")
            run(scene, "loadkmap < /tmp/keymap")
            # A guest on a busy host may be slow to read its keyboard.
            for delay in (40, 200, 600):
                got = typed(scene, layout, text, delay)
                if got == text:
                    break
            assert got == text, (layout, got, text)
        keep = os.environ.get("VMIBUS_KEEP_PICTURE")
        if keep:
            scene.ctl("screenshot", "guest", keep, "--force")


harness.main()
