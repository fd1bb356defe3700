"""Clients that say no more: which of them may still wait for an answer, and when each is asked."""

from __future__ import annotations

import asyncio
import socket
import struct
from types import SimpleNamespace

import h11
import pytest
from mitmproxy.connection import ConnectionState

from presign_proxy.mitm import half_closed as module
from presign_proxy.mitm.half_closed import PROBE, HalfClosed, has_gone, is_quiet, may_be_there, says_no_more
from support.handling import PATIENCE, Handled, with_client


class Clock:
    """What `time` says, on both of its clocks."""

    def __init__(self, patch: pytest.MonkeyPatch, now: float) -> None:
        self.now = now
        patch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.now))


class Somebody:
    """A client, for who asks nothing of it."""


def test_a_client_is_asked_after_five_seconds_and_then_after_as_long_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Clock(monkeypatch, 1000.0)
    known, client = HalfClosed(), Somebody()
    known.add(client)
    assert [known.is_due(client, now) for now in (1000.0, 1004.9, 1005.0)] == [False, False, True]
    assert [known.is_due(client, now) for now in (1005.0, 1009.9, 1010.0)] == [False, False, True]
    assert [known.is_due(client, now) for now in (1019.9, 1020.0)] == [False, True]


def test_a_client_that_waits_for_an_hour_is_asked_before_mitmproxy_gives_it_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Clock(monkeypatch, 1000.0)
    known, client = HalfClosed(), Somebody()
    known.add(client)
    assert known.is_due(client, 4600.0)
    assert [known.is_due(client, now) for now in (4899.9, 4900.0)] == [False, True]


def test_only_a_client_that_says_no_more_is_asked() -> None:
    known, client, other = HalfClosed(), Somebody(), Somebody()
    known.add(client)
    assert (client in known, other in known) == (True, False)
    assert known.all() == [client]
    assert not known.is_due(other, 0.0)
    known.discard(client)
    known.discard(other)
    assert client not in known
    assert known.all() == []


def test_a_client_that_has_gone_is_not_kept() -> None:
    known, client = HalfClosed(), Somebody()
    known.add(client)
    del client
    assert known.all() == []


def test_what_asks_a_client_is_an_interim_answer_and_no_byte_of_another() -> None:
    conn = h11.Connection(h11.CLIENT)
    conn.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    conn.send(h11.EndOfMessage())
    conn.receive_data(PROBE)
    event = conn.next_event()
    assert isinstance(event, h11.InformationalResponse)
    assert event.status_code == 100
    assert list(event.headers) == []
    assert conn.trailing_data == (b"", False)


@pytest.mark.parametrize(
    ("state", "may_be"),
    [
        (ConnectionState.OPEN, True),
        (ConnectionState.CAN_WRITE, True),
        (ConnectionState.CAN_READ, False),
        (ConnectionState.CLOSED, False),
    ],
)
def test_a_client_that_can_be_written_to_may_be_there(state: ConnectionState, may_be: bool) -> None:
    async def work(lab: Handled) -> None:
        lab.client.state = state
        assert may_be_there(lab.client) is may_be

    with_client(work)


def test_a_client_that_only_says_no_more_has_not_gone() -> None:
    async def work(lab: Handled) -> None:
        assert not has_gone(lab.client)
        lab.peer.sendall(b"the last")
        lab.peer.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.05)
        assert not has_gone(lab.client)

    with_client(work)


@pytest.mark.parametrize("ends", [True, False])
def test_the_end_of_a_client_that_is_not_read_from_is_seen_behind_what_it_has_sent(ends: bool) -> None:
    async def work(lab: Handled) -> None:
        lab.transport.pause_reading()
        lab.peer.sendall(b"the last")
        if ends:
            lab.peer.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.05)
        assert says_no_more(lab.client) is ends
        assert not has_gone(lab.client)
        lab.transport.abort()
        assert not says_no_more(lab.client), "it is closed here"

    with_client(work)


def test_an_end_that_was_not_read_is_forgotten_once_the_client_is_read_from() -> None:
    """What it has sent before is served first. An end that was read stays known."""
    known, client, other = HalfClosed(), Somebody(), Somebody()
    known.add_unread(client)
    known.add(other)
    known.add_unread(other)
    assert set(known.all()) == {client, other}
    known.read_on(client)
    known.read_on(other)
    assert known.all() == [other]
    known.add_unread(client)
    known.add(client)  # now it was read
    known.read_on(client)
    assert client in known


async def found_gone(lab: Handled) -> bool:
    async with asyncio.timeout(PATIENCE):
        while not has_gone(lab.client):  # noqa: ASYNC110 - nobody is told
            await asyncio.sleep(0.005)
    return True


def test_a_client_whose_system_answers_with_a_reset_has_gone() -> None:
    async def work(lab: Handled) -> None:
        lab.transport.pause_reading()  # asyncio would find out, and close it
        lab.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        lab.peer.close()
        assert await found_gone(lab)
        assert not lab.transport.is_closing()

    with_client(work)


def test_a_client_whose_connection_ended_both_ways_has_gone() -> None:
    async def work(lab: Handled) -> None:
        lab.transport.pause_reading()
        lab.peer.shutdown(socket.SHUT_WR)
        lab.sock.shutdown(socket.SHUT_WR)
        assert await found_gone(lab)

    with_client(work)


def test_a_client_whose_connection_is_closed_here_has_gone_and_is_quiet() -> None:
    async def work(lab: Handled) -> None:
        lab.transport.close()
        assert has_gone(lab.client)
        assert is_quiet(lab.client) is True

    with_client(work)


def test_a_client_that_nobody_serves_any_more_has_gone_and_is_quiet() -> None:
    async def work(lab: Handled) -> None:
        lab.forget()
        assert has_gone(lab.client)
        assert not says_no_more(lab.client), "there is nobody to ask"
        assert is_quiet(lab.client) is True

    with_client(work)


def test_a_client_without_a_socket_has_gone_and_is_quiet() -> None:
    async def work(lab: Handled) -> None:
        io = lab.handler.transports.pop(lab.client)
        assert has_gone(lab.client)
        assert is_quiet(lab.client) is True
        lab.handler.transports[lab.client] = io

    with_client(work)


def test_a_client_is_quiet_once_two_seconds_are_over_and_it_has_taken_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(lab: Handled) -> None:
        clock = Clock(monkeypatch, 1000.0)
        lab.handler.timeout_watchdog.last_activity = 998.0
        assert is_quiet(lab.client) is False
        clock.now += 0.1
        assert is_quiet(lab.client) is True
        await lab.stuff()  # what its system does not take has not been taken
        assert is_quiet(lab.client) is False

    with_client(work)


def test_a_client_for_which_something_waits_in_this_process_is_not_quiet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work(lab: Handled) -> None:
        Clock(monkeypatch, 1000.0)
        lab.handler.timeout_watchdog.last_activity = 0.0
        monkeypatch.setattr(module, "unsent", lambda _: 0)  # on a system that does not say so
        while not lab.transport.get_write_buffer_size():
            lab.transport.write(bytes(65536))
        assert is_quiet(lab.client) is False

    with_client(work)
