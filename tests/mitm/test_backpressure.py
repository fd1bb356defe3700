"""Back-pressure: how much is held of what a peer sent, and that nothing is read from it meanwhile."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from mitmproxy.proxy.server import ConnectionIO

from presign_proxy.mitm.backpressure import MAX_HELD, GatedReader, gate, is_too_much
from support.handling import PATIENCE, Handled, with_client

MIB = 1024 * 1024


def test_of_one_client_a_mebibyte_is_held() -> None:
    assert MAX_HELD == MIB


@pytest.mark.parametrize(
    ("waiting", "together", "is_much"),
    [
        (0, 0, False),
        (4 * MIB, 4 * MIB, False),
        (4 * MIB + 1, 4 * MIB + 1, True),
        (16 * 1024 + 1, 16 * MIB, False),
        (16 * 1024 + 1, 16 * MIB + 1, True),
        (16 * 1024, 16 * MIB + 1, False),
        (16 * 1024, 900 * MIB, False),
    ],
)
def test_of_an_answer_that_is_not_taken_so_much_waits(waiting: int, together: int, is_much: bool) -> None:
    """The last: a client that takes nothing of a thousand answers stops none of those that it takes."""
    assert is_too_much(waiting, together) is is_much


@pytest.mark.parametrize(
    ("waiting", "together", "room", "is_much"),
    [
        (16 * 1024 + 1, MIB, MIB, False),
        (16 * 1024 + 1, MIB + 1, MIB, True),
        (16 * 1024, MIB + 1, MIB, False),
        (16 * 1024 + 1, 16 * MIB + 1, 60 * MIB, True),
        (16 * 1024 + 1, 16 * 1024 + 1, 0, True),
    ],
)
def test_a_client_has_less_room_where_others_take_nothing_either(
    waiting: int, together: int, room: int, is_much: bool
) -> None:
    assert is_too_much(waiting, together, room) is is_much


class Lab:
    """A reader, and what shuts its gate."""

    def __init__(self) -> None:
        self.stream = asyncio.StreamReader()
        self.shut = False
        self.asked = 0
        self.gated = GatedReader(self.stream, self._is_shut)

    def _is_shut(self) -> bool:
        self.asked += 1
        return self.shut

    async def turns(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


def story(work: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await work(Lab())

    asyncio.run(main())


def test_what_comes_through_an_open_gate_is_read_as_it_was_asked_for() -> None:
    async def work(lab: Lab) -> None:
        lab.stream.feed_data(b"hello")
        assert await lab.gated.read(3) == b"hel"
        assert await lab.gated.read(3) == b"lo"
        assert not lab.gated.at_eof()
        lab.stream.feed_eof()
        assert await lab.gated.read(3) == b""
        assert lab.gated.at_eof()

    story(work)


def test_nothing_is_read_while_too_much_is_held() -> None:
    async def work(lab: Lab) -> None:
        lab.shut = True
        lab.stream.feed_data(b"hello")
        reading = asyncio.ensure_future(lab.gated.read(5))
        await asyncio.sleep(0.12)
        assert lab.asked > 1, "asked once, it would wait for ever"
        assert lab.asked < 10, "and always, it would have all the time there is"
        assert not reading.done()
        lab.shut = False
        assert await reading == b"hello"

    story(work)


def test_a_gate_without_a_bell_is_asked_at_the_pace_at_which_sockets_drain() -> None:
    async def work(lab: Lab) -> None:
        loop, pauses = asyncio.get_running_loop(), []
        lab.shut = True
        lab.stream.feed_data(b"hello")

        def call_later(delay: float, call: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
            pauses.append(delay)
            return loop.call_at(0, call, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "call_later", call_later)
            reading = asyncio.ensure_future(lab.gated.read(5))
            for _ in range(100):
                await asyncio.sleep(0)
            lab.shut = False
            assert await reading == b"hello"
        assert pauses[:5] == [0.05, 0.1, 0.2, 0.2, 0.2]

    story(work)


def test_nothing_is_read_while_it_is_held_by_who_knows_when_to_let_go() -> None:
    async def work(lab: Lab) -> None:
        lab.stream.feed_data(b"hello")
        lab.gated.hold(True, lab)
        lab.gated.hold(True, lab)
        reading = asyncio.ensure_future(lab.gated.read(5))
        await lab.turns()
        assert not reading.done()
        lab.gated.hold(True, lab)  # who waits already is let go as well
        lab.gated.hold(False, lab)
        assert await reading == b"hello"
        lab.gated.hold(False, lab)
        lab.stream.feed_data(b"more")
        assert await lab.gated.read(5) == b"more"

    story(work)


def test_what_two_hold_is_read_once_both_have_let_go() -> None:
    """Else what waits for its turn in TLS would let in an upload that its upstream does not take."""

    async def work(lab: Lab) -> None:
        lab.stream.feed_data(b"hello")
        lab.gated.hold(True, "one")
        lab.gated.hold(True, "two")
        reading = asyncio.ensure_future(lab.gated.read(5))
        lab.gated.hold(False, "two")
        await lab.turns()
        assert not reading.done()
        lab.gated.hold(False, "one")
        assert await reading == b"hello"

    story(work)


def test_a_connection_that_was_closed_while_it_was_held_may_be_let_go() -> None:
    async def work(lab: Lab) -> None:
        lab.gated.hold(True, lab)
        reading = asyncio.ensure_future(lab.gated.read(5))
        await lab.turns()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        lab.gated.hold(False, lab)
        lab.stream.feed_data(b"hello")
        assert await lab.gated.read(5) == b"hello"

    story(work)


def test_an_upstream_is_silent_only_where_all_that_it_said_was_told() -> None:
    """What came before a request would pass for its answer, and that with somebody else's credential."""

    async def work(lab: Lab) -> None:
        assert not lab.gated.is_waiting, "nobody reads yet"
        reading = asyncio.ensure_future(lab.gated.read(5))
        await lab.turns()
        assert lab.gated.is_waiting
        lab.stream.feed_data(b"early")
        assert not lab.gated.is_waiting, "it has come, and was not told yet"
        assert await reading == b"early"
        assert not lab.gated.is_waiting, "it was read, and is being told"
        reading = asyncio.ensure_future(lab.gated.read(5))
        await lab.turns()
        lab.stream.feed_eof()
        assert not lab.gated.is_waiting, "its end is no silence"
        await reading

    story(work)


def test_a_read_that_fails_ends_the_connection_after_who_reads_was_noted() -> None:
    """After any other error mitmproxy would leave it open, unread."""

    async def work(lab: Lab) -> None:
        lab.stream.set_exception(ZeroDivisionError("sk_secret"))
        coroutine: Coroutine[Any, Any, bytes] = lab.gated.read(5)
        assert coroutine.send(None) is None, "one turn is waited for"
        with pytest.raises(OSError, match="ZeroDivisionError") as failed:
            coroutine.send(None)
        assert "sk_secret" not in str(failed.value)
        assert not lab.gated.is_waiting

    story(work)


def test_a_gate_stands_before_a_connection_and_the_system_asks_its_peer() -> None:
    async def work(lab: Handled) -> None:
        shut = [True]
        sock = lab.sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
        gate(lab.client, lab.client, lambda: shut[0])
        reader = lab.handler.transports[lab.client].reader
        assert isinstance(reader, GatedReader)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        lab.peer.sendall(b"hello")
        reading = asyncio.ensure_future(reader.read(5))
        await asyncio.sleep(0.06)
        assert not reading.done()
        shut[0] = False
        assert await reading == b"hello"

    with_client(work)


@pytest.mark.parametrize("what", ["UDP", "closed", "a writer alone", "a reader alone"])
def test_what_has_nothing_to_read_or_is_no_stream_gets_no_gate(what: str) -> None:
    async def work(lab: Handled) -> None:
        io = lab.handler.transports.pop(lab.client)
        stream = io.reader
        if what == "UDP":
            lab.client.transport_protocol = "udp"
        if what != "closed":
            reader = None if what == "a writer alone" else stream
            writer = None if what == "a reader alone" else io.writer
            lab.handler.transports[lab.client] = ConnectionIO(handler=None, reader=reader, writer=writer)
        gate(lab.client, lab.client, lambda: False)
        is_gated = isinstance(getattr(lab.handler.transports.get(lab.client), "reader", None), GatedReader)
        assert is_gated is (what == "a reader alone")
        lab.handler.transports[lab.client] = io

    with_client(work)
