"""A client that was served before sends on without mitmproxy's reader, until something comes that is not
for the lane: nothing is lost, overtaken or piled up where the two meet.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from presign_proxy.mitm.lane.client_reader import ClientReader
from support.byhand import Wire
from support.lanes import GATEWAY, LEAST, LaneLab, is_closed
from support.raw import parse_response

MIB = 1024 * 1024
FOREIGN = f"GET /api/proxy/none/x HTTP/1.1\r\nHost: {GATEWAY}\r\n\r\n".encode()


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[Callable[[], None]]:
    """A process that finds all at once what comes meanwhile."""

    def go_on() -> None:
        os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    try:
        yield go_on
    finally:
        go_on()


def served(lab: LaneLab, client: Wire, api: Wire | None, *fields: str, path: str, body: bytes = b"") -> Wire:
    """One request over the lane, on a connection that the upstream keeps."""
    data = lab.post(body, *fields, path=path) if body else lab.head(*fields, path=path)
    client.send(data)
    api = api or lab.hand.accept()
    assert f"/{path} ".encode() in api.read_head()
    assert api.read_exactly(len(body)) == body
    api.send(LEAST)
    assert client.read_response().endswith(b"\r\n\r\nok")
    return api


def test_a_client_is_served_again_and_again_with_bodies_and_without(lab: LaneLab) -> None:
    with lab.client() as client:
        api = None
        for number in range(20):
            api = served(lab, client, api, path=f"n{number}", body=b"x" * (number % 3) * 1000)


def test_a_head_that_comes_byte_by_byte_on_a_kept_connection_is_served(lab: LaneLab) -> None:
    with lab.kept_client() as client:
        for octet in lab.head(path="slowly"):
            client.send(bytes((octet,)))
        api, asked = lab.serve()
        assert b"/slowly " in asked
        assert client.read_response().endswith(b"ok")
        served(lab, client, api, path="next")


def test_requests_that_come_at_once_on_a_kept_connection_are_served_in_order(lab: LaneLab) -> None:
    with lab.kept_client() as client:
        client.send(b"".join(lab.head(path=f"n{number}") for number in range(20)))
        api = lab.hand.accept()
        for number in range(20):
            assert b"/n%d " % number in api.read_head()
            assert api.is_silent(0.01), "the next one waits for its turn"
            api.send(LEAST)
            assert client.read_response().endswith(b"ok")


def test_a_client_that_sends_on_and_on_while_it_waits_fills_nothing_up(lab: LaneLab) -> None:
    """Whoever pipelines more than a gateway holds has to wait; what it holds is served afterwards."""
    with lab.kept_client() as client:
        before, one = lab.gateway.rss(), lab.post(b"x" * 60_000, path="more")
        client.send(lab.head(path="first"))
        api = lab.hand.accept()
        api.read_head()
        client.sock.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 64 * MIB:
                sent += client.sock.send(one[sent % len(one) :])
        assert lab.gateway.rss() - before < 16 * MIB
        api.send(LEAST)
        assert client.read_response().endswith(b"ok")
        for _ in range(sent // len(one)):
            assert b"/more " in api.read_head()
            api.read_exactly(60_000)
            api.send(LEAST)
            assert client.read_response().endswith(b"ok")


def answer_all(api: Wire, answer: bytes) -> None:
    """Whatever is asked, until nothing is."""
    with contextlib.suppress(OSError):
        while api.read_head(10):
            api.send(answer)


@pytest.mark.parametrize("client", ["client", "kept_client", "tls_client"])
def test_a_client_that_asks_on_and_on_and_never_reads_fills_nothing_up(client: str, lab: LaneLab) -> None:
    """Answers that have no body, so that nothing of them is ever held back piece by piece."""
    answer = b"HTTP/1.1 204 No Content\r\nX-Much: %b\r\n\r\n" % (b"x" * 60_000)
    with getattr(lab, client)() as sender:
        before, one = lab.gateway.rss(), lab.head(f"X-Long: {'x' * 8000}", path="more")
        sender.send(one)
        api = lab.hand.accept()
        threading.Thread(target=answer_all, args=(api, answer), daemon=True).start()
        sender.sock.settimeout(1.0)
        with contextlib.suppress(TimeoutError):
            for _ in range(5000):
                sender.send(one)
        time.sleep(1)
        assert lab.gateway.rss() - before < 16 * MIB
        answered = 0
        with contextlib.suppress(TimeoutError):  # all that was taken is answered, once it reads
            while sender.read_head(0.5).startswith(b"HTTP/1.1 204"):
                answered += 1
        assert answered > 100


@pytest.mark.parametrize("cut", [1, 10, len(FOREIGN) - 1, len(FOREIGN)])
def test_what_is_not_for_the_lane_goes_on_beside_it_whole_and_in_order(cut: int, lab: LaneLab) -> None:
    with lab.client() as client:
        api = served(lab, client, None, path="a")
        served(lab, client, api, path="b")
        for data in (FOREIGN[:cut], FOREIGN[cut:]):
            client.send(data)
        response = parse_response(client.read_response())
        assert response.status == 400
        assert api.is_silent(0.05)


def test_a_client_that_went_beside_the_lane_is_served_there(lab: LaneLab) -> None:
    """`Expect` is mitmproxy's to answer, and so is whatever the client asks from then on."""
    with lab.client() as client:
        api = served(lab, client, None, path="a")
        served(lab, client, api, path="b")
        client.send(lab.head("Content-Length: 5", "Expect: 100-continue", method="POST", path="c"))
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        client.send(b"hello" + lab.post(b"world", path="d"))
        beside = lab.hand.accept()
        for path, body in ((b"/c ", b"hello"), (b"/d ", b"world")):
            assert path in beside.read_head()
            assert beside.read_exactly(5) == body
            beside.send(LEAST)
            assert client.read_response().endswith(b"ok")


def test_a_large_upload_that_went_beside_the_lane_arrives_whole(lab: LaneLab) -> None:
    body = bytes(range(256)) * 4096 * 4
    with lab.client() as client:
        api = served(lab, client, None, path="a")
        served(lab, client, api, path="b")
        data = lab.post(body, "TE: trailers", path="c")  # a field that the lane leaves alone
        threading.Thread(target=client.sock.sendall, args=(data,), daemon=True).start()
        beside = lab.hand.accept()
        assert b"/c " in beside.read_head()
        assert beside.read_exactly(len(body), 10) == body
        beside.send(LEAST)
        assert client.read_response().endswith(b"ok")


def test_an_upload_that_has_come_in_part_when_its_client_is_accepted_arrives_in_order(lab: LaneLab) -> None:
    """mitmproxy's reader takes 64 KiB and waits for its turn with the next, while the lane begins; the sizes
    are such that nothing is left in its buffer then, and still more comes.
    """
    body = b"".join(b"%07d " % number for number in range(40_000))
    for first in range(66_000, 122_000, 500):
        with stopped(lab.gateway.pid) as go_on, lab.client() as client:
            client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = lab.post(body, path="upload")
            client.send(data[:first])
            time.sleep(0.005)
            go_on()
            pieces = [data[at : at + 300] for at in range(first, len(data), 300)]
            sender = threading.Thread(target=lambda c=client, p=pieces: [c.send(one) for one in p])
            sender.start()
            api = lab.hand.accept()
            assert b"/upload " in api.read_head()
            assert api.read_exactly(len(body)) == body
            sender.join()
            api.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
            assert client.read_response().endswith(b"ok")


@pytest.mark.parametrize("how", ["closes", "half-closes", "resets"])
def test_a_client_that_ends_a_kept_connection_is_let_go(how: str, lab: LaneLab) -> None:
    with lab.kept_client() as client:
        if how == "half-closes":
            client.sock.shutdown(socket.SHUT_WR)
            assert is_closed(client)
            return
        if how == "resets":
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    with lab.client() as other:
        served(lab, other, None, path="next")


class Heard(asyncio.StreamReaderProtocol):
    """mitmproxy's side, which notes what it hears."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self.writable: list[bool] = []

    def pause_writing(self) -> None:
        self.writable.append(False)
        super().pause_writing()

    def resume_writing(self) -> None:
        self.writable.append(True)
        super().resume_writing()


class Taken(list[bytes]):
    def received(self, data: bytes) -> None:
        self.append(data)


RUNNERS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@RUNNERS
def test_bytes_that_mitmproxy_holds_already_are_not_overtaken(run: Any) -> None:
    """A connection is left as it is while its reader holds something, or has heard of its end."""

    async def work() -> list[bool]:
        loop, found = asyncio.get_running_loop(), []
        for held, ended in itertools.product((b"", b"held"), (False, True)):
            ours, theirs = socket.socketpair()
            reader = asyncio.StreamReader()
            transport, stock = await loop.connect_accepted_socket(lambda r=reader: Heard(r), ours)
            writer = asyncio.StreamWriter(transport, stock, reader, loop)
            if held:
                theirs.send(held)
            if ended:
                theirs.close()
            await asyncio.sleep(0.05)
            found.append(ClientReader.over(writer, reader, Taken()) is not None)
            transport.abort()
            theirs.close()
        return found

    assert run(work()) == [True, False, False, False]


@RUNNERS
def test_all_but_data_is_told_to_mitmproxy(run: Any) -> None:
    async def work() -> None:
        loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
        theirs.setblocking(False)
        reader, taken = asyncio.StreamReader(), Taken()
        transport, stock = await loop.connect_accepted_socket(lambda: Heard(reader), ours)
        writer = asyncio.StreamWriter(transport, stock, reader, loop)
        client_reader = ClientReader.over(writer, reader, taken)
        assert client_reader is not None
        await loop.sock_sendall(theirs, b"one")
        await asyncio.sleep(0.01)
        assert taken == [b"one"]
        writer.write(bytes(8 * MIB))
        drained = asyncio.ensure_future(writer.drain())
        await asyncio.sleep(0.01)
        assert not drained.done()
        got = 0
        while got < 8 * MIB:
            got += len(await loop.sock_recv(theirs, MIB))
        await drained
        assert stock.writable == [False, True]
        client_reader.read(False)
        await loop.sock_sendall(theirs, b"two")
        await asyncio.sleep(0.01)
        assert taken == [b"one"]
        client_reader.read(True)
        await asyncio.sleep(0.01)
        assert taken == [b"one", b"two"]
        client_reader.give_back()
        await loop.sock_sendall(theirs, b"three")
        assert await reader.read(5) == b"three"
        theirs.close()
        assert await reader.read() == b""
        writer.close()

    run(work())


@RUNNERS
def test_a_client_that_says_no_more_is_told_to_mitmproxy_and_may_still_be_answered(run: Any) -> None:
    async def work() -> None:
        loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
        theirs.setblocking(False)
        reader = asyncio.StreamReader()
        transport, stock = await loop.connect_accepted_socket(lambda: Heard(reader), ours)
        writer = asyncio.StreamWriter(transport, stock, reader, loop)
        assert ClientReader.over(writer, reader, Taken()) is not None
        theirs.shutdown(socket.SHUT_WR)
        assert await reader.read() == b""
        writer.write(b"answer")
        assert await loop.sock_recv(theirs, 10) == b"answer"
        assert not writer.is_closing()
        transport.abort()
        await writer.wait_closed()
        theirs.close()

    async def bounded() -> None:
        await asyncio.wait_for(work(), 5)

    run(bounded())


class Bufferless:
    """Like a reader of mitmproxy's that is written in Rust: what it holds nobody can see."""

    @staticmethod
    def at_eof() -> bool:
        return False


@RUNNERS
def test_what_is_read_otherwise_than_by_asyncio_stays_as_it_is(run: Any) -> None:
    async def work() -> None:
        loop, (ours, theirs) = asyncio.get_running_loop(), socket.socketpair()
        reader = asyncio.StreamReader()
        transport, stock = await loop.connect_accepted_socket(lambda: Heard(reader), ours)
        writer: Any = asyncio.StreamWriter(transport, stock, reader, loop)
        assert ClientReader.over(writer, Bufferless(), Taken()) is None
        assert transport.get_protocol() is stock
        other = asyncio.Protocol()
        transport.set_protocol(other)
        assert ClientReader.over(writer, reader, Taken()) is None
        assert transport.get_protocol() is other
        transport.set_protocol(stock)
        transport.abort()
        theirs.close()

    run(work())
