"""Bodies that stand still, and upstreams whose end nobody told."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any

import pytest
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.events import ConnectionClosed

from presign_proxy.mitm import deadlines as module
from presign_proxy.mitm.flow.state import Entry
from presign_proxy.mitm.flow.waits import Stalled
from support.keeping import NOW, Lab, run


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


# -- bodies that stand still ------------------------------------------------------------------------------


def uploading(lab: Lab, stage: str = "sending", **state: Any) -> Entry:
    return lab.granted(stage, uploading=True, **state)


@pytest.mark.parametrize("stage", ["sending", "receiving", "done", "waiting", "connecting", "deciding"])
def test_a_client_that_sends_no_more_of_a_body_is_told_once(stage: str, lab: Lab) -> None:
    async def work() -> None:
        other, entry = uploading(lab, "waiting"), uploading(lab, stage)
        other.stream = None
        await lab.keeper._end_stalled(NOW + 30)
        assert entry.client.told == []
        moves = stage in ("sending", "receiving", "done")
        for _ in range(2):
            await lab.keeper._end_stalled(NOW + 30.5)
            found = [(type(one), one.stream) for one in entry.client.told]
            assert found == ([(Stalled, entry.stream)] if moves else [])
        assert (entry.client.cut, entry.timed_out) == ([], False)

    run(work)


@pytest.mark.parametrize("how", ["window", "socket"])
@pytest.mark.parametrize("connected", [True, False])
def test_an_upstream_that_takes_no_more_of_a_body_is_given_up(how: str, connected: bool, lab: Lab) -> None:
    async def work() -> None:
        entry = uploading(lab)
        if not connected:
            entry.server = None
        if how == "window":
            entry.stream.is_held = True
        else:
            entry.client.has_taken = False
        held = how == "window" or connected
        await lab.keeper._end_stalled(NOW + 29)  # from now on it is the upstream's turn
        assert (entry.held, entry.moved) == ((True, NOW + 29) if held else (False, 0.0))
        await lab.keeper._end_stalled(NOW + 29 + 60)
        assert entry.client.cut == []
        if not held:
            return
        assert entry.client.told == []
        await lab.keeper._end_stalled(NOW + 29 + 60.5)
        assert entry.client.cut == [entry.server or entry.client]
        assert entry.timed_out
        assert entry.client.told == []
        await lab.keeper._end_stalled(NOW + 29 + 61)
        assert len(entry.client.cut) == 1

    run(work)


def test_an_upstream_that_takes_a_body_again_leaves_it_to_the_client(lab: Lab) -> None:
    async def work() -> None:
        entry = uploading(lab, held=True)
        await lab.keeper._end_stalled(NOW + 40)
        assert (entry.held, entry.moved, entry.client.told) == (False, NOW + 40, [])
        await lab.keeper._end_stalled(NOW + 70)
        assert entry.client.told == []
        await lab.keeper._end_stalled(NOW + 70.5)
        assert len(entry.client.told) == 1

    run(work)


def test_a_body_that_goes_on_is_left_alone(lab: Lab) -> None:
    async def work() -> None:
        entry = uploading(lab, moved=NOW + 20)
        await lab.keeper._end_stalled(NOW + 50)
        assert entry.client.told == []
        await lab.keeper._end_stalled(NOW + 50.5)
        assert len(entry.client.told) == 1

    run(work)


@pytest.mark.parametrize("state", [{"stream": None}, {"is_there": False}])
def test_a_body_that_nobody_waits_for_keeps_no_other_from_being_looked_at(
    state: dict[str, Any], lab: Lab
) -> None:
    async def work() -> None:
        entries = [uploading(lab) for _ in range(3)]
        entries[0].moved = NOW + 100  # has time
        others = [uploading(lab, **state) for _ in range(3)] if "stream" in state else entries[1:2]
        if "is_there" in state:
            others[0].client.is_there = False
        await lab.keeper._end_stalled(NOW + 31)
        told = [entry for entry in entries if entry.client.told]
        assert told == [one for one in entries[1:] if one not in others]
        assert [entry for entry in others if entry.client.told or entry.client.cut] == []

    run(work)


# -- upstreams whose end nobody told ----------------------------------------------------------------------


def lost(lab: Lab, how: str) -> Entry:
    entry = lab.granted()
    task = SimpleNamespace(done=lambda: how == "its task is done")
    if how != "no socket":
        io = SimpleNamespace(handler=None if how == "no task yet" else task)
        entry.client.transports[entry.server] = io
    if how == "no server":
        entry.server = None
    if how == "no client":
        entry.client.is_there = False
    return entry


@pytest.mark.parametrize(("how", "is_so"), [
    ("no socket", True), ("its task is done", True), ("it is there", False),
    ("no task yet", False), ("no server", False), ("no client", False),
])  # fmt: skip
def test_an_upstream_that_ended_unsaid_is_told_of_at_the_second_look(how: str, is_so: bool, lab: Lab) -> None:
    async def work() -> None:
        entry = lost(lab, how)
        server = entry.server
        assert module._is_lost(entry) is is_so
        await lab.keeper._tell_of_lost(NOW)
        assert entry.client.told == [], "somebody may be about to tell"
        assert entry.server is server
        await lab.keeper._tell_of_lost(NOW)
        if not is_so:
            assert entry.client.told == []
            return
        assert [(type(one), one.connection) for one in entry.client.told] == [(ConnectionClosed, server)]
        assert server.state is ConnectionState.CLOSED
        assert entry.server is None
        await lab.keeper._tell_of_lost(NOW)
        assert len(entry.client.told) == 1

    run(work)


def test_an_upstream_that_was_lost_only_for_a_moment_is_left_alone(lab: Lab) -> None:
    async def work() -> None:
        entry = lost(lab, "no socket")
        await lab.keeper._tell_of_lost(NOW)
        entry.client.transports[entry.server] = SimpleNamespace(handler=None)
        await lab.keeper._tell_of_lost(NOW)
        entry.client.transports.clear()
        await lab.keeper._tell_of_lost(NOW)
        assert entry.client.told == []

    run(work)


def test_a_client_that_goes_while_another_one_is_told_keeps_nobody_waiting(lab: Lab) -> None:
    async def work() -> None:
        entries = [lost(lab, "no socket") for _ in range(3)]
        await lab.keeper._tell_of_lost(NOW)
        first, second, third = lab.ledger.live()

        async def event(_: Any) -> None:
            first.client.told.append("told")
            second.client.is_there = False

        first.client.server_event = event
        await lab.keeper._tell_of_lost(NOW)
        assert (len(first.client.told), len(second.client.told), len(third.client.told)) == (1, 0, 1)
        assert {first, second, third} == set(entries)

    run(work)


def test_what_it_has_seen_lost_keeps_nothing_alive(lab: Lab) -> None:
    async def work() -> None:
        entry = lost(lab, "no socket")
        await lab.keeper._tell_of_lost(NOW)
        assert len(lab.keeper._lost) == 1
        lab.flows.clear()
        del entry
        gc.collect()
        assert len(lab.keeper._lost) == 0

    run(work)
