#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl search on a real guest: finds what the guest says stands there, at the addresses that it says, and nothing else."""

import os
import pty
import re
import secrets
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bed"))

import bed
import harness

PAGE = 4096
FILLING = "c7"
BANNER = "Linux version "


def first(pattern, lines):
    return int(re.search(pattern, "\n".join(lines)).group(1), 16)


def check_kernel_text(scene):
    """The kernel's banner, which is in its symbols' text: found by virtual and by physical address."""
    gva = first(r"addr=(0x[0-9a-f]+) .*name=linux_banner\b", scene.ask("kallsyms linux_banner"))
    found = scene.json("search", "guest", BANNER)
    assert gva in found["gvas"] and found["complete"], (hex(gva), found)
    gpa = scene.json("translate", "guest", hex(gva))["gpa"]
    physical = scene.json("search", "guest", BANNER, "--physical")
    assert gpa in physical["gpas"] and physical["complete"] and "cr3" not in physical, (hex(gpa), physical)
    text = scene.ctl("search", "guest", BANNER, "--from", hex(gva), "--to", hex(gva + len(BANNER))).stdout
    assert text == f"0x{gva:016x}\n", text
    # An octet less, and there is no room for it; an address more, and it has begun.
    scene.ctl("search", "guest", BANNER, "--from", hex(gva), "--to", hex(gva + len(BANNER) - 1), status=6)
    scene.ctl("search", "guest", BANNER, "--from", hex(gva + 1), "--to", hex(gva + 1 + len(BANNER)), status=6)


def check_process(scene):
    """The agent's buffer, all of which has one value: found on each of its pages, by --pid alone."""
    scene.ask(f"fill 0x{FILLING}")
    fact = [fact for fact in scene.facts("BUF") if fact["pid"] == "1"][-1]
    gva, size = int(fact["gva"], 16), int(fact["len"])
    pages = list(range(gva, gva + size, PAGE))
    within = ("--hex", "--align", PAGE, "--from", hex(gva), "--to", hex(gva + size))
    whole = FILLING * PAGE
    assert scene.json("search", "guest", whole, *within, "--pid", 1)["gvas"] == pages
    assert scene.json("search", "guest", whole, *within, "--pid", 1, "--mediated")["gvas"] == pages
    masked = (FILLING[0] + "0" + "33") * 64, *within, "--mask", "f000" * 64, "--pid", 1
    assert scene.json("search", "guest", *masked)["gvas"] == pages
    assert scene.json("search", "guest", *masked, "--mediated")["gvas"] == pages
    # The kernel's address space has nothing there, and a value that differs in one octet is another one.
    scene.ctl("search", "guest", whole, *within, status=6)
    scene.ctl("search", "guest", whole[:-2] + "c6", *within, "--pid", 1, status=6)

    gpas = [int(gpa, 16) for gpa in re.findall(r" gpa=(0x[0-9a-f]+)", "\n".join(scene.ask(f"pagemap 1 {hex(gva)} {len(pages)}")))]
    assert len(gpas) == len(pages), gpas
    found = scene.json("search", "guest", whole, "--hex", "--align", PAGE, "--physical")["gpas"]
    assert set(gpas) <= set(found), (gpas, found)
    near = ("--physical", "--from", hex(gpas[0]), "--to", hex(gpas[0] + PAGE))
    assert scene.json("search", "guest", whole, "--hex", *near, "--mediated")["gpas"] == [gpas[0]]

    answer = scene.ctl("search", "guest", whole, *within, "--pid", 1, "--max", 1)
    assert answer.stdout == f"0x{gva:016x}\n" and f"--from {hex(gva + 1)}" in answer.stderr, answer
    scene.ctl("search", "guest", whole, *within, "--pid", 4000000, status=6)


def search_at_terminal(scene, *words):
    """Runs a search whose standard error is a terminal; gives its exit status, its output, and what the terminal got."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([os.path.join(harness.top_builddir(), "vmibusctl"), "search", "guest", *words, "--socket", scene.socket],
                          stdout=subprocess.PIPE, stderr=theirs) as child:
        os.close(theirs)
        shown = b""
        try:
            while octets := os.read(ours, 4096):
                shown += octets
        except OSError:  # a terminal that nobody has open any more
            pass
        os.close(ours)
        output = child.stdout.read()
    return child.returncode, output, shown.decode()


def check_nothing_found(scene):
    """What stands nowhere has an exit status of its own; meanwhile a bar grows on a terminal, and goes."""
    nowhere = secrets.token_hex(32)
    for words in (), ("--physical",), ("--pid", 1):
        answer = scene.ctl("search", "guest", nowhere, "--hex", *words, status=6)
        assert answer.stdout == answer.stderr == "", answer
    # By the authority, because that takes long enough for a bar.
    status, output, shown = search_at_terminal(scene, nowhere, "--hex", "--physical", "--mediated")
    assert (status, output) == (6, b""), (status, output, shown)
    bars = re.findall(r"\r\[([#.]{30})\] +(\d+)%  searched\x1b\[K", shown)
    done = [int(percent) for _, percent in bars]
    assert bars and done == sorted(done) and done[-1] <= 100, shown
    assert all(bar == "#" * bar.count("#") + "." * bar.count(".") for bar, _ in bars), shown
    assert shown.rsplit("searched\x1b[K", 1)[1] == "\r\x1b[K", shown


@harness.test(timeout=400)
def test_search_of_a_guest():
    with bed.Scene(memory="512M") as scene:
        scene.wait_ready()
        check_kernel_text(scene)
        check_process(scene)
        check_nothing_found(scene)


harness.main()
