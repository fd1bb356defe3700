"""204 and 304 end with their head, over whatever they came: nothing behind it is passed on."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import trustme

from presign_proxy.http.response_head import MAX_RESPONSE_HEAD, TOO_LARGE
from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.gateways import TLS_NAMES, MakeGateway
from support.h2frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    accept_h2,
    frame,
    h2_context,
    literal,
    next_of,
)
from support.h2streams import Streams
from support.lab import bearer_connection
from support.proxy import PROMPTLY
from support.puppet import eventually
from support.raw import Tls, connect, connect_tls, parse_response
from support.serving import Serve

GATEWAY: Final = "presign.local"
PATIENT: Final = 20.0
EVIL: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
LEAST: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ALPN: Final = ("http/1.1", "h2")
"""Of a client that rather speaks HTTP/1.1: mitmproxy offers both to the upstream."""
OK: Final = b"\x88"
"""`:status: 200` in HPACK's own table."""
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"
BODIES: Final = {
    "a length": b"Content-Length: 5\r\n\r\n",
    "a length and a body": b"Content-Length: 4\r\n\r\nevil",
    "chunks": CHUNKED,
    "chunks that do not come": CHUNKED[:30],
    "an answer": b"\r\n" + EVIL,
}
STATUSES: Final = {204: b"HTTP/1.1 204 No Content\r\n", 304: b"HTTP/1.1 304 Not Modified\r\n"}


@dataclass
class Lab:
    """A gateway that lets others pass, and two upstreams by hand, one of which speaks HTTP/2."""

    gateway: Any
    hand: ByHand
    context: ssl.SSLContext

    def accept(self, *, h2: bool = False) -> Wire:
        """The upstream's end of a connection, of which a request was read."""
        if h2:
            api = accept_h2(self.hand, self.context, timeout=PATIENT)
            is_asked(api)
            return api
        api = self.hand.accept(PATIENT)
        api.read_head(PATIENT)
        return api


def is_asked(api: Wire) -> None:
    """Read until the head of a request has come over HTTP/2."""
    next_of(api, HEADERS, PATIENT)


@pytest.fixture(scope="module", params=["mitmdump", "mitmdump, as served", "serve"])
def module_lab(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    hand: ByHand,
    ca: trustme.CA,
    ca_pem: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    context = h2_context(ca.issue_cert(*TLS_NAMES))
    config = {
        "gateway": {"hosts": [GATEWAY], "unsigned": "pass"},
        "connections": {
            "conn_h1": bearer_connection(hand.url, SECRET),
            "conn_h2": bearer_connection(f"https://localhost:{hand.port}", SECRET),
        },
        "audit": {"file": "audit.jsonl"},
    }
    if request.param == "serve":
        trust = ("--upstream-ca", str(ca_pem), "--unsigned", "pass")
        with Serve(tmp_path_factory.mktemp("serve"), config, *trust) as served:
            yield Lab(served, hand, context)
        return
    options = ("-s", str(PROMPTLY)) if "served" in request.param else ()
    yield Lab(module_gateway(config, *options), hand, context)


@pytest.fixture
def lab(module_lab: Lab) -> Iterator[Lab]:
    yield module_lab
    module_lab.hand.hang_up()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", STATUSES)
def test_what_nobody_signed_for_ends_with_its_head(lab: Lab, status: int, body: str) -> None:
    """A chunked 204 was ended with the last chunk, which stood in front of the next answer."""
    asked = wire(f"{lab.hand.url}/x", host=f"127.0.0.1:{lab.hand.port}")
    with Wire(connect(lab.gateway.port)) as client:
        client.send(asked)
        api = lab.accept()
        api.send(STATUSES[status] + BODIES[body])
        head = client.read_head(PATIENT)
        check(status, head)
        api.read_to_end(PATIENT)  # whatever is behind is nobody's answer
        client.send(asked)
        lab.accept().send(LEAST)
        assert client.read_response(PATIENT) == LEAST


def check(status: int, head: bytes) -> None:
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"transfer-encoding" not in head.lower()
    assert status == 304 or b"content-length" not in head.lower()


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("status", STATUSES)
def test_what_nobody_signed_for_ends_with_its_head_for_a_client_over_http2(
    lab: Lab, status: int, body: str
) -> None:
    place = [(":scheme", "http"), (":authority", f"127.0.0.1:{lab.hand.port}"), (":path", "/x")]
    with Streams.direct(lab.gateway.port, GATEWAY, lab.gateway.ca) as client:
        stream = client.begin([(":method", "GET"), *place])
        lab.accept().send(STATUSES[status] + BODIES[body])
        (reply,) = client.wait([stream], PATIENT)
    assert (reply.status, reply.body, reply.ended, reply.detail) == (status, b"", True, "")
    assert reply.header("transfer-encoding") is None
    assert status == 304 or reply.header("content-length") is None


def tunnel(lab: Lab) -> socket.socket:
    """To the upstream that speaks HTTP/2, for a client that speaks HTTP/1.1 in it."""
    return connect_tls(lab.gateway.port, "localhost", lab.hand.port, cafile=lab.gateway.ca, alpn=ALPN)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("signed", [True, False])
def test_what_an_upstream_over_http2_says_behind_a_204_is_nobodys_answer(
    lab: Lab, status: int, signed: bool
) -> None:
    if signed:
        sock = connect(lab.gateway.port, Tls(GATEWAY, lab.gateway.ca, alpn=ALPN))
        asked = b"\r\n" + wire(Grant("conn_h2").target("x"))
    else:
        sock = tunnel(lab)
        asked = wire("/x", host="localhost")
    with Wire(sock) as client:
        client.send(asked)
        api = lab.accept(h2=True)
        fields = literal(b":status", b"%d" % status) + literal(b"content-length", b"%d" % len(EVIL))
        api.send(frame(HEADERS, fields, END_HEADERS, 1) + frame(DATA, EVIL, END_STREAM, 1))
        check(status, client.read_head(PATIENT))
        client.send(asked)
        is_asked(api)
        api.send(frame(HEADERS, OK + literal(b"content-length", b"2"), END_HEADERS, 3))
        api.send(frame(DATA, b"ok", END_STREAM, 3))
        assert parse_response(client.read_response(PATIENT)).body == b"ok"


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_interim_heads_without_end_over_http2_are_refused(lab: Lab, method: str) -> None:
    """Over HTTP/1 they were counted; over HTTP/2 two hundred a second were taken for ten minutes."""
    pseudo = [(":scheme", "https"), (":authority", GATEWAY), (":path", Grant("conn_h2").target("x"))]
    with Streams.direct(lab.gateway.port, GATEWAY, lab.gateway.ca) as client:
        stream = client.begin([(":method", method), *pseudo])
        api = lab.accept(h2=True)
        interim = literal(b":status", b"103") + literal(b"link", b"x" * 10_000)
        enough = MAX_RESPONSE_HEAD // 10_022 - 1
        api.send(frame(HEADERS, interim, END_HEADERS, 1) * enough)
        done = OK + literal(b"x", b"y" * 9_000)
        api.send(frame(HEADERS, done, END_HEADERS | END_STREAM, 1))
        assert client.wait([stream], PATIENT)[0].status == 200  # as many as that say nothing
        stream = client.begin([(":method", method), *pseudo])
        is_asked(api)
        api.send(frame(HEADERS, interim, END_HEADERS, 3) * (enough + 2))  # and nothing behind them
        assert client.wait([stream], PATIENT)[0].status == 502
        stream = client.begin([(":method", method), *pseudo])
        is_asked(api)
        api.send(frame(HEADERS, done, END_HEADERS | END_STREAM, 5))
        assert client.wait([stream], PATIENT)[0].status == 200  # on the same connection
    log = Path(lab.gateway.directory) / "audit.jsonl"
    assert eventually(lambda: TOO_LARGE in "".join(log.read_text("utf-8").splitlines()[-2:-1]), PATIENT)
    assert "Swallowing" not in lab.gateway.log()


def test_what_an_upstream_over_http2_says_behind_an_answer_to_head_is_nobodys_answer(lab: Lab) -> None:
    with Wire(connect(lab.gateway.port, Tls(GATEWAY, lab.gateway.ca, alpn=ALPN))) as client:
        client.send(b"\r\n" + wire(Grant("conn_h2").target("x"), method="HEAD"))
        api = lab.accept(h2=True)
        api.send(frame(HEADERS, OK, END_HEADERS, 1) + frame(DATA, EVIL, END_STREAM, 1))
        assert client.read_head(PATIENT).startswith(b"HTTP/1.1 502 ")
        assert client.is_silent()


def test_trailers_of_an_upstream_over_http2_end_nothing_for_a_client_over_http1(lab: Lab) -> None:
    """Nobody signed for it, so that they were not dropped; mitmproxy has no way to write them."""
    with Wire(tunnel(lab)) as client:
        for stream in (1, 3):
            client.send(wire("/x", host="localhost"))
            if stream == 1:
                api = lab.accept(h2=True)
            else:
                is_asked(api)
            api.send(frame(HEADERS, OK + literal(b"content-length", b"2"), END_HEADERS, stream))
            api.send(frame(DATA, b"ok", 0, stream))
            api.send(frame(HEADERS, literal(b"x", b"y"), END_HEADERS | END_STREAM, stream))
            assert parse_response(client.read_response(PATIENT)).body == b"ok"
