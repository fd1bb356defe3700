"""The lane beside mitmproxy: what is told to it, what fails, and what is read without it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from mitmproxy.connection import ConnectionState

from presign_proxy.mitm.lane.client_gate import MAX_AHEAD
from presign_proxy.mitm.lane.layer import LaneEvent
from support.lane_layers import FOREIGN, Lab, Story, head, run, with_lane


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return with_lane(monkeypatch)


# -- what is told beside ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "why", ["it is there", "no handler", "it is closed", "only to be read from", "only to be written to"]
)
def test_a_client_that_has_gone_is_told_nothing(why: str, story: Story) -> None:
    async def work(lab: Lab) -> None:
        told: list[Any] = []

        async def note(event: Any) -> None:
            told.append(event)

        lab.handler.server_event = note
        if why == "no handler":
            lab.handler = None
        if why == "it is closed":
            lab.client.state = ConnectionState.CLOSED
        if why == "only to be read from":  # its WebSocket is half-closed, and to be closed
            lab.client.state = ConnectionState.CAN_READ
        if why == "only to be written to":
            lab.client.state = ConnectionState.CAN_WRITE
        lab.lane.poke()
        await lab.settle()
        assert len(told) == (0 if why in ("no handler", "it is closed") else 1)
        assert lab.aborted == 0

    story(work)


def test_a_failure_while_it_is_told_cuts_the_client_off(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(lab: Lab) -> None:
        async def fail(_: Any) -> None:
            raise ZeroDivisionError

        lab.handler.server_event = fail
        with caplog.at_level(logging.ERROR):
            lab.lane.poke()
            await lab.settle()
        assert lab.aborted == 1
        assert "failed in the lane (ZeroDivisionError)" in caplog.text

    story(work)


def test_over_tls_mitmproxy_is_asked_to_send(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        lab = Lab(monkeypatch, tls=True).start()
        lab.say(head())
        lab.pipeline.writer.send(b"an ")
        lab.pipeline.writer.send(b"answer")
        assert (lab.written, lab.sent) == (b"", b"")
        await lab.settle()
        assert lab.sent == b"an answer"
        lab.over(close=True)
        await lab.settle()
        assert lab.is_closed
        assert lab.written + lab.output == b""

    run(work)


def test_a_client_that_is_being_sent_something_is_not_idle(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.pipeline.writer.send(b"answer")
        assert (lab.written, lab.active, lab.tasks) == (b"answer", 1, [])

    story(work)


# -- what fails -------------------------------------------------------------------------------------------


def test_a_head_at_which_something_fails_ends_the_connection(
    story: Story, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(lab: Lab) -> None:
        lab.pipeline.writer.send(b"answer")
        with caplog.at_level(logging.ERROR):
            lab.say(head("fails") + head("b"))
        assert "failed in the lane (ZeroDivisionError)" in caplog.text
        assert lab.is_closed
        assert lab.output == b"answer"
        assert len(lab.pipeline.buffer.data) == 0
        lab.say(head())
        assert lab.judged == [head("fails")]
        assert lab.stock.told == []

    story(work)


def test_an_upload_at_which_something_fails_ends_its_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        lab = Lab(monkeypatch, tls=True).start()
        lab.fails_at = "upload"
        lab.say(head("a", 5))
        lab.pipeline.writer.send(b"answer")
        lab.say(b"hello")
        assert lab.last.told == ["begin", "collapse"]
        assert lab.is_closed
        assert lab.sent == b"answer"

    run(work)


# -- without mitmproxy's reader ---------------------------------------------------------------------------


def test_a_client_that_was_served_is_read_from_without_mitmproxy(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.io.handler = asyncio.current_task()
        lab.say(b"GET /a HT")
        assert lab.intakes == [], "nobody was served yet"
        lab.say(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert len(lab.intakes) == 1
        lab.say(b"GET /")
        assert len(lab.intakes) == 1
        lab.pipeline.buffer.data = b""
        lab.over()
        lab.pipeline.received(head("b"))
        assert lab.judged == [head("a"), head("b")]
        assert lab.active == 1
        assert lab.stock.told == []

    story(work)


@pytest.mark.parametrize("why", ["another task", "handed over", "too much is held", "it holds something"])
def test_a_client_is_left_to_mitmproxys_reader_where_bytes_could_overtake_others(
    why: str, story: Story
) -> None:
    async def work(lab: Lab) -> None:
        if why != "another task":
            lab.io.handler = asyncio.current_task()
        if why == "handed over":
            lab.say(FOREIGN)
            lab.pipeline.buffer.served = True
            lab.pipeline.take_over()
        lab.takes_over = why != "it holds something"
        lab.say(head() + (bytes(MAX_AHEAD + 1) if why == "too much is held" else b""))
        assert lab.intakes == []

    story(work)


def test_over_tls_mitmproxy_goes_on_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        lab = Lab(monkeypatch, tls=True).start()
        lab.io.handler = asyncio.current_task()
        lab.say(head())
        assert lab.intakes == []

    run(work)


def test_what_is_not_the_lanes_gives_the_connection_back(story: Story) -> None:
    async def work(lab: Lab) -> None:
        client_reader = lab.take(FOREIGN[:20])
        assert lab.stock.told == []
        lab.pipeline.received(FOREIGN[20:])
        assert (lab.stock.told, client_reader.told) == ([], []), "it is told beside"
        lab.pipeline.received(b"more")
        await lab.settle()
        assert lab.stock.heard == ["Start", FOREIGN + b"more"]
        assert client_reader.told == ["give back"]
        lab.pipeline.received(b"late")
        assert (len(lab.pipeline.buffer.data), lab.judged[1:]) == (0, [FOREIGN])
        assert len(lab.tasks) == 1

    story(work)


def test_what_is_granted_behind_what_is_not_the_lanes_is_left_to_mitmproxy(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.take(FOREIGN)
        lab.shared.open = False
        lab.pipeline.received(head("b"))
        lab.shared.open = True
        await lab.settle()
        assert lab.judged[1:] == [FOREIGN]
        assert lab.stock.heard == ["Start", FOREIGN + head("b")]

    story(work)


def test_what_comes_after_the_end_is_for_nobody(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.take()
        lab.pipeline.phase = "closing"
        lab.pipeline.received(head("b"))
        lab.say(head("c"))
        assert (lab.judged, len(lab.pipeline.buffer.data)) == ([head("first")], 0)

    story(work)


def test_while_an_upstream_takes_nothing_the_intake_reads_no_more(story: Story) -> None:
    async def work(lab: Lab) -> None:
        client_reader = lab.take(head("b", 9))
        asked = list(lab.reader.held)
        lab.pipeline.hold(True)
        lab.pipeline.hold(True)
        lab.pipeline.hold(False)
        assert client_reader.told == [("read", False), ("read", True)]
        assert lab.reader.held == asked

    story(work)


def test_a_client_whose_lane_was_shut_is_read_from_as_it_is_handed_over(story: Story) -> None:
    async def work(lab: Lab) -> None:
        client_reader = lab.take(head("b") + FOREIGN)
        lab.pipeline.hold(True)
        lab.pipeline.exchange = None
        lab.handle(LaneEvent(lab.lane))
        assert client_reader.told == [("read", False), ("read", True), "give back"]
        assert lab.client not in lab.clients.paused

    story(work)


def test_a_failure_beside_mitmproxy_ends_the_client(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.take(head("fails"))
        assert lab.aborted == 1
        assert len(lab.pipeline.buffer.data) == 0

    story(work)


def test_a_failure_at_an_upload_beside_mitmproxy_ends_its_exchange(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.take()
        lab.fails_at = "upload"
        lab.pipeline.received(head("b", 5))
        lab.pipeline.received(b"hello")
        assert lab.last.told == ["begin", "collapse"]
        assert lab.aborted == 0, "which answers, and closes"

    story(work)


def test_none_of_mitmproxys_servers_is_a_lanes(story: Story) -> None:
    async def work(lab: Lab) -> None:
        assert (lab.lane.backlog_of(None), lab.lane.is_shut(None)) == (0, False)

    story(work)
