"""Windows over HTTP/2 that their owner makes smaller, and bodies that wait for them in very small pieces."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import h2.config
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection, SendH2Data

from presign_proxy.mitm.flow.http2_windows import Buffers, WindowedConnection, make_windowed
from support.asking import SECRET, Grant
from support.byhand import ByHand, Wire
from support.gateways import TLS_NAMES, MakeGateway
from support.h2frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    Frame,
    RawH2,
    accept_h2,
    frame,
    h2_context,
    head_of,
    read_frame,
)
from support.lab import bearer_connection
from support.proxy import Mitm
from support.work import steps

CID, PLAIN = "conn_h2", "conn_plain"
OK = b"\x88"
INITIAL_WINDOW, MAX_FRAME = 4, 5
HEAD = [(":method", "PUT"), (":scheme", "https"), (":authority", "a"), (":path", "/")]


@dataclass
class Lab:
    gateway: Mitm
    hand: ByHand
    plain: ByHand
    context: ssl.SSLContext

    def accept(self) -> Wire:
        return accept_h2(self.hand, self.context)


@pytest.fixture(scope="module", params=["mitmdump", "as served"])
def lab(request: pytest.FixtureRequest, module_gateway: MakeGateway, ca: trustme.CA) -> Iterator[Lab]:
    hand, plain, context = ByHand(), ByHand(), h2_context(ca.issue_cert(*TLS_NAMES))
    connections = {
        CID: bearer_connection(f"https://localhost:{hand.port}", SECRET),
        PLAIN: bearer_connection(f"http://127.0.0.1:{plain.port}", SECRET),
    }
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "as served":
            patch.setenv("AS_SERVED", "1")
        gateway = module_gateway({"connections": connections})
    yield Lab(gateway, hand, plain, context)
    hand.stop()
    plain.stop()


def setting(name: int, value: int) -> bytes:
    return frame(SETTINGS, name.to_bytes(2, "big") + value.to_bytes(4, "big"))


def opened(by: int, stream: int = 1) -> bytes:
    return frame(WINDOW_UPDATE, by.to_bytes(4, "big"), 0, stream)


def frames_of(wire: Wire) -> Iterator[Frame]:
    while True:
        yield read_frame(wire)


class Seen:
    """What has come so far on one end of a connection, whatever the order."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames = frames
        self.acknowledged = self.body = 0
        """How many SETTINGS were; the bytes of stream 1."""
        self.begun = self.ended = self.ponged = False
        """Whether the head of stream 1 came, whether its end did, and whether a PING was answered."""

    def wait(self, whether: Callable[[Seen], bool]) -> Seen:
        while not whether(self):
            one = next(self._frames, None)
            assert one is not None, f"the connection was closed after {self.body} bytes"
            self.acknowledged += one.kind == SETTINGS and bool(one.flags & ACK)
            self.begun |= one.kind == HEADERS
            self.ponged |= one.kind == PING
            self.body += len(one.payload) if one.kind == DATA else 0
            self.ended |= one.kind in (HEADERS, DATA) and bool(one.flags & END_STREAM)
        return self


def post(connection: str) -> bytes:
    head = head_of(Grant(connection).target("v1/things").encode(), method=b"POST")
    return frame(HEADERS, head, END_HEADERS, 1)


def test_an_upload_outlives_an_upstream_that_makes_its_window_smaller(lab: Lab) -> None:
    """The window was four thousand bytes below zero. Half of the next piece was to be sent all the same,
    which h2 refuses, and the client was cut off, with all that it had under way at other upstreams.
    """
    with RawH2(lab.gateway.port) as client:
        client.send(post(CID) + frame(DATA, bytes(8000), 0, 1) * 3)
        with lab.accept() as upstream:
            seen = Seen(frames_of(upstream)).wait(lambda it: it.body == 24000 and it.acknowledged == 1)
            upstream.send(setting(INITIAL_WINDOW, 20000))
            seen.wait(lambda it: it.acknowledged == 2)
            client.send(frame(DATA, bytes(8000), 0, 1) + frame(DATA, b"", END_STREAM, 1))
            assert upstream.is_silent()
            upstream.send(opened(50000))
            assert seen.wait(lambda it: it.ended).body == 32000
            upstream.send(frame(HEADERS, OK, END_HEADERS | END_STREAM, 1))
            Seen(client.frames()).wait(lambda it: it.ended)


def test_a_download_outlives_a_client_that_makes_its_window_smaller(lab: Lab) -> None:
    with RawH2(lab.gateway.port) as client:
        client.request(1, head_of(Grant(CID).target("v1/things").encode()))
        with lab.accept() as upstream:
            there = Seen(frames_of(upstream)).wait(lambda it: it.begun)
            upstream.send(frame(HEADERS, OK, END_HEADERS, 1) + frame(DATA, bytes(8000), 0, 1) * 2)
            seen = Seen(client.frames()).wait(lambda it: it.body == 16000 and it.acknowledged == 1)
            client.send(setting(INITIAL_WINDOW, 12000))
            seen.wait(lambda it: it.acknowledged == 2)
            upstream.send(frame(DATA, bytes(8000), 0, 1) + frame(DATA, b"", END_STREAM, 1))
            upstream.send(frame(PING, bytes(8)))
            there.wait(lambda it: it.ponged)  # what came before was handled
            client.send(opened(50000))
            assert seen.wait(lambda it: it.ended).body == 24000


def test_a_download_outlives_a_client_that_takes_shorter_frames_than_before(lab: Lab) -> None:
    with RawH2(lab.gateway.port) as client:
        client.send(setting(MAX_FRAME, 1 << 20) + setting(INITIAL_WINDOW, 0))
        client.request(1, head_of(Grant(PLAIN).target("v1/things").encode()))
        with Wire(lab.plain.accept().sock) as upstream:
            upstream.read_head()
            upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + bytes(60000))
            seen = Seen(client.frames()).wait(lambda it: it.begun)
            client.send(setting(MAX_FRAME, 1 << 14))
            seen.wait(lambda it: it.acknowledged == 4)
            client.send(opened(100000))
            assert seen.wait(lambda it: it.ended).body == 60000


def begun() -> WindowedConnection:
    """A client's end of a connection, whose peer opens no window."""
    connection = BufferedH2Connection(h2.config.H2Configuration(client_side=True))
    make_windowed(connection)
    connection.initiate_connection()
    connection.receive_data(setting(INITIAL_WINDOW, 0))
    connection.send_headers(1, HEAD)
    assert isinstance(connection, WindowedConnection)
    return connection


def test_a_body_in_single_bytes_that_waits_is_no_pile_of_pieces() -> None:
    """Three megabytes in frames of a few bytes took a worker minutes: for each frame that came, all pieces
    that waited were added up.
    """
    connection = begun()
    for _ in range(20000):
        connection.send_data(1, b"x")
    assert connection.waiting_of(1) == connection.waiting == 20000
    assert len(connection.stream_buffers[1]) <= 2 * 20000 / 1024 + 1
    connection.receive_data(opened(15000))
    assert connection.waiting_of(1) == 5000
    connection.reset_stream(1)
    assert connection.waiting == 0


@given(st.lists(st.tuples(st.integers(0, 40000), st.integers(0, 3000))))
def test_what_waits_is_what_came_in_its_order(steps: list[tuple[int, int]]) -> None:
    buffers, came, went = Buffers(), b"", b""
    waiting = buffers[1]
    for number, (size, taken) in enumerate(steps):
        piece = bytes((number % 256,)) * size
        came += piece
        waiting.append(SendH2Data(piece, False))
        first = waiting.popleft()
        went += first.data[:taken]
        if first.data[taken:]:
            waiting.appendleft(SendH2Data(first.data[taken:], first.end_stream))
        assert waiting.size == buffers.size == len(came) - len(went)
    waiting.append(SendH2Data(b"", True))
    rest = [waiting.popleft() for _ in range(len(waiting))]
    assert went + b"".join(one.data for one in rest) == came
    assert [one.end_stream for one in rest] == [False] * (len(rest) - 1) + [True]
    assert all(len(one.data) <= 1 << 14 for one in rest)


def test_what_waits_on_a_hundred_streams_is_not_added_up_for_each_byte_that_comes() -> None:
    """99 streams that nobody took cost seven percent of a core: each event asked each of them, and added up
    all of them for each.
    """
    one, many = begun(), begun()
    one.send_data(1, b"x")
    for stream in range(1, 200, 2):
        if stream > 1:
            many.send_headers(stream, HEAD)
        many.send_data(stream, b"x")
    assert (one.waiting, many.waiting) == (1, 100)
    assert steps(lambda: many.waiting) == steps(lambda: one.waiting)


@given(
    st.lists(st.tuples(st.sampled_from(["send", "stream", "all", "reset", "is reset"]), st.integers(0, 2000)))
)
def test_what_waits_on_all_streams_is_the_sum_whatever_becomes_of_them(turns: list[tuple[str, int]]) -> None:
    connection, live = begun(), [1]
    for number, (what, size) in enumerate(turns):
        stream = live[number % len(live)]
        if what == "send":
            connection.send_data(stream, bytes(size))
        elif what == "stream" and size:
            connection.receive_data(opened(size, stream))
        elif what == "all":
            connection.receive_data(setting(INITIAL_WINDOW, size))
        elif what == "reset":
            connection.reset_stream(stream)
        elif what == "is reset":
            connection.receive_data(frame(RST_STREAM, bytes(4), 0, stream))
        if "reset" in what:
            live.remove(stream)
        if not live:
            live = [connection.get_next_available_stream_id()]
            connection.send_headers(live[0], HEAD)
        assert connection.waiting == sum(map(connection.waiting_of, connection.stream_buffers))
    connection.receive_data(frame(GOAWAY, bytes(8)))
    assert connection.waiting == 0


def test_trailers_that_wait_behind_a_body_go_with_their_stream() -> None:
    connection = begun()
    connection.send_headers(3, HEAD)
    for stream in (1, 3):
        connection.send_data(stream, b"x")
        connection.send_trailers(stream, [("a", "b")])
    connection.reset_stream(1)
    connection.receive_data(frame(RST_STREAM, bytes(4), 0, 3))
    assert connection.stream_trailers == {}


def test_a_body_ends_for_a_peer_that_opens_its_window_for_the_last_byte_and_no_further(lab: Lab) -> None:
    """Its end waited behind a window that nobody had a reason to open."""
    with RawH2(lab.gateway.port) as client:
        client.send(setting(INITIAL_WINDOW, 0))
        client.request(1, head_of(Grant(CID).target("v1/things").encode()))
        with lab.accept() as upstream:
            there = Seen(frames_of(upstream)).wait(lambda it: it.begun)
            upstream.send(frame(HEADERS, OK, END_HEADERS, 1) + frame(DATA, bytes(8000), 0, 1))
            upstream.send(frame(DATA, b"", END_STREAM, 1) + frame(PING, bytes(8)))
            there.wait(lambda it: it.ponged)
            client.send(opened(8000))
            assert Seen(client.frames()).wait(lambda it: it.ended).body == 8000
