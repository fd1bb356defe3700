"""A child process that listens on a port, with its output in a file."""

import contextlib
import os
import pty
import random
import signal
import socket
import subprocess
import termios
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from support.programs import needs

STARTING = 60.0
"""Seconds in which a process has to listen, or to say why it does not. mitmdump takes one on a machine that
has nothing else to do, and eight beside others; nobody waits for longer than it takes.
"""


LOADED = ", version "
"""In the line of the log for each configuration that came into force, and in no other."""


class StartFailed(Exception):
    """The process ended, or did not listen in time. `log` is what it said, `returncode` how it ended."""

    def __init__(self, log: str, returncode: int | None) -> None:
        super().__init__(f"exit code {returncode}, its output:\n{log}")
        self.log = log
        self.returncode = returncode


def resident(pid: int) -> int:
    """Memory of a process, in bytes."""
    needs("/proc")
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))


_CHANCE: Final = random.SystemRandom()  # Hypothesis seeds `random`, so that processes would choose alike
_GIVEN: Final[set[int]] = set()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free a moment ago, below those that the system gives to outgoing connections: one of
    the thousands that tests make could take it before the process that it is for. No port is given twice:
    a gateway's admin listener must not meet its proxy.
    """
    while True:
        port = _CHANCE.randint(10_000, 32_000)
        if port in _GIVEN:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            _GIVEN.add(port)
            return port


class Process:
    """Starts `argv`, waits until `port` accepts, and stops it again.

    `tty` gives it a terminal of its own, which console programs insist on.
    """

    def __init__(
        self,
        argv: Sequence[str | Path],
        port: int,
        log_path: Path,
        env: Mapping[str, str],
        cwd: Path | None = None,
        tty: bool = False,
    ) -> None:
        self.argv = [str(arg) for arg in argv]
        self.port = port
        self.log_path = log_path
        self._env, self._cwd, self._tty = dict(env), cwd, tty
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def child(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError("not started")
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    def start(self, timeout: float = STARTING) -> Self:
        """Start and wait for the port. Raises StartFailed, with the log, as soon as the process has ended."""
        self._spawn()
        deadline = time.monotonic() + timeout
        while self.child.poll() is None and time.monotonic() < deadline:
            if self._serves():
                return self
            time.sleep(0.02)
        returncode = self.child.poll()
        self.stop()
        raise StartFailed(self.log(), returncode)

    def run(self, timeout: float = STARTING) -> tuple[int, str]:
        """Start a process that is expected to end by itself; returns its exit code and its log."""
        self._spawn()
        try:
            return self.child.wait(timeout), self.log()
        finally:
            self.stop()

    def _serves(self) -> bool:
        """Whether the port accepts, and whoever listens there has done with starting.

        The port accepts before mitmproxy has loaded its scripts, which on a busy machine takes seconds, and
        whatever logs an error until the start is over ends it. Both run in one go on the event loop, so that
        the second connection is taken and ended only by a loop that has done with both; it may be one that is
        coming to its end, but then that is in the log.
        """
        with contextlib.suppress(OSError):
            return _is_ended(self.port) and _is_ended(self.port) and "logged during startup" not in self.log()
        return False

    def _spawn(self) -> None:
        with self.log_path.open("ab") as log:
            if not self._tty:
                self._child = self._popen(subprocess.DEVNULL, log.fileno())
                return
        master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (50, 160))
        self._child = self._popen(slave, slave)
        os.close(slave)
        threading.Thread(target=self._drain, args=(master,), daemon=True).start()

    def _popen(self, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        # A session of its own: a Ctrl-C at the test run does not race with our own stop.
        return subprocess.Popen(
            self.argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stdout if self._tty else subprocess.STDOUT,
            env=self._env,
            cwd=self._cwd,
            start_new_session=True,
        )

    def _drain(self, terminal: int) -> None:
        with self.log_path.open("ab", buffering=0) as log, contextlib.suppress(OSError):
            while data := os.read(terminal, 65536):
                log.write(data)
        os.close(terminal)

    def stop(self, timeout: float = 5.0) -> int | None:
        """SIGTERM, then SIGKILL; returns the exit code, or None where it never was started."""
        child = self._child
        if child is None:
            return None
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
            try:
                child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
        return child.wait(timeout)

    def log(self) -> str:
        """Everything written to standard output and standard error so far."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def wait_for_log(self, text: str, timeout: float = 5.0) -> bool:
        """Wait until `text` stands in the log; false where it never does."""
        deadline = time.monotonic() + timeout
        while text not in self.log():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def rss(self) -> int:
        return resident(self.pid)

    def __enter__(self) -> Self:
        return self.start() if self._child is None else self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _is_ended(port: int) -> bool:
    """Whether a connection whose client has nothing to say is ended by the other side. Raises OSError."""
    with socket.create_connection(("127.0.0.1", port), 1) as probe:
        probe.shutdown(socket.SHUT_WR)
        return probe.recv(1) == b""
