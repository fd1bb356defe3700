"""A client that sends the head of a granted request, and then no more of its body."""

import contextlib
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.gateways import MakeGateway
from support.h2streams import Streams
from support.lab import bearer_connection
from support.proxy import Mitm
from support.raw import Tls, connect, parse_response
from support.serving import Serve

GATEWAY = "presign.local"
PATIENT = 15.0
CONN = "conn_brief"
UNFINISHED = {
    "conn_nothing": ("Content-Length: 5", b""),
    "conn_half": ("Content-Length: 5", b"ab"),
    "conn_no_chunk": ("Transfer-Encoding: chunked", b""),
    "conn_half_a_chunk": ("Transfer-Encoding: chunked", b"3\r\na"),
    "conn_no_end": ("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n"),
}
"""What is sent of a body, and to which connection: all of them wait for their deadline at the same time."""
IMPATIENT = "conn_impatient"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Lab:
    gateway: Mitm | Serve
    hand: ByHand

    def client(self, *, tls: bool = False) -> Wire:
        return Wire(connect(self.gateway.port, Tls(GATEWAY, self.gateway.ca) if tls else None))

    def head(self, framing: str = "Transfer-Encoding: chunked", conn: str = CONN) -> bytes:
        name, _, value = framing.partition(": ")
        return wire(Grant(conn).target("v1/models"), {name: value}, "POST", GATEWAY)

    @contextmanager
    def streams(self) -> Iterator[Streams]:
        with Streams.direct(self.gateway.port, GATEWAY, self.gateway.ca) as client:
            yield client

    def pseudo(self) -> list[tuple[str, str]]:
        target = Grant(CONN).target("v1/models")
        return [(":method", "POST"), (":scheme", "https"), (":authority", GATEWAY), (":path", target)]


# A worker of `serve` takes the lane as mitmdump does: `make slow` asks both.
@pytest.fixture(scope="module", params=[pytest.param("lane", marks=pytest.mark.slow), "flows", "serve"])
def shared(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    hand: ByHand,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    more: dict[str, Any] = {"timeouts": {"body": "1s"}, "limits": [{"concurrency": 1}], "pool": False}
    settings = {
        "gateway": {"hosts": [GATEWAY]},
        "connections": {
            **{name: bearer_connection(hand.url, SECRET, **more) for name in (CONN, *UNFINISHED)},
            IMPATIENT: bearer_connection(hand.url, SECRET, timeouts={"response": "2s"}),
        },
        "limits": {"store": "memory://"},
    }
    if request.param == "serve":
        with Serve(tmp_path_factory.mktemp("serve"), settings) as served:
            yield Lab(served, hand)
    else:
        lane = "on" if request.param == "lane" else "off"
        yield Lab(module_gateway(settings, "--set", f"presign_lane={lane}"), hand)


@pytest.fixture
def lab(shared: Lab) -> Iterator[Lab]:
    yield shared
    shared.hand.hang_up()


def has_its_slot_back(lab: Lab, conn: str = CONN) -> None:
    """The connection allows one request at a time."""
    with lab.client() as client:
        client.send(lab.head("Content-Length: 2", conn) + b"ok")
        with lab.hand.accept(PATIENT) as api:
            api.read_until(b"\r\n\r\nok", PATIENT)
            api.send(OK)
            assert parse_response(client.read_response(PATIENT)).status == 200


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "TLS"])
def test_a_client_that_sends_no_more_of_a_body_is_answered_408(tls: bool, lab: Lab) -> None:
    """It kept its slot, its upstream connection and its upstream busy for as long as it pleased."""
    with ExitStack() as stack:
        clients, apis = {}, []
        for conn, (framing, piece) in UNFINISHED.items():
            clients[conn] = stack.enter_context(lab.client(tls=tls))
            clients[conn].send(lab.head(framing, conn) + piece)
        for _ in UNFINISHED:
            apis.append(stack.enter_context(lab.hand.accept(PATIENT)))
            apis[-1].read_head(PATIENT)
        for conn, client in clients.items():
            answer = client.read_to_end(PATIENT)
            assert answer.startswith(b"HTTP/1.1 408 "), (conn, answer)
            assert b'"timeout"' in answer, conn
        for api in apis:
            assert not api.read_to_end(PATIENT).endswith(b"0\r\n\r\n")
    for conn in UNFINISHED:
        has_its_slot_back(lab, conn)


@pytest.mark.parametrize("piece", [b"", b"ab"])
def test_a_stream_of_http2_that_sends_no_more_of_a_body_is_answered_408(piece: bytes, lab: Lab) -> None:
    """And the other streams of its connection go on."""
    with lab.streams() as client:
        stream = client.begin(lab.pseudo(), end=False)
        if piece:
            client.send(stream, piece)
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            (reply,) = client.wait([stream], PATIENT)
            assert reply.status == 408
            assert reply.header("x-presign-error") == "timeout"
            api.read_to_end(PATIENT)
        second = client.begin(lab.pseudo())
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            api.send(OK)
            (reply,) = client.wait([second], PATIENT)
            assert reply.status == 200


def test_an_upload_that_goes_on_slowly_is_left_alone(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head())
        for _ in range(8):
            client.send(b"1\r\nx\r\n")
            time.sleep(0.4)
        client.send(b"0\r\n\r\n")
        with lab.hand.accept(PATIENT) as api:
            api.read_until(b"0\r\n\r\n", PATIENT)
            api.send(OK)
            assert parse_response(client.read_response(PATIENT)).status == 200


def test_an_event_stream_that_goes_on_within_an_upload_is_left_alone(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head() + b"2\r\nab\r\n")
        with lab.hand.accept(PATIENT) as api:
            api.read_until(b"2\r\nab\r\n", PATIENT)
            api.send(STREAM)
            for number in range(8):
                api.send(b"9\r\ndata: %d\n\n\r\n" % number)
                client.read_until(b"data: %d\n\n" % number, PATIENT)
                time.sleep(0.4)
            client.send(b"2\r\ncd\r\n0\r\n\r\n")
            api.read_until(b"2\r\ncd\r\n0\r\n\r\n", PATIENT)
            api.send(b"0\r\n\r\n")
            client.read_until(b"0\r\n\r\n", PATIENT)


def test_an_event_stream_behind_a_whole_body_may_be_silent(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head("Content-Length: 2") + b"ok")
        with lab.hand.accept(PATIENT) as api:
            api.read_until(b"\r\n\r\nok", PATIENT)
            api.send(STREAM)
            client.read_head(PATIENT)
            assert client.is_silent(3), client.buffer
            api.send(b"9\r\ndata: 1\n\n\r\n0\r\n\r\n")
            client.read_until(b"0\r\n\r\n", PATIENT)


def test_a_body_that_stalls_within_its_answer_ends_both_connections(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head() + b"2\r\nab\r\n")
        with lab.hand.accept(PATIENT) as api:
            api.read_until(b"2\r\nab\r\n", PATIENT)
            api.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
            assert not client.read_to_end(PATIENT).endswith(b"0\r\n\r\n")
            assert api.read_to_end(PATIENT) == b""
    has_its_slot_back(lab)


def test_a_body_that_stalls_behind_its_answer_ends_both_connections(lab: Lab) -> None:
    with lab.client() as client:
        client.send(lab.head() + b"2\r\nab\r\n")
        with lab.hand.accept(PATIENT) as api:
            api.read_until(b"2\r\nab\r\n", PATIENT)
            api.send(OK)
            assert client.read_to_end(PATIENT).endswith(b"ok")
            assert api.read_to_end(PATIENT) == b""
    has_its_slot_back(lab)


def test_a_stream_that_stalls_behind_its_answer_gives_its_slot_back(lab: Lab) -> None:
    with lab.streams() as client:
        stream = client.begin(lab.pseudo(), end=False)
        client.send(stream, b"ab")
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            api.send(OK)
            client.wait([stream], PATIENT)
            api.read_to_end(PATIENT)
        has_its_slot_back(lab)


@pytest.mark.slow
def test_a_client_whose_upstream_does_not_read_is_not_to_blame(lab: Lab) -> None:
    size = 32 * 1024 * 1024
    with lab.client() as client:
        client.send(lab.head(f"Content-Length: {size}"))
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            sent = 0
            client.sock.settimeout(0.5)
            try:
                while sent < size:
                    sent += client.sock.send(bytes(min(65536, size - sent)))
            except TimeoutError:
                pass
            assert sent < size, "the upstream takes it all without reading"
            assert client.is_silent(4)
            read = len(api.buffer)
            client.sock.setblocking(False)
            api.sock.setblocking(False)
            deadline = time.monotonic() + 60
            while read < size and time.monotonic() < deadline:
                try:
                    if sent < size:
                        sent += client.sock.send(bytes(min(65536, size - sent)))
                except BlockingIOError:
                    pass
                try:
                    read += len(api.sock.recv(1 << 20))
                except BlockingIOError:
                    time.sleep(0.002)
            assert read == size
            api.sock.settimeout(PATIENT)
            api.send(OK)
            assert parse_response(client.read_response(PATIENT)).status == 200


def test_an_upstream_that_takes_no_more_of_a_body_is_given_up(lab: Lab) -> None:
    """It held the slot of its client for as long as it pleased."""
    with lab.client() as client:
        client.send(lab.head("Content-Length: 100000000", conn=IMPATIENT))
        with lab.hand.accept(PATIENT) as api:
            api.read_head(PATIENT)
            client.sock.settimeout(0.5)
            with contextlib.suppress(OSError):
                while True:
                    client.sock.send(bytes(65536))
            assert client.read_response(PATIENT).startswith(b"HTTP/1.1 504 ")
