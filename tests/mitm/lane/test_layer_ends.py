"""How a client's connection ends on the lane: with what it says no more, or with an exchange."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events

from presign_proxy.mitm.half_closed import PROBE
from presign_proxy.mitm.lane.layer import LaneEvent
from presign_proxy.mitm.lane.pipeline import LINGER
from presign_proxy.observe.audit_record import GONE
from support.lane_layers import FOREIGN, Lab, Story, head, with_lane


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return with_lane(monkeypatch)


# -- clients that have said all ---------------------------------------------------------------------------


def test_a_client_that_says_no_more_is_asked_and_answered_and_let_go(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head())
        assert lab.shut() == []
        assert lab.written + lab.output == PROBE
        assert lab.client in lab.clients.half_closed
        assert lab.last.told == ["begin"]
        assert lab.handle(LaneEvent(lab.lane)) == [], "it is waited for"
        lab.pipeline.keep_awake()
        assert lab.kept_awake == 0, "it is asked instead"
        lab.pipeline.writer.send(b"answer")
        lab.over()
        await lab.settle()
        assert lab.output == PROBE + b"answer"
        assert lab.is_closed
        assert lab.handle(LaneEvent(lab.lane)) == [], "once"

    story(work)


def test_a_client_that_waits_for_its_answer_is_kept_awake(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head())
        lab.pipeline.keep_awake()
        assert lab.kept_awake == 1

    story(work)


@pytest.mark.parametrize("stage", ["preparing", "connecting", "sending", "waiting", "receiving", "trailing"])
def test_a_client_is_asked_in_front_of_its_answer_only(stage: str, story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.lane.ask()
        assert lab.written == b""
        lab.say(head())
        lab.last.stage = stage
        begun = stage in ("receiving", "trailing")
        assert lab.lane.is_answering() is begun
        lab.lane.ask()
        assert lab.written == (b"" if begun else PROBE)

    story(work)


@pytest.mark.parametrize(
    "why", ["nothing is asked", "half a head", "half a body", "it closed", "it is refused"]
)
def test_a_client_that_says_no_more_and_waits_for_nothing_is_let_go(why: str, story: Story) -> None:
    async def work(lab: Lab) -> None:
        if why == "half a head":
            lab.say(head()[:9])
        if why == "half a body":
            lab.say(head("a", 5) + b"he")
        if why == "it closed":
            lab.say(head())
            lab.client.state = ConnectionState.CLOSED
        if why == "it is refused":
            lab.say(head("a", 5))
            lab.last.stage = "waiting"
            lab.pipeline.phase = "closing"
        lab.shut()
        assert lab.is_closed
        assert lab.client not in lab.clients.half_closed
        assert (len(lab.pipeline.buffer.data), lab.lane.is_idle()) == (0, True)
        for exchange in lab.exchanges:
            assert exchange.told == ["begin", ("abandon", GONE)]
        lab.say(head())
        assert len(lab.judged) <= 1

    story(work)


def test_all_that_was_sent_ahead_is_answered_before_the_end(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a") + head("b") + head("c")[:9])
        assert lab.shut() == []
        lab.over()
        await lab.settle()
        assert lab.judged == [head("a"), head("b")]
        assert not lab.is_closed
        lab.over()
        await lab.settle()
        assert lab.is_closed, "half a head is not waited for"
        assert len(lab.judged) == 2
        assert caplog.text == ""

    story(work)


def test_half_a_body_behind_another_request_is_not_waited_for_after_the_end(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a") + head("b", 5) + b"he")
        lab.shut()
        lab.over()
        await lab.settle()
        assert lab.last.told == ["begin", ("lose", "the client ended in the middle of its body")]

    story(work)


def test_a_body_that_was_there_at_the_end_is_passed_on(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 9))
        first = lab.last
        first.step = 2
        lab.say(b"123456789")
        assert lab.shut() == [], "what is behind is all there"
        assert lab.client in lab.clients.half_closed
        await lab.settle()
        assert first.body == b"123456789"
        assert first.told == ["begin"]

    story(work)


def test_what_was_sent_ahead_behind_a_body_in_small_chunks_is_answered_before_the_end(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 9))
        first = lab.last
        first.step = 2
        lab.say(b"123456789" + head("b"))
        first.stage = "trailing"
        first.on_upload = lambda: first.left or lab.over(0)
        lab.shut()
        await lab.settle()
        assert first.body == b"123456789"
        assert lab.judged == [head("a", 9), head("b")]

    story(work)


def test_a_body_that_was_there_at_the_end_and_ends_its_exchange_ends_the_connection(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 9))
        lab.last.step = 8
        lab.say(b"12345678")
        lab.last.stage = "connecting"
        lab.say(b"9")
        lab.shut()
        lab.last.stage = "trailing"
        lab.last.on_upload = lambda: lab.over(0)
        lab.pipeline.proceed()
        await lab.settle()
        assert lab.last.body == b"123456789"
        assert lab.is_closed

    story(work)


def test_a_client_that_says_no_more_while_it_takes_its_answers_may_still_be_served(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a") + head("b"))
        lab.waiting = 1 << 20
        lab.over()
        await lab.settle()
        assert lab.shut() == []
        assert PROBE not in lab.written + lab.output
        assert lab.handle(LaneEvent(lab.lane)) == []
        lab.waiting = 0
        lab.drains[0].set_result(None)
        await lab.settle()
        assert lab.judged == [head("a"), head("b")]

    story(work)


def test_what_is_not_the_lanes_is_told_the_end_too(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a") + FOREIGN)
        lab.shut()
        lab.over()
        await lab.settle()
        assert lab.stock.heard == ["Start", FOREIGN, "ConnectionClosed"]
        assert not lab.is_closed

    story(work)


def test_a_client_that_goes_ends_its_exchange_and_what_it_sent_ahead(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a") + head("b"))
        lab.lane.give_up()
        assert lab.last.told == ["begin", ("abandon", GONE)]
        assert (lab.lane.is_idle(), len(lab.pipeline.buffer.data)) == (True, 0)
        lab.lane.give_up()
        assert len(lab.last.told) == 2
        lab.handle(LaneEvent(lab.lane))
        assert lab.judged == [head("a")]
        assert lab.lane.departures() == []

    story(work)


def test_an_exchange_that_cannot_be_abandoned_is_ended_all_the_same(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.fails_at = "abandon"
        lab.say(head())
        lab.lane.give_up()
        assert lab.last.told == ["begin", ("abandon", GONE), "collapse"]

    story(work)


# -- how an exchange ends the connection ------------------------------------------------------------------


def test_the_last_answer_ends_the_connection(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a") + head("b"))
        lab.pipeline.writer.send(b"answer")
        lab.over(close=True)
        assert len(lab.pipeline.buffer.data) == 0
        await lab.settle()
        assert lab.is_closed
        assert lab.output == b"answer", "before it is closed"
        lab.say(head("c"))
        lab.handle(LaneEvent(lab.lane))
        assert lab.judged == [head("a")]

    story(work)


@pytest.mark.parametrize(("left", "now", "lingers"), [(5, False, True), (5, True, False), (0, False, False)])
def test_the_rest_of_a_refused_upload_is_dropped_for_a_while(
    left: int, now: bool, lingers: bool, story: Story
) -> None:
    """To close at once may destroy our answer on its way."""

    async def work(lab: Lab) -> None:
        lab.say(head("a", left))
        lab.last.stage = "done"
        lab.over(close=True, now=now)
        await lab.settle()
        wakeups = [one for one in lab.done if isinstance(one, commands.RequestWakeup)]
        assert [one.delay for one in wakeups] == ([LINGER] if lingers else [])
        assert lab.is_closed is not lingers
        if lingers:
            lab.say(b"more" + head("b"))
            assert not lab.is_closed
            lab.handle(events.Wakeup(wakeups[0]))
            assert lab.is_closed
            assert len(lab.judged) == 1

    story(work)


def test_it_lingers_where_nothing_else_is_said(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a", 5))
        exchange: Any = lab.last
        lab.pipeline.over(exchange, close=True)
        await lab.settle()
        assert not lab.is_closed

    story(work)


def test_an_answer_that_is_not_the_last_one_ends_nothing(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head())
        lab.over()
        await lab.settle()
        assert (lab.done, lab.tasks) == ([], [])

    story(work)


def test_a_failed_exchange_cuts_its_own_connection(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head("a") + head("b"))
        first: Any = lab.last
        lab.over()
        await lab.settle()
        lab.pipeline.cut(first)
        await lab.settle()
        assert not lab.is_closed, "another one has begun"
        second: Any = lab.last
        lab.pipeline.cut(second)
        await lab.settle()
        assert lab.is_closed
        assert lab.lane.is_idle()
        assert lab.aborted == 0

    story(work)


def test_a_failed_exchange_that_is_over_cuts_its_connection_too(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head())
        lab.over()
        exchange: Any = lab.last
        lab.pipeline.cut(exchange)
        await lab.settle()
        assert lab.is_closed

    story(work)


def test_where_mitmproxy_cannot_be_told_the_client_is_cut_off(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head())

        def fail(work: Any) -> Any:
            work.close()
            raise ZeroDivisionError

        lab.shared.run = fail
        exchange: Any = lab.last
        lab.pipeline.cut(exchange)
        assert lab.aborted == 1

    story(work)
