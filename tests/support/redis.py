"""A real Redis, on a port and in a directory of its own, that can be made to misbehave."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

from support.process import free_port
from support.programs import find, needs

DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}
"""What docs/limits.md asks for."""


class RedisServer:
    """Starts at `start()`, and may be stopped, killed, frozen and started again with what it has kept."""

    def __init__(self, directory: Path, *, tls: bool = False, **settings: str) -> None:
        """
        Args:
            tls: speaks it on `port`, with the certificate in `directory`, and plain TCP nowhere.
            settings: lines of its configuration, with _ for -.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory = directory
        self.port = free_port()
        self._tls = tls
        self.settings = DURABLE | {name.replace("_", "-"): value for name, value in settings.items()}
        self.bus_port = free_port()
        """For the other nodes of a cluster; Redis would take its port and 10,000, which may be somebody's."""
        if "cluster-enabled" in self.settings:
            self.settings["cluster-port"] = str(self.bus_port)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def start(self) -> Self:
        needs("redis-server")
        listen = {"port": "0", "tls-port": str(self.port)} if self._tls else {"port": str(self.port)}
        fixed = {"bind": "127.0.0.1", "dir": str(self.directory), "save": "", "daemonize": "no"} | listen
        argv = [str(find("redis-server"))]
        for name, value in (fixed | self.settings).items():
            argv += [f"--{name}", *value.split(" ")] if value else [f"--{name}", ""]
        with (self.directory / "redis.log").open("ab") as log:
            self._child = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.directory / "redis.log").read_text("utf-8", "replace")[-2000:])
            time.sleep(0.02)
        return self

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as probe:
                if self._tls:
                    return True
                probe.settimeout(1)
                probe.sendall(b"*1\r\n$4\r\nPING\r\n")
                # A password is asked for only by one that has read what it kept.
                return probe.recv(100).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False

    def client(self, **options: Any) -> Any:
        """A synchronous client, to look and to command."""
        import redis

        return redis.Redis(port=self.port, decode_responses=True, **options)

    def freeze(self) -> None:
        """A black hole: it accepts and reads nothing, and says nothing."""
        assert self._child is not None
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._child is not None
        self._child.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Without a chance to write anything down."""
        assert self._child is not None
        self._child.kill()
        self._child.wait(10)

    def stop(self) -> None:
        if self._child is not None and self._child.poll() is None:
            self.kill()
