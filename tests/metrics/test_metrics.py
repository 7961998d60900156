#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""vmibus-metrics: what it writes of a bus, in both formats, and how it serves it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))

import harness

TOP = harness.top_builddir()
PROGRAM = os.path.join(TOP, "vmibus-metrics")
NO_BUS = 3


class Bus:
    """A daemon with two synthetic VMs; as a second sensor joins them, their roster entries come behind their state."""

    def __init__(self, policy=None):
        self.directory = tempfile.mkdtemp(prefix="vmibus-metrics-")
        self.socket = os.path.join(self.directory, "control.sock")
        self.configuration = os.path.join(self.directory, "bus.conf")
        with open(self.configuration, "w", encoding="utf-8") as file:
            file.write(policy or f"[rule owner]\nuser = {os.getuid()}\ncapabilities = all\n")
        self.daemon = self.server = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        for process in (self.server, self.daemon):
            if process:
                process.terminate()
                process.wait(harness.scale(30))
        shutil.rmtree(self.directory)

    def start(self):
        self.daemon = subprocess.Popen(
            [os.path.join(TOP, "vmibusd"), "--config", self.configuration, "--stub", "--sensor", "watch", "--socket", self.socket,
             "--state-directory", os.path.join(self.directory, "state"),
             "--sensor-directory", os.path.join(TOP, "sensors", "modules")], stderr=subprocess.DEVNULL)
        self.await_true(lambda: "vmibus_up 1" in self.metrics(status=None))
        if "capabilities = all" in open(self.configuration, encoding="utf-8").read():
            self.await_true(lambda: self.metrics(status=None).count("vmibus_vm_memory_ready{") == 2
                            and 'vmibus_vm_memory_ready{vm="stub-1",slot="2"} 1' in self.metrics(status=None))

    def await_true(self, condition):
        deadline = time.monotonic() + harness.scale(30)
        while not condition():
            assert time.monotonic() < deadline and self.daemon.poll() is None, "the daemon does not serve"
            time.sleep(0.05)

    def metrics(self, *arguments, status=0):
        answer = subprocess.run([PROGRAM, "--socket", self.socket, *arguments], capture_output=True, text=True, check=False,
                                timeout=harness.scale(60))
        assert status is None or answer.returncode == status, answer
        return answer.stdout

    def serve(self):
        path = os.path.join(self.directory, "metrics.sock")
        self.server = subprocess.Popen([PROGRAM, "--socket", self.socket, "--listen", path], stderr=subprocess.DEVNULL)
        self.await_true(lambda: os.path.exists(path))
        return path

    def serve_given(self, kind=socket.SOCK_STREAM, n=1):
        """A server with a socket that its manager listens at. Its path, the manager's socket."""
        path = os.path.join(self.directory, "given.sock")
        listener = socket.socket(socket.AF_UNIX, kind)
        listener.bind(path)
        if kind == socket.SOCK_STREAM:
            listener.listen()
        words = f'LISTEN_PID=$$ LISTEN_FDS={n} exec "$0" --socket "$1"'
        self.server = subprocess.Popen(["sh", "-c", words, PROGRAM, self.socket], stderr=subprocess.PIPE, text=True, pass_fds=(3,),
                                       preexec_fn=lambda: os.dup2(listener.fileno(), 3))
        return path, listener

    def ended(self):
        """How the server ended: its status, what it said."""
        said = self.server.communicate(timeout=harness.scale(30))[1]
        return self.server.returncode, said

    def request(self, path, text):
        """What the server answers to a request; None: nothing is sent, and the sending side closed."""
        with socket.socket(socket.AF_UNIX) as peer:
            self.await_true(lambda: peer.connect_ex(path) == 0)
            peer.settimeout(harness.scale(30))
            if text is None:
                peer.shutdown(socket.SHUT_WR)
            else:
                peer.sendall(text)
            answer = b""
            try:
                while chunk := peer.recv(65536):
                    answer += chunk
            except ConnectionResetError:
                pass  # it did not read all that it was sent
            return answer.decode()


def samples(text):
    return dict(re.findall(r"^([a-z_]+(?:\{[^}]*\})?) (\S+)$", text, flags=re.M))


def definition():
    with open(os.path.join(harness.top_srcdir(), "protocol", "vmibus.toml"), "rb") as file:
        return tomllib.load(file)


@harness.test
def test_every_counter_of_the_wire_has_a_metric():
    with open(os.path.join(harness.top_srcdir(), "controls", "metrics", "families.c"), encoding="utf-8") as file:
        known = re.findall(r"VMIBUS_COUNTER_([A-Z_]+)", file.read())
    counters = next(enum for enum in definition()["enum"] if enum["name"] == "counter")["values"]
    assert sorted(known) == sorted(counter["name"] for counter in counters)


@harness.test
def test_a_page_says_what_the_bus_does():
    with Bus() as bus:
        before = samples(bus.metrics())
        assert before["vmibus_up"] == "1"
        assert before['vmibus_vm_running{vm="stub-0",slot="1"}'] == "1"
        assert before['vmibus_sensor_up{sensor="stub",id="1"}'] == "1"
        assert int(before['vmibus_limit_bound{limit="connections"}']) == 256
        subprocess.run([os.path.join(TOP, "vmibusctl"), "--socket", bus.socket, "write", "stub-0", "0xc00000", "--physical",
                        "--hex", "00"], check=True, capture_output=True)
        after = samples(bus.metrics())
        written = 'vmibus_memory_writes_total{process="bus"}'
        assert int(after[written]) == int(before[written]) + 1
        assert after['vmibus_command_duration_seconds_count{command="cmd_memwrite"}'] == "1"
        assert after['vmibus_command_duration_seconds_bucket{command="cmd_memwrite",le="+Inf"}'] == "1"
        assert float(after['vmibus_command_duration_seconds_sum{command="cmd_memwrite"}']) > 0
        assert int(after['vmibus_command_duration_seconds_count{command="cmd_lease"}']) == 2


@harness.test
def test_buckets_only_rise():
    with Bus() as bus:
        buckets = re.findall(r'_bucket\{command="query",le="([^"]+)"\} (\d+)', bus.metrics())
        assert len(buckets) == 24 and buckets[-1][0] == "+Inf"
        counts = [int(count) for _, count in buckets]
        assert counts == sorted(counts) and counts[-1] > 0
        bounds = [float(bound) for bound, _ in buckets]
        assert bounds == sorted(bounds)


@harness.test
def test_promtool_accepts_the_file():
    if not shutil.which("promtool"):
        harness.skip("there is no promtool (Debian: prometheus)")
    with Bus() as bus:
        path = os.path.join(bus.directory, "vmibus.prom")
        bus.metrics("--output", path)
        with open(path, encoding="utf-8") as file:
            checked = subprocess.run(["promtool", "check", "metrics"], stdin=file, capture_output=True, text=True, check=False)
        assert checked.returncode == 0 and not checked.stdout + checked.stderr, checked
        assert os.stat(path).st_mode & 0o777 == 0o644
        assert sorted(os.listdir(bus.directory)) == sorted(["control.sock", "bus.conf", "state", "vmibus.prom"])


@harness.test
def test_promtool_reads_the_openmetrics():
    if not shutil.which("promtool"):
        harness.skip("there is no promtool (Debian: prometheus)")
    with Bus() as bus:
        text = bus.metrics()
        assert text.endswith("# EOF\n")
        path = os.path.join(bus.directory, "page")
        # What it imports must have time stamps.
        with open(path, "w", encoding="utf-8") as file:
            file.write(re.sub(r"^([^#].*)$", rf"\1 {int(time.time()) - 60}", text, flags=re.M))
        read = subprocess.run(["promtool", "tsdb", "create-blocks-from", "openmetrics", path, os.path.join(bus.directory, "db")],
                              capture_output=True, text=True, check=False)
        assert read.returncode == 0, read


@harness.test
def test_it_serves_whoever_asks():
    with Bus() as bus:
        path = bus.serve()
        head, page = bus.request(path, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").split("\r\n\r\n")
        assert head.startswith("HTTP/1.1 200 OK\r\n") and f"Content-Length: {len(page)}" in head, head
        assert "application/openmetrics-text" in head and page.endswith("# EOF\n") and "vmibus_up 1" in page
        assert bus.request(path, None).startswith("# TYPE vmibus_up gauge")
        assert bus.request(path, b"HEAD / HTTP/1.0\r\n\r\n").endswith("\r\n\r\n")
        assert bus.request(path, b"POST / HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 405 ")


@harness.test
def test_p01_the_socket_is_not_for_everybody():
    with Bus() as bus:
        assert os.stat(bus.serve()).st_mode & 0o777 == 0o660


@harness.test
def test_p09_a_client_that_misbehaves_keeps_nobody_for_long():
    with Bus() as bus:
        path = bus.serve()
        silent = socket.socket(socket.AF_UNIX)
        silent.connect(path)
        assert bus.request(path, b"x" * 8192 + b"\r\n\r\n") == ""
        gone = socket.socket(socket.AF_UNIX)
        gone.connect(path)
        gone.sendall(b"GET / HTTP/1.0\r\n\r\n")
        gone.close()
        assert "vmibus_up 1" in bus.request(path, b"GET / HTTP/1.0\r\n\r\n")
        silent.close()


@harness.test
def test_p10_a_bus_that_is_away_is_told():
    with Bus() as bus:
        path = bus.serve()
        bus.daemon.send_signal(signal.SIGKILL)
        bus.daemon.wait()
        assert "vmibus_up 0\n# EOF\n" in bus.request(path, b"GET / HTTP/1.0\r\n\r\n")
        assert "vmibus_up 0" in bus.metrics(status=NO_BUS)
        bus.start()
        assert "vmibus_up 1" in bus.request(path, b"GET / HTTP/1.0\r\n\r\n")


@harness.test
def test_p01_it_needs_a_rule_like_anybody():
    with Bus(f"[rule nobody]\nuser = {os.getuid()}\ncapabilities = observe stats\n") as bus:
        assert "vmibus_up 1" in bus.metrics()
    bus = Bus(f"[rule poor]\nuser = {os.getuid()}\ncapabilities = observe\n")
    try:
        bus.daemon = subprocess.Popen(
            [os.path.join(TOP, "vmibusd"), "--config", bus.configuration, "--socket", bus.socket,
             "--state-directory", os.path.join(bus.directory, "state")], stderr=subprocess.DEVNULL)
        bus.await_true(lambda: os.path.exists(bus.socket))
        assert "vmibus_up 0" in bus.metrics(status=NO_BUS)
    finally:
        bus.__exit__()


@harness.test
def test_it_serves_at_the_socket_of_its_manager():
    with Bus() as bus:
        path, listener = bus.serve_given()
        with listener:
            assert "vmibus_up 1" in bus.request(path, b"GET / HTTP/1.0\n\n")
            assert bus.request(path, None).startswith("# TYPE vmibus_up gauge")
            assert bus.request(path, b"HEAD / HTTP/1.0\r\n\r\n").endswith("\r\n\r\n")
            assert bus.request(path, b"DELETE / HTTP/1.0\r\n\r\n").startswith("HTTP/1.1 405 ")
            assert bus.request(path, b"x" * 8192 + b"\r\n\r\n") == ""
            with socket.socket(socket.AF_UNIX) as halfway:
                halfway.connect(path)
                halfway.sendall(b"GET / HT")
            for verb in (b"GET", b"POST"):
                with socket.socket(socket.AF_UNIX) as gone:
                    gone.connect(path)
                    gone.sendall(verb + b" / HTTP/1.0\r\n\r\n")
            assert "vmibus_up 1" in bus.request(path, b"GET / HTTP/1.0\r\n\r\n")
            listener.shutdown(socket.SHUT_RDWR)
            status, said = bus.ended()
            assert status == 1 and "cannot accept" in said, (status, said)


@harness.test
def test_what_is_no_socket_to_serve_at_is_refused():
    for kind, n in ((socket.SOCK_DGRAM, 1), (socket.SOCK_STREAM, 2)):
        bus = Bus()
        try:
            _, listener = bus.serve_given(kind, n)
            with listener:
                status, said = bus.ended()
                assert status == 1 and "service manager" in said, (status, said)
        finally:
            bus.__exit__()


@harness.test
def test_where_it_cannot_write_or_listen_is_told():
    with tempfile.TemporaryDirectory(prefix="vmibus-metrics-") as directory:
        nowhere = os.path.join(directory, "nowhere", "file")
        held = os.path.join(directory, "held")
        no_socket = os.path.join(directory, "text")
        with open(no_socket, "w", encoding="utf-8"):
            pass
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(held)
            listener.listen()
            for words, named in ((["--output", nowhere], nowhere), (["--listen", nowhere], nowhere), (["--listen", held], held),
                                 (["--listen", no_socket], no_socket), (["--listen", "/" + "x" * 200], "x" * 200),
                                 (["--output", directory], directory)):
                answer = subprocess.run([PROGRAM, "--socket", nowhere, *words], capture_output=True, text=True, check=False,
                                        timeout=harness.scale(60))
                assert answer.returncode == 1 and named in answer.stderr, (words, answer)
        assert os.path.exists(no_socket) and sorted(os.listdir(directory)) == ["held", "text"], os.listdir(directory)
        with open("/dev/full", "w", encoding="utf-8") as full:
            answer = subprocess.run([PROGRAM, "--socket", nowhere], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
                                    timeout=harness.scale(60))
        assert answer.returncode == 1 and "standard output" in answer.stderr, answer


@harness.test
def test_wrong_command_lines():
    for words in (["--fly"], ["word"], ["--listen"], ["--listen", "a", "--output", "b"]):
        answer = subprocess.run([PROGRAM, *words], capture_output=True, text=True, check=False, timeout=harness.scale(60))
        assert answer.returncode == 2 and "--help" in answer.stderr, (words, answer)
    for word, said in (("--help", "Usage:"), ("--version", "vmibus-metrics ")):
        answer = subprocess.run([PROGRAM, word], capture_output=True, text=True, check=True, timeout=harness.scale(60))
        assert said in answer.stdout


harness.main()
