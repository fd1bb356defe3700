"""A gateway whose requests under way are cut off by the command, and clients that see how they end."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from presign_proxy import Signer
from presign_proxy.config.registry_file.storage import write_private
from presign_proxy.signing.signed_policy import Terms
from support.asking import SECRET, ask, in_an_hour, wire
from support.audit_log import audit_lines
from support.byhand import Wire
from support.flowing import Flowing
from support.h2streams import Streams
from support.lab import bearer_connection
from support.process import free_port
from support.puppet import eventually
from support.raw import connect, connect_tls
from support.serving import Serve, presign

GATEWAY = "presign.local"
OTHER = "sk_second_secret_of_these_tests_0123456789"
KEYS = [
    {"id": "k2", "secret": OTHER, "added": "2026-06-01T00:00:00Z"},
    {"id": "k1", "secret": SECRET, "added": "2026-01-01T00:00:00Z"},
]
BETWEEN = "2026-03-01T00:00:00Z"
"""Between the instants at which the two keys were made."""
SOON = 2.0
"""Seconds in which what is under way has to end, from the end of the command on."""
FLOWS = b"\r\n"
"""The lane leaves to the flow path what begins with an empty line."""
CUT = ("reset", "closed")


@dataclass
class Client:
    """One request, and what has come of its answer."""

    sock: Wire
    received: bytes = b""

    def reads(self, marker: bytes, timeout: float = 10.0) -> None:
        self.received += self.sock.read_until(marker, timeout)

    def goes_on(self, events: int = 5) -> bool:
        """Whether more events come: ten are sent in a second."""
        for _ in range(events):
            self.reads(b"data: x\n\n")
        return True

    def ending(self, timeout: float = SOON) -> str:
        """How the connection ends: `reset`, `closed`, or `whole` after the last chunk of an answer.

        Raises TimeoutError where it does not end.
        """
        self.received += self.sock.buffer
        self.sock.buffer = b""
        how = "closed"
        self.sock.sock.settimeout(timeout)
        try:
            while data := self.sock.sock.recv(1_000_000):
                self.received += data
        except ConnectionResetError:
            how = "reset"
        return "whole" if self.received.endswith(b"\r\n0\r\n\r\n") else how


@dataclass
class Cutting:
    """A gateway, its upstream, and the command beside it. Each test has a connection of its own."""

    gateway: Any
    upstream: Flowing
    admin: int
    numbers: Iterator[int] = field(default_factory=lambda: iter(range(60)))
    cid: str = ""
    clients: list[Wire] = field(default_factory=list)

    def hang_up(self) -> None:
        """Close all clients of a test."""
        while self.clients:
            self.clients.pop().close()

    def fresh(self) -> "Cutting":
        self.cid = f"conn_{next(self.numbers)}"
        return self

    def presign(self, *arguments: str) -> str:
        return presign(self.gateway.directory, *arguments)

    def target(self, path: str, key: str = "k1", cid: str = "", **terms: Any) -> str:
        signer = Signer(cid or self.cid, SECRET if key == "k1" else OTHER)
        signed = signer.sign(["*"], ["*"], expires_at=in_an_hour(), terms=Terms(**terms))
        return signed.url(path, "")

    def url(self, target: str) -> str:
        return f"http://{GATEWAY}{target}"

    def client(self, *, tls: bool = False) -> Client:
        port = self.gateway.port
        wire_ = Wire(connect_tls(port, GATEWAY, cafile=self.gateway.ca) if tls else connect(port))
        self.clients.append(wire_)
        return Client(wire_)

    def begun(self, target: str, first: bytes = b"", *, tls: bool = False, version: str = "1.1") -> Client:
        """A client whose event stream has begun."""
        client = self.client(tls=tls)
        client.sock.send(first + wire(target).replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1))
        assert client.goes_on(1)
        return client

    def streams(self) -> Streams:
        return Streams.through(self.gateway.port, GATEWAY, cafile=self.gateway.ca)

    @staticmethod
    def fields(target: str, method: str = "GET") -> list[tuple[str, str]]:
        return [(":method", method), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]

    def holds(self, count: int) -> bool:
        return eventually(lambda: self.upstream.gauge.now == count, SOON)

    def status(self, target: str) -> tuple[int, str | None]:
        """What is answered to a short request with the presign of this one."""
        found = ask(self.gateway.port, re.sub(r"/\w+\?", "/answer?", target))
        return found.status, found.header("x-presign-error")

    def becomes(self, target: str, status: int, code: str | None = None) -> bool:
        """Whether each worker comes to answer so: no client knows which of them it gets."""
        return eventually(lambda: all(self.status(target) == (status, code) for _ in range(12)), 10)

    def lines(self) -> list[dict[str, Any]]:
        """The audit lines of this test's connection."""
        found = audit_lines(self.gateway.directory / "audit.jsonl")
        return [line for line in found if line["connection"] == self.cid]

    def ended(self, count: int = 1) -> list[dict[str, Any]]:
        """The lines of requests that were ended."""
        assert eventually(lambda: len(self._ended()) >= count), self.lines()
        assert len(self._ended()) == count
        return self._ended()

    def _ended(self) -> list[dict[str, Any]]:
        return [line for line in self.lines() if line["code"] == "ended"]

    def counted(self) -> float:
        """How many requests the metrics say were ended."""
        lines = ask(self.admin, "/metrics", host="127.0.0.1").body.decode().splitlines()
        found = [
            line for line in lines if line.startswith("presign_requests_total{") and 'code="ended"' in line
        ]
        return sum(float(line.rpartition(" ")[2]) for line in found)


def config(upstream: Flowing, directory: Path, admin: int, **more: Any) -> dict[str, Any]:
    """Write the registry, with these connections too, and return the configuration beside it."""
    one = bearer_connection(upstream.url, SECRET) | {"signing_keys": KEYS, "limits": [{"concurrency": 6}]}
    content = {"connections": {f"conn_{number}": one for number in range(60)} | more}
    write_private(directory / "registry.json", json.dumps(content).encode())
    return {
        "gateway": {"hosts": [GATEWAY]},
        "registry": {"file": "registry.json"},
        "limits": {"store": "sqlite:///limits.db"},
        "audit": {"file": "audit.jsonl"},
        "admin": {"listen": f"127.0.0.1:{admin}"},
    }


@contextmanager
def cutting(directory: Path, upstream: Flowing) -> Iterator[Cutting]:
    """`presign serve` with two workers."""
    admin = free_port()
    directory.chmod(0o700)
    with Serve(directory, config(upstream, directory, admin), workers=2) as served:
        yield Cutting(served, upstream, admin)
