#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl mouse, as the guest's own input devices see it: places, motion, a drag from end to end, both wheels."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bed"))

import bed
import harness

KEY, RELATIVE, ABSOLUTE = 1, 2, 3
LEFT, WHEEL, HWHEEL = 0x110, 8, 6


def act(scene, enough, *words):
    """Does it, and gives what the guest saw, as (type, code, value), once that is enough."""
    before = len(scene.facts("EVDEV"))
    scene.ctl("mouse", "guest", *words)
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


harness.main()
