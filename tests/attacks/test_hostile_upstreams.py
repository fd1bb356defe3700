"""Upstreams over HTTP/2 that send what costs a gateway more than it weighs."""

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import hpack
import pytest
import trustme

from support.asking import SECRET, Grant, ask
from support.byhand import ByHand, Wire
from support.gateways import TLS_NAMES, MakeGateway
from support.h2frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    RawH2,
    accept_h2,
    frame,
    h2_context,
    head_of,
    literal,
    next_of,
    read_frame,
    text,
)
from support.lab import bearer_connection
from support.proxy import Mitm
from support.recorder import Recorder

CID = "conn_h2"
MB = 1024 * 1024
HEADER_TABLE_SIZE = b"\x00\x01"
WITHOUT_END = HEADER_TABLE_SIZE + (2**32 - 1).to_bytes(4, "big")
OK = b"\x88"
"""`:status: 200` in HPACK's own table."""


@dataclass
class Lab:
    gateway: Mitm
    hand: ByHand
    context: ssl.SSLContext

    def ask(self, client: RawH2, stream: int = 1) -> None:
        client.request(stream, head_of(Grant(CID).target(f"x/{stream}").encode()))

    def accept(self, settings: bytes = b"") -> Wire:
        return accept_h2(self.hand, self.context, settings)

    def is_served(self) -> bool:
        return (
            ask(self.gateway.port, Grant("conn").target("v1/models"), {"Connection": "close"}).status == 200
        )


@pytest.fixture(scope="module")
def lab(module_gateway: MakeGateway, upstream: Recorder, ca: trustme.CA) -> Iterator[Lab]:
    hand, context = ByHand(), h2_context(ca.issue_cert(*TLS_NAMES))
    connections = {
        CID: bearer_connection(f"https://localhost:{hand.port}", SECRET),
        "conn": bearer_connection(upstream.url, SECRET),
    }
    yield Lab(module_gateway({"connections": connections}), hand, context)
    hand.stop()


def is_last(found: Frame) -> bool:
    """Whether it ends its stream."""
    return found.kind == RST_STREAM or (found.kind in (HEADERS, DATA) and bool(found.flags & END_STREAM))


FLOODS: dict[str, Callable[[int], bytes]] = {
    "SETTINGS": lambda n: frame(SETTINGS),
    "PING": lambda n: frame(PING, n.to_bytes(8, "big")),
    "PRIORITY": lambda n: frame(PRIORITY, bytes(5), 0, 2 * n + 1),
    "WINDOW_UPDATE": lambda n: frame(WINDOW_UPDATE, (1).to_bytes(4, "big"), 0, 1),
    "empty DATA": lambda n: frame(DATA, b"", 0, 1),
    "unknown": lambda n: frame(0xBE, b""),
    "interim heads": lambda n: frame(HEADERS, literal(b":status", b"103"), END_HEADERS, 1),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_an_upstream_that_floods_with_small_frames_is_left(kind: str, lab: Lab) -> None:
    """Every other client waited for seconds while one upstream said nothing, as fast as it could."""
    flood = b"".join(map(FLOODS[kind], range(20_000)))
    with RawH2(lab.gateway.port, 5) as client:
        lab.ask(client)
        with lab.accept() as upstream:
            next_of(upstream, HEADERS)
            if kind != "interim heads":
                upstream.send(frame(HEADERS, OK, END_HEADERS, 1))
            with contextlib.suppress(ConnectionError):
                upstream.send(flood)
            assert any(one.stream == 1 and is_last(one) for one in client.frames())
        assert lab.is_served()


def test_a_body_in_single_bytes_comes_whole_and_ends_nothing(lab: Lab) -> None:
    """A hundred answers, word by word, on one connection: nothing is wrong with that."""
    body = bytes(range(256)) * 20
    pieces = [frame(DATA, body[at : at + 1], 0, 1) for at in range(len(body))]
    with RawH2(lab.gateway.port) as client:
        lab.ask(client)
        with lab.accept() as upstream:
            next_of(upstream, HEADERS)
            upstream.send(frame(HEADERS, OK, END_HEADERS, 1) + b"".join(pieces))
            upstream.send(frame(DATA, b"", END_STREAM, 1))
            assert client.answer(1).endswith(body)


@pytest.mark.parametrize("padded", [False, True])
def test_an_answer_in_many_frames_is_whole_though_its_upstream_closes_behind_it(
    padded: bool, lab: Lab
) -> None:
    piece, flags = (b"\x03word\0\0\0", PADDED) if padded else (b"word", 0)
    with RawH2(lab.gateway.port) as client:
        lab.ask(client)
        with lab.accept() as upstream:
            next_of(upstream, HEADERS)
            upstream.send(
                frame(HEADERS, OK, END_HEADERS, 1)
                + frame(DATA, piece, flags, 1) * 1000
                + frame(DATA, b"", END_STREAM, 1)
            )
            upstream.sock.shutdown(socket.SHUT_WR)
            assert client.answer(1).endswith(b"word" * 1000)


def test_a_flood_ends_the_very_requests_of_its_connection(lab: Lab) -> None:
    """Streams have other numbers on the upstream's side: the first there may be the client's third."""
    with RawH2(lab.gateway.port) as client:
        client.request(1, head_of(Grant("conn").target("v1/models").encode()))
        client.answer(1)
        lab.ask(client, 3)
        with lab.accept() as upstream:
            assert next_of(upstream, HEADERS).stream == 1
            with contextlib.suppress(OSError):
                upstream.send(frame(PING, bytes(8)) * 20_000)
            assert b"upstream" in client.answer(3)


def test_a_peer_with_a_table_without_end_is_sent_heads_from_a_small_one(lab: Lab) -> None:
    """hpack kept every head that was ever sent, and searched all of them for each field of the next: on one
    connection, without a signature, the ten-thousandth request cost ten times as much as the first.
    """
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 2**32 - 1
    with RawH2(lab.gateway.port) as client:
        client.send(frame(SETTINGS, WITHOUT_END))
        for stream in range(1, 200, 2):
            client.request(stream, head_of(b"/nothing"))
            head = next(one for one in client.frames() if one.kind == HEADERS)
            assert (b":status", b"404") in [
                tuple(field[:2]) for field in decoder.decode(head.payload, raw=True)
            ]
    assert decoder.header_table_size <= 4096


def test_an_upstream_with_a_table_without_end_is_sent_heads_from_a_small_one(lab: Lab) -> None:
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 2**32 - 1
    with RawH2(lab.gateway.port) as client:
        lab.ask(client)
        with lab.accept(WITHOUT_END) as upstream:
            for stream in range(1, 60, 2):
                if stream > 1:
                    lab.ask(client, stream)
                decoder.decode(next_of(upstream, HEADERS).payload, raw=True)
                upstream.send(frame(HEADERS, OK, END_HEADERS | END_STREAM, stream))
                client.answer(stream)
    assert decoder.header_table_size <= 4096


LONG = b"a" * 50_000


def sent_in(frames: Iterator[Frame]) -> bytes:
    """The next head, as it was written."""
    block = b""
    for one in frames:
        if one.kind in (HEADERS, CONTINUATION):
            block += one.payload
            if one.flags & END_HEADERS:
                break
    return block


def test_a_long_field_of_an_upstream_is_sent_to_a_client_as_it_stands(lab: Lab) -> None:
    """hpack makes one number of a field that it shortens, in the square of its length: 256 KiB in the head of
    one answer, to one client over HTTP/2, took every other client ten seconds.
    """
    with RawH2(lab.gateway.port) as client:
        lab.ask(client)
        with lab.accept() as upstream:
            next_of(upstream, HEADERS)
            block = OK + literal(b"x-long", LONG)
            upstream.send(frame(HEADERS, block[:16_000], END_STREAM, 1))
            for at in range(16_000, len(block), 16_000):
                last = END_HEADERS if at + 16_000 >= len(block) else 0
                upstream.send(frame(CONTINUATION, block[at : at + 16_000], last, 1))
            assert text(LONG) in sent_in(client.frames())


def test_a_long_field_of_a_client_is_sent_to_an_upstream_as_it_stands(lab: Lab) -> None:
    with RawH2(lab.gateway.port) as client:
        block = head_of(Grant(CID).target("x/1").encode()) + literal(b"x-long", LONG)
        client.send(frame(HEADERS, block[:16_000], END_STREAM, 1))
        for at in range(16_000, len(block), 16_000):
            last = END_HEADERS if at + 16_000 >= len(block) else 0
            client.send(frame(CONTINUATION, block[at : at + 16_000], last, 1))
        with lab.accept() as upstream:
            assert text(LONG) in sent_in(iter(lambda: read_frame(upstream), None))


class Windows:
    """What an upstream may send on one stream, as the gateway has said."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.stream = self.sent = 0

    def listen(self, frame_: Frame) -> None:
        if frame_.kind == SETTINGS and not frame_.flags & ACK:
            for at in range(0, len(frame_.payload), 6):
                if frame_.payload[at : at + 2] == b"\x00\x04":
                    self.stream = int.from_bytes(frame_.payload[at + 2 : at + 6], "big")
        if frame_.kind == WINDOW_UPDATE and frame_.stream == 1:
            self.stream += int.from_bytes(frame_.payload, "big")

    def send(self, most: int) -> None:
        """Send a body as far as its window goes, until that is not opened any more."""
        with contextlib.suppress(TimeoutError):
            while self.sent < most:
                while self.stream < 16384:
                    self.listen(read_frame(self.wire))
                self.wire.send(frame(DATA, bytes(16384), 0, 1))
                self.stream -= 16384
                self.sent += 16384


def body_size(client: RawH2, stream: int) -> int:
    """The bytes that come on a stream until it ends."""
    size = 0
    for one in client.frames():
        if one.stream == stream and one.kind == DATA:
            size += len(one.payload)
        if one.stream == stream and is_last(one):
            break
    return size


def test_an_upstream_over_http2_is_not_asked_for_more_than_the_client_takes(lab: Lab) -> None:
    """All of a download was kept for a client that took nothing of it: one URL and one large object were
    enough to end a worker.
    """
    with RawH2(lab.gateway.port) as client:
        lab.ask(client)
        with lab.accept() as upstream:
            windows = Windows(upstream)
            while (found := read_frame(upstream)).kind != HEADERS:
                windows.listen(found)
            upstream.sock.settimeout(1)
            upstream.send(frame(HEADERS, OK, END_HEADERS, 1))
            windows.send(64 * MB)
            assert 4 * MB <= windows.sent <= 6 * MB

            # Others on the connection go on, and once the client takes what there is, all of it comes.
            client.request(3, head_of(Grant("conn").target("v1/models").encode()))
            next(one for one in client.frames() if one.stream == 3 and one.kind == HEADERS)
            wide = (1 << 28).to_bytes(4, "big")
            client.send(frame(WINDOW_UPDATE, wide) + frame(WINDOW_UPDATE, wide, 0, 1))
            with ThreadPoolExecutor() as pool:
                took = pool.submit(body_size, client, 1)
                windows.send(16 * MB)
                upstream.send(frame(DATA, b"", END_STREAM, 1))
    assert windows.sent == 16 * MB
    assert took.result() > 15 * MB  # what came before stream 3 was answered was not counted


@pytest.mark.parametrize(
    "status", [b"+200", b"0200", b"2_00", b"-1", b"20", b"099", b"1000", b"+103", "２００".encode()]
)
def test_an_answer_whose_status_is_none_fails_alone(status: bytes, lab: Lab) -> None:
    """`+200` was 200; `1000` was passed over, as an interim answer."""
    with RawH2(lab.gateway.port) as client:
        lab.ask(client, 1)
        lab.ask(client, 3)
        with lab.accept() as upstream:
            next_of(upstream, HEADERS)
            next_of(upstream, HEADERS)
            upstream.send(frame(HEADERS, literal(b":status", status), END_HEADERS, 1))
            upstream.send(frame(HEADERS, OK, END_HEADERS, 3) + frame(DATA, b"three", END_STREAM, 3))
            found: dict[int, bytes] = {1: b"", 3: b""}
            for one in client.frames():
                found[one.stream] = found.get(one.stream, b"") + one.payload
                if one.stream == 3 and is_last(one):
                    break
    assert b"upstream" in found[1]
    assert found[3].endswith(b"three")


def test_an_upstream_that_says_goodbye_in_the_middle_of_an_answer_ends_nothing_else(lab: Lab) -> None:
    """Its client was cut off, with what it had under way elsewhere: the frames of the answer waited for a
    hook when the end came, and a side that had ended was to open windows for them.
    """
    with RawH2(lab.gateway.port) as client:
        for round_ in range(5):
            mine, elsewhere = 4 * round_ + 1, 4 * round_ + 3
            lab.ask(client, mine)
            with lab.accept() as upstream:
                next_of(upstream, HEADERS)
                goodbye = frame(GOAWAY, (1).to_bytes(4, "big") + bytes(4))
                upstream.send(frame(HEADERS, OK, END_HEADERS, 1) + frame(DATA, b"half", 0, 1) + goodbye)
                upstream.close()
                client.answer(mine)
            client.request(elsewhere, head_of(Grant("conn").target("v1/models").encode()))
            assert client.answer(elsewhere)
