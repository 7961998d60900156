# SPDX-License-Identifier: LGPL-2.1-or-later
"""A service manager for Python tests: it hears a program, keeps what that hands over, and starts the next one with it.

    with service_manager.Manager(folder) as manager:
        process = manager.start([program, ...])
        process = manager.restart(process)
"""

import fcntl
import os
import signal
import socket
import subprocess
import threading
import time

import harness

FIRST = 3
FDS = 64


class Manager:
    """As systemd is to one unit: a socket for sd_notify(3), and a store of descriptors by name."""

    def __init__(self, folder):
        self.path = os.path.join(folder, "notify")
        self.store, self.n_ready = [], 0
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.thread = threading.Thread(target=self._serve)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"END", self.path)
        self.thread.join()
        self.socket.close()
        self.drop(lambda name: True)

    def drop(self, is_meant):
        """Closes what is kept by such names."""
        for name, fd in self.store:
            if is_meant(name):
                os.close(fd)
        self.store = [kept for kept in self.store if not is_meant(kept[0])]

    def _serve(self):
        while True:
            text, fds, _, _ = socket.recv_fds(self.socket, 4096, FDS)
            if text == b"END":
                return
            for fd in fds:
                os.set_inheritable(fd, False)
            words = dict(line.partition("=")[::2] for line in text.decode().splitlines())
            if "FDSTORE" in words:
                self.store += [(words["FDNAME"], fd) for fd in fds]
                fds = []
            if "FDSTOREREMOVE" in words:
                self.drop(lambda name: name == words["FDNAME"])
            for fd in fds:  # a barrier
                os.close(fd)
            self.n_ready += words.get("READY") == "1"

    def start(self, command, **options):
        """Starts a program with what is kept, and waits until it is ready."""
        kept, before = list(self.store), self.n_ready
        environment = {**os.environ, "NOTIFY_SOCKET": self.path}
        if kept:
            environment |= {"LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": ":".join(name for name, _ in kept)}
            command = ["sh", "-c", 'LISTEN_PID=$$ exec "$@"', "sh", *command]

        def pass_on():
            for i, fd in enumerate([fcntl.fcntl(fd, fcntl.F_DUPFD, FIRST + FDS) for _, fd in kept]):
                os.dup2(fd, FIRST + i)
                os.close(fd)

        # pylint: disable-next=subprocess-popen-preexec-fn # numbers are given by nothing else
        process = subprocess.Popen(command, env=environment, close_fds=False, preexec_fn=pass_on, **options)
        deadline = time.monotonic() + harness.scale(60)
        while self.n_ready == before:
            assert process.poll() is None and time.monotonic() < deadline, (command, process.poll())
            time.sleep(0.02)
        process.command = command[4:] if kept else command
        return process

    def restart(self, process, **options):
        """Ends it, so that it hands over, and starts the next one."""
        process.send_signal(signal.SIGTERM)
        assert process.wait(harness.scale(60)) == 0
        assert any(name == "handover" for name, _ in self.store), "it has handed nothing over"
        return self.start(process.command, **options)
