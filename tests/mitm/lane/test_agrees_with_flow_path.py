"""The lane and the flow path are two ways to one end: same request upstream, same answer, same audit line.

The same bytes go to two gateways that differ in `presign_lane` only. Some hundreds with the other tests; many
more, each time with other random numbers, with

    PRESIGN_REQUESTS=N PRESIGN_SEED=N .venv/bin/pytest tests/mitm/lane/test_agrees_with_flow_path.py -s
"""

# ruff: noqa: E501 - tables of bytes, a row each

import contextlib
import gzip
import itertools
import json
import os
import random
import re
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from support.answers import BEHAVIOURS, Answer
from support.asking import SECRET, Grant, wire
from support.conversing import Conversations
from support.gateways import MakeGateway
from support.mutations import Sample, Samples
from support.proxy import Mitm
from support.raw import connect, exchange, is_complete, parse_response
from support.recorder import Recorder
from support.seen import Seen
from support.verifier import read

REAL = "REALSECRET-agreeing-0123456789"
REQUESTS = int(os.environ.get("PRESIGN_REQUESTS", "300"))
LONG = "PRESIGN_REQUESTS" in os.environ
SEED = int(os.environ.get("PRESIGN_SEED") or (random.randrange(10**9) if LONG else 0))
MOST = 8
"""Findings after which a run ends."""
ROUND = 2000

_ID = re.compile(rb"req_[0-9a-f]+")
_DATE = re.compile(rb"(?i)\r\ndate: [^\r]*")


def config(recorder: Recorder) -> dict[str, Any]:
    at = f"http://127.0.0.1:{recorder.port}"
    keys = [{"secret": SECRET}]
    bearer = {"type": "bearer", "token": REAL}
    connections: dict[str, Any] = {
        "conn_h11": {"upstream": at, "auth": bearer, "allow": {"paths": ["v1/*", "x/*", "raw*"]}},
        "conn_uvicorn": {"upstream": at, "auth": {"type": "header", "headers": {"X-Api-Key": REAL}}},
        "conn_aiohttp": {"upstream": at, "auth": {"type": "query", "params": {"key": REAL}}},
        "conn_tornado": {
            "upstream": f"{at}/base",
            "auth": {"type": "basic", "username": "user", "password": REAL},
        },
        "conn_tls": {"upstream": f"https://api.tls.test:{recorder.tls_port}", "auth": bearer},
    }
    for one in connections.values():
        one["signing_keys"] = keys
    connections["pk_lab"] = {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": [f"http://img.lab.test:{recorder.port}"],
        "allow_networks": ["127.0.0.0/8"],
        "formats": ["webp", "png", "jpg"],
        "signing_keys": keys,
    }
    return {
        "gateway": {"hosts": ["presign.local"], "unsigned": "deny"},
        "connections": connections,
        "audit": {"file": "audit.jsonl"},
    }


@dataclass(frozen=True)
class Came:
    """What came of some bytes, without what differs each time."""

    answers: tuple[Any, ...]
    open: bool
    hung: bool
    upstream: tuple[Any, ...]


@dataclass
class Way:
    """One of the two gateways."""

    gateway: Mitm
    client: Conversations
    audited: int = 0

    def audit(self) -> dict[str, Any]:
        """What was written down since the last time, by request id, of what somebody had signed."""
        time.sleep(0.7)  # it is written a moment later
        with (self.gateway.directory / "audit.jsonl").open("rb") as file:
            file.seek(self.audited)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]  # a line may be half written
        self.audited += len(new)
        return {
            line["request_id"]: line_of(line) for line in map(json.loads, new.splitlines()) if line["key"]
        }


@dataclass
class Twins:
    recorder: Recorder
    ways: dict[str, Way]
    samples: Samples
    upstreams: dict[str, str]
    counts: Counter[str] = field(default_factory=Counter)
    ids: dict[str, list[bytes]] = field(default_factory=dict)
    """The request ids of the last answers."""
    asked: list[tuple[bytes, bytes]] = field(default_factory=list)

    def both(self, way: str, connection: str, data: bytes) -> tuple[Came, Came]:
        found = read(data)
        heads, clean = found.heads, found.is_clean
        on, off = (self.one(lane, way, connection, data, heads, clean) for lane in ("on", "off"))
        if not clean and len(on.answers) == len(off.answers) + 1 and on.answers[-1][0] in MALFORMED:
            # A body that is not framed as HTTP has it is answered, where mitmproxy cuts the client off.
            self.counts["answered, not cut"] += 1
            return off, off
        return on, off

    def one(self, lane: str, way: str, connection: str, data: bytes, heads: list[bool], clean: bool) -> Came:
        self.recorder.clear()
        talk = self.ways[lane].client.talk(way, self.upstreams[connection], data, heads, clean)
        if not clean:
            time.sleep(0.005)
        self.ids[lane] = list(dict.fromkeys(_ID.findall(talk.raw)))
        # The lane says that it closes where the client has asked it to; mitmproxy does so in silence.
        asked = re.search(rb"(?i)\r\nconnection: *[^\r]*close", data) is not None
        return Came(
            answers=tuple(answer_of(one, asked) for one in talk.answers),
            open=talk.open or asked,
            hung=talk.hung,
            # Of a request that is not whole the client tires, and its head may come late or not at all.
            upstream=tuple(seen_of(one) for one in self.recorder.requests if one.complete),
        )

    def judge(self, sample: Sample) -> None:
        """What differs once may be a matter of milliseconds; what differs three times does not."""
        self.counts["requests"] += 1
        for again in range(3):
            on, off = self.both(sample.way, sample.connection, sample.data)
            if on == off:
                break
            self.counts["again"] += 1
            time.sleep(0.1 * again)
        self.counts["forwarded"] += len(off.upstream)
        assert_same(on, off)
        if len(self.ids["on"]) == len(self.ids["off"]):
            self.asked += zip(self.ids["on"], self.ids["off"], strict=True)

    def assert_same_audit(self) -> None:
        """Line by line, of the requests whose answers said their ids."""
        on, off = (self.ways[lane].audit() for lane in ("on", "off"))
        for one, other in self.asked:
            assert on.get(one.decode()) == off.get(other.decode())
        assert len([one for one, _ in self.asked if one.decode() in on]) > self.counts["requests"] / 10
        self.asked.clear()


MALFORMED = (b"HTTP/1.1 400 Bad Request", b"HTTP/1.1 403 Forbidden")


def answer_of(one: Any, closing: bool) -> Any:
    head = _DATE.sub(b"", _ID.sub(b"req", one.head))
    line, *fields = head.rstrip(b"\r\n").split(b"\r\n")
    named = [tuple(part.strip() for part in text.split(b":", 1)) for text in fields]
    kept = sorted((name.lower(), value) for name, value in named if name.lower() not in HOP)
    closes = any(name.lower() == b"connection" and value.lower() == b"close" for name, value in named)
    return line, tuple(kept), _ID.sub(b"req", one.body), closes or closing


HOP = (b"connection", b"transfer-encoding")
"""How it is framed is not the same; what is framed is."""


def seen_of(one: Seen) -> Any:
    fields = sorted((name.lower(), value) for name, value in one.headers)
    return one.method, one.target, tuple(fields), one.body, one.complete, one.tls, one.sni


def line_of(line: dict[str, Any]) -> Any:
    return tuple((name, value) for name, value in line.items() if name not in EACH_TIME)


EACH_TIME = ("time", "at", "request_id", "duration", "upstream_duration", "suppressed_before")


def assert_same(on: Came, off: Came) -> None:
    for name in ("answers", "open", "hung", "upstream"):
        a, b = getattr(on, name), getattr(off, name)
        assert a == b, f"{name}\n  on:  {a}\n  off: {b}\n  {on}\n  {off}"


@pytest.fixture(scope="module")
def twins(module_gateway: MakeGateway, tls_upstream: Recorder) -> Iterator[Twins]:
    settings_ = config(tls_upstream)
    names = {"api.tls.test": ["127.0.0.1"], "img.lab.test": ["127.0.0.1"]}
    made = {}
    for lane in ("on", "off"):
        gateway = module_gateway(settings_, "--set", f"presign_lane={lane}", dns=names)
        made[lane] = Way(gateway, Conversations(gateway, gateway, tls_upstream.tls_port))
    at = f"127.0.0.1:{tls_upstream.port}"
    upstreams = dict.fromkeys(("conn_h11", "conn_uvicorn", "conn_aiohttp", "conn_tornado"), at)
    upstreams |= {
        "conn_tls": f"api.tls.test:{tls_upstream.tls_port}",
        "pk_lab": f"img.lab.test:{tls_upstream.port}",
    }
    samples = Samples(settings_, upstreams, SECRET, int(time.time()))
    yield Twins(tls_upstream, made, samples, upstreams)
    for way in made.values():
        way.client.close()


def rounds(wanted: int) -> list[tuple[int, int]]:
    sizes = [min(ROUND, wanted - at) for at in range(0, wanted, ROUND)]
    return [(SEED + number, size) for number, size in enumerate(sizes)]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "size"), rounds(REQUESTS))
def test_the_two_ways_agree(number: int, size: int, twins: Twins) -> None:
    found: list[str] = []
    before, started = twins.counts["forwarded"], time.monotonic()

    @seed(number)
    @settings(
        max_examples=size,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(twins.samples.sample().filter(lambda sample: sample.way != "reverse"))
    def tried(sample: Sample) -> None:
        if len(found) >= MOST:
            return
        try:
            twins.judge(sample)
        except AssertionError as error:
            found.append(f"{error}\n{sample}")

    tried()
    if LONG:
        took = time.monotonic() - started
        print(f"\nseed {number}: {size} in {took:.0f} s: {json.dumps(twins.counts)}", flush=True)
    assert not found, "\n\n".join(found)
    twins.assert_same_audit()
    assert twins.counts["forwarded"] - before > size / 10 or size < 100


# -- several requests on one connection ----------------------------------------------------------------

GRANT = Grant("conn_h11")
TARGET = GRANT.target("v1/models")
PIECES = {
    "simple": wire(GRANT.target("v1/simple")),
    "upload": wire(GRANT.target("v1/upload"), method="POST", body=b"GET /smuggled HTTP/1.1\r\n\r\n"),
    "chunks": wire(GRANT.target("v1/chunks"), {"Transfer-Encoding": "chunked"}, "PUT") + b"3\r\nabc\r\n0\r\n\r\n",
    "expect": wire(GRANT.target("v1/expect"), {"Expect": "100-continue", "Content-Length": "3"}, "PUT") + b"abc",
    "absolute": wire(f"http://presign.local{GRANT.target('v1/absolute')}"),
    "denied": wire(Grant("conn_h11", paths="other").target("v1/denied")),
    "forbidden": wire(GRANT.target("elsewhere")),
    "unsigned": wire("/api/proxy/conn_h11/v1/unsigned"),
    "upgrade": wire(GRANT.target("v1/upgrade"), {"Connection": "Upgrade", "Upgrade": "h2c", "HTTP2-Settings": "AA"}),
    "te": wire(GRANT.target("v1/te"), {"TE": "trailers", "Connection": "TE"}),
    "HTTP/1.0": wire(GRANT.target("v1/old")).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "last": wire(GRANT.target("v1/last"), {"Connection": "close"}),
    "CONNECT": b"CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n",
    "garbage": b"\x16\x03\x01\x00\r\n\r\n",
    "LF": wire(GRANT.target("v1/lf")).replace(b"\r\n", b"\n"),
}  # fmt: skip


def answers_to(port: int, data: bytes, cut: int, count: int) -> tuple[Any, ...]:
    """What comes back for bytes that come in pieces, one after the other, until nothing more does."""
    with connect(port) as sock:
        sock.settimeout(0.3)
        with contextlib.suppress(OSError):
            for at in range(0, len(data), cut):
                sock.sendall(data[at : at + cut])
                if cut < 100:
                    time.sleep(0.0002)
        received = b""
        with contextlib.suppress(OSError):
            while (piece := sock.recv(65536)) and len(final(received + piece)) < count:
                received += piece
            received += piece
    return tuple((status, body) for status, body in final(received))


def final(received: bytes) -> list[tuple[bytes, bytes]]:
    """Status line and body of each answer that is whole, and not interim."""
    parts = re.split(rb"(?=HTTP/1\.[01] [0-9]{3} )", received)
    whole = [_ID.sub(b"req", part) for part in parts if is_complete(part)]
    found = [(part.partition(b"\r\n")[0], part.partition(b"\r\n\r\n")[2]) for part in whole]
    return [one for one in found if not one[0].startswith(b"HTTP/1.1 1")]


def came_of(twins: Twins, lane: str, names: tuple[str, ...], cut: int) -> tuple[Any, Any]:
    twins.recorder.clear()
    data = b"".join(PIECES[name] for name in names)
    answers = answers_to(twins.ways[lane].gateway.port, data, cut, len(names))
    return answers, tuple(seen_of(one) for one in twins.recorder.requests)


ENDS = ("HTTP/1.0", "last", "CONNECT", "garbage", "LF", "upgrade", "expect", "denied")
PAIRS = [*itertools.product(("simple", "upload"), PIECES), *itertools.product(PIECES, ("simple",))]
TRIPLES = [
    *itertools.product(("simple",), ("chunks", "expect", "absolute", "te"), ENDS),
    *itertools.product(("chunks",), ("simple",), PIECES),
]


@pytest.mark.parametrize("cut", [100_000, 1] if LONG else [100_000])
@pytest.mark.parametrize("names", dict.fromkeys(PAIRS + (TRIPLES if LONG else TRIPLES[::4])), ids="+".join)
def test_requests_in_one_segment_end_alike_in_every_order(
    names: tuple[str, ...], cut: int, twins: Twins
) -> None:
    on, off = (came_of(twins, lane, names, cut) for lane in ("on", "off"))
    assert on == off


@pytest.mark.parametrize("name", PIECES)
def test_a_request_byte_by_byte_ends_alike(name: str, twins: Twins) -> None:
    on, off = (came_of(twins, lane, ("simple", name), 1) for lane in ("on", "off"))
    assert on == off


def one_by_one(twins: Twins, lane: str, names: tuple[str, ...], cut: int) -> tuple[Any, Any]:
    """What comes of requests of which each waits for the answer to the one before, on one connection."""
    twins.recorder.clear()
    answers: list[Any] = []
    with connect(twins.ways[lane].gateway.port) as sock:
        for name in names:
            data = PIECES[name]
            with contextlib.suppress(OSError):
                for at in range(0, len(data), cut):
                    sock.sendall(data[at : at + cut])
                    time.sleep(0.001 if cut < len(data) else 0)
            received = b""
            with contextlib.suppress(OSError):
                while not final(received) and (piece := sock.recv(65536)):
                    received += piece
            answers.append(final(received) or "closed")
    return answers, tuple(seen_of(one) for one in twins.recorder.requests)


STAYING = ("simple", "upload", "chunks", "expect", "absolute", "denied", "forbidden", "te")


@pytest.mark.parametrize("number", range(max(40, REQUESTS // 10) if LONG else 40))
def test_requests_one_after_the_other_on_one_connection_end_alike(number: int, twins: Twins) -> None:
    """The lane and mitmproxy have the connection by turns, and change between any two of them."""
    chance = random.Random(SEED + number)
    names = (*chance.choices(STAYING, k=chance.randint(2, 10)), *chance.choices(list(PIECES), k=2), "simple")
    cut = chance.choice([100_000, 100_000, 50, 7])
    on, off = (one_by_one(twins, lane, names, cut) for lane in ("on", "off"))
    assert on == off, names


# -- what an upstream answers --------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
RESPONSES = {
    "plain": OK + b"Content-Length: 2\r\n\r\nok",
    "chunked": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked in capitals": OK + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "a trailer": OK + b"Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2;e=f\r\nok\r\n0\r\nX: y\r\n\r\n",
    "until it closes": OK + b"Content-Type: text/plain\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nok",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "an odd reason": b"HTTP/1.1 200 \xe9t\xe9\r\nContent-Length: 2\r\n\r\nok",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "304": b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 9\r\n\r\n',
    "205": b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
    "999": b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: <x>\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok",
    "echo in the head": OK + f"X: a{REAL}b\r\nContent-Length: 2\r\n\r\nok".encode(),
    "echo in the reason": f"HTTP/1.1 200 {REAL}\r\nContent-Length: 2\r\n\r\nok".encode(),
    "echo in the body": OK + f"Content-Length: {len(REAL)}\r\n\r\n{REAL}".encode(),
    "echo in a cut body": OK + f"Content-Length: 99\r\n\r\n{REAL[:-3]}".encode(),
    "gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(b"hello", mtime=0)) + gzip.compress(b"hello", mtime=0),
    "gzip with padding": OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % (len(gzip.compress(b"hello", mtime=0)) + 9) + gzip.compress(b"hello", mtime=0) + bytes(9),
    "bare deflate": OK + b"Content-Encoding: deflate\r\nContent-Length: 7\r\n\r\n" + zlib.compress(b"hello")[2:-4],
    "aws-chunked": OK + b"Content-Encoding: aws-chunked\r\nContent-Length: 2\r\n\r\nok",
    "gzip that is none": OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
    "cookies and more": OK + b"Set-Cookie: a=b\r\nWWW-Authenticate: x\r\nConnection: X-Gone\r\nX-Gone: y\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nok",
    "a redirect inside": b"HTTP/1.1 302 Found\r\nLocation: /v1/y?z\r\nContent-Length: 0\r\n\r\n",
    "too short": OK + b"Content-Length: 9\r\n\r\nok",
    "nothing": b"",
    "half a head": OK + b"X: y",
    "101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    "obs-fold": OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "TE and CL": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "NUL": OK + b"X: a\0\r\nContent-Length: 2\r\n\r\nok",
    "a bad chunk": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    "an odd name": OK + b"X Y: z\r\nContent-Length: 2\r\n\r\nok",
    "an empty name": OK + b": z\r\nContent-Length: 2\r\n\r\nok",
    "control": OK + b"X: \x01\r\nContent-Length: 2\r\n\r\nok",
}  # fmt: skip


@pytest.fixture
def speaking() -> Iterator[None]:
    for number, data in enumerate(RESPONSES.values()):
        BEHAVIOURS[f"raw{number}"] = lambda request, data=data: Answer(verbatim=data)
    yield
    for number in range(len(RESPONSES)):
        del BEHAVIOURS[f"raw{number}"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"] if LONG else ["GET", "HEAD"])
@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.usefixtures("speaking")
def test_what_an_upstream_answers_arrives_alike(name: str, method: str, twins: Twins) -> None:
    data = wire(GRANT.target(f"raw{list(RESPONSES).index(name)}"), {"Connection": "close"}, method)
    found = []
    for lane in ("on", "off"):
        with connect(twins.ways[lane].gateway.port) as sock:
            received = exchange(sock, data, 5)
            with contextlib.suppress(OSError):
                while piece := sock.recv(65536):
                    received += piece
        assert REAL.encode() not in received
        found.append(shown(received, method == "HEAD"))
    assert found[0] == found[1]


def shown(received: bytes, head_only: bool) -> Any:
    if not received:
        return None
    response = parse_response(received, head_only)
    kept = sorted((key.lower(), _ID.sub(b"req", value.encode("latin-1"))) for key, value in response.headers)
    return (
        received.partition(b"\r\n")[0][9:],  # mitmproxy repeats the version of the upstream
        [one for one in kept if one[0].encode() not in HOP],
        _ID.sub(b"req", response.body),
    )
