"""A real `presign serve`, and a look at its workers from outside."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from support.asking import SECRET, Grant, wire
from support.config import write_config
from support.descriptors import links_of
from support.lab import bearer_connection
from support.places import ROOT
from support.process import Process, free_port
from support.programs import needs
from support.proxy import _UNWANTED
from support.raw import connect, exchange
from support.recorder import Recorder

PRESIGN = (sys.executable, "-m", "presign_proxy")
CONN = "conn_served"


def config_for(upstream: Recorder, **more: Any) -> dict[str, Any]:
    """One connection, `CONN`, to this upstream."""
    return {"connections": {CONN: bearer_connection(upstream.url, SECRET)}} | more


HAND_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


def environment(**extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(_UNWANTED)}
    return kept | {"PYTHONPATH": str(ROOT / "addon"), "PYTHONUNBUFFERED": "1"} | extra


def presign(directory: Path, *arguments: str) -> str:
    """What the command prints with the configuration of a directory. It has to succeed."""
    done = subprocess.run(
        [*PRESIGN, *arguments, "--config", str(directory / "config.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Serve(Process):
    """`presign serve` in a directory of its own. With `systemd` it is handed its socket, and can notify.

    `start_from` is the text of a configuration, in the place of `config`.
    """

    def __init__(
        self,
        directory: Path,
        config: Mapping[str, Any],
        *args: str,
        workers: int = 1,
        systemd: bool = False,
        program: tuple[str, ...] = PRESIGN,
        port: int | None = None,
        start_from: str | None = None,
        **env: str,
    ) -> None:
        needs("/proc")  # without it nobody can say how many workers serve
        self.directory, self.workers, self.systemd = directory, workers, systemd
        self.config = directory / "config.yaml"
        if start_from is None:
            write_config(dict(config), directory)
        else:
            self.config.touch(mode=0o600)
            self.config.write_text(start_from, "utf-8")
        self.confdir = directory / "confdir"
        self.ca = self.confdir / "mitmproxy-ca-cert.pem"
        port = port or free_port()
        argv = [*program, "serve", "--config", str(self.config), "--workers", str(workers)]
        argv += ["--confdir", str(self.confdir), *args]
        self.notified: socket.socket | None = None
        if systemd:
            env |= {"LISTEN_FDS": "1", "NOTIFY_SOCKET": str(directory / "notify")}
        else:
            argv += ["--listen", f"127.0.0.1:{port}"]
        super().__init__(argv, port, directory / "output.log", environment(**env), cwd=directory)

    def _serves(self) -> bool:
        return len(self.serving()) >= self.workers

    def _popen(self, stdin: int, stdout: int) -> subprocess.Popen[bytes]:
        if not self.systemd:
            return super()._popen(stdin, stdout)
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(str(self.directory / "notify"))
        self.notified.settimeout(20)
        with socket.create_server(("127.0.0.1", self.port)) as listening:
            return subprocess.Popen(
                [sys.executable, "-c", HAND_OVER, str(listening.fileno()), *self.argv],
                stdin=stdin,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                pass_fds=[listening.fileno()],
                start_new_session=True,
            )

    def told(self) -> list[str]:
        """The next words for systemd."""
        assert self.notified
        return self.notified.recv(4096).decode().splitlines()

    def serving(self) -> list[int]:
        """Workers that were called to serve and live."""
        called = re.findall(r"worker (\d+) serves", self.log())
        living = self.children() if called else []
        return [pid for pid in map(int, called) if pid in living]

    def has_reserve(self) -> bool:
        """Whether all workers serve and one more is ready to."""
        ready = re.findall(r"worker (\d+) is in reserve", self.log())
        spares = {int(pid) for pid in ready} - set(self.serving())
        return len(self.serving()) == self.workers and any(pid in self.children() for pid in spares)

    def children(self) -> list[int]:
        """All workers, the spare included."""
        return children_of(self.pid)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def ends(self, timeout: float = 15.0) -> int:
        """Wait for its end; returns the exit code."""
        return self.child.wait(timeout)

    def stop(self, timeout: float = 5.0) -> int | None:
        for pid in self.children() if self._child else []:
            os.kill(pid, signal.SIGCONT)
        code = super().stop(timeout)
        if self.notified:
            self.notified.close()
        return code


def children_of(pid: int) -> list[int]:
    return [one.pid for one in _processes() if one.parent == pid]


def is_stopped(pid: int) -> bool:
    """Whether a process has been stopped by a signal, and has noticed."""
    return _process(pid).state == "T"


def places_of(pid: int, gateway: Serve) -> set[int]:
    """The ports of those clients whose connection one process holds."""
    links = links_of(pid)
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text("ascii").splitlines()[1:]]
    ends = [(_port(line[1]), _port(line[2])) for line in lines if f"socket:[{line[9]}]" in links]
    return {client for here, client in ends if here == gateway.port and client}


def _port(address: str) -> int:
    """Of `0100007F:1F90`."""
    return int(address.partition(":")[2], 16)


def takes_the_lane(gateway: Serve, upstream: Recorder) -> bool:
    """Whether requests take the lane: only there do clients share connections to an upstream."""
    upstream.clear()
    with ExitStack() as clients:
        for _ in range(4 * gateway.workers):
            client = clients.enter_context(connect(gateway.port))
            assert exchange(client, wire(Grant(CONN).target("v1/models"))).startswith(b"HTTP/1.1 200 ")
    found = upstream.connections <= gateway.workers
    upstream.clear()
    return found


def session_of(pid: int) -> list[int]:
    """All processes that a supervisor has started, also once it is gone."""
    return [one.pid for one in _processes() if one.session == pid]


def is_open(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_alive(pid: int) -> bool:
    """Whether a process runs, and is not only waiting for its parent to notice its end."""
    try:
        return _process(pid).state != "Z"
    except OSError:
        return False


class _Seen(NamedTuple):
    """One process, as Linux shows it."""

    pid: int
    state: str
    parent: int
    session: int


def _process(pid: int) -> _Seen:
    """Raises OSError where there is none."""
    # The name, in brackets, may hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    return _Seen(pid, fields[0], int(fields[1]), int(fields[3]))


def _processes() -> Iterator[_Seen]:
    needs("/proc")
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):  # it has ended meanwhile
                yield _process(int(entry.name))
