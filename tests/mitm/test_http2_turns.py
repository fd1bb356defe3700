"""Who goes on in which turn of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from presign_proxy.mitm import waker
from presign_proxy.mitm.backpressure import GatedReader, OneOfMany
from presign_proxy.mitm.http2_fairness import READS
from presign_proxy.mitm.http2_turns import Turns


class Answers:
    """The HTTP layer of a client, as far as it says whether an answer has begun."""

    waker = None

    def __init__(self, *, is_new: bool) -> None:
        self.is_new = is_new

    def is_unanswered(self, server: object) -> bool:
        return self.is_new


def among(turns: Turns, *, new: bool = False) -> OneOfMany:
    return OneOfMany(None, lambda: Answers(is_new=new), turns)


class Loop:
    """An event loop whose turns pass when a test says so."""

    def __init__(self, each: int = 1) -> None:
        self.later: list[Callable[[], None]] = []
        self.called: list[str] = []
        self.turns = Turns(self.called.append, each, self.later.append)

    def turn(self) -> list[str]:
        """Those who are called in the next turn."""
        later, self.later[:] = list(self.later), []
        self.called.clear()
        for one in later:
            one()
        return list(self.called)


@pytest.mark.parametrize("each", [1, 3])
def test_so_many_go_on_at_once_and_the_others_in_the_next_turn(each: int) -> None:
    loop = Loop(each)
    assert [loop.turns.take() for _ in range(each + 1)] == [True] * each + [False]
    assert loop.turn() == []
    assert loop.turns.take()


def test_those_who_wait_are_called_one_after_the_other_in_their_order() -> None:
    loop = Loop()
    for one in ("first", "second", "third"):
        loop.turns.wait(one, new=False)
    assert [loop.turn() for _ in range(4)] == [["first"], ["second"], ["third"], []]
    assert loop.later == [], "nobody waits: the event loop may sleep"


def test_so_many_are_called_in_one_turn() -> None:
    loop = Loop(2)
    for one in ("first", "second", "third"):
        loop.turns.wait(one, new=False)
    assert [loop.turn() for _ in range(2)] == [["first", "second"], ["third"]]


def test_nobody_overtakes_those_who_wait() -> None:
    loop = Loop()
    loop.turns.wait("first", new=False)
    loop.turns.wait("second", new=False)
    assert not loop.turns.take()
    loop.turn()
    assert not loop.turns.take(), "the second is still there"
    loop.turn()
    assert not loop.turns.take(), "this turn was that of the second"
    loop.turn()
    assert loop.turns.take()


def test_who_waits_again_stands_behind_the_others() -> None:
    loop = Loop()
    loop.turns.wait("greedy", new=False)
    loop.turns.wait("other", new=False)
    assert loop.turn() == ["greedy"]
    loop.turns.wait("greedy", new=False)
    assert [loop.turn(), loop.turn()] == [["other"], ["greedy"]]


def test_who_has_left_is_not_called_and_takes_nobodys_turn() -> None:
    loop = Loop()
    for one in ("gone", "first"):
        loop.turns.wait(one, new=False)
    loop.turns.leave("gone")
    loop.turns.leave("gone")
    assert loop.turn() == ["first"]


def test_those_who_have_nothing_yet_and_all_others_are_called_by_turns() -> None:
    """A newcomer waited for nine hundred downloads to begin."""
    loop = Loop()
    for one in ("download", "second download", "third download"):
        loop.turns.wait(one, new=False)
    for one in ("newcomer", "second newcomer"):
        loop.turns.wait(one, new=True)
    order = [name for _ in range(5) for name in loop.turn()]
    assert order == ["newcomer", "download", "second newcomer", "second download", "third download"]


def test_newcomers_by_themselves_are_called_in_their_order() -> None:
    loop = Loop()
    for one in ("newcomer", "second newcomer"):
        loop.turns.wait(one, new=True)
    assert [loop.turn(), loop.turn()] == [["newcomer"], ["second newcomer"]]


def test_newcomers_without_end_starve_nobody() -> None:
    loop = Loop()
    loop.turns.wait("download", new=False)
    loop.turns.wait("second download", new=False)
    order = []
    for number in range(4):
        loop.turns.wait(f"newcomer {number}", new=True)
        order += loop.turn()
    assert order == ["newcomer 0", "download", "newcomer 1", "second download"]


def test_who_comes_new_after_others_had_their_turns_is_next() -> None:
    loop = Loop()
    for one in ("download", "second download", "third download"):
        loop.turns.wait(one, new=False)
    assert [loop.turn(), loop.turn()] == [["download"], ["second download"]]
    loop.turns.wait("newcomer", new=True)
    assert [loop.turn(), loop.turn()] == [["newcomer"], ["third download"]]


def test_in_one_turn_both_rows_are_served() -> None:
    loop = Loop(4)
    for number in range(3):
        loop.turns.wait(f"download {number}", new=False)
        loop.turns.wait(f"newcomer {number}", new=True)
    assert loop.turn() == ["newcomer 0", "download 0", "newcomer 1", "download 1"]
    assert loop.turn() == ["newcomer 2", "download 2"]


def test_nobody_overtakes_a_newcomer_who_waits() -> None:
    loop = Loop()
    loop.turns.wait("newcomer", new=True)
    assert not loop.turns.take()


def test_a_newcomer_who_has_left_is_not_called() -> None:
    loop = Loop()
    loop.turns.wait("newcomer", new=True)
    loop.turns.leave("newcomer")
    loop.turns.wait("download", new=False)
    assert loop.turn() == ["download"]


def test_the_turns_are_those_of_the_event_loop_that_runs() -> None:
    async def main() -> list[int]:
        called: list[int] = []
        turns, seen = Turns(called.append), []
        for one in range(3):
            turns.wait(one, new=False)
        for _ in range(4):
            seen.append(len(called))
            await asyncio.sleep(0)
        return seen

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_in_one_turn_a_bounded_number_of_answers_is_read() -> None:
    """Seven hundred upstreams that all have something to say were heard before anybody else."""

    async def main() -> list[int]:
        turns, heard, seen = Turns(waker.call, READS), [], []

        async def read(number: int) -> None:
            stream = asyncio.StreamReader()
            stream.feed_data(b"x" * 100)
            await GatedReader(stream, lambda: False, among(turns)).read(100)
            heard.append(number)

        tasks = [asyncio.create_task(read(number)) for number in range(3 * READS)]
        while len(heard) < len(tasks):
            before = len(heard)
            await asyncio.sleep(0)
            seen.append(len(heard) - before)
        assert heard == list(range(3 * READS))
        return seen

    assert max(asyncio.run(main())) <= READS


def test_an_answer_that_begins_is_not_read_behind_all_that_have_begun() -> None:
    async def main() -> list[str]:
        turns, heard = Turns(waker.call), []

        async def read(name: str) -> None:
            stream = asyncio.StreamReader()
            stream.feed_data(b"x")
            await GatedReader(stream, lambda: False, among(turns, new=name == "new")).read(1)
            heard.append(name)

        names = ["download", "second download", "third download", "new"]
        await asyncio.gather(*map(read, names))
        return heard

    assert asyncio.run(main()) == ["download", "new", "second download", "third download"]


def test_an_upstream_whose_client_has_gone_is_read_among_the_others() -> None:
    one = OneOfMany(None, lambda: None, Turns(waker.call))
    assert (one.is_shut(), one.is_new(), one.waker) == (False, False, None)


def test_what_was_read_and_not_told_yet_is_nothing_to_wait_for() -> None:
    """A connection with something to tell is not silent: it would pass for the next answer."""

    async def main() -> None:
        turns = Turns(waker.call)
        stream = asyncio.StreamReader()
        gated = GatedReader(stream, lambda: False, among(turns))
        task = asyncio.create_task(gated.read(100))
        await asyncio.sleep(0)
        assert gated.is_waiting
        turns.wait(asyncio.get_running_loop().create_future(), new=False)
        turns.wait(asyncio.get_running_loop().create_future(), new=False)
        stream.feed_data(b"x")
        await asyncio.sleep(0)
        assert not gated.is_waiting
        assert await task == b"x"

    asyncio.run(main())


def test_who_is_cancelled_in_the_row_leaves_it() -> None:
    async def main() -> None:
        turns = Turns(waker.call, later=lambda _: None)
        stream = asyncio.StreamReader()
        stream.feed_data(b"x")
        assert turns.take()
        task = asyncio.create_task(GatedReader(stream, lambda: False, among(turns)).read(1))
        await asyncio.sleep(0)
        assert turns._others
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not turns._others

    asyncio.run(main())
