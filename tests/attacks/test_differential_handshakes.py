"""An upstream is asked to switch only by a handshake that was granted and is one to every reader.

Handshakes, most of them bent, go through a real gateway on both paths to an upstream that answers well or
badly; frames and whole requests follow at once. A hundred run with the other tests; many more with

    make hostile
"""

import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from support.gateways import MakeGateway
from support.handshakes import (
    BEHIND_101,
    HandshakeSample,
    ScriptedUpstream,
    Seen,
    handshakes,
    is_handshake,
    wants_websocket,
)
from support.hunting import LONG, REQUESTS, hunt, rounds
from support.lab import REAL_SECRET
from support.lanes import WAYS
from support.mutations import Samples
from support.raw import connect
from support.verifier import Asked, Granted, Verifier, Way, first, read

SIGNING = "sk_differential_signing_secret_0123456789"
CREDENTIAL = f"Authorization: Bearer {REAL_SECRET}".encode()
SHARE = len(WAYS) * 20
"""Of twenty requests of `make hostile`, one is a handshake."""


class Lab:
    """One gateway, one upstream, and the judge of what passes between them."""

    def __init__(self, make: MakeGateway, options: tuple[str, ...]) -> None:
        self.upstream = ScriptedUpstream()
        at = f"127.0.0.1:{self.upstream.port}"
        connection = {
            "upstream": f"http://{at}",
            "auth": {"type": "bearer", "token": REAL_SECRET},
            "signing_keys": [{"secret": SIGNING}],
            "websocket": True,
            "pool": False,
        }
        config = {
            "gateway": {"hosts": ["presign.local"], "unsigned": "deny"},
            "connections": {"conn_ws": connection},
        }
        self.gateway = make(config, *options, dns={"evil.test": [f"127.0.0.1#{self.upstream.port}"]})
        self.verifier = Verifier(config)
        self.samples = Samples(config, {"conn_ws": at}, SIGNING, int(time.time()))
        self.counts: Counter[str] = Counter()
        self._at = at

    def try_handshake(self, sample: HandshakeSample) -> None:
        self.upstream.answer = sample.answer
        host, _, port = self._at.partition(":")
        way = Way(self.gateway.port, ("http", host, int(port)) if sample.way == "tunnel" else None)
        received = self._talk(sample)
        seen = self.upstream.take()
        asked = first(sample.data)
        grant = asked and self.verifier.grants(asked, way, int(time.time()))
        self.counts["handshakes"] += 1
        if asked is not None and wants_websocket(asked):
            allowed = grant if is_handshake(asked) else None
            self._judge_handshake(sample, asked, allowed, seen, received)
        else:
            self._judge_requests(sample, way, seen, received)

    def _judge_handshake(
        self,
        sample: HandshakeSample,
        asked: Asked,
        allowed: Granted | None,
        seen: list[Seen],
        received: bytes,
    ) -> None:
        assert len(seen) <= (allowed is not None), f"not granted, or no handshake: {seen}"
        self.counts["granted handshakes, not forwarded"] += allowed is not None and not seen
        has_switched = received.startswith(b"HTTP/1.1 101 ")
        assert has_switched == bool(seen and sample.answer == "good"), received
        assert (BEHIND_101 in received) == has_switched, received
        for one in seen:
            assert allowed is not None
            self.counts["forwarded handshakes"] += 1
            self._check_head(one.head, asked, allowed)
            behind = sample.data[sample.data.index(b"\n\r\n" if b"\n\r\n" in sample.data else b"\n\n") :]
            assert one.tail == b"" or (has_switched and behind.endswith(one.tail)), one

    def _judge_requests(self, sample: HandshakeSample, way: Way, seen: list[Seen], received: bytes) -> None:
        """Without `websocket`, it is as any request: what is forwarded asks for no switch at all."""
        granted = [self.verifier.grants(asked, way, int(time.time())) for asked in read(sample.data).requests]
        targets = [(grant.method, grant.target) for grant in granted if grant]
        for one in seen:
            self.counts["forwarded without a switch"] += 1
            method, target, _ = one.head.partition(b"\r\n")[0].split(b" ")
            assert (method, target) in targets, one
            assert not re.search(rb"(?im)^(upgrade|connection) *:", one.head), one
            assert one.head.count(CREDENTIAL) == 1, one
        assert b" 101 " not in received[:16]

    def _check_head(self, head: bytes, asked: Asked, grant: Granted) -> None:
        line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        assert line == b"GET %b HTTP/1.1" % grant.target
        names = [one.partition(b":")[0].lower() for one in lines]
        mine = [one for one in lines if re.match(rb"(?i)(upgrade|connection|sec[-_]websocket)", one)]
        once = [
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: " + asked.all(b"sec-websocket-key")[0],
        ]
        assert mine[:4] == once, mine
        assert all(re.match(rb"Sec-WebSocket-(Protocol|Extensions): ", one) for one in mine[4:]), mine
        assert names.count(b"authorization") == 1
        assert CREDENTIAL in lines
        assert names.count(b"host") == 1
        assert f"Host: {grant.host}".encode() in lines
        assert b"openai-insecure-api-key" not in head
        assert not re.search(rb"(?i)x[-_]presign|ps1_", head)

    def _talk(self, sample: HandshakeSample) -> bytes:
        received = b""
        with connect(self.gateway.port) as sock, contextlib.suppress(OSError):
            if sample.way == "tunnel":
                sock.sendall(f"CONNECT {self._at} HTTP/1.1\r\nHost: {self._at}\r\n\r\n".encode())
                opened = b""
                while not opened.endswith(b"\r\n\r\n"):
                    opened += sock.recv(1) or b"\r\n\r\n"
            sock.sendall(sample.data)
            asked = first(sample.data)
            # Half a head is waited for; of a whole one there is an answer, however busy the machine is.
            sock.settimeout(0.05 if asked is None else 20)
            while piece := sock.recv(65536):
                received += piece
                sock.settimeout(0.05)
        assert REAL_SECRET.encode() not in received
        return received


@pytest.fixture(scope="module", params=list(WAYS))
def lab(request: pytest.FixtureRequest, module_gateway: MakeGateway) -> Iterator[Lab]:
    lab = Lab(module_gateway, WAYS[request.param])
    yield lab
    lab.upstream.stop()
    log = lab.gateway.log()
    assert REAL_SECRET not in log
    assert "Traceback" not in log
    assert "has crashed" not in log
    if LONG:
        print("\n" + json.dumps(lab.counts), flush=True)


@pytest.mark.parametrize(("number", "size"), rounds(max(40, REQUESTS // SHARE)))
def test_only_a_granted_handshake_switches(number: int, size: int, lab: Lab) -> None:
    hunt(number, size, handshakes(lab.samples), lab.try_handshake, lab.counts)


def test_a_good_part_of_them_was_forwarded(lab: Lab) -> None:
    assert lab.counts["forwarded handshakes"] > lab.counts["handshakes"] // 10
    assert lab.counts["granted handshakes, not forwarded"] < max(4, lab.counts["handshakes"] // 20)
