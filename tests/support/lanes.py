"""A gateway with the lane open, an upstream by hand behind it, and a connection of its own for each test."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from support.audit_log import audit_lines
from support.byhand import ByHand, Wire
from support.lab import REAL_SECRET, bearer_connection
from support.leaks import FOREVER, Issuer, Traces
from support.proxy import PROMPTLY, Mitm
from support.puppet import eventually
from support.raw import Tls, connect, connect_tls
from support.serving import Serve

GATEWAY = "presign.local"
SIGNING = "sk_signing_secret_of_the_lane_0123456789"
WAYS = {
    "lane": ("--set", "presign_lane=on"),
    "flows": ("--set", "presign_lane=off"),
    "flows as served": ("--set", "presign_lane=off", "-s", str(PROMPTLY)),
}
"""Options of mitmdump for each way that a request may take."""
CONNECTIONS = 160 if "PRESIGN_WITHIN" in os.environ else 500
LEAST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
"""An answer after which its connection is as good as before."""


def config(upstream: str, **more: Any) -> dict[str, Any]:
    """Many connections to one upstream, which share no connection with each other; `more` goes to each."""
    conduct = {"timeouts": {"connect": "2s", "response": "2s"}}
    found = {
        f"conn_{number}": bearer_connection(upstream, SIGNING, **{**conduct, **more})
        for number in range(CONNECTIONS)
    }
    return {"gateway": {"hosts": [GATEWAY]}, "connections": found, "audit": {"file": "audit.jsonl"}}


@dataclass
class LaneLab:
    """Hands out connections that nobody has used before."""

    gateway: Mitm | Serve
    hand: ByHand
    issuer: Issuer = field(
        default_factory=lambda: Issuer({f"conn_{number}": SIGNING for number in range(CONNECTIONS)})
    )
    numbers: Any = field(default_factory=lambda: iter(range(CONNECTIONS)))
    cid: str = ""

    def fresh(self) -> "LaneLab":
        self.cid = f"conn_{next(self.numbers)}"
        return self

    @contextlib.contextmanager
    def checked(self) -> "Iterator[LaneLab]":
        """Fresh for a test, which leaves no crash and no secret in the log."""
        logged = len(self.gateway.log())
        yield self.fresh()
        self.hand.hang_up()
        log = self.gateway.log()[logged:]
        assert "has crashed" not in log
        assert "Traceback" not in log
        assert not Traces([REAL_SECRET, *self.issuer.issued]).found_in(log.encode())

    def head(self, *fields: str, method: str = "GET", path: str = "x", cid: str = "", **grant: Any) -> bytes:
        target = self.issuer.url(cid or self.cid, path, expires=grant.pop("expires", FOREVER), **grant)
        return "\r\n".join([f"{method} {target} HTTP/1.1", f"Host: {GATEWAY}", *fields, "", ""]).encode()

    def post(self, body: bytes, *fields: str, **options: Any) -> bytes:
        return self.head(f"Content-Length: {len(body)}", *fields, method="POST", **options) + body

    def client(self) -> Wire:
        return Wire(connect(self.gateway.port))

    def tls_client(self, port: int = 443) -> Wire:
        """Through a tunnel to the gateway, with TLS in it."""
        return Wire(connect_tls(self.gateway.port, GATEWAY, port, cafile=self.gateway.ca))

    def direct_tls_client(self) -> Wire:
        return Wire(connect(self.gateway.port, Tls(GATEWAY, self.gateway.ca)))

    def kept_client(self) -> Wire:
        """One that was served twice before, over an upstream connection that the test's own does not share:
        from the second on, without mitmproxy's reader.
        """
        wire, mine = self.client(), self.cid
        self.fresh()
        api = None
        for _ in range(2):
            wire.send(self.head())
            api = api or self.hand.accept()
            api.read_head()
            api.send(LEAST)
            assert wire.read_response().endswith(b"\r\n\r\nok")
        self.cid = mine
        return wire

    def serve(self, answer: bytes = LEAST) -> tuple[Wire, bytes]:
        """Accept, read a head, answer."""
        api = self.hand.accept()
        asked = api.read_head()
        api.send(answer)
        return api, asked

    def warm(self, client: Wire | None = None) -> Wire:
        """The upstream's end of a connection that the lane keeps, after one exchange of this client's."""
        with client or self.client() as sender:
            sender.send(self.head())
            api, _ = self.serve()
            assert sender.read_response().endswith(b"\r\n\r\nok")
        return api

    def audit(self) -> list[dict[str, Any]]:
        """The lines of this test's connection."""
        path = self.gateway.directory / "audit.jsonl"
        return [line for line in audit_lines(path) if line["connection"] == self.cid]

    def audited(self, count: int = 1) -> list[dict[str, Any]]:
        assert eventually(lambda: len(self.audit()) >= count), self.audit()
        assert len(self.audit()) == count
        return self.audit()


@contextlib.contextmanager
def lane_lab(make_gateway: Callable[..., Mitm], *options: str, lane: str = "on") -> Iterator[LaneLab]:
    hand = ByHand()
    try:
        yield LaneLab(make_gateway(config(hand.url), "--set", f"presign_lane={lane}", *options), hand)
    finally:
        hand.stop()


def is_closed(wire: Wire, timeout: float = 2.0) -> bool:
    """Whether the other side closes, whatever it says before."""
    try:
        wire.read_to_end(timeout)
    except TimeoutError:
        return False
    return True


def orders(*pieces: bytes) -> list[tuple[bytes, ...]]:
    return list(itertools.permutations(pieces))
