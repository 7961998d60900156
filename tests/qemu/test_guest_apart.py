#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Real guests with bus, memory authority and the sensor qemu in a process each."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bed"))

import bed
import apart
import harness


@harness.test(timeout=600)
def test_memory_of_a_guest_apart():
    os.environ["VMIBUS_TEST_APART"] = "1"
    with bed.Scene(memory="512M") as scene:
        context = scene.wait_ready()
        assert context["cr3"], context
        before = scene.ctl("read", "guest", "0x1000", "16", "--physical", "--raw", text=False).stdout
        assert len(before) == 16
        # What is written is what was there: no page of a running kernel is the test's to change.
        scene.ctl("write", "guest", "0x1000", "--physical", "--hex", before.hex(), "--expect", before.hex())
        scene.ctl("write", "guest", "0x1000", "--physical", "--hex", before.hex(), "--quiesce")
        assert any(task["comm"] == "init" or task["pid"] == 1 for task in scene.json("ps", "guest"))
        names = [os.readlink(f"/proc/{scene.daemon.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{scene.daemon.pid}/fd")]
        assert not [name for name in names if "memory-backend" in name or name.endswith("/mem")], names


@harness.test(timeout=900, full=True)
def test_dump_apart():
    apart.run_again("qemu", "test_dump.py", timeout=900)


@harness.test(timeout=900, full=True)
def test_maps_apart():
    apart.run_again("qemu", "test_maps.py", timeout=900)


@harness.test(timeout=900, full=True)
def test_linux_verbs_apart():
    apart.run_again("qemu", "test_linux_verbs.py", timeout=900)


harness.main()
