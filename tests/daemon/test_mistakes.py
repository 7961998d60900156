#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the daemons say to mistakes: of a command line, a configuration, a manifest, a folder.  Each is told with its place and
what is wanted instead, and nothing is started by halves."""

import os
import socket
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

TOP = harness.top_builddir()
DAEMONS = ("vmibusd", "vmibus-memd", "vmibus-opend", "vmibus-sensord")
MODULES = os.environ.get("VMIBUS_SENSOR_DIR") or os.path.join(TOP, "sensors", "modules")

# Every key once, with a value that it may have.
GOOD = """[daemon]
socket = /run/a
memory-socket = /run/b
memory-state-directory = /var/c
opener-socket = /run/d
sensor-directory = /usr/e
state-directory = /var/f
max-endpoints = 10
max-connections = 11
queue-depth = 64
commands = 12
tail-bound = 8192
large-tails = 2
hello-timeout-ms = 1000
handover-timeout-ms = 0
frame-timeout-ms = 1000
revoke-timeout-ms = 1000
retire-timeout-ms = 1000
hold-ms = 1000
sensor-endpoints = 8
sensor-answer-timeout-ms = 1000
socket-mode = 0660
small-writes = worker
sensor-users = root 1234
bus-user = root
sandbox = require
memory-cap = 268435456
audit-records = 1024
audit = strict
audit-full = drop-oldest
audit-writer = thread
audit-journal = yes
[limits]
connections = 1
commands = 2
events = 3
bytes = 4
descriptors = 5
leases = 6
waiters = 7
subscriptions = 8
tails = 9
attachments = 10
buffers = 11
endpoints = 12
holds = 13
answers = 14
watches = 15
[limits-total]
connections = 100
[sensor stub]
vms = 1
vms = 2
apart = no
[sensor example]
[opener]
socket = /run/g
users = root
memory-users = root
executables = /usr/bin/a, /usr/bin/b
timeout-ms = 1000
process-memory = no
sandbox = yes
[rule one]
user = root
endpoints = web-*
capabilities = observe, mem-read
rank = 3
lease-ttl-ms = 4000
write-gva = 0x1000-0x1fff
write-gpa = 0x2000-0x2fff
write-protect = kernel-text page-tables
write-size = 16
write-rate = 100
[rule two]
group = root
capabilities = all
[rule three]
everybody = yes
capabilities = observe
"""

# A line of a section, and what is said of it.
WRONG = (
    ("[daemon]\nsocket-mode = 0999", "octal mode"),
    ("[daemon]\nsocket-mode = 01000", "octal mode"),
    ("[daemon]\nsocket-mode =", "octal mode"),
    ("[daemon]\nsmall-writes = there", "'here' or 'worker'"),
    ("[daemon]\nsandbox = perhaps", "'require'"),
    ("[daemon]\nmemory-cap = 0", "octets"),
    ("[daemon]\nmemory-cap = much", "octets"),
    ("[daemon]\naudit-records = 15", "from 16"),
    ("[daemon]\naudit-records = many", "from 16"),
    ("[daemon]\nfly = yes", "unknown key 'fly'"),
    ("[daemon]\naudit-fly = yes", "unknown key"),
    ("[daemon]\naudit = loud", "'strict'"),
    ("[daemon]\naudit-full = burn", "'drop-oldest'"),
    ("[daemon]\naudit-writer = me", "'thread'"),
    ("[daemon]\naudit-journal = maybe", "path of a socket"),
    ("[daemon]\nqueue-depth = 15", "from 16"),
    ("[daemon]\nqueue-depth = -1", "a number"),
    ("[daemon]\ntail-bound = 4k", "a number"),
    ("[daemon]\nsensor-users = no-such-user", "no user no-such-user"),
    ("[daemon]\nsensor-users = 4294967296", "no user"),
    ("[daemon]\nbus-user = ,", "empty"),
    ("[daemon]\nbus-user = " + "x" * 2000, "octets"),
    ("[limits]\nfly = 1", "unknown key 'fly'"),
    ("[limits]\nleases = 4294967296", "a number up to"),
    ("[limits-total]\nleases = x", "a number up to"),
    ("[sensor stub]\napart = perhaps", "'yes' or 'no'"),
    ("[opener]\nfly = 1", "unknown key"),
    ("[opener]\nsocket = here", "absolute path"),
    ("[opener]\nusers = no-such-user", "no user no-such-user"),
    ("[opener]\nexecutables = ,", "names none"),
    ("[fly]\na = b", "[fly]"),
    ("[rule ]\nuser = root", "[rule ]"),
    ("[sensor ]\na = b", "[sensor ]"),
    ("nonsense", "neither [section] nor key = value"),
    ("[" + "x" * 300 + "]\na = b", "longer than"),
    ("[daemon]\nsocket = " + "x" * 5000, "longer than"),
    ("[rule a]\nuser = no-such-user\ncapabilities = all", "no such user"),
    ("[rule a]\ngroup = no-such-group\ncapabilities = all", "no such group"),
    ("[rule a]\nuser = root\nuser = root\ncapabilities = all", "rule"),
    ("[rule a]\neverybody = no\ncapabilities = all", "only 'yes'"),
    ("[rule a]\nuser = root\ncapabilities = fly", "no capability 'fly'"),
    ("[rule a]\nuser = root\ncapabilities = " + "x" * 2000, "octets"),
    ("[rule a]\nuser = root\ncapabilities = ,", "grants nothing"),
    ("[rule a]\nuser = root", "grants nothing"),
    ("[rule a]\ncapabilities = all", "names nobody"),
    ("[rule a]\nuser = root\nfly = 1", "unknown key 'fly'"),
    ("[rule a]\nuser = root\ncapabilities = all\nrank = high", "a number"),
    ("[rule a]\nuser = root\ncapabilities = all\nlease-ttl-ms = 0", "a number"),
    ("[rule a]\nuser = root\ncapabilities = all\nwrite-gva = 2-1", "ranges"),
    ("[rule a]\nuser = root\ncapabilities = all\nwrite-gpa = all", "ranges"),
    ("[rule a]\nuser = root\ncapabilities = all\nwrite-protect = everything", "kernel-text"),
    ("[rule a]\nuser = root\ncapabilities = all\nwrite-size = 0", "a number"),
    ("[rule a]\nuser = root\ncapabilities = all\nwrite-rate = x", "a number"),
    ("[rule a]\nuser = root\ncapabilities = admin\nendpoints = web-*", "cannot give admin"),
    ("[rule a]\nuser = root\ncapabilities = all\n[rule b]\nuser = root\ncapabilities = all\n[rule a]\nrank = 1", "rule a"),
)

MANIFEST = "[sensor]\nname = web\nkind = host\nmodule = web.so\nprovides = LIFECYCLE\n"

# A manifest, and what is said of it.
MANIFESTS = (
    ("[sensor]\nname = other\nmodule = web.so\n", "the name is that of the file"),
    ("[sensor]\nname = web\n", "are needed"),
    (MANIFEST + "kind = robot\n", "host, knowledge or watch"),
    (MANIFEST + "module = ../web.so\n", "not a path"),
    (MANIFEST + "keeps-state = no\n", "only 'yes'"),
    (MANIFEST + "provides = LIFECYCLE FLYING\n", "no provider group"),
    (MANIFEST + "fallback-only = FLYING\n", "no provider group"),
    (MANIFEST + "fly = 1\n", "unknown key"),
    ("[fly]\na = b\n", "unknown section"),
    ("nonsense\n", "neither [section] nor key = value"),
    (MANIFEST.replace("web\n", "x" * 100 + "\n", 1), "x"),
    (MANIFEST, "web.so cannot be loaded"),
)


def run(daemon, *words, status, said="", environment=None, pass_fds=()):
    path = os.path.join(TOP, daemon)
    if not os.path.exists(path):
        harness.skip(f"{daemon} is not built")
    answer = subprocess.run([path, *words], capture_output=True, text=True, check=False, timeout=harness.scale(60),
                            env=os.environ | (environment or {}), pass_fds=pass_fds)
    assert answer.returncode == status and said in answer.stdout + answer.stderr, (daemon, words, said, answer)
    return answer


class Folder:
    """A folder with a configuration, and what a daemon is told to keep to it."""

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="vmibus-mistakes-")
        self.path = self.directory.name
        self.conf = os.path.join(self.path, "vmibusd.conf")
        self.socket = os.path.join(self.path, "bus.sock")
        self.state = os.path.join(self.path, "state")
        self.write("vmibusd.conf", "")
        return self

    def __exit__(self, *_):
        self.directory.cleanup()

    def write(self, name, text):
        with open(os.path.join(self.path, name), "w", encoding="utf-8") as file:
            file.write(text)

    def options(self, daemon):
        state = ["--state-directory", self.state] if daemon in ("vmibusd", "vmibus-memd") else []
        return ["--config", self.conf, "--socket", self.socket, *state]


@harness.test
def test_options():
    for daemon in DAEMONS:
        assert "Usage:" in run(daemon, "--help", status=0).stdout
        assert run(daemon, "--version", status=0).stdout.startswith(daemon)
        for words in (["--fly"], ["--socket"], ["one", "two"]):
            run(daemon, *words, status=2, said=f"{daemon} --help")
    run("vmibusd", "--qmp", "web", status=2, said="NAME=PATH")
    run("vmibusd", "--qmp", "=/run/web", status=2, said="NAME=PATH")
    run("vmibusd", "--qmp-directory", "run", status=2, said="absolute path")
    run("vmibus-sensord", status=2, said="name of one sensor")
    run("vmibus-sensord", "stub", "--set", "vms", status=2, said="KEY=VALUE")


@harness.test
def test_each_key_is_taken():
    with Folder() as folder:
        folder.write("vmibusd.conf", GOOD)
        run("vmibusd", "--check", "--config", folder.conf, status=0)
        for key in (line for line in GOOD.splitlines() if line.startswith("audit")):
            for value in {"audit": ("off", "normal"), "audit-full": ("refuse", "continue"), "audit-writer": ("any",),
                          "audit-journal": ("no", "/run/x")}.get(key.split()[0], ()):
                folder.write("vmibusd.conf", f"[daemon]\n{key.split()[0]} = {value}\n")
                run("vmibusd", "--check", "--config", folder.conf, status=0)


@harness.test
def test_mistakes_of_a_configuration_are_told_with_their_place():
    with Folder() as folder:
        wrong = []
        for text, named in WRONG:
            folder.write("vmibusd.conf", text + "\n")
            answer = subprocess.run([os.path.join(TOP, "vmibusd"), "--check", "--config", folder.conf], capture_output=True,
                                    text=True, check=False, timeout=harness.scale(60))
            if answer.returncode != 1 or named not in answer.stderr or folder.conf not in answer.stderr:
                wrong.append((text[:80], answer.returncode, answer.stderr[:300]))
        assert not wrong, "\n".join(map(str, wrong))
        folder.write("vmibusd.conf", "")
        os.mkdir(folder.conf + ".d")
        folder.write("vmibusd.conf.d/10.conf", "[daemon]\nqueue-depth = 64\n")
        folder.write("vmibusd.conf.d/20.conf", "[daemon]\nfly = 1\n")
        folder.write("vmibusd.conf.d/.30.conf", "nonsense\n")
        folder.write("vmibusd.conf.d/40.disabled", "nonsense\n")
        run("vmibusd", "--check", "--config", folder.conf, status=1, said="20.conf:2: unknown key 'fly'")
        run("vmibusd", "--check", "--config", folder.path, status=1, said=folder.path)
        run("vmibusd", "--check", "--config", os.path.join(folder.path, "nothing"), status=1, said="nothing")


@harness.test
def test_p10_sensors_that_cannot_be_had_are_told_and_missed_by_nobody():
    with Folder() as folder:
        modules = os.path.join(folder.path, "modules")
        os.mkdir(modules)

        def start(name, **expected):
            run("vmibus-sensord", name, "--config", folder.conf, "--socket", folder.socket, "--sensor-directory", modules,
                **expected)

        for text, named in MANIFESTS:
            folder.write("modules/web.sensor", text)
            start("web", status=1, said=named)
        start("nothing", status=1, said="is the package of that sensor installed?")
        start("../web", status=1, said="there is no")
        os.symlink(os.path.join(MODULES, "stub.so"), os.path.join(modules, "web.so"))
        folder.write("modules/web.sensor", MANIFEST)
        start("web", status=1, said="not what its manifest says")


@harness.test
def test_state_that_cannot_be_kept_is_told():
    for daemon in ("vmibusd", "vmibus-memd"):
        with Folder() as folder:
            folder.write("state", "a file")
            run(daemon, *folder.options(daemon), status=1, said=folder.state)
            os.unlink(folder.state)
            os.mkdir(folder.state, 0o700)
            folder.write("state/incarnation", "many\n")
            run(daemon, *folder.options(daemon), status=1, said="incarnation holds no number")
            assert not os.path.exists(folder.socket)


@harness.test
def test_socket_that_cannot_be_had_is_told():
    for daemon in ("vmibusd", "vmibus-memd", "vmibus-opend"):
        if daemon == "vmibus-opend" and os.geteuid() != 0:
            continue
        with Folder() as folder:
            folder.write("bus.sock", "a file")
            run(daemon, *folder.options(daemon), status=1, said=folder.socket)
            with open(folder.socket, encoding="utf-8") as file:
                assert file.read() == "a file"
            os.unlink(folder.socket)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET if daemon == "vmibus-opend" else socket.SOCK_STREAM) as held:
                held.bind(folder.socket)
                held.listen()
                run(daemon, *folder.options(daemon), status=1, said=folder.socket)
            folder.socket = os.path.join(folder.path, "nowhere", "bus.sock")
            run(daemon, *folder.options(daemon), status=1, said=folder.socket)
            folder.socket = "/" + "x" * 200
            run(daemon, *folder.options(daemon), status=1, said=folder.socket)


@harness.test
def test_what_the_manager_passes_is_looked_at():
    for daemon in ("vmibusd", "vmibus-memd", "vmibus-opend"):
        if daemon == "vmibus-opend" and os.geteuid() != 0:
            continue
        with Folder() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wrong:
            words = ["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh", os.path.join(TOP, daemon), *folder.options(daemon)]
            answer = subprocess.run(words, capture_output=True, text=True, check=False, timeout=harness.scale(60), pass_fds=(3,),
                                    preexec_fn=lambda: os.dup2(wrong.fileno(), 3))
            assert answer.returncode == 1 and "the service manager passed" in answer.stderr, answer
            assert not os.path.exists(folder.socket)


@harness.test
def test_less_memory_than_there_must_be_is_told():
    with Folder() as folder:
        folder.write("vmibusd.conf", "[daemon]\nmemory-cap = 4096\n")
        run("vmibusd", *folder.options("vmibusd"), status=1, said="memory-cap = 4096 is less than")


@harness.test
def test_resume_without_anything_left_ends():
    with Folder() as folder:
        os.mkdir(folder.state, 0o700)
        run("vmibusd", "--resume", *folder.options("vmibusd"), status=0)
        os.mkdir(os.path.join(folder.state, "sensor-stub"), 0o700)
        for name in ("pause-x", "pause-99999999999-1", "pause-4194304-1", "other", f"pause-{os.getpid()}-1.next"):
            folder.write(os.path.join("state", "sensor-stub", name), "")
        run("vmibusd", "--resume", "--stub", "--sensor-directory", MODULES, *folder.options("vmibusd"), status=0)


harness.main()
