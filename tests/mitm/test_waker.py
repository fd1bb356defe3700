"""What wakes those who wait at the gates of one client: how often these are looked at, and who goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from presign_proxy.mitm import waker as wakers
from presign_proxy.mitm.backpressure import GatedReader, OneOfMany
from presign_proxy.mitm.http2_turns import Turns
from presign_proxy.mitm.waker import LONGEST_PAUSE, PAUSE, Waker
from support.handling import PATIENCE


class Gate:
    """A gate, and how often it was looked at."""

    def __init__(self) -> None:
        self.shut, self.asked = True, 0
        self.fails: Exception | None = None

    def is_shut(self) -> bool:
        self.asked += 1
        if self.fails is not None:
            raise self.fails
        return self.shut


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture
def unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No gate is looked at unless its waker rings."""
    monkeypatch.setattr(wakers, "PAUSE", 3600.0)
    monkeypatch.setattr(wakers, "LONGEST_PAUSE", 3600.0)


def story(work: Callable[[], Awaitable[Any]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await work()

    asyncio.run(main())


def test_an_open_gate_is_not_waited_at() -> None:
    async def work() -> None:
        gate = Gate()
        gate.shut = False
        await Waker().wait(gate.is_shut)
        assert gate.asked == 1

    story(work)


def test_where_nobody_waits_a_bell_that_rings_costs_the_event_loop_nothing() -> None:
    Waker().wake()  # there is none, which it would have asked for a turn


@pytest.mark.usefixtures("unasked")
def test_nine_hundred_answers_that_nobody_takes_are_looked_at_once_and_no_more() -> None:
    """They took a quarter of a processor."""

    async def work() -> None:
        waker, gates = Waker(), [Gate() for _ in range(900)]
        waiting = [asyncio.create_task(waker.wait(gate.is_shut)) for gate in gates]
        await turns(50)
        assert {gate.asked for gate in gates} == {1}
        for gate in gates:
            gate.shut = False
        waker.wake()
        await asyncio.gather(*waiting)

    story(work)


@pytest.mark.usefixtures("unasked")
def test_a_bell_that_rings_wakes_those_whose_gates_are_open_and_nobody_else() -> None:
    async def work() -> None:
        waker, one, other = Waker(), Gate(), Gate()
        first, second = (asyncio.create_task(waker.wait(gate.is_shut)) for gate in (one, other))
        await turns()
        one.shut = False
        waker.wake()
        await turns()
        assert (first.done(), second.done()) == (True, False)
        assert other.asked == 2, "looked at, and not woken to look himself"
        other.shut = False
        await turns()
        assert not second.done(), "nobody has rung"
        waker.wake()
        await second

    story(work)


@pytest.mark.usefixtures("unasked")
def test_a_client_that_opens_its_window_byte_by_byte_has_its_gates_looked_at_once_in_a_turn() -> None:
    async def work() -> None:
        waker, gate = Waker(), Gate()
        waiting = asyncio.create_task(waker.wait(gate.is_shut))
        await turns()
        for turn in range(3):
            for _ in range(1000):
                waker.wake()
            await turns()
            assert gate.asked == turn + 2
        gate.shut = False
        waker.wake()
        await waiting

    story(work)


@pytest.mark.usefixtures("unasked")
def test_a_gate_that_fails_lets_its_own_go_and_harms_no_other() -> None:
    async def work() -> None:
        waker, broken, whole = Waker(), Gate(), Gate()
        first, second = (asyncio.create_task(waker.wait(gate.is_shut)) for gate in (broken, whole))
        await turns()
        broken.fails, whole.shut = ZeroDivisionError(), False
        waker.wake()
        with pytest.raises(ZeroDivisionError):
            await first
        await second

    story(work)


@pytest.mark.usefixtures("unasked")
def test_who_is_cancelled_waits_no_more_and_nothing_rings_for_him() -> None:
    async def work() -> None:
        waker, gate = Waker(), Gate()
        waiting = asyncio.create_task(waker.wait(gate.is_shut))
        await turns()
        waker.wake()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not waker._waiting
        asked = gate.asked
        waker.wake()
        await turns()
        assert gate.asked == asked

    story(work)


def test_a_gate_that_nobody_rings_for_is_looked_at_less_and_less_often() -> None:
    """Room that other clients leave opens gates for which nobody rings."""

    async def work() -> None:
        loop, waker, gate, pauses = asyncio.get_running_loop(), Waker(), Gate(), []
        timers = []

        def call_later(delay: float, call: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
            pauses.append(delay)
            loop.call_soon(call, *args)
            timers.append(stock(3600, lambda: None))
            return timers[-1]

        stock = loop.call_later
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "call_later", call_later)
            waiting = asyncio.create_task(waker.wait(gate.is_shut))
            await turns(100)
            assert len(pauses) > 9
            gate.shut = False
            await waiting
        assert pauses[:9] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0]
        assert all(timer.cancelled() for timer in timers), "none is left behind"
        assert (PAUSE, LONGEST_PAUSE) == (0.05, 2.0)

    story(work)


class Answers:
    """The HTTP layer of a client over HTTP/2, as far as a reader asks it."""

    def __init__(self) -> None:
        self.waker, self.gate = Waker(), Gate()

    def is_shut(self, server: object) -> bool:
        return self.gate.is_shut()


@pytest.mark.usefixtures("unasked")
def test_an_upstream_is_read_again_when_its_clients_bell_rings() -> None:
    async def work() -> None:
        layer, stream = Answers(), asyncio.StreamReader()
        one = OneOfMany(None, lambda: layer, Turns(wakers.call))
        stream.feed_data(b"hello")
        reading = asyncio.ensure_future(GatedReader(stream, one.is_shut, one).read(5))
        await turns()
        layer.gate.shut = False
        await turns()
        assert not reading.done()
        layer.waker.wake()
        await turns()
        assert reading.done(), "because of the waker, and of nothing later"
        assert await reading == b"hello"

    story(work)
