"""Requests on their way into the lane: what is taken there, and what is left to mitmproxy."""

from __future__ import annotations

from typing import Any

import pytest
from mitmproxy.connection import Server
from mitmproxy.proxy import commands, events

from presign_proxy.http.message import MAX_HEAD
from presign_proxy.mitm.lane.layer import LaneEvent
from support.lane_layers import FOREIGN, Lab, Story, head, run, with_lane


@pytest.fixture
def story(monkeypatch: pytest.MonkeyPatch) -> Story:
    return with_lane(monkeypatch)


# -- the beginning ----------------------------------------------------------------------------------------


def test_a_client_that_was_gone_before_it_was_accepted_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        lab = Lab(monkeypatch, peername=None).start()
        assert [type(one) for one in lab.done] == [commands.CloseConnection]
        assert lab.clients.layer_of(lab.client) is None
        assert lab.say(head()) == []
        assert (lab.judged, lab.stock.told) == ([], [])

    run(work)


def test_a_client_that_speaks_http2_is_left_to_mitmproxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        lab = Lab(monkeypatch, alpn=b"h2").start()
        assert lab.stock.heard == ["Start"]
        lab.say(b"PRI *")
        assert lab.stock.heard == ["Start", b"PRI *"]
        assert lab.judged == []

    run(work)


def test_mitmproxys_own_layer_is_what_is_found_in_the_stack(story: Story) -> None:
    async def work(lab: Lab) -> None:
        assert lab.context.layers == []
        assert lab.clients.layer_of(lab.client) is lab.lane
        assert lab.stock.told == []
        assert lab.done == []

    story(work)


@pytest.mark.parametrize("how", ["no handler", "no socket"])
def test_a_client_without_a_socket_of_its_own_is_written_to_by_mitmproxy(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        lab = Lab(monkeypatch)
        handler = lab.handler
        if how == "no handler":
            lab.handler = None
        else:
            handler.transports.clear()
        lab.start()
        lab.say(head())
        lab.pipeline.writer.send(b"answer")
        lab.pipeline._gate.check(0)
        lab.pipeline.writer.abort()
        assert (lab.written, lab.aborted) == (b"", 0)
        lab.handler = handler
        lab.handle(LaneEvent(lab.lane))
        assert lab.sent == b"answer"

    run(work)


# -- heads ------------------------------------------------------------------------------------------------


def test_a_head_that_is_granted_begins_an_exchange(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.clients.await_head(lab.client)
        assert (lab.lane.is_idle(), lab.lane.is_idle_stranger()) == (True, True)
        assert lab.lane.is_answering() is False
        assert lab.handle(LaneEvent(lab.lane)) == []
        assert lab.say(head()) == []
        assert lab.judged == [head()]
        assert lab.last.told == ["begin"]
        assert lab.shared.exchanges == {lab.last}
        assert lab.clients.awaits_head_since(lab.client) is None
        assert (lab.lane.is_idle(), lab.lane.is_idle_stranger(), len(lab.pipeline.buffer.data)) == (
            False,
            False,
            0,
        )
        lab.over()
        assert (lab.lane.is_idle(), lab.lane.is_idle_stranger()) == (True, False)
        assert lab.stock.told == []

    story(work)


def test_what_is_not_granted_is_mitmproxys_until_it_is_answered(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(FOREIGN + b"more")
        assert lab.stock.heard == ["Start", FOREIGN + b"more"]
        assert len(lab.pipeline.buffer.data) == 0
        lab.say(head())
        assert lab.stock.heard[2:] == [head()]
        lab.handle(LaneEvent(lab.lane))
        assert len(lab.stock.told) == 3
        other: Any = object()
        lab.handle(event := LaneEvent(other))
        assert lab.stock.told[3] is event, "of a lane at the other end of a tunnel"
        assert lab.judged == [FOREIGN]
        lab.lane.poke()
        await lab.settle()
        assert len(lab.stock.told) == 4
        assert lab.lane.is_idle_stranger()

    story(work)


def test_what_waited_when_it_was_handed_over_is_handed_over_too(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(FOREIGN)
        list(lab.lane._handle_event(events.DataReceived(lab.client, head("late"))))
        assert lab.stock.heard == ["Start", FOREIGN, head("late")]
        assert lab.judged == [FOREIGN]

    story(work)


def test_while_the_lane_is_shut_nothing_is_judged_there(story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.shared.open = False
        lab.say(head())
        assert (lab.judged, lab.stock.heard) == ([], ["Start", head()])

    story(work)


def test_a_lane_that_has_not_begun_judges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        lab = Lab(monkeypatch)
        assert lab.pipeline._begin(4) is False

    run(work)


@pytest.mark.parametrize("at", range(1, len(head())))
def test_a_head_may_come_in_two_pieces(at: int, story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(head()[:at])
        assert (lab.judged, len(lab.pipeline.buffer.data)) == ([], at)
        assert lab.clients.awaits_head_since(lab.client) is not None, "it has to come in time"
        lab.say(head()[at:])
        assert lab.judged == [head()]
        assert lab.clients.awaits_head_since(lab.client) is None

    story(work)


def test_heads_may_come_byte_by_byte_one_after_the_other(story: Story) -> None:
    async def work(lab: Lab) -> None:
        for count in (1, 2):
            for octet in head():
                assert lab.say(bytes((octet,))) == []
            assert lab.judged == [head()] * count
            assert lab.clients.awaits_head_since(lab.client) is None
            lab.over()

    story(work)


def test_what_was_looked_at_before_is_not_looked_at_again(story: Story) -> None:
    """Else a head that comes byte by byte costs the square of its length."""

    async def work(lab: Lab) -> None:
        lab.say(b"GET /x HTTP/1.1\r\n")
        lab.pipeline.buffer.data = bytearray(b"GET /x HTTP/1.1\r\n")  # knows how it is asked
        looked: list[Any] = []

        class Buffer(bytes):
            def find(self, *given: Any) -> int:  # type: ignore[override]
                looked.append(given[1:])
                return super().find(*given)

        lab.pipeline.buffer.data = Buffer(b"GET /x HTTP/1.1\r\nA")
        lab.pipeline.advance()
        assert looked == [(14, MAX_HEAD)]

    story(work)


@pytest.mark.parametrize("size", [MAX_HEAD - 1, MAX_HEAD, MAX_HEAD + 1])
def test_a_head_without_an_end_is_left_to_mitmproxy(size: int, story: Story) -> None:
    async def work(lab: Lab) -> None:
        data = b"GET /" + b"x" * (size - 5)
        lab.say(data)
        assert lab.stock.heard == ([] if size < MAX_HEAD else ["Start", data])
        assert lab.judged == []

    story(work)


@pytest.mark.parametrize("size", [MAX_HEAD, MAX_HEAD + 1])
def test_a_head_is_judged_as_far_as_it_may_be_long(size: int, story: Story) -> None:
    async def work(lab: Lab) -> None:
        start, end = b"GET /", b" HTTP/1.1\r\nHost: x\r\n\r\n"
        data = start + b"x" * (size - len(start) - len(end)) + end
        lab.say(data)
        assert len(lab.judged) == (1 if size <= MAX_HEAD else 0)

    story(work)


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01", b"get /x", b"GET http://x/", b"GET /x\nHost: x\n\n", b"\r\n\r\n"]
)
def test_what_cannot_become_a_simple_head_is_left_to_mitmproxy_at_once(data: bytes, story: Story) -> None:
    async def work(lab: Lab) -> None:
        lab.say(data)
        assert lab.stock.heard == ["Start", data]

    story(work)


def test_what_comes_from_elsewhere_is_no_request(story: Story) -> None:
    async def work(lab: Lab) -> None:
        server = Server(address=("api.example", 80))
        assert lab.handle(events.DataReceived(server, head())) == []
        assert lab.handle(events.ConnectionClosed(server)) == []
        assert (lab.judged, lab.stock.told, lab.pipeline.phase) == ([], [], "open")

    story(work)
