#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The service on a booted Debian: its processes and their privileges, who may use it, what becomes of it when parts of it die."""

import json
import os
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import booted
import harness
import service

# CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SYS_PTRACE
OPENER = 1 << 1 | 1 << 3 | 1 << 19

PROCESSES = {
    "vmibusd": ("vmibus", 0),
    "vmibus-memd": ("vmibus-memory", 0),
    "vmibus-opend": ("vmibus-open", OPENER),
    service.STUB: ("vmibus-sensor", 0),
}

# What 'systemd-analyze security' may say of a unit at most.
EXPOSURE = {"vmibusd": 0.6, "vmibus-memd": 0.6, "vmibus-opend": 1.5, service.STUB: 1.0}

WATCHER = """
[rule watcher]
user = watcher
endpoints = stub-0
capabilities = observe memctx mem-read input
"""


def expect_privileges(machine, unit, user, capabilities, inherited=0):
    uid = machine.run("id", "-u", user).stdout.strip()
    status = service.status(machine, unit)
    assert status["Uid"].split() == [uid] * 4, (unit, status["Uid"])
    for name in ("CapPrm", "CapEff", "CapBnd"):
        assert int(status[name], 16) == capabilities, (unit, name, status[name])
    for name in ("CapInh", "CapAmb"):
        assert int(status[name], 16) == inherited, (unit, name, status[name])
    assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", (unit, status)


@harness.test(timeout=600)
def test_each_process_has_its_user_and_capabilities():
    with booted.Machine() as machine:
        service.install(machine)
        service.await_works(machine)
        for unit, (user, capabilities) in PROCESSES.items():
            expect_privileges(machine, unit, user, capabilities)
        files = machine.run("sh", "-c", f"readlink /proc/{service.pid(machine, 'vmibusd')}/fd/*").stdout
        assert "vmibus-stub" not in files, f"memory of a guest is in the process of the bus:\n{files}"
        exposures = {entry["unit"]: float(entry["exposure"])
                     for entry in json.loads(machine.run("systemd-analyze", "security", "--json=short").stdout)}
        for unit, most in EXPOSURE.items():
            assert exposures[f"{unit}.service"] <= most, (unit, exposures)
        texts = {unit: service.show(machine, unit, "StatusText") for unit in PROCESSES}
        assert texts == {
            "vmibusd": "serving, linked to the memory authority",
            "vmibus-memd": "serving, linked to the bus",
            "vmibus-opend": "serving",
            service.STUB: "sensor stub, connected to /run/vmibus/control.sock",
        }, texts
        # What is the service's own stays among it.
        assert machine.run("stat", "-c", "%a %U %G", "/run/vmibus/opener.sock").stdout.split() == ["660", "root", "vmibus-memory"]
        for folder, (user, _) in (("vmibus", PROCESSES["vmibusd"]), ("vmibus-memory", PROCESSES["vmibus-memd"])):
            assert machine.run("stat", "-c", "%a %U", f"/var/lib/{folder}").stdout.split() == ["700", user], folder
        failed = machine.run("systemctl", "--failed", "--no-legend").stdout
        assert not failed, failed


@harness.test(timeout=600)
def test_p01_ordinary_user_has_what_a_rule_gives_and_a_reload_takes_it():
    with booted.Machine() as machine:
        service.install(machine, service.ROOT + WATCHER)
        for user in ("watcher", "stranger"):
            service.add_user(machine, user)
        service.await_works(machine)
        names = [vm["name"] for vm in json.loads(service.ctl(machine, "list", "--json", user="watcher", check=True).stdout)]
        assert names == ["stub-0"], names
        read = ("read", "stub-0", "0x100000", "4", "--physical")
        service.ctl(machine, *read, user="watcher", check=True)
        assert service.ctl(machine, "write", "stub-0", "0x100000", "--physical", "--hex", "31", user="watcher").returncode != 0
        assert service.ctl(machine, *read, user="stranger").returncode != 0

        # One SIGHUP to the bus reaches the memory authority too, by the unit.
        holder = machine.popen("setpriv", "--reuid", "watcher", "--regid", "watcher", "--init-groups",
                               "vmibusctl", "lease", "stub-0", "input", "--", "sleep", "600", stdin=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        held = lambda: "HELD" in service.ctl(machine, "info", "stub-0").stdout
        service.await_true(machine, "the lease is held", held)
        machine.write("/etc/vmibus/vmibusd.conf", service.CONFIGURATION + service.ROOT)
        machine.run("systemctl", "reload", "vmibusd")
        service.await_true(machine, "the lease is revoked", lambda: not held())
        service.await_true(machine, "reading is denied",
                           lambda: service.ctl(machine, *read, user="watcher").returncode != 0)
        service.await_works(machine, "32333435")
        holder.kill()
        holder.wait()


@harness.test(timeout=600)
def test_process_that_stands_still_is_started_anew():
    with booted.Machine() as machine:
        service.install(machine)
        for unit in ("vmibusd", "vmibus-memd", "vmibus-opend", "vmibus-sensord@"):
            machine.write(f"/etc/systemd/system/{unit}.service.d/watchdog.conf", "[Service]\nWatchdogSec=2\n")
        machine.run("systemctl", "daemon-reload")
        service.await_works(machine)
        for unit in PROCESSES:
            before = service.pid(machine, unit)
            machine.run("sh", "-c", f"kill -STOP {before}")
            service.await_true(machine, f"{unit} is another process",
                               lambda: service.pid(machine, unit) not in (0, before))
            service.await_works(machine)
        killed = machine.run("journalctl", "--no-pager", "-o", "cat", "-u", "vmibus*", "-g", "Watchdog timeout").stdout
        assert killed.count("Watchdog timeout") >= len(PROCESSES), killed


@harness.test(timeout=600)
def test_p06_what_is_killed_comes_back():
    with booted.Machine() as machine:
        service.install(machine)
        service.await_works(machine)
        for unit in PROCESSES:
            before, epoch = service.pid(machine, unit), service.epoch(machine)
            machine.run("sh", "-c", f"kill -KILL {before}")
            service.await_true(machine, f"{unit} is another process",
                               lambda: service.pid(machine, unit) not in (0, before))
            service.await_works(machine)
            # An opener keeps nothing; with any other, what was known of the memory goes.
            assert (service.epoch(machine) == epoch) == (unit == "vmibus-opend"), (unit, service.journal(machine))
        failed = machine.run("systemctl", "--failed", "--no-legend").stdout
        assert not failed, failed


@harness.test(timeout=600)
def test_stopping_the_socket_stops_all():
    with booted.Machine() as machine:
        service.install(machine)
        service.await_works(machine)
        machine.run("systemctl", "stop", "vmibusd.socket")
        service.await_true(machine, "all have ended", lambda: not any(service.pid(machine, unit) for unit in PROCESSES))
        left = machine.run("find", "/run/vmibus", "-type", "s").stdout
        assert not left, left
        machine.run("systemctl", "start", "vmibusd.socket")
        service.await_works(machine)


@harness.test(timeout=600)
def test_sensor_that_is_not_configured_does_not_run():
    with booted.Machine() as machine:
        machine.install("vmibus-sensor-stub")
        assert service.ctl(machine, "list").returncode == 0
        service.await_true(machine, "the sensor was looked at",
                           lambda: service.show(machine, service.STUB, "ConditionTimestampMonotonic") != "0")
        service.await_true(machine, "it is left out", lambda: service.show(machine, service.STUB, "ActiveState") == "inactive")
        machine.write("/etc/vmibus/vmibusd.conf.d/20-stub.conf", service.CONFIGURATION)
        machine.run("systemctl", "restart", "vmibusd")
        service.await_true(machine, "it runs", lambda: service.pid(machine, service.STUB) != 0)


@harness.test(timeout=600)
def test_libvirt_that_comes_later_lets_the_sensors_in():
    with booted.Machine() as machine:
        service.install(machine)
        service.await_works(machine)
        before = {unit: service.pid(machine, unit) for unit in ("vmibus-opend", service.STUB)}
        # What is left of an installation of libvirt, as far as it matters here.
        machine.run("groupadd", "--system", "libvirt")
        machine.run("dpkg-trigger", "--by-package=libvirt-daemon", "/usr/sbin/libvirtd")
        machine.run("dpkg", "--configure", "--pending")
        assert "libvirt" in machine.run("id", "-Gn", "vmibus-sensor").stdout.split()
        service.await_true(machine, "opener and sensor are other processes",
                           lambda: all(service.pid(machine, unit) not in (0, pid) for unit, pid in before.items()))
        group = machine.run("getent", "group", "libvirt").stdout.split(":")[2]
        assert group in service.status(machine, service.STUB)["Groups"].split()
        service.await_works(machine)


@harness.test(timeout=600)
def test_all_in_one_process():
    with booted.Machine() as machine:
        service.install(machine)
        service.await_works(machine)
        machine.run("systemctl", "disable", "--now", "vmibusd.socket")
        machine.run("systemctl", "enable", "--now", "vmibusd-alone.socket")
        service.await_works(machine)
        expect_privileges(machine, "vmibusd-alone", "vmibus", OPENER, inherited=OPENER)
        service.await_true(machine, "all others have ended", lambda: not any(service.pid(machine, unit) for unit in PROCESSES))


@harness.test(timeout=600)
def test_journal_explains():
    with booted.Machine() as machine:
        service.install(machine)
        service.await_works(machine)
        fields = "MESSAGE_ID=c3cd021d95c94cb1a6eda6d38319b9ea"

        def entries():
            lines = machine.run("journalctl", "--no-pager", "-o", "json", fields, check=False).stdout.splitlines()
            return [json.loads(line) for line in lines]

        service.await_true(machine, "a command is in the journal",
                           lambda: any(entry["VMIBUS_COMMAND"] == "CMD_MEMWRITE" for entry in entries()))
        entry = [entry for entry in entries() if entry["VMIBUS_COMMAND"] == "CMD_MEMWRITE"][0]
        assert entry["VMIBUS_ENDPOINT"] == "stub-0" and entry["VMIBUS_UID"] == "0", entry
        assert entry["SYSLOG_IDENTIFIER"] == "vmibus-memd", entry
        text = machine.run("journalctl", "--no-pager", "-x", fields).stdout
        assert "gave the command CMD_MEMWRITE" in text and "man:vmibus-audit(5)" in text, text


METRICS = """[rule metrics]
user = vmibus-metrics
capabilities = stats observe
"""


@harness.test(timeout=600)
def test_promtool_accepts_the_file_and_people_see_the_same():
    if not shutil.which("promtool"):
        harness.skip("there is no promtool (Debian: prometheus)")
    with booted.Machine() as machine:
        service.install(machine, service.ROOT + METRICS)
        service.await_works(machine)
        machine.run("systemctl", "start", "vmibus-metrics-textfile.service")
        text = machine.read("/var/lib/vmibus-metrics/vmibus.prom")
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        # It prints what it does not like, and does not fail for all of that.
        assert checked.returncode == 0 and not checked.stdout + checked.stderr, checked
        top = service.ctl(machine, "top", "--count", "1", check=True).stdout
        for vm in json.loads(service.ctl(machine, "list", "--json", check=True).stdout):
            assert f'vmibus_vm_running{{vm="{vm["name"]}"' in text and vm["name"] in top, (vm, text, top)


@harness.test(timeout=600)
def test_metrics():
    with booted.Machine() as machine:
        service.install(machine, service.ROOT + METRICS)
        service.await_works(machine)
        machine.run("systemctl", "start", "vmibus-metrics-textfile.service")
        text = machine.read("/var/lib/vmibus-metrics/vmibus.prom")
        assert "vmibus_up 1\n" in text and 'vmibus_vm_running{vm="stub-0"' in text, text
        assert machine.run("stat", "-c", "%a %U", "/var/lib/vmibus-metrics/vmibus.prom").stdout.split() == ["644", "vmibus-metrics"]
        machine.run("systemctl", "enable", "--now", "vmibus-metrics-textfile.timer", "vmibus-metrics.socket")
        perl = ("use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => '/run/vmibus/metrics.sock') or die; "
                "shutdown($s, 1); print while <$s>;")
        answer = machine.run("perl", "-e", perl, check=False)
        assert answer.returncode == 0 and "vmibus_up 1\n" in answer.stdout, answer
        assert int(service.status(machine, "vmibus-metrics")["CapPrm"], 16) == 0
        # A bus that is away is a fact to be told, not a failure.
        machine.run("systemctl", "stop", "vmibusd.socket")
        machine.run("systemctl", "start", "vmibus-metrics-textfile.service")
        assert "vmibus_up 0\n" in machine.read("/var/lib/vmibus-metrics/vmibus.prom")


def restart(times):
    """Restarts the bus under load, and under a control that must miss nothing."""
    with booted.Machine() as machine:
        service.install(machine)
        service.await_works(machine)
        monitor = service.Monitor(machine)
        load = service.Background(machine, "while :; do vmibusctl power stub-1 pause; vmibusctl power stub-1 resume; done")
        pids = set()
        for _ in range(times):
            machine.run("systemctl", "restart", "vmibusd")
            pids.add(service.pid(machine, "vmibusd"))
            service.await_works(machine)
        load.stop()
        assert len(pids) == times, pids
        monitor.finish()


@harness.test(timeout=600)
def test_p07_restarts_lose_nothing():
    restart(10)


@harness.test(full=True, timeout=3600)
def test_p07_a_hundred_restarts_lose_nothing():
    restart(100)


harness.main()
