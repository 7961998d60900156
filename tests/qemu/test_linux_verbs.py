#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibusctl ps, files, sockets, and --pid, on a real guest: what they print is what the guest's own /proc says."""

import os
import re
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bed"))

import bed
import harness


def facts(lines, word):
    """Lines of the agent that begin with a word, as dictionaries."""
    return [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines if line.startswith(word + " ")]


def variables(scene):
    """The last that agent and child have said of their variable: it is at the same address in both."""
    with open(os.path.join(scene.guest, "serial.log"), encoding="utf-8", errors="replace") as file:
        return {fact["comm"]: fact for fact in facts(file.read().splitlines(), "VAR") if "gpa" in fact}


def start_crowd(scene):
    """Starts the agent's crowd. Gives the pid of its first process, when its last thread is there."""
    scene.ask("crowd")
    deadline = time.monotonic() + harness.scale(120)
    while time.monotonic() < deadline:
        for line in scene.ask("tasks"):
            if "comm=fifteen octets!" in line:
                return int(re.search(r" tgid=(\d+)", line).group(1))
    raise AssertionError("the crowd has not come together")


def check_ps(scene, crowd):
    listed = {task["pid"]: task for task in scene.json("ps", "guest", "--quiesce")}
    said = {int(fact["pid"]): fact for fact in facts(scene.ask("tasks"), "TASK") if fact["pid"] == fact["tgid"]}
    assert {pid for pid in said if said[pid]["kthread"] == "0"} == {pid for pid in listed if not listed[pid]["kernel"]}
    assert all(set(task["picture"]) == {"ENDED", "STEADY"} for task in listed.values())
    assert listed[crowd]["uid"] == 1001 and listed[crowd]["euid"] == 1002 and listed[crowd]["gid"] == 2001
    assert "Z" in {task["state"] for task in listed.values() if task["ppid"] == crowd}
    inner, = (task for task in listed.values() if task["comm"] == "inner")
    assert inner["nested"][1] == 1 and len(inner["nested"]) == 2

    mediated = {task["pid"]: task["cr3"] for task in scene.json("ps", "guest", "--mediated") if not task["kernel"]}
    assert mediated == {task["pid"]: task["cr3"] for task in listed.values() if not task["kernel"]}, mediated

    threads = scene.json("ps", "guest", "--threads", "--quiesce")
    assert {"crowd-one", "crowd-two", "fifteen octets!"} <= {task["comm"] for task in threads if task["tgid"] == crowd}
    text = scene.ctl("ps", "guest", "--tree", "--arguments", "--quiesce").stdout
    assert re.match(r"PID +PPID +UID +S +START +CR3 +COMMAND\n", text), text
    assert re.search(r"^1 +0 .* /init$", text, re.M), text
    assert re.search(rf"^{crowd} +1 .* \\_ /init crowd two words  last$", text, re.M), text
    assert re.search(r"^2 +0 .* \[kthreadd\]$", text, re.M), text


def check_one(scene, crowd):
    process = scene.json("ps", "guest", crowd)
    assert process["arguments"] == ["/init", "crowd", "two words", "", "last"], process
    assert process["environment"] == ["CROWD=everybody", "EMPTY="], process
    assert process["program"] == "/init" and process["directory"] == "/tmp/inside", process
    text = scene.ctl("ps", "guest", crowd).stdout
    assert re.search(r"^directory +/tmp/inside$", text, re.M) and re.search(r"^environment +EMPTY=$", text, re.M), text
    answer = scene.ctl("ps", "guest", 4000000, status=6)
    assert "there is no process 4000000" in answer.stderr, answer.stderr
    scene.ctl("ps", "guest", "one", status=2)
    scene.ctl("ps", "guest", crowd, "--tree", status=2)


def check_files(scene, crowd):
    listed = {file["fd"]: file for file in scene.json("files", "guest", crowd)}
    said = {int(fact["fd"]): fact for fact in facts(scene.ask(f"fds {crowd}"), "FD")}
    assert set(listed) == set(said), set(listed) ^ set(said)
    for fd, fact in said.items():
        assert listed[fd]["flags"] == int(fact["flags"], 0) and listed[fd]["position"] == int(fact["pos"]), (listed[fd], fact)
    assert listed[900]["name"] == "/tmp/crowd file", listed[900]
    text = scene.ctl("files", "guest").stdout
    assert re.search(rf"^{crowd} +crowd +900 +rw +5 +/tmp/crowd file$", text, re.M), text
    assert re.search(r"^1 +vmibus-agent +\d+ ", text, re.M), text


def check_sockets(scene, crowd):
    listed = scene.json("sockets", "guest")
    listening = {(socket["kind"], socket["local_address"], socket["local_port"]) for socket in listed if socket["state"] == "LISTEN"
                 and "local_port" in socket}
    assert listening == {("tcp", "127.0.0.1", 7001), ("tcp6", "::1", 7002)}, listening
    assert {"/tmp/crowd.socket", "@crowd"} <= {socket.get("name") for socket in listed}, listed
    assert all(socket["pid"] == crowd and socket["comm"] == "crowd" for socket in listed if socket["state"] == "LISTEN"), listed
    text = scene.ctl("sockets", "guest", "--listening").stdout
    assert re.search(rf"^tcp6 +LISTEN +\[::1\]:7002 +\[::\]:\* +0 +\d+ +{crowd}/crowd fd \d+ and 6 more$", text, re.M), text
    assert "ESTABLISHED" not in text


def check_pid(scene, crowd):
    agent, child = (variables(scene)["vmibus-" + who] for who in ("agent", "child"))
    assert agent["gva"] == child["gva"] and agent["value"] != child["value"]
    for fact in (agent, child):
        read = scene.json("read", "guest", fact["gva"], 8, "--pid", fact["pid"])
        assert int.from_bytes(bytes.fromhex(read["data"]), "little") == int(fact["value"], 16), (read, fact)
        translation = scene.json("translate", "guest", fact["gva"], "--pid", fact["pid"])
        assert translation["gpa"] == int(fact["gpa"], 16), (translation, fact)
    scene.ctl("write", "guest", child["gva"], "--pid", child["pid"], "--hex", "1122334455667788")
    deadline = time.monotonic() + harness.scale(60)
    while variables(scene)["vmibus-child"]["value"] != "0x8877665544332211":
        assert time.monotonic() < deadline, variables(scene)
        time.sleep(0.1)
    assert variables(scene)["vmibus-agent"]["value"] == agent["value"]
    read = scene.json("read", "guest", child["gva"], 8, "--pid", child["pid"], "--mediated")
    assert read["data"] == "1122334455667788", read
    found = scene.json("search", "guest", "1122334455667788", "--hex", "--pid", child["pid"], "--to", "0x7fffffffffff")
    assert int(child["gva"], 16) in found["gvas"], (found, child)
    answer = scene.ctl("read", "guest", child["gva"], 8, "--pid", 2, status=1)
    assert "has no address space of its own" in answer.stderr, answer.stderr
    scene.ctl("read", "guest", child["gva"], 8, "--pid", 4000000, status=6)
    for other in (["--cr3", "0x1000"], ["--physical"]):
        scene.ctl("read", "guest", "0x1000", 8, "--pid", crowd, *other, status=2)
        scene.ctl("write", "guest", "0x1000", "--hex", "00", "--pid", crowd, *other, status=2)
    scene.ctl("translate", "guest", "0x1000", "--pid", "x", status=2)


@harness.test
def test_verbs_say_what_the_guest_says():
    with bed.Scene(memory="512M", append="pti=on") as scene:
        scene.wait_ready()
        crowd = start_crowd(scene)
        check_ps(scene, crowd)
        check_one(scene, crowd)
        check_files(scene, crowd)
        check_sockets(scene, crowd)
        check_pid(scene, crowd)


@harness.test
def test_other_systems_have_no_processes():
    with bed.Scene(firmware_only=True) as scene:
        for verb in ("ps", "files", "sockets"):
            answer = scene.ctl(verb, "guest", status=None)
            assert answer.returncode >= 10 and answer.stderr, (answer.returncode, answer.stderr)


harness.main()
