"""Bodies that stand still, and upstreams whose end nobody told."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.events import ConnectionClosed

from presign_proxy.mitm import deadlines as module
from presign_proxy.mitm.flow.state import FlowState
from presign_proxy.mitm.flow.stream_events import Stalled
from support.keeping import NOW, Lab, run


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


# -- bodies that stand still ------------------------------------------------------------------------------


def uploading(lab: Lab, stage: str = "sending", **state: Any) -> FlowState:
    return lab.granted(stage, is_open=True, **state)


@pytest.mark.parametrize("stage", ["sending", "receiving", "done", "waiting", "connecting", "deciding"])
def test_a_client_that_sends_no_more_of_a_body_is_told_once(stage: str, lab: Lab) -> None:
    async def work() -> None:
        other, flow_state = uploading(lab, "waiting"), uploading(lab, stage)
        other.stream = None
        await lab.deadlines._end_stalled(NOW + 30)
        assert flow_state.client.told == []
        moves = stage in ("sending", "receiving", "done")
        for _ in range(2):
            await lab.deadlines._end_stalled(NOW + 30.5)
            found = [(type(one), one.stream) for one in flow_state.client.told]
            assert found == ([(Stalled, flow_state.stream)] if moves else [])
        assert (flow_state.client.cut, flow_state.progress.timed_out) == ([], False)

    run(work)


@pytest.mark.parametrize("how", ["window", "socket"])
@pytest.mark.parametrize("connected", [True, False])
def test_an_upstream_that_takes_no_more_of_a_body_is_given_up(how: str, connected: bool, lab: Lab) -> None:
    async def work() -> None:
        flow_state = uploading(lab)
        if not connected:
            flow_state.progress.server = None
        if how == "window":
            flow_state.stream.is_held = True
        else:
            flow_state.client.has_taken = False
        held = how == "window" or connected
        await lab.deadlines._end_stalled(NOW + 29)  # from now on it is the upstream's turn
        upload = flow_state.progress.upload
        assert (upload.held, upload.moved) == ((True, NOW + 29) if held else (False, 0.0))
        await lab.deadlines._end_stalled(NOW + 29 + 60)
        assert flow_state.client.cut == []
        if not held:
            return
        assert flow_state.client.told == []
        await lab.deadlines._end_stalled(NOW + 29 + 60.5)
        assert flow_state.client.cut == [flow_state.progress.server or flow_state.client]
        assert flow_state.progress.timed_out
        assert flow_state.client.told == []
        await lab.deadlines._end_stalled(NOW + 29 + 61)
        assert len(flow_state.client.cut) == 1

    run(work)


def test_an_upstream_that_takes_a_body_again_leaves_it_to_the_client(lab: Lab) -> None:
    async def work() -> None:
        flow_state = uploading(lab, held=True)
        await lab.deadlines._end_stalled(NOW + 40)
        upload = flow_state.progress.upload
        assert (upload.held, upload.moved, flow_state.client.told) == (False, NOW + 40, [])
        await lab.deadlines._end_stalled(NOW + 70)
        assert flow_state.client.told == []
        await lab.deadlines._end_stalled(NOW + 70.5)
        assert len(flow_state.client.told) == 1

    run(work)


def test_a_body_that_goes_on_is_left_alone(lab: Lab) -> None:
    async def work() -> None:
        flow_state = uploading(lab, moved=NOW + 20)
        await lab.deadlines._end_stalled(NOW + 50)
        assert flow_state.client.told == []
        await lab.deadlines._end_stalled(NOW + 50.5)
        assert len(flow_state.client.told) == 1

    run(work)


@pytest.mark.parametrize("state", [{"stream": None}, {"is_there": False}])
def test_a_body_that_nobody_waits_for_keeps_no_other_from_being_looked_at(
    state: dict[str, Any], lab: Lab
) -> None:
    async def work() -> None:
        entries = [uploading(lab) for _ in range(3)]
        entries[0].progress.upload.moved = NOW + 100  # has time
        others = [uploading(lab, **state) for _ in range(3)] if "stream" in state else entries[1:2]
        if "is_there" in state:
            others[0].client.is_there = False
        await lab.deadlines._end_stalled(NOW + 31)
        told = [flow_state for flow_state in entries if flow_state.client.told]
        assert told == [one for one in entries[1:] if one not in others]
        assert [flow_state for flow_state in others if flow_state.client.told or flow_state.client.cut] == []

    run(work)


# -- upstreams whose end nobody told ----------------------------------------------------------------------


def lost(lab: Lab, how: str) -> FlowState:
    flow_state = lab.granted()
    task = SimpleNamespace(done=lambda: how == "its task is done")
    if how != "no socket":
        io = SimpleNamespace(handler=None if how == "no task yet" else task)
        flow_state.client.transports[flow_state.progress.server] = io
    if how == "no server":
        flow_state.progress.server = None
    if how == "no client":
        flow_state.client.is_there = False
    return flow_state


@pytest.mark.parametrize(("how", "is_so"), [
    ("no socket", True), ("its task is done", True), ("it is there", False),
    ("no task yet", False), ("no server", False), ("no client", False),
])  # fmt: skip
def test_an_upstream_that_ended_unsaid_is_told_of_at_the_second_look(how: str, is_so: bool, lab: Lab) -> None:
    async def work() -> None:
        flow_state = lost(lab, how)
        server = flow_state.progress.server
        assert module._is_lost(flow_state) is is_so
        await lab.deadlines._report_lost(NOW)
        assert flow_state.client.told == [], "somebody may be about to tell"
        assert flow_state.progress.server is server
        await lab.deadlines._report_lost(NOW)
        if not is_so:
            assert flow_state.client.told == []
            return
        assert [(type(one), one.connection) for one in flow_state.client.told] == [(ConnectionClosed, server)]
        assert server.state is ConnectionState.CLOSED
        assert flow_state.progress.server is None
        await lab.deadlines._report_lost(NOW)
        assert len(flow_state.client.told) == 1

    run(work)


def test_an_upstream_that_was_lost_only_for_a_moment_is_left_alone(lab: Lab) -> None:
    async def work() -> None:
        flow_state = lost(lab, "no socket")
        await lab.deadlines._report_lost(NOW)
        flow_state.client.transports[flow_state.progress.server] = SimpleNamespace(handler=None)
        await lab.deadlines._report_lost(NOW)
        flow_state.client.transports.clear()
        await lab.deadlines._report_lost(NOW)
        assert flow_state.client.told == []

    run(work)


def test_a_client_that_goes_while_another_one_is_told_keeps_nobody_waiting(lab: Lab) -> None:
    async def work() -> None:
        entries = [lost(lab, "no socket") for _ in range(3)]
        await lab.deadlines._report_lost(NOW)
        first, second, third = lab.states.live()

        async def event(_: Any) -> None:
            first.client.told.append("told")
            second.client.is_there = False

        first.client.server_event = event
        await lab.deadlines._report_lost(NOW)
        assert (len(first.client.told), len(second.client.told), len(third.client.told)) == (1, 0, 1)
        assert {first, second, third} == set(entries)

    run(work)


def test_what_it_has_seen_lost_keeps_nothing_alive(lab: Lab) -> None:
    async def work() -> None:
        flow_state = lost(lab, "no socket")
        await lab.deadlines._report_lost(NOW)
        assert len(lab.deadlines._lost) == 1
        lab.flows.clear()
        del flow_state
        gc.collect()
        assert len(lab.deadlines._lost) == 0

    run(work)
