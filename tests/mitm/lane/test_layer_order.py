"""Requests behind one another on the lane: each in its turn, and no more than is taken."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from presign_proxy.mitm.lane.client_gate import MAX_AHEAD
from presign_proxy.mitm.lane.layer import LaneEvent
from support.lane_layers import FOREIGN, Lab, Story, head, run, with_lane


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return with_lane(monkeypatch)


# -- one after the other ----------------------------------------------------------------------------------


def test_what_is_sent_ahead_waits_for_its_turn(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a") + head("b") + head("c"))
        assert lab.judged == [head("a")]
        assert len(lab.pipeline.buffer.data) == 2 * len(head())
        lab.over()
        assert lab.judged == [head("a")], "it begins beside, once what ends it is done"
        await lab.settle()
        assert lab.judged == [head("a"), head("b")]
        lab.over()
        await lab.settle()
        assert lab.judged == [head("a"), head("b"), head("c")]
        assert len(lab.pipeline.buffer.data) == 0
        assert not lab.is_closed

    story(work)


def test_an_exchange_that_is_over_ends_no_other(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a") + head("b"))
        lab.over()
        await lab.settle()
        lab.over(0, close=True)
        assert not lab.lane.is_idle()
        await lab.settle()
        assert not lab.is_closed

    story(work)


def test_what_is_behind_a_granted_request_and_is_not_is_handed_over_after_it(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head() + FOREIGN)
        lab.pipeline.writer.send(b"answer")
        assert lab.stock.told == []
        lab.over()
        await lab.settle()
        assert lab.stock.heard == ["Start", FOREIGN]
        assert lab.output == b"answer", "what was written before is read before"

    story(work)


def test_a_body_goes_to_its_exchange_and_what_is_behind_it_does_not(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 5) + b"he")
        assert (lab.last.body, lab.last.left, len(lab.pipeline.buffer.data)) == (b"he", 3, 0)
        lab.say(bytearray(b"llo" + head("b")))
        assert lab.last.body == b"hello"
        assert lab.judged == [head("a", 5)]
        lab.over()
        await lab.settle()
        assert lab.judged == [head("a", 5), head("b")]

    story(work)


def test_what_comes_while_an_exchange_connects_waits_in_order(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 9))
        lab.last.stage = "connecting"
        lab.say(b"hel")
        lab.say(b"lo")
        assert (lab.last.body, len(lab.pipeline.buffer.data)) == (b"", 5)
        lab.last.stage = "sending"
        lab.say(b"!!")  # comes before it was told to go on
        assert lab.last.body == b"hello!!"
        lab.pipeline.proceed()
        await lab.settle()
        assert (lab.last.body, len(lab.pipeline.buffer.data)) == (b"hello!!", 0)

    story(work)


def test_what_has_come_meanwhile_goes_on_once_an_exchange_proceeds(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 5))
        lab.last.stage = "connecting"
        lab.say(b"hello" + head("b"))
        lab.last.stage = "sending"
        lab.pipeline.proceed()
        await lab.settle()
        assert (lab.last.body, len(lab.pipeline.buffer.data)) == (b"hello", len(head()))
        assert len(lab.tasks) == 1, "what is behind it waits for its answer, and for no turn"
        lab.over()
        await lab.settle()
        assert lab.judged[1:] == [head("b")]

    story(work)


def test_where_nothing_has_come_meanwhile_nothing_is_told(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head())
        lab.pipeline.proceed()
        assert lab.tasks == []

    story(work)


def test_an_upload_that_ends_its_exchange_leaves_what_is_behind_it_to_the_next(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 5))
        lab.last.stage = "connecting"
        lab.say(b"hello" + head("b"))
        lab.last.stage = "trailing"
        lab.last.on_upload = lambda: lab.over(0)
        lab.pipeline.proceed()
        await lab.settle()
        assert lab.judged[1:] == [head("b")]

    story(work)


@pytest.mark.parametrize("waits", [True, False])
def test_what_is_behind_the_last_request_is_for_nobody(waits: bool, story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 5))
        lab.last.stage = "connecting" if waits else "trailing"
        lab.last.on_upload = lambda: lab.over(0, close=True)
        lab.say(b"hello" + head("smuggled"))
        lab.last.stage = "trailing"
        lab.pipeline.proceed()
        await lab.settle()
        assert lab.last.body == b"hello"
        assert lab.judged == [head("a", 5)]
        assert lab.is_closed
        assert lab.stock.told == []

    story(work)


def test_a_body_in_small_chunks_gives_others_their_turn(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 9))
        first = lab.last
        first.step = 2
        lab.say(b"123456789")
        assert first.body == b"1234", "one step as it comes, one as it is looked at"
        assert (len(lab.pipeline.buffer.data), lab.pipeline._lags) == (5, True)
        for _ in range(9):
            await asyncio.sleep(0)
        await lab.settle()
        assert (first.body, len(lab.pipeline.buffer.data), lab.pipeline._lags) == (b"123456789", 0, False)
        assert len(lab.tasks) == 3, "each turn is asked for once"

    story(work)


# -- no more than is taken --------------------------------------------------------------------------------


def test_a_client_that_sends_ahead_takes_its_answers_first(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a") + head("b"))
        lab.waiting = 128 * 1024 + 1
        lab.over()
        await lab.settle()
        assert lab.judged == [head("a")]
        assert lab.lane.is_answering()
        lab.handle(LaneEvent(lab.lane))
        await lab.settle()
        assert len(lab.drains) == 1, "waited for once"
        lab.waiting = 0
        lab.handle(LaneEvent(lab.lane))
        assert lab.judged == [head("a")]
        lab.drains[0].set_result(None)
        await lab.settle()
        assert lab.judged == [head("a"), head("b")]
        assert not lab.lane.is_answering()

    story(work)


@pytest.mark.parametrize(("waiting", "unsent", "full"), [
    (128 * 1024, 0, False), (128 * 1024 + 1, 0, True), (128 * 1024, 1, True), (0, 128 * 1024 + 1, True),
])  # fmt: skip
def test_a_client_is_full_over_an_eighth_of_a_mebibyte(
    waiting: int, unsent: int, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        lab = Lab(monkeypatch, tls=True).start()
        lab.say(head())
        lab.waiting = waiting
        if unsent:
            lab.pipeline.writer.send(bytes(unsent))
        assert lab.pipeline.writer.is_full is full
        lab.waiting = 0
        lab.handle(LaneEvent(lab.lane))
        assert lab.pipeline.writer.is_full is False
        lab.waiting = 128 * 1024
        assert lab.pipeline.writer.is_full is False

    run(work)


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
def test_a_client_that_has_taken_all_is_told_of_and_one_that_has_gone_is_not(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        lab = Lab(monkeypatch, tls=True).start()
        lab.say(head())
        gone_on: list[int] = []
        lab.pipeline.writer.send(b"answer")
        lab.pipeline.writer.when_drained(lambda: gone_on.append(1))
        await lab.settle()
        assert lab.sent == b"answer", "what mitmproxy has not been asked to send is never taken"
        assert gone_on == []
        if error is None:
            lab.drains[0].set_result(None)
        else:
            lab.drains[0].set_exception(error)
        await lab.settle()
        assert gone_on == ([1] if error is None else [])

    run(work)


def test_a_client_for_which_nothing_waits_in_mitmproxy_is_not_told_of_to_it(story: Story) -> None:
    async def work(lab: Lab) -> None:
        handled: list[Any] = []
        lab.lane._handle = lambda event: (handled.append(event), iter(()))[1]
        lab.pipeline.writer.when_drained(lambda: None)
        await lab.settle()
        assert handled == []

    story(work)


def test_while_an_upstream_takes_nothing_no_more_is_read(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 9))
        lab.pipeline.hold(True)
        assert lab.reader.held[-1] is True
        assert lab.client in lab.clients.paused
        lab.pipeline.hold(False)
        assert lab.reader.held[-1] is False
        assert lab.client not in lab.clients.paused
        lab.pipeline.hold(True)
        lab.over()
        assert lab.reader.held[-1] is False
        assert lab.client not in lab.clients.paused

    story(work)


@pytest.mark.parametrize("more", [0, 1])
def test_what_a_client_sends_ahead_does_not_pile_up(more: int, story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head() + bytes(MAX_AHEAD + more))
        assert (lab.client in lab.clients.paused) is bool(more)

    story(work)
