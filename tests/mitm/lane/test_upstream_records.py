"""What an upstream sends over TLS in short records is decrypted by turns, in either event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import trustme
import uvloop
from tests.mitm.test_answers_by_turns import Counting, records

from presign_proxy.http.message import Origin
from presign_proxy.mitm.lane.upstream_pool import Pool, PoolKey
from presign_proxy.mitm.lane.upstream_records import RecordTurns, over_tls
from presign_proxy.mitm.lane.write_batch import WriteBatch
from presign_proxy.mitm.tls_records import TURN_RECORDS
from support.gateways import TLS_NAMES

RUNNERS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
Run = Callable[[Coroutine[Any, Any, None]], None]
KEY_UPDATE = b"\x17\x03\x03\x00\x16" + bytes(22)
"""As long as one is; what is in it is nobody's business here."""


@pytest.fixture(scope="module")
def secure(ca: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    served, trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    ca.issue_cert(*TLS_NAMES).configure_cert(served)
    ca.configure_trust(trusting)
    return served, trusting


class Decrypting(asyncio.BufferedProtocol):
    """Stands where TLS would, and notes how much it is given at a time, and whether to read was said."""

    def __init__(self) -> None:
        self.cup = bytearray(100_000)
        self.given: list[int] = []
        self.ended = False

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.cup[:sizehint] if sizehint > 0 else self.cup

    def buffer_updated(self, nbytes: int) -> None:
        self.given.append(nbytes)

    def eof_received(self) -> bool | None:
        self.ended = True
        return False


def send_all(sock: socket.socket, sent: bytes) -> None:
    with sock, contextlib.suppress(OSError):  # the test may have failed, and be over
        sock.sendall(sent)


async def turned(sent: bytes, *, hold: bool = False) -> tuple[Decrypting, RecordTurns, Any]:
    """A connection on which this has come, and is being decrypted."""
    loop = asyncio.get_running_loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    transport, stock = await loop.create_connection(Decrypting, sock=near)
    turns = RecordTurns.over(transport)
    turns.hold(hold)
    threading.Thread(target=send_all, args=(far, sent)).start()
    return stock, turns, transport


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.001)


async def still(given: list[int]) -> None:
    """Until nothing more has come for a quarter of a second."""
    before = -1
    async with asyncio.timeout(20):
        while len(given) != before:
            before = len(given)
            await asyncio.sleep(0.25)


@RUNNERS
def test_an_upstream_that_changes_its_key_without_end_has_64_changes_handled_in_a_turn(run: Run) -> None:
    """They hold no data, so nobody was told of them: fifty thousand kept a worker for more than a second."""

    async def work() -> None:
        stock, _, transport = await turned(KEY_UPDATE * 20_000)
        await until(lambda: stock.ended)
        assert sum(stock.given) == 20_000 * len(KEY_UPDATE)
        assert max(stock.given[:-1]) < (TURN_RECORDS + 1) * len(KEY_UPDATE)
        transport.close()

    run(work())


@RUNNERS
def test_what_is_held_is_not_taken_off_the_socket(run: Run) -> None:
    async def work() -> None:
        stock, turns, transport = await turned(KEY_UPDATE * 20_000, hold=True)
        await asyncio.sleep(0.05)
        assert stock.given == []
        turns.hold(False)
        await until(lambda: len(stock.given) > 3)
        turns.hold(True)
        await still(stock.given)  # only what was taken off before comes through
        assert not stock.ended
        turns.hold(False)
        await until(lambda: stock.ended)
        assert sum(stock.given) == 20_000 * len(KEY_UPDATE)
        transport.close()

    run(work())


@RUNNERS
def test_an_answer_in_records_of_one_byte_comes_whole_and_few_of_them_in_a_turn(
    run: Run, secure: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def work() -> None:
        body, told = bytes(range(256)) * 40, Counting()
        pool = Pool(lambda tls: secure[1], lambda: 1000.0, WriteBatch())
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                with listener.accept()[0] as sock:
                    records(secure[0], body, sock)
                    sock.settimeout(20)
                    sock.recv(1)

            served = loop.run_in_executor(None, serve)
            origin = Origin("https", "localhost", listener.getsockname()[1])
            link = await pool.open(PoolKey("conn", origin, "127.0.0.1"))
            link.begin(told, b"GET", whole=True)
            await until(lambda: bool(told.ended))
            assert (told.body == body, told.ended[0]) == (True, "complete")
            link.close()
            assert max(len(data) for _, data in told.heard) <= 4 * TURN_RECORDS  # else there were thousands
            await asyncio.wait([served])

    run(work())


@RUNNERS
def test_a_handshake_that_fails_leaves_no_connection(
    run: Run, secure: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async def work() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            opening = asyncio.ensure_future(
                over_tls(asyncio.Protocol, "127.0.0.1", port, secure[1], "localhost")
            )
            loop = asyncio.get_running_loop()
            sock = (await loop.run_in_executor(None, listener.accept))[0]
            with sock:
                sock.settimeout(20)
                assert await loop.run_in_executor(None, sock.recv, 5) == b"\x16\x03\x01\x02\x00"
                opening.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await opening

                def rest() -> bytes:
                    found = b"-"
                    while found:
                        found = sock.recv(65536)
                    return found

                assert await loop.run_in_executor(None, rest) == b""

    run(work())
