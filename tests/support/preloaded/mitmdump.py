"""Many gateways for the price of one start: what `mitmdump` and the addon import once, each of them has.

Each is a process of its own, forked before anything has run, with the command line, directory, environment
and files that it would have been started with. Only what was imported is shared, and nothing of that depends
on these. To import it takes a second and a half, and the tests start hundreds of gateways. One with a
script before the addon, or an environment that changes how Python starts, is started as ever: see `Mitm`.

Run as a program, it is the process that forks: it reads orders from a socket, one line of JSON each.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO

ROOT: Final = Path(__file__).resolve().parents[3]
_AT_START: Final = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "MALLOC", "OPENSSL", "ASAN")
"""Beginnings of the names of variables that the interpreter or a library reads once, when it starts."""
_LEFT_TO_US: Final = ("PYTHONPATH", "PYTHONUNBUFFERED")
"""Those of them that are applied after the fork."""
_MOST: Final = 1 << 20


class Forked:
    """A forked process, with the interface of `subprocess.Popen`, as far as the tests use it."""

    def __init__(self, pid: int, zygote: Zygote) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._zygote = zygote

    def poll(self) -> int | None:
        """Return how it has ended; None while it runs."""
        if self.returncode is None:
            self.returncode = self._zygote.ask({"ended": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended. Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("mitmdump", timeout or 0)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it is known to have ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Zygote:
    """The process that forks. It ends with the test process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            self._child = subprocess.Popen(
                [sys.executable, __file__, str(its.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[its.fileno()],
                env=_environment(),
                start_new_session=True,
            )
        self._socket = mine
        self._env = _environment()
        self._limits = _limits()

    def can_start(self, env: Mapping[str, str]) -> bool:
        """Return whether a process with this environment, and this process's limits, may be forked there."""
        return _of_start(env) == _of_start(self._env) and _limits() == self._limits

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: Path | None, stdin: int, stdout: int
    ) -> Forked:
        """Start a process. Standard output is its standard error, too."""
        order = {"argv": list(argv), "env": dict(env), "cwd": str(cwd or Path.cwd())}
        if stdin == subprocess.DEVNULL:
            with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a descriptor is wanted
                return Forked(self.ask(order, [nothing.fileno(), stdout]), self)
        return Forked(self.ask(order, [stdin, stdout]), self)

    def ask(self, order: dict[str, Any], files: Sequence[int] = ()) -> Any:
        """Give an order, and return the answer to it."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(order).encode()], files)
            return json.loads(self._socket.recv(_MOST))


def _environment() -> dict[str, str]:
    """The environment of the process that forks: this one's, without what is applied after the fork."""
    kept = {name: value for name, value in os.environ.items() if name not in _LEFT_TO_US}
    return kept | {"PYTHONPATH": str(ROOT / "addon")}


def _limits() -> list[tuple[int, int]]:
    """The limits of this process, which a child of its own would have."""
    return [resource.getrlimit(one) for one in range(resource.RLIMIT_CPU, resource.RLIMIT_AS + 1)]


def _of_start(env: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value for name, value in env.items() if name.startswith(_AT_START) and name not in _LEFT_TO_US
    }


_zygotes: dict[int, Zygote] = {}


def zygote() -> Zygote:
    """The one of this process. It is started when it is first needed."""
    if os.getpid() not in _zygotes:
        _zygotes[os.getpid()] = Zygote()
    return _zygotes[os.getpid()]


# -- the process that forks -------------------------------------------------------------------------------


def _import_all() -> None:
    import mitmproxy.tools.dump
    import mitmproxy.tools.main

    import presign_proxy.mitm.addon

    del mitmproxy, presign_proxy


def _ended(pid: int) -> int | None:
    """How a child has ended, as `subprocess` says it; None while it runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def _become(order: dict[str, Any], stdin: int, stdout: int) -> None:
    """Be what was ordered, as if it had been started so."""
    os.setsid()
    for target, source in ((0, stdin), (1, stdout), (2, stdout)):
        os.dup2(source, target)
    os.close(stdin)
    os.close(stdout)
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv[:] = order["argv"]
    if "PYTHONUNBUFFERED" in os.environ:
        sys.stdout, sys.stderr = _unbuffered(1, sys.stdout), _unbuffered(2, sys.stderr)
    given = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [str(Path(order["argv"][0]).parent), *given, *sys.path]
    for part in given:
        if (site := Path(part) / "sitecustomize.py").exists():
            runpy.run_path(str(site), run_name="sitecustomize")
            break


def _unbuffered(file: int, usual: TextIO) -> TextIO:
    raw = open(file, "wb", 0, closefd=False)  # noqa: SIM115 - a descriptor, open for as long as the process
    return io.TextIOWrapper(raw, encoding=usual.encoding, errors=usual.errors, write_through=True)


def _serve(orders: socket.socket) -> None:
    """Fork for each order, until the test process has ended. Returns in a child only."""
    while True:
        data, files, _, _ = socket.recv_fds(orders, _MOST, 2)
        if not data:
            os._exit(0)
        order = json.loads(data)
        if "ended" in order:
            orders.sendall(json.dumps(_ended(order["ended"])).encode())
            continue
        pid = os.fork()
        if pid == 0:
            orders.close()
            _become(order, *files)
            return
        for one in files:
            os.close(one)
        orders.sendall(json.dumps(pid).encode())


def _main() -> None:
    _import_all()
    sys.path[:] = [part for part in sys.path if Path(part) not in (ROOT / "addon", Path(__file__).parent)]
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from mitmproxy.tools.main import mitmdump

    sys.exit(mitmdump())


if __name__ == "__main__":
    _main()
