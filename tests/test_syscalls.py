#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Tests that source files declare the system calls that they make (<vmibus/syscalls.h>), and that programs carry what is declared."""

import os
import re
import struct
import subprocess

import harness

SRC = harness.top_srcdir()
BUILD = harness.top_builddir()

# What is linked into a daemon, or loaded into one. src/client is in controls too, and in vmibus-sensord.
FOLDERS = ("src", "sensors")

# Which system calls a function of the C library makes, beyond those of src/daemon/sandbox_basis.c. Where a machine has several for
# one function, all of them are declared: a name that it has not is passed over.
OPEN = "openat"
LIST = "openat getdents64"
LOOKUP = "openat socket connect sendto recvmsg getdents64"  # whatever else is looked up with: src/daemon/sandbox_lookup.c
FUNCTIONS = {
    "open": OPEN, "openat": OPEN, "fopen": OPEN, "creat": OPEN, "opendir": LIST, "fdopendir": "getdents64", "scandir": LIST,
    "readlink": "readlink readlinkat", "readlinkat": "readlinkat", "realpath": "readlink readlinkat",
    "statfs": "statfs", "fstatfs": "fstatfs", "flock": "flock", "fsync": "fsync", "fdatasync": "fdatasync",
    "ftruncate": "ftruncate", "fallocate": "fallocate", "posix_fallocate": "fallocate", "fchmod": "fchmod", "fchown": "fchown",
    "memfd_create": "memfd_create", "mincore": "mincore", "msync": "msync", "mlock": "mlock", "mlock2": "mlock2",
    "mkdir": "mkdir mkdirat", "mkdirat": "mkdirat", "unlink": "unlink unlinkat", "unlinkat": "unlinkat",
    "rename": "rename renameat renameat2", "renameat": "renameat renameat2", "umask": "umask", "chmod": "chmod fchmodat",
    "socket": "socket", "socketpair": "socketpair", "connect": "connect", "bind": "bind", "listen": "listen",
    "accept": "accept", "accept4": "accept4", "getsockopt": "getsockopt", "setsockopt": "setsockopt", "shutdown": "shutdown",
    "sendmsg": "sendmsg", "recvmsg": "recvmsg", "send": "sendto", "sendto": "sendto", "recv": "recvfrom", "recvfrom": "recvfrom",
    "recvmmsg": "recvmmsg", "sendmmsg": "sendmmsg", "getsockname": "getsockname", "getpeername": "getpeername",
    "sd_notify": "socket connect sendmsg getsockopt setsockopt", "sd_is_socket": "getsockopt getsockname",
    "sd_notify_barrier": "pipe2",
    "epoll_create1": "epoll_create1", "epoll_ctl": "epoll_ctl", "epoll_wait": "epoll_wait epoll_pwait", "eventfd": "eventfd2",
    "timerfd_create": "timerfd_create", "timerfd_settime": "timerfd_settime", "signalfd": "signalfd4", "ioctl": "ioctl",
    "inotify_init1": "inotify_init1", "inotify_add_watch": "inotify_add_watch", "inotify_rm_watch": "inotify_rm_watch",
    "pipe2": "pipe2", "pipe": "pipe pipe2", "dup": "dup", "dup2": "dup2", "dup3": "dup3",
    "waitpid": "wait4", "waitid": "waitid", "kill": "kill", "sigqueue": "rt_sigqueueinfo", "getrusage": "getrusage",
    "process_vm_readv": "process_vm_readv", "process_vm_writev": "process_vm_writev", "preadv2": "preadv2", "pwritev2": "pwritev2",
    "getpwnam": LOOKUP, "getpwuid": LOOKUP, "getgrnam": LOOKUP, "getgrouplist": LOOKUP,
    "fork": "clone fork", "execv": "execve", "execve": "execve", "execl": "execve",
    "io_uring_queue_init": "io_uring_setup", "io_uring_submit": "io_uring_enter", "io_uring_wait_cqe": "io_uring_enter",
    "io_uring_register_eventfd": "io_uring_register", "io_uring_queue_init_params": "io_uring_setup",
    "io_uring_register_files": "io_uring_register", "io_uring_submit_and_wait": "io_uring_enter",
}

# Files that make them before the filter is in force only, and what is then not declared.
BEFORE = {
    "src/audit/disk.c": {"io_uring_setup"},
    "src/daemon/leftover.c": {"kill"},
    "src/daemon/privileges.c": {"capget", "capset"},
    "src/daemon/sandbox_files.c": {"landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self"},
    "src/util/unix_socket.c": {"bind", "connect", "listen", "socket", "umask", "unlink", "unlinkat"},
}


def sources():
    for folder in FOLDERS:
        for path, names, files in os.walk(os.path.join(SRC, folder)):
            names[:] = [name for name in names if not name.startswith((".", "build"))]
            for file in sorted(files):
                if file.endswith(".c"):
                    yield os.path.relpath(os.path.join(path, file), SRC)


def read(file):
    with open(os.path.join(SRC, file), encoding="utf-8") as stream:
        return stream.read()


def without_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)


def without_strings(text):
    return re.sub(r'"(?:\\.|[^"\\\n])*"', '""', text)


def declared(text):
    """The names that a file declares."""
    found = set()
    for match in re.finditer(r"VMIBUS_SYSCALLS\(((?:[^()]|\n)*)\)", without_comments(text)):
        for literal in re.findall(r'"([^"]*)"', match.group(1)):
            found |= set(literal.split())
    return found


def made(text):
    """The system calls that a file makes, by the functions that it calls."""
    text = without_strings(without_comments(text))
    found = set()
    own = set(re.findall(r"^static [^;={}()]*?(\w+)\(", text, flags=re.M))
    for function in set(re.findall(r"(?<![\w.>])(\w+)\s*\(", text)) - own:
        found |= set(FUNCTIONS.get(function, "").split())
    found |= set(re.findall(r"\bSYS_(\w+)", text)) | set(re.findall(r"\b__NR_([a-z]\w+)", text))
    if re.search(r"\bsd_(?:pid_)?notify\w*\(", text):
        found |= set(FUNCTIONS["sd_notify"].split())
    return found


def basis():
    return declared(read("src/daemon/sandbox_basis.c"))


@harness.test
def test_each_file_declares_what_it_calls():
    known = basis()
    missing = []
    for file in sources():
        text = read(file)
        lacking = made(text) - declared(text) - known - BEFORE.get(file, set())
        if lacking:
            missing.append(f'{file}: VMIBUS_SYSCALLS("{" ".join(sorted(lacking))}") is missing')
    assert not missing, "\n".join(missing)


@harness.test
def test_nothing_is_declared_for_nothing():
    """What a file declares, it calls, or says in a comment beside the declaration why not."""
    known = basis()
    superfluous = []
    for file in sources():
        text = read(file)
        extra = declared(text) - made(text) - known
        if extra and file != "src/daemon/sandbox_basis.c" and not re.search(r"\*/\nVMIBUS_SYSCALLS\(", text):
            superfluous.append(f"{file}: declares {' '.join(sorted(extra))}, and calls nothing that makes them")
    assert not superfluous, "\n".join(superfluous)


def numbers():
    """The system calls of this machine, by the headers of the C compiler."""
    command = (os.environ.get("CC") or "cc").split()
    result = subprocess.run([*command, "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", "/dev/null"], text=True, check=False,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if result.returncode:
        harness.skip(f"{command[0]} has no asm/unistd.h")
    return set(re.findall(r"#define __NR_(\w+) ", result.stdout))


@harness.test
def test_names_are_those_of_the_kernel():
    """A name that is misspelt would be passed over in silence."""
    elsewhere = {"futex_waitv"}
    known = numbers() | elsewhere
    wrong = [f"{file}: {name} is no system call" for file in sources() for name in declared(read(file)) - known
             if not name.isdecimal()]
    assert not wrong, "\n".join(wrong)


def notes(path):
    """The names in the notes of a program."""
    with open(path, "rb") as stream:
        octets = stream.read()
    found, at = set(), 0
    while (at := octets.find(b"\x07\0\0\0", at)) >= 0:
        _, length, kind = struct.unpack_from("<III", octets, at) if at + 20 <= len(octets) else (0, 0, 0)
        if kind == 1 and octets[at + 12:at + 19] == b"vmibus\0":
            found |= set(octets[at + 20:at + 20 + length].rstrip(b"\0").decode().split())
        at += 4
    return found


def program(name):
    for path in (os.path.join(BUILD, ".libs", name), os.path.join(BUILD, name)):
        if os.path.exists(path):
            return path
    return harness.skip(f"{name} is not built")


@harness.test
def test_programs_carry_what_their_files_declare():
    opend, bus = notes(program("vmibus-opend")), notes(program("vmibusd"))
    assert basis() <= opend and basis() <= bus
    assert {"fchmod", "pidfd_open", "wait4"} <= opend, opend
    assert {"epoll_ctl", "accept4", "signalfd4"} <= bus, bus


@harness.test
def test_p09_programs_carry_no_more():
    """The opener is small: what belongs to other parts is not in it, and nobody executes anything."""
    opend = notes(program("vmibus-opend"))
    assert not opend & {"execve", "ptrace", "process_vm_writev", "rename", "mkdir", "io_uring_enter"}, opend
    for name in ("vmibusd", "vmibus-memd", "vmibus-sensord"):
        carried = notes(program(name)) & {"execve", "fork", "io_uring_setup", "kill", "ptrace", "bind", "listen"}
        assert not carried, (name, carried)


harness.main()
