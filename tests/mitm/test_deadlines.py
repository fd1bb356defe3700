"""What must happen in time: who is cut, who is told, and who is left alone."""

from __future__ import annotations

import asyncio
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest

from presign_proxy.mitm import deadlines as module
from presign_proxy.mitm.deadlines import HEAD_DEADLINE
from presign_proxy.mitm.flow.stream_events import Overdue
from presign_proxy.observe.audit_record import GONE
from support.keeping import NOW, Client, Lab, Layer, run, until


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


# -- the clock --------------------------------------------------------------------------------------------


def test_it_ticks_until_it_is_stopped_and_once_however_often_it_is_started(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        slept: list[float] = []
        sleep = asyncio.sleep

        async def brief(seconds: float) -> None:
            slept.append(seconds)
            await sleep(0.001)

        monkeypatch.setattr(module, "asyncio", SimpleNamespace(
            sleep=brief, get_running_loop=asyncio.get_running_loop
        ))  # fmt: skip
        lab.deadlines.stop()
        lab.deadlines.start()
        first = lab.deadlines._task
        lab.deadlines.start()
        assert lab.deadlines._task is first
        await until(lambda: len(lab.ticked) > 2)
        assert set(slept) == {module.TICK}
        assert len(slept) - len(lab.ticked) in (0, 1)
        assert abs(lab.reloaded[0] - time.monotonic()) < 60
        lab.deadlines.stop()
        await until(first.done)
        lab.deadlines.start()
        assert lab.deadlines._task is not first
        count = len(lab.ticked)
        await until(lambda: len(lab.ticked) > count)
        lab.deadlines.stop()

    run(work)


def test_one_thing_that_fails_keeps_no_other_waiting(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each step of a tick is run, in order, whatever the one before did; those that wait are waited for."""

    async def work() -> None:
        monkeypatch.setattr(module, "TICK", 0.001)
        done: list[str] = []

        def fails(_: float) -> None:
            done.append("fails")
            raise ZeroDivisionError

        async def waits(_: float) -> None:
            await asyncio.sleep(0)
            done.append("waits")

        lab.deadlines._steps = (fails, waits, lambda _: done.append("plain"))
        with caplog.at_level(logging.ERROR):
            lab.deadlines.start()
            await until(lambda: len(done) > 5)
            lab.deadlines.stop()
        assert done[:6] == ["fails", "waits", "plain"] * 2
        assert "housekeeping failed (ZeroDivisionError)" in caplog.text

    run(work)


def test_who_makes_room_is_cut_and_forgotten(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    client, newcomer = Client(), Client()
    lab.clients.await_head(client)  # type: ignore[arg-type]
    monkeypatch.setattr(
        lab.deadlines._room, "least_missed", lambda _, who: client if who is newcomer else None
    )
    assert lab.deadlines.make_room(newcomer) is True
    assert client.cut == [client]
    assert lab.clients.awaits_head_since(client) is None, "it is not chosen again while it closes"  # type: ignore[arg-type]
    monkeypatch.setattr(lab.deadlines._room, "least_missed", lambda *_: None)
    assert lab.deadlines.make_room(newcomer) is False


# -- clients that have gone -------------------------------------------------------------------------------


@pytest.mark.parametrize(("gone", "quiet", "answering", "mute", "ends"), [
    (True, False, False, True, True),
    (True, False, False, False, True),
    (False, True, True, True, True),
    (False, True, True, False, False),
    (False, True, False, True, False),
    (False, False, True, True, False),
    (False, False, False, True, False),
    (False, False, False, False, False),
])  # fmt: skip
def test_a_client_that_has_closed_is_ended_and_one_that_only_waits_is_not(
    gone: bool, quiet: bool, answering: bool, mute: bool, ends: bool, lab: Lab
) -> None:
    client, layer = lab.mute()
    lab.clients.paused.add(client)
    if not mute:
        lab.clients.half_closed.discard(client)
    client.has_gone, client.is_quiet, layer.answering = gone, quiet, answering
    lab.deadlines._end_gone(NOW)
    assert client.cut == ([client] if ends else [])
    assert layer.given_up == ends
    assert (client in lab.clients.gone) is ends
    assert (client in lab.clients.half_closed) is (mute and not ends)
    assert (client in lab.clients.paused) is not ends


@pytest.mark.parametrize("paused", [True, False])
def test_a_client_that_has_ended_behind_what_is_not_read_counts_as_half_closed(
    paused: bool, lab: Lab
) -> None:
    client, layer = lab.mute()
    lab.clients.half_closed.discard(client)
    lab.clients.pause(client, paused)
    client.says_no_more = client.is_quiet = layer.answering = True
    lab.deadlines._end_gone(NOW)
    assert (client in lab.clients.gone) is paused
    assert layer.given_up == paused


@pytest.mark.parametrize("gone", [True, False])
def test_a_client_without_a_layer_is_ended_as_well(gone: bool, lab: Lab) -> None:
    client, _ = lab.mute()
    del lab.clients._layers[client]
    client.has_gone, client.is_quiet = gone, True
    lab.deadlines._end_gone(NOW)
    assert client.cut == ([client] if gone else [])


def test_a_client_whose_layer_fails_is_cut_all_the_same(lab: Lab) -> None:
    client, layer = lab.mute()
    client.has_gone = layer.fails = True
    with pytest.raises(ZeroDivisionError):
        lab.deadlines._end_gone(NOW)
    assert client.cut == [client]


def test_clients_that_say_no_more_are_asked_when_it_is_time(lab: Lab) -> None:
    async def work() -> None:
        now = time.monotonic()
        absent, _ = lab.mute()
        absent.is_there = False
        bare, _ = lab.mute()
        del lab.clients._layers[bare]
        silent, layer = lab.mute()
        layer.asks = None
        client, _ = lab.mute()
        await lab.deadlines._ask_half_closed(now)
        assert client.told == []
        await lab.deadlines._ask_half_closed(now + 6)
        assert client.told == ["asks"]
        assert (absent.told, bare.told, silent.told) == ([], [], [])
        await lab.deadlines._ask_half_closed(now + 7)
        assert client.told == ["asks"]

    run(work)


# -- what is overdue --------------------------------------------------------------------------------------


def test_a_client_that_owes_the_head_of_its_request_is_cut_in_the_end(lab: Lab) -> None:
    late, early = Client(), Client()
    lab.clients._heads[late], lab.clients._heads[early] = NOW, NOW + 1
    lab.deadlines._end_overdue(NOW + HEAD_DEADLINE)
    assert (late.cut, early.cut) == ([], [])
    lab.deadlines._end_overdue(NOW + HEAD_DEADLINE + 0.5)
    assert (late.cut, early.cut) == ([late], [])
    assert set(lab.clients._heads) == {early}


def test_an_exchange_whose_client_has_gone_unsaid_is_booked(lab: Lab) -> None:
    first, second = lab.granted(), lab.granted()
    first.client.is_there = second.client.is_there = False
    lab.deadlines._end_overdue(NOW + 1)
    assert {flow_state for flow_state, _ in lab.ended} == {first, second}
    assert [(one.status, one.error) for _, one in lab.ended] == [(None, GONE)] * 2
    assert first.client.cut == []


@pytest.mark.parametrize("waits", [True, False])
def test_a_client_whose_upstream_takes_its_time_is_not_idle(waits: bool, lab: Lab) -> None:
    flow_state = lab.granted("receiving")
    layer = Layer()
    lab.clients.attach(flow_state.client, layer)
    layer.backlog = 0 if waits else 5
    lab.deadlines._end_overdue(NOW + 1)
    assert flow_state.client.awake == waits
    assert (flow_state.client.cut, lab.ended) == ([], [])


@pytest.mark.parametrize(("stage", "state", "after", "ends"), [
    ("waiting", {}, 60.0, False),
    ("waiting", {}, 60.5, True),
    ("receiving", {}, 10.0**6, False),
    ("waiting", {"timed_out": True}, 60.5, False),
    ("waiting", {"server": None}, 60.5, False),
    ("waiting", {"decision": None}, 60.5, False),
])  # fmt: skip
def test_an_upstream_that_does_not_answer_in_time_is_cut(
    stage: str, state: dict[str, Any], after: float, ends: bool, lab: Lab
) -> None:
    flow_state = lab.granted(stage, **state)
    was = flow_state.progress.timed_out
    lab.deadlines._end_overdue(NOW + after)
    assert flow_state.client.cut == ([flow_state.progress.server] if ends else [])
    assert flow_state.progress.timed_out is (ends or was)
    assert module._is_overdue(flow_state, NOW) is False


@pytest.mark.parametrize("connected", [True, False])
def test_who_has_lost_its_slot_is_cut(connected: bool, lab: Lab) -> None:
    """Somebody else may have it: two would be served where one is allowed."""
    flow_state, other = lab.granted("receiving"), lab.granted("receiving")
    slot: Any = SimpleNamespace(is_lost=lambda now: now > NOW)
    flow_state.limit_hold.slot = slot
    if not connected:
        flow_state.progress.server = None
    lab.deadlines._end_overdue(NOW)
    assert flow_state.client.cut == []
    lab.deadlines._end_overdue(NOW + 1)
    assert flow_state.client.cut == [flow_state.progress.server or flow_state.client]
    assert (other.client.cut, flow_state.progress.timed_out) == ([], False)


@pytest.mark.parametrize(("stage", "state", "after", "ends"), [
    ("connecting", {}, 10.0, False),
    ("connecting", {}, 10.5, True),
    ("waiting", {}, 10.5, False),
    ("connecting", {"timed_out": True}, 10.5, False),
    ("connecting", {"stream": None}, 10.5, False),
    ("connecting", {"decision": None}, 10.5, False),
    ("connecting", {"is_there": False}, 10.5, False),
])  # fmt: skip
def test_a_stream_that_waits_too_long_for_its_connection_is_told(
    stage: str, state: dict[str, Any], after: float, ends: bool, lab: Lab
) -> None:
    async def work() -> None:
        state_of_entry = {name: value for name, value in state.items() if name != "is_there"}
        flow_state = lab.granted(stage, **state_of_entry)
        flow_state.client.is_there = state.get("is_there", True)
        was = flow_state.progress.timed_out
        await lab.deadlines._wake_overdue(NOW + after)
        assert [(type(one), one.stream) for one in flow_state.client.told] == [
            (Overdue, flow_state.stream)
        ] * ends
        assert flow_state.progress.timed_out is (ends or was)
        assert module._connects_for_too_long(flow_state, NOW) is False

    run(work)
