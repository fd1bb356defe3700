"""A client that mitmproxy has answered: the lane reads on where the boundary between two requests is sure."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.proxy import commands, events

from presign_proxy.mitm.lane.layer import LaneEvent
from support.lane_layers import FOREIGN, Lab, Story, head, with_lane

SERVER = Server(address=("api.example", 80))


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return with_lane(monkeypatch)


def answered(lab: Lab) -> None:
    """The foreign request in the hands of mitmproxy is answered, at an event of its upstream."""
    lab.stock.has_answered = True
    lab.handle(events.DataReceived(SERVER, b"answer"))


@pytest.mark.parametrize("count", [1, 50])
def test_what_is_granted_behind_what_mitmproxy_has_answered_is_served(count: int, story: Story) -> None:
    async def work(lab: Lab) -> None:
        for _ in range(count):
            lab.stock.has_answered = False
            lab.say(FOREIGN)
            assert lab.pipeline.phase == "handed over"
            assert lab.clients.layer_of(lab.client) in (lab.stock, lab.lane)
            answered(lab)
        assert lab.clients.layer_of(lab.client) is lab.lane
        assert lab.pipeline.phase == "open"
        lab.say(head())
        assert lab.judged == [FOREIGN] * count + [head()]
        assert lab.last.told == ["begin"]
        assert lab.stock.heard == ["Start", *[FOREIGN, b"answer"] * count]

    story(work)


def test_what_mitmproxy_answers_at_once_is_followed_by_the_lane_at_once(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.stock.has_answered = True
        for _ in range(3):
            lab.say(FOREIGN)
            lab.say(head())
            lab.over()
        assert lab.judged == [FOREIGN, head()] * 3
        assert lab.stock.heard == ["Start", *[FOREIGN] * 3]

    story(work)


def test_a_client_that_is_handed_over_again_is_mitmproxys_again(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(FOREIGN)
        answered(lab)
        lab.stock.has_answered = False
        lab.say(FOREIGN)
        assert lab.clients.layer_of(lab.client) is lab.stock
        lab.say(head())
        assert lab.stock.heard == ["Start", FOREIGN, b"answer", FOREIGN, head()]

    story(work)


def _is_half_closed(lab: Lab) -> None:
    lab.client.state &= ~ConnectionState.CAN_READ


def _is_closed(lab: Lab) -> None:
    lab.client.state = ConnectionState.CLOSED


def _owes_a_head(lab: Lab) -> None:
    lab.clients.await_head(lab.client)


def _has_gone(lab: Lab) -> None:
    lab.clients.note_gone(lab.client)


def _finds_the_lane_shut(lab: Lab) -> None:
    lab.shared.open = False


@pytest.mark.parametrize("why", [_is_half_closed, _is_closed, _owes_a_head, _has_gone, _finds_the_lane_shut])
def test_a_client_stays_with_mitmproxy_that(why: Any, story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(FOREIGN)
        why(lab)
        answered(lab)
        assert lab.pipeline.phase == "handed over"
        lab.say(head())
        assert lab.judged == [FOREIGN]

    story(work)


def test_a_look_that_fails_ends_the_client(story: Story, caplog: pytest.LogCaptureFixture) -> None:
    async def work(lab: Lab) -> None:
        lab.say(FOREIGN)
        lab.stock.fails = True
        answered(lab)
        assert lab.is_closed
        assert lab.pipeline.phase == "handed over"
        assert "presign: failed in the lane (ZeroDivisionError)" in caplog.text

    story(work)


@pytest.mark.parametrize("at", [1, 20, len(head()) - 1])
def test_the_next_head_has_a_deadline_of_its_own(at: int, story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.clients.await_head(lab.client)
        lab.clients.head_came(lab.client)  # as mitmproxy's layer does at the foreign one
        lab.say(FOREIGN)
        answered(lab)
        assert lab.clients.awaits_head_since(lab.client) is None
        lab.say(head()[:at])
        assert lab.clients.awaits_head_since(lab.client) is not None
        lab.say(head()[at:])
        assert lab.clients.awaits_head_since(lab.client) is None

    story(work)


def test_half_a_head_that_turns_out_foreign_keeps_its_deadline(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(FOREIGN)
        answered(lab)
        lab.stock.has_answered = False
        lab.say(b"GET ")
        since = lab.clients.awaits_head_since(lab.client)
        lab.say(b"http://x/")
        assert lab.clients.awaits_head_since(lab.client) == since
        assert lab.stock.heard[-1] == b"GET http://x/"

    story(work)


def test_a_client_that_was_served_is_read_from_without_mitmproxy_again(story: Story) -> None:
    async def work(lab: Lab) -> None:
        first = lab.take(FOREIGN)
        await lab.settle()
        assert first.told == ["give back"]
        answered(lab)
        assert len(lab.intakes) == 1, "not in the task in which an upstream is read"
        lab.say(head("b"))
        assert len(lab.intakes) == 2
        lab.over()
        lab.pipeline.received(head("c"))
        assert lab.judged == [head("first"), FOREIGN, head("b"), head("c")]

    story(work)


def test_a_client_that_was_granted_something_beside_the_lane_is_no_stranger(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(FOREIGN)
        answered(lab)
        assert lab.lane.is_idle_stranger()
        lab.stock.quiet = True
        assert not lab.lane.is_idle_stranger()
        assert lab.lane.is_idle()

    story(work)


def test_a_client_that_the_lane_has_served_is_no_stranger_to_mitmproxy(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head())
        lab.over()
        assert not lab.stock.quiet
        lab.say(FOREIGN)
        assert lab.stock.quiet

    story(work)


def test_a_client_that_mitmproxy_has_stays_there_whatever_ends_in_the_lane(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(FOREIGN)
        lab.lane.give_up()
        lab.say(head())
        assert lab.stock.heard == ["Start", FOREIGN, head()]

    story(work)


# -- what mitmproxy still has meanwhile -------------------------------------------------------------------


def test_the_end_of_an_upstream_connection_of_mitmproxys_is_told_to_it(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(FOREIGN)
        answered(lab)
        lab.say(head())
        ended = events.ConnectionClosed(SERVER)
        lab.handle(ended)
        assert lab.stock.told[-1] is not ended, "it does not know that one"
        lab.stock.waits_for.append(ended)
        asks = [commands.CloseConnection(SERVER), commands.RequestWakeup(1)]
        lab.stock.asks.extend(asks)
        assert lab.handle(ended) == asks
        assert lab.stock.told[-1] is ended
        assert not lab.is_closed
        assert lab.last.told == ["begin"]

    story(work)


def test_a_wake_up_of_mitmproxys_ends_no_client(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(FOREIGN)
        answered(lab)
        woken = events.Wakeup(commands.RequestWakeup(1))
        lab.stock.waits_for.append(woken)
        lab.handle(woken)
        assert lab.stock.told[-1] is woken
        assert not lab.is_closed
        lab.stock.waits_for.clear()
        lab.handle(events.Wakeup(commands.RequestWakeup(1)))
        assert lab.is_closed, "the lane's own, behind a refused upload"

    story(work)


@pytest.mark.parametrize("how", ["speaks", "closes"])
def test_where_mitmproxy_speaks_to_a_client_of_the_lane_that_is_ended(how: str, story: Story) -> None:
    """Its bytes would stand before the answer to another request."""

    async def work(lab: Lab) -> None:
        lab.say(FOREIGN)
        answered(lab)
        lab.say(head())
        said = events.DataReceived(SERVER, b"more")
        lab.stock.waits_for.append(said)
        speaks = commands.SendData(lab.client, b"another answer")
        lab.stock.asks.append(speaks if how == "speaks" else commands.CloseConnection(lab.client))
        lab.handle(said)
        assert lab.sent == b""
        assert lab.last.told == ["begin", "collapse"]
        assert lab.is_closed

    story(work)


def test_a_poke_that_comes_late_does_nothing(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.io.handler = asyncio.current_task()
        lab.say(FOREIGN)
        answered(lab)
        assert lab.handle(LaneEvent(lab.lane)) == []
        assert lab.stock.heard == ["Start", FOREIGN, b"answer"]

    story(work)
