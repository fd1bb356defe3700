"""One connection to Redis for all who ask: in order, and never somebody else's answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Connection
from redis.exceptions import ResponseError

from presign_proxy.limits.counter import Counter
from presign_proxy.limits.stores import redis_pipeline
from presign_proxy.limits.stores.redis import RedisStore
from presign_proxy.limits.stores.redis_pipeline import Pipeline
from presign_proxy.limits.stores.store import StoreError
from support.redis_by_hand import ByHand, asking, by_hand, run


@contextlib.asynccontextmanager
async def a_line() -> AsyncIterator[tuple[ByHand, Pipeline]]:
    async with by_hand() as (hand, port):
        connection = Connection(host="127.0.0.1", port=port, socket_timeout=None)
        await connection.connect()
        found = Pipeline(connection)
        try:
            yield hand, found
        finally:
            found.close()
            await asyncio.sleep(0)


def test_what_is_asked_together_is_sent_in_one_piece_and_answered_in_order() -> None:
    async def work() -> None:
        async with a_line() as (hand, known):
            one, other = asking(known.ask(("A", 1), ("B", b"x"))), asking(known.ask(("C",)))
            await hand.heard(3)
            assert hand.asked[-3:] == [[b"A", b"1"], [b"B", b"x"], [b"C"]]
            assert max(hand.pieces) >= 2
            hand.say(b":1\r\n:2\r\n")
            assert await one == [1, 2]
            assert not other.done()
            hand.say(b":3\r\n")
            assert await other == [3]
            assert known.is_open

    run(work)


def test_no_answer_is_waited_for_before_all_is_sent() -> None:
    """Otherwise what another one asks would come between, and the answers be told to the wrong ones."""

    async def work() -> None:
        async with a_line() as (hand, known):
            tasks = [asking(known.ask(("A", number), ("B", number))) for number in range(20)]
            await hand.heard(40)
            assert [command[1] for command in hand.asked[-40:]] == [b"%d" % (n // 2) for n in range(40)]
            hand.say(b"".join(b":%d\r\n" % number for number in range(40)))
            assert [await one for one in tasks] == [[2 * n, 2 * n + 1] for n in range(20)]

    run(work)


def test_an_error_reply_is_one_of_the_answers() -> None:
    async def work() -> None:
        async with a_line() as (hand, known):
            asked = asking(known.ask(("A",), ("B",)))
            await hand.heard(2)
            hand.say(b"-ERR no\r\n:2\r\n")
            first, second = await asked
            assert isinstance(first, ResponseError)
            assert second == 2
            again = asking(known.ask(("C",)))
            await hand.heard(3)
            hand.say(b":3\r\n")
            assert await again == [3]

    run(work)


def test_the_answer_to_somebody_who_went_away_reaches_nobody_else() -> None:
    async def work() -> None:
        async with a_line() as (hand, known):
            lost, other = asking(known.ask(("A",))), asking(known.ask(("B",)))
            await hand.heard(2)
            lost.cancel()
            await asyncio.sleep(0)
            assert known.is_open
            hand.say(b":1\r\n:2\r\n")
            assert await other == [2]
            assert lost.cancelled()

    run(work)


def test_what_nobody_waits_for_is_taken_back_behind_it_on_the_same_connection() -> None:
    async def work() -> None:
        async with a_line() as (hand, known):
            lost = asking(known.ask(("TAKE",), undo=[("FREE",)]))
            await hand.heard(1)
            lost.cancel()
            other = asking(known.ask(("NEXT",)))
            await hand.heard(3)
            assert hand.asked[-3:] == [[b"TAKE"], [b"FREE"], [b"NEXT"]]
            hand.say(b":1\r\n:2\r\n:3\r\n")
            assert await other == [3]  # and not what was answered to what was taken back

    run(work)


def test_a_connection_that_uvloop_has_just_closed_is_a_store_that_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was answered 500, and ended the renewing of all slots."""

    async def closed(*_: Any, **__: Any) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed")

    async def work() -> None:
        async with by_hand() as (_, port):
            store = RedisStore(f"redis://127.0.0.1:{port}")
            known = await store._connected()
            monkeypatch.setattr(known._connection, "send_packed_command", closed)
            with pytest.raises(StoreError, match=r"^the store failed \(RuntimeError\)$"):
                await store.admit((Counter("uses", "count", "uses", 9),), "req_1")
            assert not known.is_open
            await store.close()

    run(work)


@pytest.mark.parametrize(("waited", "is_open"), [(0.1, True), (0.19, True), (0.21, False)])
def test_a_connection_that_has_said_nothing_for_long_is_given_up_with_the_first_who_gives_up(
    waited: float, is_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert redis_pipeline.PATIENCE == 0.2

    async def work() -> None:
        async with a_line() as (_, known):
            loop = asyncio.get_running_loop()
            now = [loop.time()]
            monkeypatch.setattr(known._loop, "time", lambda: now[0])
            lost, other = asking(known.ask(("A",))), asking(known.ask(("B",)))
            while len(known._waiting) < 2:  # noqa: ASYNC110 - sending takes a turn or two
                await asyncio.sleep(0)
            monkeypatch.undo()
            monkeypatch.setattr(known, "_loop", Late(loop, now[0] + waited))
            lost.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert known.is_open is is_open
            if not is_open:
                with pytest.raises(StoreError, match=r"^the store failed \(no answer\)$"):
                    await other
            else:
                other.cancel()

    run(work)


class Late:
    """A loop by another clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        self._loop, self._now = loop, now

    def time(self) -> float:
        return self._now

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


def test_who_asked_late_does_not_give_up_what_others_wait_for() -> None:
    """An answer to the first of all may still come; who asked after it cannot know."""

    async def work() -> None:
        async with a_line() as (hand, known):
            first, second = asking(known.ask(("A",))), asking(known.ask(("B",)))
            await hand.heard(2)
            known._waiting[0] = known._waiting[0][0], known._waiting[1][1] + 1.0
            known._given_up(known._waiting[1][1])
            assert known.is_open
            first.cancel()
            second.cancel()

    run(work)


def test_who_asked_first_gives_up_for_all_and_who_asked_between_for_nobody() -> None:
    async def work() -> None:
        async with a_line() as (hand, known):
            tasks = [asking(known.ask(("A",))) for _ in range(3)]
            await hand.heard(3)
            now = known._loop.time()
            futures = [future for future, _ in known._waiting]
            known._waiting.clear()
            known._waiting.extend(zip(futures, [now - 5, now - 9, now - 9], strict=True))
            known._given_up(now - 6)
            assert known.is_open, (
                "the answer to the first of all is not late for somebody who asked before it"
            )
            known._given_up(now - 5)
            assert not known.is_open
            for task in tasks:
                with pytest.raises(StoreError, match=r"\(no answer\)"):
                    await task

    run(work)


def test_a_connection_cut_while_asking_is_given_up_with_all_who_wait() -> None:
    async def work() -> None:
        async with a_line() as (hand, known):
            lost, other = asking(known.ask(("A",))), asking(known.ask(("B",)))
            await hand.heard(2)
            connected = known._connection._writer
            known._connection._writer = None
            assert not known.is_open
            lost.cancel()
            with pytest.raises(StoreError, match=r"\(it was cut while asking\)"):
                await other
            known._connection._writer = connected

    run(work)


def test_an_answer_to_nothing_ends_the_connection() -> None:
    async def work() -> None:
        async with a_line() as (hand, known):
            hand.say(b":1\r\n")
            await asyncio.wait_for(hand.ended.wait(), 5)
            assert not known.is_open
            with pytest.raises(StoreError, match=r"^the store has closed the connection$"):
                await known.ask(("A",))
            assert hand.pieces == []

    run(work)


@pytest.mark.parametrize("how", ["it ends", "it says junk"])
def test_all_who_wait_hear_that_the_connection_has_ended(how: str) -> None:
    async def work() -> None:
        async with a_line() as (hand, known):
            tasks = [asking(known.ask(("A",), ("B",))) for _ in range(3)]
            await hand.heard(6)
            if how == "it ends":
                hand.say(b":1\r\n:2\r\n:3\r\n")
                hand.writers[0].close()
            else:
                hand.say(b":1\r\n:2\r\n:3\r\n\x00junk\r\n")
            assert await tasks[0] == [1, 2]
            for task in tasks[1:]:
                with pytest.raises(StoreError, match=r"^the store failed \("):
                    await task
            assert not known.is_open

    run(work)


def test_closing_tells_all_who_wait_once_and_hangs_up() -> None:
    async def work() -> None:
        async with a_line() as (hand, known):
            tasks = [asking(known.ask(("A",))) for _ in range(3)]
            await hand.heard(3)
            tasks[0].cancel()
            await asyncio.sleep(0)
            known.close("enough")
            known.close("again")
            for task in tasks[1:]:
                with pytest.raises(StoreError, match=r"^the store failed \(enough\)$"):
                    await task
            assert not known.is_open
            assert not known._waiting
            await asyncio.wait_for(hand.ended.wait(), 5)
            await asyncio.sleep(0)
            assert known._listening.done()
            assert not known._connection.is_connected

    run(work)


def test_who_waits_on_a_connection_that_is_closed_hears_why() -> None:
    async def work() -> None:
        async with a_line() as (hand, known):
            asked = asking(known.ask(("A",)))
            await hand.heard(1)
            known.close()
            with pytest.raises(StoreError, match=r"^the store failed \(it was closed\)$"):
                await asked

    run(work)


def test_a_connection_that_cannot_be_written_to_is_given_up() -> None:
    async def work() -> None:
        async with a_line() as (_, known):

            async def fail(*_: Any, **__: Any) -> None:
                raise ConnectionResetError

            known._connection.send_packed_command = fail  # type: ignore[method-assign]
            with pytest.raises(ConnectionResetError):
                await known.ask(("A",))
            assert not known.is_open
            assert not known._waiting

    run(work)


def test_nothing_is_asked_for_and_nothing_is_answered() -> None:
    async def work() -> None:
        async with a_line() as (_, known):
            assert await known.ask() == []

    run(work)
