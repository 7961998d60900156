#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl mouse and key, as the guest's own input devices see them: places, motion, a drag from end to end, both wheels,
key combinations, and what these do to the guest's console."""

import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bed"))

import bed
import harness

KEY, RELATIVE, ABSOLUTE = 1, 2, 3
LEFT, X, Y, WHEEL, HWHEEL = 0x110, 0, 1, 8, 6
LEFTCTRL, LEFTALT, F1, F2 = 29, 56, 59, 60


def act(scene, enough, *words, verb="mouse"):
    """Does it, and gives what the guest saw, as (type, code, value), once that is enough."""
    before = len(scene.facts("EVDEV"))
    scene.ctl(verb, "guest", *words)
    deadline = time.monotonic() + harness.scale(60)
    while True:
        seen = [tuple(int(fact[name]) for name in ("type", "code", "value")) for fact in scene.facts("EVDEV")[before:]]
        if enough(seen):
            return seen
        assert time.monotonic() < deadline, (words, seen)
        time.sleep(0.1)


@harness.test(timeout=240)
def test_pointer_of_a_guest():
    with bed.Scene(memory="512M", qemu=["-device", "virtio-tablet-pci"]) as scene:
        scene.wait_ready()
        scene.ask("evdev on")
        seen = act(scene, lambda seen: any(code == 1 for kind, code, _ in seen if kind == ABSOLUTE), "to", 8000, 12000)
        assert [value for kind, code, value in seen if (kind, code) == (ABSOLUTE, 0)] == [8000], seen

        seen = act(scene, lambda seen: (KEY, LEFT, 0) in seen, "drag", 1000, 2000, 30000, 20000)
        down, up = seen.index((KEY, LEFT, 1)), seen.index((KEY, LEFT, 0))
        x = [value for kind, code, value in seen if (kind, code) == (ABSOLUTE, 0)]
        y = [value for kind, code, value in seen if (kind, code) == (ABSOLUTE, 1)]
        assert down < up and x[0] == 1000 and y[0] == 2000 and x[-1] == 30000 and y[-1] == 20000, seen
        assert x == sorted(x) and y == sorted(y), seen
        assert sum(kind == ABSOLUTE for kind, _, _ in seen[down:up]) >= 8, "too little motion with the button down"

        seen = act(scene, lambda seen: (RELATIVE, WHEEL, -1) in seen, "scroll", -1)
        seen = act(scene, lambda seen: (KEY, LEFT, 0) in seen, "click", "left")
        assert seen.index((KEY, LEFT, 1)) < seen.index((KEY, LEFT, 0)), seen


def check_combination(scene, function_key, console):
    """Pressed in the order of the names, let go the other way round, and understood by the guest's console."""
    codes = [LEFTCTRL, LEFTALT, function_key]
    seen = act(scene, lambda seen: (KEY, LEFTCTRL, 0) in seen, f"ctrl-alt-f{console}", verb="key")
    # A key that is held for long on a slow host repeats itself, as value 2.
    assert [(code, value) for kind, code, value in seen if kind == KEY and value != 2] == \
        [(code, 1) for code in codes] + [(code, 0) for code in reversed(codes)], seen
    deadline = time.monotonic() + harness.scale(60)
    while f"OUT tty{console}" not in (lines := scene.ask("cat /sys/class/tty/tty0/active")):
        assert time.monotonic() < deadline, lines
        time.sleep(0.1)


def check_relative(scene, verb, first, second, expected):
    """Does something that says this much of two axes: it arrives whole, however the device cuts it into reports."""
    def told(seen):
        return tuple(sum(value for kind, code, value in seen if (kind, code) == (RELATIVE, axis)) for axis in (first, second))
    seen = act(scene, lambda seen: told(seen) == expected, verb, *expected)
    assert all(kind == RELATIVE and code in (first, second) for kind, code, _ in seen), seen


def check_motion(scene):
    for expected in (7, -5), (-300, 200):
        check_relative(scene, "move", X, Y, expected)


def devices(scene, name):
    """The guest's input devices of this name that came so far."""
    with open(os.path.join(scene.guest, "serial.log"), encoding="utf-8", errors="replace") as file:
        return [line for line in file if line.startswith("INPUT ") and name in line]


def await_device(scene, name):
    """Waits until the guest has an input device of this name."""
    deadline = time.monotonic() + harness.scale(60)
    while not devices(scene, name):
        assert time.monotonic() < deadline, name
        time.sleep(0.1)


def choose_mouse(scene, name):
    """Has QEMU give buttons and wheels to this mouse."""
    mice = scene.hmp("info mice")
    index = re.search(rf"Mouse #(\d+): {name}", mice)
    assert index, mice
    scene.hmp(f"mouse_set {index.group(1)}")


@harness.test(timeout=300)
def test_mouse_and_keyboard_of_a_guest():
    with bed.Scene(memory="512M", qemu=["-device", "pcie-root-port,id=socket"]) as scene:
        scene.wait_ready()
        scene.ask("evdev on")
        # The kernel goes to consoles only that somebody has opened.
        scene.ask("exec echo > /dev/tty2")
        check_combination(scene, F2, 2)
        check_combination(scene, F1, 1)

        # The PS/2 mouse, once the guest's driver speaks the protocol that has a second wheel.
        assert not devices(scene, "ImExPS/2")
        scene.ask("exec for port in /sys/bus/serio/drivers/psmouse/serio*; do echo -n exps > $port/protocol; done")
        await_device(scene, "ImExPS/2")
        choose_mouse(scene, "QEMU PS/2 Mouse")
        check_motion(scene)
        for expected in (2, 0), (0, 1), (-1, -2):
            check_relative(scene, "scroll", WHEEL, HWHEEL, expected)

        assert not devices(scene, "Virtio Mouse")
        scene.qmp("device_add", driver="virtio-mouse-pci", id="mouse", bus="socket")
        await_device(scene, "Virtio Mouse")
        choose_mouse(scene, "QEMU Virtio Mouse")
        check_motion(scene)
        # QEMU's virtio mouse has one wheel: what is said of the other is lost, and nothing else.
        before = len(scene.facts("EVDEV"))
        act(scene, lambda seen: (RELATIVE, WHEEL, -1) in seen, "scroll", -1, 1)
        check_motion(scene)
        assert not any(int(fact["code"]) == HWHEEL for fact in scene.facts("EVDEV")[before:])


harness.main()
