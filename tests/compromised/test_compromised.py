#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What whoever has taken over vmibusd can do: system calls that the tests choose, made in the sandboxed process (src/transport/
compromised.h), among processes that each have a user of their own.  He is after the memory of a guest that no connected principal
may touch, and after the host.  What he can do all the same stands at the end."""

import atexit
import ctypes
import errno
import json
import os
import signal
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import topology
import wire
from attacker import NUMBERS, At, Attacker, Died, Of, Program

import harness

_hosts = []
FDS = range(3, 64)
CLOEXEC = os.O_CLOEXEC
REFUSED = {"EACCES", "EPERM"}


def shared():
    """A host for all tests, whose vmibusd serves, and whose guest is as it was."""
    if not _hosts:
        host = topology.Host()
        _hosts.append(host.__enter__())
        atexit.register(host.__exit__)
    host = _hosts[0]
    if not host.works():
        host.revive()
    topology.wait_for(host.works, f"the permitted user's memory: {host.logs()}")
    return host


def expect_refused(results, what):
    assert results and set(results) <= REFUSED, (what, results)


# --- what it is ------------------------------------------------------------------------------------


@harness.test
def test_the_build_says_what_it_is():
    host = shared()
    assert "WAS BUILT TO BE TAKEN OVER" in host.log("vmibusd"), host.log("vmibusd")


@harness.test
def test_chosen_code_is_executed():
    """Without this, nothing below would mean anything."""
    host = shared()
    attack = host.attack()
    assert attack.call("getpid") == host.pid("vmibusd")
    assert attack.call("getuid") == topology.BUS


@harness.test
def test_p09_it_has_no_capability():
    host = shared()
    with open(f"/proc/{host.pid('vmibusd')}/status", encoding="utf-8") as stream:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in stream if ":\t" in line)
    assert all(int(status[name], 16) == 0 for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")), status
    assert status["NoNewPrivs"].strip() == "1" and status["Seccomp"].strip() == "2", status


# --- guest memory ----------------------------------------------------------------------------------


def ram_of(pid):
    """Device and inode of the guest's RAM, by what QEMU has mapped."""
    with open(f"/proc/{pid}/maps", encoding="utf-8") as stream:
        found = {tuple(line.split()[3:5]) for line in stream if "memfd:" in line}
    assert found
    return found


@harness.test
def test_p09_no_descriptor_is_guest_memory():
    host = shared()
    pid = host.pid("vmibusd")
    inodes = {int(inode) for _, inode in ram_of(host.pid("qemu"))}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        assert os.stat(f"/proc/{pid}/fd/{fd}").st_ino not in inodes, os.readlink(f"/proc/{pid}/fd/{fd}")
    with open(f"/proc/{pid}/maps", encoding="utf-8") as stream:
        assert not [line for line in stream if tuple(line.split()[3:5]) in ram_of(host.pid("qemu"))]
    assert [fd for fd in os.listdir(f"/proc/{host.pid('vmibus-memd')}/fd")
            if os.stat(f"/proc/{host.pid('vmibus-memd')}/fd/{fd}").st_ino in inodes], "the authority has none either"


@harness.test
def test_p09_memory_of_other_processes():
    host = shared()
    attack, found = host.attack(), {}
    for name in ("qemu", "vmibus-memd", "vmibus-opend", "vmibus-sensord"):
        program, calls = Program(), {}
        piece = program.put(struct.pack("<QQ", 0, 4096))
        program.pointer(piece, program.room(4096))
        pid = host.pid(name)
        for path, flags in (("mem", os.O_RDONLY), ("mem", os.O_RDWR), ("maps", os.O_RDONLY), ("pagemap", os.O_RDONLY),
                            ("environ", os.O_RDONLY), ("fd", os.O_RDONLY | os.O_DIRECTORY), ("fd/0", os.O_RDONLY),
                            ("root/etc/passwd", os.O_RDONLY), ("cwd/etc/passwd", os.O_RDONLY)):
            calls[path, flags] = program.call("openat", -100, program.text(f"/proc/{pid}/{path}"), flags)
        calls["process_vm_writev"] = program.call("process_vm_writev", pid, piece, 1, piece, 1, 0)
        names = attack.run(program).names()
        found.update({(name, what): names[index] for what, index in calls.items()})
    assert set(found.values()) <= REFUSED, found
    assert host.is_untouched()


def memory_channel(host, hello):
    """What the memory authority answers whoever runs in vmibusd: a kind and the name of an error."""
    program = Program()
    address = program.put(struct.pack("<H", socket.AF_UNIX) + os.fsencode(host.path("memory", "memory.sock")) + b"\0")
    octets, room = program.put(hello), program.room(wire.SIZE)
    fd = program.call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
    connected = program.call("connect", Of(fd), address, len(host.path("memory", "memory.sock")) + 3)
    program.call("sendto", Of(fd), octets, len(hello), 0, 0, 0)
    got = program.call("recvfrom", Of(fd), room, wire.SIZE, socket.MSG_WAITALL, 0, 0)
    program.call("close", Of(fd))
    outcome = host.attack().run(program)
    assert outcome.results[connected] == 0 and outcome.results[got] == wire.SIZE, outcome.names()
    kind, _, body = wire.parse(outcome.at(room, wire.SIZE))
    return kind, wire.error_name(body["error"]) if kind == "ERROR" else None


@harness.test
def test_p09_memory_socket_as_somebody_else():
    """With the session of whoever may, which the bus knows, from a process whose uid may not."""
    host = shared()
    permitted = Attacker(host.path("bus", "control.sock"), topology.PERMITTED)
    session = permitted.body["session"]
    assert memory_channel(host, wire.hello("CONTROL", "MEMORY", session)) == ("ERROR", "DENIED")
    assert memory_channel(host, wire.hello("SENSOR", "MEMORY", session)) == ("ERROR", "DENIED")
    assert memory_channel(host, wire.hello("BUS", "LINK")) == ("ERROR", "BUSY")
    assert host.is_untouched()


def sockets_of(attack):
    """The sockets of the process by descriptor: what is at either end, and the other's uid."""
    program, places = Program(), []
    length = struct.pack("<I", 110)
    for fd in FDS:
        own, peer, who = program.room(112), program.room(112), program.room(12)
        sizes = [program.put(length), program.put(length), program.put(struct.pack("<I", 12))]
        calls = [program.call("getsockname", fd, own, sizes[0]), program.call("getpeername", fd, peer, sizes[1]),
                 program.call("getsockopt", fd, socket.SOL_SOCKET, socket.SO_PEERCRED, who, sizes[2])]
        places.append((fd, own, peer, who, calls))
    outcome = attack.run(program)

    def path(at):
        return outcome.at(at, 112)[2:].split(b"\0")[0].decode()

    return {fd: (path(own), outcome.results[calls[1]] == 0, path(peer), struct.unpack("<3i", outcome.at(who, 12))[1])
            for fd, own, peer, who, calls in places if outcome.results[calls[0]] == 0}


def link_of(host, attack):
    return next(fd for fd, (_, _, peer, _) in sockets_of(attack).items() if peer == host.path("memory", "memory.sock"))


class Accomplice:
    """A control without a right to the guest, whom the bus helps: a memory channel of a session that the bus makes up."""

    def __init__(self, host, session):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(topology.PATIENCE)
        os.setegid(topology.CONTROL)
        os.seteuid(topology.CONTROL)
        try:
            self.socket.connect(host.path("memory", "memory.sock"))
        finally:
            os.seteuid(0)
            os.setegid(0)
        assert self.ask(wire.hello("CONTROL", "MEMORY", session), "WELCOME")

    def ask(self, octets, wanted):
        self.socket.sendall(octets)
        while True:
            answer = b""
            while len(answer) < wire.SIZE:
                piece = self.socket.recv(wire.SIZE - len(answer))
                assert piece, "the connection ended"
                answer += piece
            kind, header, body = wire.parse(answer)
            left = header["tail_length"]
            while left:
                left -= len(self.socket.recv(left))
            if kind in (wanted, "ERROR"):
                assert kind == wanted, wire.error_name(body["error"])
                return body


def forge(attack, fd, *frames):
    program = Program()
    octets = b"".join(frames)
    sent = program.call("sendto", fd, program.put(octets), len(octets), 0, 0, 0)
    assert attack.run(program).results[sent] == len(octets)


def epoch_of(host):
    return json.loads(host.ctl(topology.PERMITTED, "info", topology.VM, "--json").stdout)["memctx"]["epoch"]


def attempts(accomplice, place, epoch, token):
    """What the memory authority says to reading and writing the guest, by the names of errors."""
    header = {"slot": place[0], "generation": place[1], "correlation": 7}
    commands = {
        "attach": wire.frame("MEM_ATTACH", header=header, epoch=epoch),
        "read": wire.frame("MEM_READ", header=header, epoch=epoch, gva=topology.MARKER_AT, len=8, buffer=1,
                           flags=wire.flag("memread_flags", "PHYSICAL")),
        "write": wire.frame("CMD_MEMWRITE", header=header, epoch=epoch, gva=topology.MARKER_AT, len=8, token=token, data=b"taken ov",
                            flags=wire.flag("memwrite_flags", "PHYSICAL")),
    }
    return {what: wire.error_name(accomplice.ask(octets, "ACK")["error"]) for what, octets in commands.items()}


@harness.test
def test_p09_forged_word_to_the_authority():
    """Another UUID, another name, a session and a fence that the bus makes up, for a control that helps it."""
    host = shared()
    attack, place, epoch = host.attack(), host.address(), epoch_of(host)
    link, session, token = link_of(host, attack), b"made up by a bus", 1 << 62
    header = {"slot": place[0], "generation": place[1]}
    uuid = bytes.fromhex(topology.OTHER_UUID.replace("-", ""))
    forge(attack, link, wire.frame("SESSION_OPENED", session=session, uid=topology.CONTROL, pid=os.getpid(),
                                   role=wire.enumerator("role", "CONTROL")),
          wire.frame("ENDPOINT_OPENED", b"other1", header=header, uuid=uuid),
          wire.frame("FENCE_ISSUE", header=header, token=token, session=session, uid=topology.CONTROL))
    accomplice = Accomplice(host, session)
    found = attempts(accomplice, place, epoch, token)
    assert set(found.values()) == {"DENIED"}, found
    assert host.is_untouched()


@harness.test
def test_p09_endpoint_under_another_name():
    """Closed, and opened anew as a machine that the accomplice may touch: its memory does not come with it."""
    host = shared()
    attack, place, epoch = host.attack(), host.address(), epoch_of(host)
    link, session, token = link_of(host, attack), b"made up by a bus", 1 << 62
    header = {"slot": place[0], "generation": place[1]}
    forge(attack, link, wire.frame("SESSION_OPENED", session=session, uid=topology.CONTROL, pid=os.getpid(),
                                   role=wire.enumerator("role", "CONTROL")),
          wire.frame("ENDPOINT_CLOSED", header=header), wire.frame("ENDPOINT_OPENED", b"other1", header=header),
          wire.frame("FENCE_ISSUE", header=header, token=token, session=session, uid=topology.CONTROL))
    found = attempts(Accomplice(host, session), place, epoch, token)
    assert "OK" not in found.values(), found
    assert host.is_untouched()
    host.revive()


@harness.test
def test_p09_opener_and_monitor():
    """The opener answers the authority only, the monitor the sensor only."""
    host = shared()
    attack = host.attack()
    program = Program()
    path = host.path("opener", "opener.sock")
    request = struct.pack("<IHHQQIIIIQII", 0x4e504f56, 1, 3, 1, 0, host.pid("qemu"), 0, 0, 0, 0, 0, 0)
    fd = program.call("socket", socket.AF_UNIX, socket.SOCK_SEQPACKET, 0)
    program.call("connect", Of(fd), program.put(struct.pack("<H", socket.AF_UNIX) + os.fsencode(path) + b"\0"), len(path) + 3)
    program.call("sendto", Of(fd), program.put(request), len(request), socket.MSG_NOSIGNAL, 0, 0)
    header, data, _ = program.message(b"\0" * 64, room_for_descriptors=1)
    got = program.call("recvmsg", Of(fd), header, 0)
    outcome = attack.run(program)
    control = struct.unpack("<Q", outcome.at(At(header.offset + 40), 8))[0]
    assert outcome.results[got] <= 0 and (outcome.results[got] < 0 or control == 0), (outcome.names(), outcome.at(data, 64))
    for name in ("monitor", "oracle"):
        program, path = Program(), host.path("guests", name)
        fd = program.call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
        connected = program.call("connect", Of(fd), program.put(struct.pack("<H", socket.AF_UNIX) + os.fsencode(path) + b"\0"),
                                 len(path) + 3)
        assert attack.run(program).names()[connected] == "EACCES"


def socket_of(attack, pid):
    """The descriptor by which a process is connected to the one that was taken over."""
    program, places = Program(), {}
    for fd in FDS:
        who = program.room(12)
        places[fd] = who, program.call("getsockopt", fd, socket.SOL_SOCKET, socket.SO_PEERCRED, who,
                                       program.put(struct.pack("<I", 12)))
    outcome = attack.run(program)
    return next((fd for fd, (who, call) in places.items()
                 if outcome.results[call] == 0 and struct.unpack("<3i", outcome.at(who, 12))[0] == pid), None)


def lure(host, attack, path):
    """Plays the bus to the sensor, which is told that memory is at a path; what the sensor says to it there, or None."""
    found = sockets_of(attack)
    listening = next(fd for fd, (own, connected, _, _) in found.items()
                     if own == host.path("bus", "control.sock") and not connected)
    sensor = topology.wait_for(lambda: socket_of(attack, host.pid("vmibus-sensord")), "the sensor qemu")
    kind, header, body = wire.parse(attack.welcome_octets)
    assert kind == "WELCOME"
    welcome = wire.frame("WELCOME", os.fsencode(path), header={"priority": header["priority"], "correlation": 1}, **body)
    program = Program()
    ready = program.put(struct.pack("<ihh", listening, 1, 0))
    program.call("close", sensor)
    program.call("poll", ready, 1, 30000)
    first = program.call("accept4", listening, 0, 0, CLOEXEC)
    said, again = program.room(wire.SIZE), program.room(wire.SIZE)
    program.call("recvfrom", Of(first), said, wire.SIZE, socket.MSG_WAITALL, 0, 0)
    program.call("sendto", Of(first), program.put(welcome), len(welcome), socket.MSG_NOSIGNAL, 0, 0)
    # It comes to where it was sent, or hangs up and tries again: either way there is a connection.
    program.call("poll", ready, 1, 30000)
    second = program.call("accept4", listening, 0, 0, CLOEXEC)
    got = program.call("recvfrom", Of(second), again, wire.SIZE, socket.MSG_WAITALL, 0, 0)
    outcome = attack.run(program)
    assert outcome.results[got] == wire.SIZE, outcome.names()
    return [wire.parse(outcome.at(at, wire.SIZE))[2] for at in (said, again)]


@harness.test
def test_p09_sensor_is_not_lured_away():
    """A sensor gives what it has to the authority that its administrator names, and to none that the bus does."""
    host = shared()
    said = lure(host, host.attack(), host.path("bus", "control.sock"))
    assert [hello["channel"] for hello in said] == [wire.enumerator("channel", "BUS")] * 2, said
    assert "names another memory authority" in host.log("vmibus-sensord"), host.log("vmibus-sensord")
    host.revive()


def watch(host):
    """What the sensor watch answers a bus that has it look at the guest's memory for nobody. None: it has no answer yet."""
    attack, place = host.attack(), host.address()
    end = socket_of(attack, host.pid("vmibus-sensord-watch"))
    if end is None:
        return None
    program, octets = Program(), wire.frame("WATCH", header={"slot": place[0], "generation": place[1], "correlation": 1 << 60},
                                            address=topology.MARKER_AT, len=8, watch=1 << 30,
                                            operation=wire.enumerator("watch_operation", "ADD"),
                                            flags=wire.flag("watch_flags", "PHYSICAL"))
    ready, room = program.put(struct.pack("<ihh", end, 1, 0)), program.room(wire.SIZE)
    program.call("sendto", end, program.put(octets), len(octets), socket.MSG_NOSIGNAL, 0, 0)
    program.call("poll", ready, 1, 30000)
    got = program.call("recvfrom", end, room, wire.SIZE, 0, 0, 0)
    outcome = attack.run(program)
    if outcome.results[got] != wire.SIZE:
        return None
    kind, header, body = wire.parse(outcome.at(room, wire.SIZE))
    return wire.error_name(body["error"]) if kind == "ACK" and header["correlation"] == 1 << 60 else None


def has_watched(host):
    """The same, once the sensor knows of the guest's memory."""
    return topology.wait_for(lambda: next((name for name in [watch(host)] if name in ("OK", "DENIED")), None), "an answer")


@harness.test
def test_p09_sensor_reads_nothing_for_the_bus_that_no_rule_lets_it():
    host = shared()
    assert has_watched(host) == "DENIED"
    assert has_watched(host) == "DENIED", "it asked once more"
    host.revive()


@harness.test
def test_what_a_rule_lets_a_sensor_read_the_bus_reads_by_it():
    """So the one before can fail."""
    host = shared()
    with open(host.path("etc", "vmibusd.conf"), "a", encoding="utf-8") as stream:
        stream.write(f"[rule sensors]\nuser = {topology.SENSOR}\nendpoints = {topology.VM}\ncapabilities = ram-fd\n")
    host.processes["vmibus-memd"].send_signal(signal.SIGHUP)
    topology.wait_for(lambda: "the policy was read anew" in host.log("vmibus-memd"), host.log("vmibus-memd"))
    assert has_watched(host) == "OK"
    host.revive()


# --- the host --------------------------------------------------------------------------------------


def killing(host):
    """Calls of which the process dies, by name, with arguments that would do harm."""
    qemu, memd = host.pid("qemu"), host.pid("vmibus-memd")
    network = [("socket", family, socket.SOCK_STREAM, 0) for family in
               (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_PACKET, socket.AF_VSOCK)]
    return network + [
        ("ptrace", 16, qemu, 0, 0), ("ptrace", 0x4206, memd, 0, 0), ("process_vm_readv", qemu, 0, 0, 0, 0, 0),
        ("pidfd_getfd", 3, 0, 0), ("process_madvise", 3, 0, 0, 0, 0), ("kcmp", qemu, memd, 0, 0, 0),
        ("execve", 0, 0, 0), ("execveat", -100, 0, 0, 0, 0), ("clone", signal.SIGCHLD, 0, 0, 0, 0), ("fork",), ("vfork",),
        ("clone", 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0), ("unshare", 0x10000000), ("setns", 3, 0),
        ("kill", host.pid("vmibus-sensord"), signal.SIGKILL), ("kill", -1, signal.SIGKILL),
        ("tgkill", host.pid("vmibus-sensord"), host.pid("vmibus-sensord"), signal.SIGKILL), ("tkill", 1, 9),
        ("rt_sigqueueinfo", host.pid("vmibus-sensord"), 9, 0), ("pidfd_send_signal", 3, signal.SIGKILL, 0, 0),
        ("fcntl", 2, 8, host.pid("vmibus-sensord")), ("ioctl", 2, 0x8901, 0), ("ioctl", 0, 0x5412, 0),
        ("prlimit64", host.pid("vmibus-sensord"), 7, 0, 0), ("sched_setaffinity", 1, 0, 0), ("setpriority", 0, 1, 0),
        ("io_uring_setup", 1, 0), ("bpf", 0, 0, 0), ("perf_event_open", 0, qemu, -1, -1, 0), ("userfaultfd", 0),
        ("mount", 0, 0, 0, 0, 0), ("chroot", 0), ("pivot_root", 0, 0), ("open_by_handle_at", 0, 0, 0),
        ("name_to_handle_at", 0, 0, 0, 0, 0), ("init_module", 0, 0, 0), ("kexec_load", 0, 0, 0, 0), ("add_key", 0, 0, 0, 0, 0),
        ("keyctl", 0, 0, 0, 0, 0), ("setuid", 0), ("capset", 0, 0), ("personality", 0x0400000), ("chmod", 0, 0o777),
        ("chown", 0, 0, 0), ("symlink", 0, 0), ("link", 0, 0), ("mknod", 0, 0, 0), ("bind", 3, 0, 0), ("listen", 3, 1),
        ("shmget", 1, 4096, 0), ("msgget", 1, 0), ("landlock_create_ruleset", 0, 0, 1), ("seccomp", 1, 0, 0),
        ("move_pages", qemu, 0, 0, 0, 0, 0), ("arch_prctl", 0x1002, 0), ("modify_ldt", 0, 0, 0), ("reboot", 0, 0, 0, 0),
    ]


@harness.test(timeout=300)
def test_p09_calls_that_end_the_process():
    host = shared()
    for name, *arguments in killing(host):
        if name not in NUMBERS:
            continue
        try:
            result = host.attack().call(name, *arguments)
        except Died:
            pass
        else:
            raise AssertionError(f"{name}{tuple(arguments)} returned {result}")
        assert host.processes["vmibusd"].wait(timeout=topology.PATIENCE) == -signal.SIGSYS, name
        assert f"({name}) is not declared by any part of this program" in host.log("vmibusd"), (name, host.log("vmibusd")[-400:])
        host.start("vmibusd")
    topology.wait_for(host.works, "the service")
    assert host.is_untouched()


@harness.test
def test_p09_files():
    host = shared()
    attack = host.attack()
    host_wide = host.path("guests", "shared")
    with open(host_wide, "w", encoding="utf-8") as stream:
        stream.write("x")
    os.chmod(host_wide, 0o666)
    assert b"rule permitted" in attack.read_file(host.path("etc", "vmibusd.conf"))
    refused = {}
    for path, flags in ((host_wide, os.O_RDONLY), (host_wide, os.O_WRONLY), ("/etc/shadow", os.O_RDONLY),
                        (host.path("etc", "vmibusd.conf"), os.O_WRONLY), (host.path("memory-state", "incarnation"), os.O_RDONLY),
                        (host.path("memory-state", "audit", "bus.log"), os.O_RDWR), (host.path("sensor-state"), os.O_RDONLY),
                        (host.path("guests", "monitor"), os.O_RDWR), ("/usr/bin/env", os.O_RDONLY), ("/dev/kvm", os.O_RDWR),
                        ("/dev/mem", os.O_RDWR), ("/dev/shm/taken", os.O_RDWR | os.O_CREAT), ("/tmp/taken", os.O_RDWR | os.O_CREAT),
                        ("/etc/taken", os.O_RDWR | os.O_CREAT), ("/proc/sys/kernel/core_pattern", os.O_WRONLY),
                        ("/proc/sysrq-trigger", os.O_WRONLY), ("/proc/kcore", os.O_RDONLY), ("/root", os.O_RDONLY)):
        result = attack.read_file(path, flags=flags)
        refused[path, flags] = errno.errorcode.get(-result, result) if isinstance(result, int) else "read"
    assert set(refused.values()) <= REFUSED | {"ENOENT"}, refused
    assert not [path for (path, _), result in refused.items() if result == "ENOENT" and os.path.exists(path)], refused
    for name in ("memory", "opener", "guests"):
        program = Program()
        gone = program.call("unlinkat", -100, program.text(host.path(name, f"{name}.sock")), 0)
        assert attack.run(program).names()[gone] in REFUSED | {"ENOENT"}, name
    assert os.path.exists(host.path("memory", "memory.sock")) and os.path.exists(host.path("opener", "opener.sock"))


@harness.test
def test_p09_nothing_becomes_executable():
    attack = shared().attack()
    program = Program()
    page = program.call("mmap", 0, 4096, 3, 0x22, -1, 0)
    made = [program.call("mmap", 0, 4096, 7, 0x22, -1, 0), program.call("mmap", 0, 4096, 5, 0x22, -1, 0),
            program.call("mprotect", Of(page), 4096, 5)]
    names = attack.run(program).names()
    expect_refused([names[index] for index in made], names)


@harness.test
def test_p09_sockets_that_are_no_files():
    host = shared()
    name = b"\0vmibus-taken-" + os.urandom(8).hex().encode()
    attack = host.attack()
    if landlock_version() < 6:
        harness.skip("this kernel's Landlock leaves abstract sockets within reach")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
        end.bind(name)
        end.listen(1)
        program = Program()
        fd = program.call("socket", socket.AF_UNIX, socket.SOCK_STREAM, 0)
        connected = program.call("connect", Of(fd), program.put(struct.pack("<H", socket.AF_UNIX) + name), 2 + len(name))
        assert attack.run(program).names()[connected] == "EPERM"


def landlock_version():
    return ctypes.CDLL(None, use_errno=True).syscall(NUMBERS["landlock_create_ruleset"], None, ctypes.c_size_t(0), 1)


@harness.test
def test_p09_the_ring_does_nothing_else():
    """The one that records are written by is known to no filter of system calls: it takes no other work, and no other is made."""
    host = shared()
    attack, pid = host.attack(), host.pid("vmibusd")
    rings = [int(fd) for fd in os.listdir(f"/proc/{pid}/fd") if "io_uring" in os.readlink(f"/proc/{pid}/fd/{fd}")]
    if not rings:
        harness.skip("records are not written by a ring here")
    program = Program()
    ends = program.room(8)
    program.call("pipe2", ends, CLOEXEC)
    queue = program.call("mmap", 0, 4096, 3, 1, rings[0], 0)
    entries = program.call("mmap", 0, 4096, 3, 1, rings[0], 0x10000000)
    outcome = attack.run(program)
    addresses, pair = (outcome.results[queue], outcome.results[entries]), struct.unpack("<2i", outcome.at(ends, 8))
    assert min(addresses) > 0, outcome.names()
    program = Program()
    page = program.room(4096)
    program.call("write", pair[1], addresses[0], 4096)
    program.call("read", pair[0], page, 4096)
    octets = bytearray(attack.run(program).at(page, 4096))
    # Offsets of a ring of this kernel: struct io_rings is head and tail of both queues, each on a cache line of its own.
    tail = struct.unpack_from("<I", octets, 4)[0]
    struct.pack_into("<I", octets, 4, tail + 1)
    entry = struct.pack("<BBHiQQIIQ", 45, 0, 0, socket.AF_INET, socket.SOCK_STREAM, 0, 0, 0, 0x7777).ljust(64, b"\0") * 4
    program = Program()
    for address, what in ((addresses[1], entry), (addresses[0], bytes(octets[:64]))):
        program.call("write", pair[1], program.put(what), len(what))
        program.call("read", pair[0], address, len(what))
    entered = program.call("io_uring_enter", rings[0], 1, 0, 0, 0, 0)
    program.call("write", pair[1], addresses[0], 4096)
    program.call("read", pair[0], program.room(4096), 4096)
    registered = program.call("io_uring_register", rings[0], 2, program.room(64), 1)
    outcome = attack.run(program)
    completions = outcome.data[-4096 - 64:]
    found = completions.find(struct.pack("<Q", 0x7777))
    assert found >= 0, (outcome.names(), tail)
    result = struct.unpack_from("<i", completions, found + 8)[0]
    assert result == -errno.EACCES, errno.errorcode.get(-result, result)
    assert outcome.names()[entered] == 1 and outcome.names()[registered] == "EACCES", outcome.names()
    host.revive()


# --- what works all the same -----------------------------------------------------------------------


@harness.test
def test_users_are_looked_up_in_the_sandbox():
    """A reload asks for users and groups by name, and a control's rights are read from /proc."""
    host = shared()
    with open(host.path("etc", "vmibusd.conf"), "a", encoding="utf-8") as stream:
        stream.write("[rule named]\nuser = nobody\ncapabilities = observe\n[rule of-a-group]\ngroup = daemon\ncapabilities = observe\n")
    for name in ("vmibusd", "vmibus-memd"):
        host.processes[name].send_signal(signal.SIGHUP)
        topology.wait_for(lambda name=name: "the policy was read anew" in host.log(name), host.log(name))
    assert host.works(), host.logs()


@harness.test
def test_what_it_can_still_do():
    """Its own state is its own: it can be filled and spoilt. It need not go when it is told to: only SIGKILL is not its to take."""
    host = shared()
    attack = host.attack()
    program = Program()
    octets = program.put(b"x" * 65536)
    fd = program.call("openat", -100, program.text(host.path("bus-state", "taken")), os.O_RDWR | os.O_CREAT, 0o600)
    written = [program.call("write", Of(fd), octets, 65536) for _ in range(16)]
    outcome = attack.run(program)
    assert all(outcome.results[index] == 65536 for index in written), outcome.names()
    program = Program()
    program.call("poll", 0, 0, -1)
    attack.send(program)
    pid = host.pid("vmibusd")
    topology.wait_for(lambda: open(f"/proc/{pid}/wchan", encoding="utf-8").read().find("poll") >= 0 or
                      open(f"/proc/{pid}/syscall", encoding="utf-8").read().startswith(f"{NUMBERS['poll']} "), "the standstill")
    host.terminate("vmibusd")
    assert host.processes["vmibusd"].poll() is None
    assert host.is_untouched()
    host.revive()
    topology.wait_for(host.works, "the service")


harness.main()
