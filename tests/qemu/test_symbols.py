#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl symbols, modules, dmesg and info --linux, of a real guest, against what it says itself."""

import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bed"))

import bed
import harness

GOOD = ["ENDED", "STEADY"]


def check_symbols(scene):
    (init_task,) = scene.json("symbols", "guest", "init_task")
    assert init_task["picture"] == GOOD and init_task["size"] > 0, init_task
    assert scene.ctl("symbols", "guest", "init_task").stdout == f"0x{init_task['gva']:016x} {init_task['type']} init_task\n"
    at = scene.json("symbols", "guest", hex(init_task["gva"] + 9))
    assert (at["name"], at["offset"], at["gva"]) == ("init_task", 9, init_task["gva"]), at
    text = scene.ctl("symbols", "guest", hex(init_task["gva"] + 9)).stdout
    assert text.endswith(f" init_task+0x9/{init_task['size']:#x}\n"), text
    matching = scene.json("symbols", "guest", "--match", "evdev_open*")
    assert {"evdev"} == {symbol["module"] for symbol in matching if symbol["name"] == "evdev_open"}, matching
    assert all(symbol["name"].startswith("evdev_open") for symbol in matching)
    assert len(scene.ctl("symbols", "guest", "--quiesce").stdout.splitlines()) > 50000
    missing = scene.ctl("symbols", "guest", "no_such_symbol", status=6)
    assert "no_such_symbol" in missing.stderr and not missing.stdout
    assert "neither of the kernel nor of a module" in scene.ctl("symbols", "guest", "0x1000", status=6).stderr
    scene.ctl("symbols", "guest", "init_task", "--match", "x*", status=2)


def check_modules(scene):
    told = scene.json("modules", "guest")
    assert {"evdev", "button"} <= {module["name"] for module in told}, told
    assert all(module["state"] == "LIVE" and module["picture"] == GOOD for module in told)
    lines = scene.ctl("modules", "guest").stdout.splitlines()
    assert len(lines) == len(told) + 1 and lines[1].startswith(told[0]["name"]), lines


def check_log(scene):
    told = scene.json("dmesg", "guest")
    assert told[0]["sequence"] == 0 and told[0]["text"].startswith("Linux version "), told[0]
    assert [record["sequence"] for record in told] == list(range(len(told)))
    first = scene.ctl("dmesg", "guest", "--quiesce").stdout.splitlines()[0]
    assert first == "[    0.000000] " + told[0]["text"], first


def check_facts(scene, release):
    told = scene.json("info", "guest", "--linux")
    assert told["release"] == release and release in told["banner"], told
    assert "console=ttyS0" in told["command_line"] and len(told["build_id"]) == 40, told
    assert 0 < told["uptime"] < 10**15 and told["boot_time"] > 10**18, told
    assert f"Linux {release}" in scene.ctl("info", "guest", "--linux").stdout.splitlines()[0]
    scene.ctl("info", "guest", "--quiesce", status=2)


@harness.test(timeout=600)
def test_looking_into_a_running_guest():
    with bed.Scene(memory="512M") as scene:
        scene.wait_ready()
        release = scene.facts("KERNEL")[0]["release"]
        check_symbols(scene)
        check_modules(scene)
        check_log(scene)
        check_facts(scene, release)
        assert scene.qmp("query-status")["running"], "nothing is left standing"


@harness.test(timeout=300)
def test_p12_firmware_is_no_linux():
    with bed.Scene(memory="256M", firmware_only=True) as scene:
        for verb in ("symbols", "modules", "dmesg"):
            refused = scene.ctl(verb, "guest", status=None)
            assert refused.returncode >= 10 and refused.stderr and not refused.stdout, refused


harness.main()
