"""An upstream that sends what costs much and says little: others have their turn in between.

Counted in turns of the event loop, and in the order of what comes: never in time.
"""

import asyncio
import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import trustme
import uvloop

from presign_proxy.core.content_coding import Decoder
from presign_proxy.mitm.lane.upstream import UpstreamConnection
from presign_proxy.mitm.lane.write_batch import WriteBatch
from presign_proxy.mitm.response_chunks import TURN_CHUNKS
from support.asking import SECRET, Grant, wire
from support.byhand import ByHand, Wire
from support.gateways import TLS_NAMES, MakeGateway
from support.lab import REAL_SECRET, bearer_connection
from support.proxy import Mitm
from support.raw import connect
from support.serving import Serve

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PACKED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"
MOST = 2 * TURN_CHUNKS
"""Of what was put off to this turn, and of what came in it."""
TINY = b"1\r\nx\r\n"
END = b"0\r\n\r\n"
ELSEWHERE = {"TE": "trailers"}
"""With it a request goes the way of flows."""
RUNNERS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Coroutine[Any, Any, None]], None]


# -- the lane's connection, in either loop ----------------------------------------------------------------


class Counting:
    """An exchange that notes in which turn of the loop it is told what."""

    def __init__(self) -> None:
        self.turn = 0
        self.heard: list[tuple[int, bytes]] = []
        self.ended: list[str] = []
        self.on_data: Callable[[], None] = lambda: None

    def head(self, *_: Any) -> bool:
        return True

    def data(self, piece: bytes) -> None:
        self.heard.append((self.turn, bytes(piece)))
        self.on_data()

    def received(self) -> None: ...

    def complete(self) -> None:
        self.ended.append("complete")

    def lost(self, why: str = "") -> None:
        self.ended.append(why or "lost")

    def hold(self, on: bool) -> None: ...

    def collapse(self, error: Exception) -> None:
        self.ended.append(repr(error))

    @property
    def body(self) -> bytes:
        return b"".join(piece for _, piece in self.heard)

    @property
    def most(self) -> int:
        """Bytes that were told in one turn."""
        sizes: dict[int, int] = {}
        for turn, piece in self.heard:
            sizes[turn] = sizes.get(turn, 0) + len(piece)
        return max(sizes.values())

    def count(self) -> None:
        self.turn += 1
        if not self.ended:
            asyncio.get_running_loop().call_soon(self.count)


async def hear(
    answer: bytes,
    *,
    tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
    on_begin: Callable[[UpstreamConnection, Counting], None] = lambda _, __: None,
) -> tuple[Counting, UpstreamConnection]:
    """An answer, sent at once by an upstream that closes then."""
    loop = asyncio.get_running_loop()

    def serve(listener: socket.socket) -> None:
        sock = listener.accept()[0]
        with tls[0].wrap_socket(sock, server_side=True) if tls else sock as peer:
            peer.recv(100)
            peer.sendall(answer)
            if isinstance(peer, ssl.SSLSocket):
                peer.unwrap()
            else:
                peer.shutdown(socket.SHUT_WR)
                peer.recv(1)

    told = Counting()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        served = loop.run_in_executor(None, serve, listener)
        secure = {"ssl": tls[1], "server_hostname": "localhost"} if tls else {}
        write_batch = WriteBatch()
        _, link = await loop.create_connection(
            lambda: UpstreamConnection(write_batch), *listener.getsockname(), **secure
        )
        link.begin(told, b"GET", whole=True)
        on_begin(link, told)
        link.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        told.count()
        async with asyncio.timeout(20):
            while not told.ended:  # noqa: ASYNC110 - nobody is told
                await asyncio.sleep(0.001)
            link.close()
            await asyncio.wait([served])
    return told, link


@pytest.fixture(scope="module")
def secure() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    here, there = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.issue_cert(*TLS_NAMES).configure_cert(here)
    authority.configure_trust(there)
    return here, there


@RUNNERS
@pytest.mark.parametrize("over_tls", [False, True], ids=["tcp", "tls"])
def test_an_upstream_that_sends_chunks_of_one_byte_is_read_by_turns(
    over_tls: bool, run: Run, secure: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def work() -> None:
        told, _ = await hear(CHUNKED + TINY * 60_000 + END, tls=secure if over_tls else None)
        assert (len(told.body), told.ended[0]) == (60_000, "complete")
        assert told.most <= MOST

    run(work())


@RUNNERS
@pytest.mark.parametrize("over_tls", [False, True], ids=["tcp", "tls"])
def test_an_upstream_that_breaks_off_among_tiny_chunks_is_told_of_behind_all_of_them(
    over_tls: bool, run: Run, secure: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def work() -> None:
        told, _ = await hear(CHUNKED + TINY * 20_000, tls=secure if over_tls else None)
        assert (len(told.body), told.ended) == (20_000, ["lost"])
        assert told.most <= MOST

    run(work())


@RUNNERS
def test_a_client_that_takes_nothing_among_tiny_chunks_gets_them_in_their_order(run: Run) -> None:
    """To read on for the client's sake is not to read past what waits for its turn."""
    body = bytes(range(256)) * 200

    async def work() -> None:
        def on_begin(link: UpstreamConnection, told: Counting) -> None:
            def stop_and_go() -> None:
                link.pause()
                asyncio.get_running_loop().call_soon(link.resume)

            told.on_data = stop_and_go

        chunks = b"".join(b"1\r\n%c\r\n" % octet for octet in body)
        told, _ = await hear(CHUNKED + chunks + END, on_begin=on_begin)
        assert (told.body == body, told.ended[0]) == (True, "complete")
        assert told.most <= MOST

    run(work())


@RUNNERS
def test_who_closes_among_tiny_chunks_hears_nothing_more(run: Run) -> None:
    async def work() -> None:
        def on_begin(link: UpstreamConnection, told: Counting) -> None:
            def leave() -> None:
                link.close()
                asyncio.get_running_loop().call_later(0.05, told.ended.append, "left")

            told.on_data = leave

        told, _ = await hear(CHUNKED + TINY * 20_000, on_begin=on_begin)
        assert (len(told.heard), told.ended) == (1, ["left"])

    run(work())


@RUNNERS
def test_what_stands_behind_tiny_chunks_keeps_the_connection_from_others(run: Run) -> None:
    async def work() -> None:
        told, link = await hear(CHUNKED + TINY * 5000 + END + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        assert (len(told.body), told.ended[0], link.odd) == (5000, "complete", True)

    run(work())


def records(context: ssl.SSLContext, body: bytes, sock: socket.socket) -> None:
    """Answer over TLS, each byte in a record of its own."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    peer = context.wrap_bio(into, out, server_side=True)
    while True:
        try:
            peer.do_handshake()
            break
        except ssl.SSLWantReadError:
            sock.sendall(out.read())
            into.write(sock.recv(65536))
    sock.sendall(out.read())
    peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
    for octet in body:
        peer.write(b"%c" % octet)
    sock.sendall(out.read())


def test_an_upstream_that_sends_tls_records_of_one_byte_is_read_one_segment_in_a_turn(
    secure: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """uvloop reads up to 32 segments of a quarter of a mebibyte in one turn: half a second of records."""
    body = bytes(100_000)

    async def work() -> None:
        told = Counting()
        loop, write_batch = asyncio.get_running_loop(), WriteBatch()
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                with listener.accept()[0] as sock:
                    records(secure[0], body, sock)
                    sock.recv(1)

            served = loop.run_in_executor(None, serve)
            _, link = await loop.create_connection(
                lambda: UpstreamConnection(write_batch),
                *listener.getsockname(),
                ssl=secure[1],
                server_hostname="localhost",
            )
            told.count()
            link.begin(told, b"GET", whole=True)
            async with asyncio.timeout(20):
                while not told.ended:  # noqa: ASYNC110 - nobody is told
                    await asyncio.sleep(0.001)
            assert (told.body == body, told.ended[0]) == (True, "complete")
            assert len({turn for turn, _ in told.heard}) == len(told.heard)
            assert link.is_clean
            link.close()
            await asyncio.wait([served])

    uvloop.run(work())


# -- what is unpacked -------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"x", b""], ids=["a byte", "nothing"])
def test_members_that_hold_next_to_nothing_are_unpacked_a_few_at_a_time(content: bytes) -> None:
    """Each costs as much as a piece of 16 KiB, and of those that hold nothing none was counted."""
    decoder, taken = Decoder(), 0
    pieces = decoder.feed(gzip.compress(content) * 1000)
    for piece in pieces:
        taken += 1
        assert len(piece) <= 16
    assert taken >= 1000 / 16


# -- what an innocent client notices ----------------------------------------------------------------------

BAD, GOOD = "conn_bad", "conn_good"
FLOODS = {
    "chunks": (CHUNKED, TINY * 500_000 + END),
    "members": (PACKED, gzip.compress(b"x") * 100_000),
}


@pytest.fixture(scope="module")
def good() -> Iterator[ByHand]:
    upstream = ByHand()
    yield upstream
    upstream.stop()


@pytest.fixture(scope="module", params=["mitmdump", "serve"])
def gateway(
    request: pytest.FixtureRequest,
    module_gateway: MakeGateway,
    hand: ByHand,
    good: ByHand,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mitm | Serve]:
    config = {
        "connections": {
            BAD: bearer_connection(hand.url, SECRET),
            GOOD: bearer_connection(good.url, SECRET),
        }
    }
    if request.param == "mitmdump":
        yield module_gateway(config)
        return
    directory = tmp_path_factory.mktemp("served")
    directory.chmod(0o700)
    with Serve(directory, config) as served:
        yield served


@pytest.mark.parametrize("fields", [{}, ELSEWHERE], ids=["lane", "flows"])
@pytest.mark.parametrize("kind", FLOODS)
def test_another_client_is_answered_before_a_flood_is_through(
    kind: str, fields: dict[str, str], gateway: Mitm | Serve, hand: ByHand, good: ByHand
) -> None:
    head, flood = FLOODS[kind]
    with Wire(connect(gateway.port)) as victim, Wire(connect(gateway.port)) as client:
        client.send(wire(Grant(GOOD).target("x"), fields))
        api = good.accept()
        api.read_head()
        api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        client.read_response()
        victim.send(wire(Grant(BAD).target("x"), fields))
        bad = hand.accept()
        bad.read_head()
        sending = threading.Thread(target=bad.send, args=(head + flood,))
        sending.start()
        victim.read_head(20)
        client.send(wire(Grant(GOOD).target("y"), fields))
        api.read_head(20)
        api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        client.read_response(20)
        victim.sock.setblocking(False)
        while True:
            try:
                victim.buffer += victim.sock.recv(1 << 20)
            except BlockingIOError:
                break
        assert not victim.buffer.endswith(END)
        bad.sock.settimeout(20)
        victim.read_until(b"\r\n" + END, 20) if kind == "chunks" else None
        victim.close()
        sending.join(20)
    hand.hang_up()
    good.hang_up()


@pytest.mark.parametrize("fields", [{}, ELSEWHERE], ids=["lane", "flows"])
def test_a_broken_chunk_that_holds_the_key_ends_the_answer_without_it(
    fields: dict[str, str], gateway: Mitm | Serve, hand: ByHand
) -> None:
    with Wire(connect(gateway.port)) as client:
        client.send(wire(Grant(BAD).target("x"), fields))
        api = hand.accept()
        api.read_head()
        api.send(CHUNKED + TINY * 5000 + REAL_SECRET.encode() + b"\r\n" + TINY + END)
        client.read_head()
        rest = client.read_to_end()
        assert REAL_SECRET.encode() not in rest
        assert not rest.endswith(END)
        assert rest.count(b"x") == 5000
    hand.hang_up()


@pytest.mark.parametrize("fields", [{}, ELSEWHERE], ids=["lane", "flows"])
def test_an_answer_that_breaks_off_behind_tiny_chunks_is_passed_on_as_far_as_it_came(
    fields: dict[str, str], gateway: Mitm | Serve, hand: ByHand
) -> None:
    with Wire(connect(gateway.port)) as client:
        client.send(wire(Grant(BAD).target("x"), fields))
        api = hand.accept()
        api.read_head()
        api.send(CHUNKED + TINY * 5000)
        api.close()
        client.read_head()
        rest = client.read_to_end()
        assert rest.count(b"x") == 5000
        assert not rest.endswith(END)
    hand.hang_up()
