#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl maps on a real guest: what it prints is what the guest's own /proc/PID/maps says."""

import os
import re
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bed"))

import bed
import harness


def said_of(scene, pid):
    """The lines of the guest's /proc/PID/maps."""
    return [line[4:] for line in scene.ask(f"maps {pid}") if line.startswith("OUT ")]


def check_text(scene, pid):
    said = said_of(scene, pid)
    answer = scene.ctl("maps", "guest", pid, "--quiesce")
    # What is not for a terminal is a question mark here.
    assert answer.stdout.splitlines() == [line.replace("\t", "?") for line in said], answer.stdout
    assert answer.stderr == "", answer.stderr
    return said


def check_json(scene, pid, said):
    listed = scene.json("maps", "guest", pid)
    assert [f"{entry['start']:08x}-{entry['end']:08x} {entry['rights']} {entry['offset']:08x} {entry['device']} {entry['inode']}"
            for entry in listed] == [" ".join(line.split()[:5]) for line in said]
    names = [entry["name"] for entry in listed]
    assert "/areas/of directories/a\nb\tc\\d" in names and "/areas/gone (deleted)" in names, names
    assert all(set(entry["picture"]) == {"ENDED", "STEADY"} for entry in listed)


@harness.test(timeout=600)
def test_maps_are_those_of_proc():
    with bed.Scene(memory="512M") as scene:
        scene.wait_ready()
        pid = int(re.search(r"AREAS pid=(\d+)", "\n".join(scene.ask("areas 100"))).group(1))
        check_json(scene, pid, check_text(scene, pid))
        assert scene.ctl("maps", "guest", 2).stdout == ""
        assert "4000000" in scene.ctl("maps", "guest", 4000000, status=6).stderr
        scene.ctl("maps", "guest", "x", status=2)
        scene.ctl("maps", "guest", status=2)


@harness.test(timeout=300)
def test_other_systems_have_no_maps():
    with bed.Scene(firmware_only=True) as scene:
        answer = scene.ctl("maps", "guest", 1, status=None)
        assert answer.returncode >= 10 and answer.stderr, (answer.returncode, answer.stderr)


harness.main()
