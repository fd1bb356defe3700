"""Where a line, a body or a status ends: what HTTP/1.1 does not have is refused where it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from presign_proxy.mitm.flow.first_bytes import MAX_EMPTY_LINES
from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.proxy import Mitm
from support.raw import Tls, connect, parse_response
from support.recorder import Recorder
from support.serving import CONN, Serve

GATEWAY = "presign.local"
PATIENT = 30.0
"""Seconds, of a machine that has much else to do."""


@dataclass
class Lab:
    gateway: Mitm | Serve
    upstream: Recorder
    hand: ByHand

    def client(self, *, tls: bool = False) -> Wire:
        return Wire(connect(self.gateway.port, Tls(GATEWAY, self.gateway.ca) if tls else None))

    def head(self, **more: Any) -> bytes:
        return wire(Grant(CONN).target("v1/models"), **more)

    def by_hand(self, **more: Any) -> bytes:
        """A request for the upstream that the test plays."""
        return wire(Grant("conn_hand").target("v1/models"), **more)

    def upload(self, body: bytes) -> bytes:
        return self.by_hand(headers={"Transfer-Encoding": "chunked"}, method="POST") + body


@pytest.fixture(scope="module", params=["lane", "flows", "serve"])
def lab(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    upstream: Recorder,
    hand: ByHand,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    connections = {
        CONN: bearer_connection(upstream.url, SECRET),
        "conn_hand": bearer_connection(hand.url, SECRET, pool=False),
    }
    config = {"gateway": {"hosts": [GATEWAY]}, "connections": connections}
    if request.param == "serve":
        with Serve(tmp_path_factory.mktemp("serve"), config) as served:
            yield Lab(served, upstream, hand)
        return
    lane = "on" if request.param == "lane" else "off"
    yield Lab(module_gateway(config, "--set", f"presign_lane={lane}"), upstream, hand)


# -- heads ------------------------------------------------------------------------------------------------

BARE = {
    "every line": lambda head: head.replace(b"\r\n", b"\n"),
    "the request line": lambda head: head.replace(b"\r\n", b"\n", 1),
    "one field": lambda head: head.replace(b"\r\nHost", b"\nHost", 1),
    "the blank line": lambda head: head[:-2] + b"\n",
    "the last field": lambda head: head[:-4] + b"\n\r\n",
    "a carriage return alone": lambda head: head[:-2] + b"X: a\rb\r\n\r\n",
    "a line before the request": lambda head: b"\n" + head,
}


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("where", BARE)
def test_a_head_with_a_bare_lf_is_refused(where: str, tls: bool, lab: Lab) -> None:
    """It was accepted, and forwarded with the ends of lines that it had not."""
    lab.upstream.clear()
    with lab.client(tls=tls) as client:
        client.send(BARE[where](lab.head()))
        answer = client.read_to_end(PATIENT)
    assert answer.startswith(b"HTTP/1.1 400 "), answer
    assert b'"malformed"' in answer
    assert not lab.upstream.touched


def test_the_second_head_of_a_connection_with_a_bare_lf_is_refused(lab: Lab) -> None:
    lab.upstream.clear()
    with lab.client() as client:
        client.send(lab.head())
        assert parse_response(client.read_response(PATIENT)).status == 200
        client.send(lab.head().replace(b"\r\n", b"\n"))
        assert client.read_to_end(PATIENT).startswith(b"HTTP/1.1 400 ")
    assert len(lab.upstream.requests) == 1


# -- bodies -----------------------------------------------------------------------------------------------

FRAMED = {
    "LF behind the last size": b"3\r\nabc\r\n0\n\r\n",
    "LF behind a size": b"3\nabc\r\n0\r\n\r\n",
    "LF behind a chunk": b"3\r\nabc\n0\r\n\r\n",
    "LF behind an extension": b"3;a=b\nabc\r\n0\r\n\r\n",
    "LF in an extension": b"3;a=\nb\r\nabc\r\n0\r\n\r\n",
    "CR in an extension": b"3;a=\rb\r\nabc\r\n0\r\n\r\n",
    "LF at the end of no trailers": b"3\r\nabc\r\n0\r\n\n",
    "LF behind a trailer": b"3\r\nabc\r\n0\r\nX: b\n\r\n",
    "LF behind trailers": b"3\r\nabc\r\n0\r\nX: b\r\n\n",
    "a folded trailer": b"3\r\nabc\r\n0\r\nX: b\r\n c\r\n\r\n",
    "a trailer without a name": b"3\r\nabc\r\n0\r\n: b\r\n\r\n",
    "a trailer without a colon": b"3\r\nabc\r\n0\r\nGET / HTTP/1.1\r\n\r\n",
    "everything in LF": b"3\nabc\n0\n\n",
    "trailers without an end": b"0\r\n" + b"X: y\r\n" * 12_000,
    "an extension without an end": b"3;" + b"x" * 9000,
}


def test_a_chunked_body_that_is_framed_otherwise_ends_here(lab: Lab) -> None:
    """Its head was long gone, with the credential, and no answer ever came."""
    lab.hand.hang_up()
    with ExitStack() as stack:
        clients = {body: stack.enter_context(lab.client()) for body in FRAMED}
        for body, client in clients.items():
            client.send(lab.upload(FRAMED[body]))
        for body, client in clients.items():
            answer = client.read_to_end(PATIENT)
            assert answer.startswith(b"HTTP/1.1 400 "), (body, answer)
        while lab.hand.waits():
            with lab.hand.accept(PATIENT) as api:
                received = api.read_to_end(PATIENT)  # its connection is closed too
            assert not received.endswith(b"0\r\n\r\n")


WRONG = [b"\nabc\r\n0\r\n\r\n", b"\r\nabc\r\n0\r\n\n", b"\r\nabc\r\n0\r\nX: b\n\r\n"]


def test_a_body_that_goes_wrong_once_its_head_has_left_is_answered_and_its_upstream_let_go(lab: Lab) -> None:
    lab.hand.hang_up()
    with ExitStack() as stack:
        clients, apis = [stack.enter_context(lab.client()) for _ in WRONG], []
        for client in clients:
            client.send(lab.upload(b"2\r\nab\r\n3"))
        for _ in WRONG:
            apis.append(stack.enter_context(lab.hand.accept(PATIENT)))
            apis[-1].read_until(b"ab\r\n", PATIENT)
        for client, piece in zip(clients, WRONG, strict=True):
            client.send(piece)
        for client, piece in zip(clients, WRONG, strict=True):
            answer = client.read_to_end(PATIENT)
            assert answer.startswith(b"HTTP/1.1 400 "), (piece, answer)
        for api in apis:
            assert not api.read_to_end(PATIENT).endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("trailers", [b"", b"X: b\r\n", b"X: b\r\nY:\r\n"])
def test_a_chunked_body_with_trailers_is_whole(trailers: bytes, lab: Lab) -> None:
    lab.upstream.clear()
    with lab.client() as client:
        head = lab.head(headers={"Transfer-Encoding": "chunked"}, method="POST")
        for piece in (head, b"3;a=b\r\nab", b"c\r", b"\n0", b"\r\n" + trailers[:3], trailers[3:] + b"\r\n"):
            client.send(piece)
        assert parse_response(client.read_response(PATIENT)).status == 200
        client.send(lab.head())
        assert parse_response(client.read_response(PATIENT)).status == 200
    assert [request.body for request in lab.upstream.requests] == [b"abc", b""]


# -- empty lines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("count", [1, 2, MAX_EMPTY_LINES])
def test_an_empty_line_before_a_request_is_passed_over(count: int, tls: bool, lab: Lab) -> None:
    """There was silence, then the end, and no line in the audit log."""
    with lab.client(tls=tls) as client:
        for _ in range(3):  # a new connection, then a kept one
            client.send(b"\r\n" * count + lab.head())
            assert parse_response(client.read_response(PATIENT)).status == 200


def test_an_empty_line_behind_a_body_is_passed_over_however_it_comes(lab: Lab) -> None:
    with lab.client() as client:
        for _ in range(2):
            client.send(lab.head(method="POST", body=b"x=1") + b"\r\n")
            assert parse_response(client.read_response(PATIENT)).status == 200
        for piece in (b"\r", b"\n", b"\r\n", lab.head()[:7], lab.head()[7:]):
            client.send(piece)
        assert parse_response(client.read_response(PATIENT)).status == 200


def test_more_empty_lines_than_a_few_are_refused(lab: Lab) -> None:
    with lab.client() as client:
        client.send(b"\r\n" * (MAX_EMPTY_LINES + 1) + lab.head())
        assert client.read_to_end(PATIENT).startswith(b"HTTP/1.1 400 ")


def test_a_request_behind_an_empty_line_in_a_tunnel_is_not_relayed_as_it_is(
    lab: Lab, upstream: Recorder
) -> None:
    """mitmproxy took it for something that is no HTTP."""
    upstream.clear()
    with lab.client() as client:
        client.send(f"CONNECT 127.0.0.1:{upstream.port} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.read_head(PATIENT).startswith(b"HTTP/1.1 200 ")
        signed = Grant(CONN)
        client.send(b"\r\n" + wire(f"/v1/models?{signed.query}", host=f"127.0.0.1:{upstream.port}"))
        answer = parse_response(client.read_response(PATIENT))
    assert answer.status in (200, 403)
    assert not any(b"resign" in request.raw for request in upstream.requests)
    assert not upstream.fragments


# -- what an upstream answers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "status", [b"1000", b"2000", b"99", b"0", b"020", b"-200", b"+20", b"abc", b"20 0", b"", b"1_0"]
)
@pytest.mark.parametrize("behind", [b" OK", b""], ids=["with a reason", "without"])
def test_a_status_that_is_none_is_the_failure_of_the_upstream(status: bytes, behind: bytes, lab: Lab) -> None:
    """With 1000 the client waited for ever."""
    with lab.client() as client:
        client.send(lab.by_hand())
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            api.send(b"HTTP/1.1 " + status + behind + b"\r\nContent-Length: 2\r\n\r\nok")
            answer = client.read_response(PATIENT)
            assert answer.startswith(b"HTTP/1.1 502 "), answer
            assert api.read_to_end(PATIENT) == b""


@pytest.mark.parametrize("status", [200, 299, 418, 599, 600, 999])
def test_every_status_of_three_digits_is_passed_on(status: int, lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.by_hand())
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            api.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 %d Odd\r\nContent-Length: 2\r\n\r\nok" % status)
            assert parse_response(client.read_response(PATIENT)).status == status
