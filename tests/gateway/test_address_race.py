"""A name with several addresses: a dead one neither fails the request nor holds it up for its deadline."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import uvloop

from presign_proxy.gateway import address_race
from presign_proxy.gateway.address_race import MOST, connected, in_turns
from support.asking import SECRET, Grant, ask, in_an_hour
from support.byhand import ByHand
from support.gateways import MakeGateway
from support.lab import bearer_connection
from support.lanes import WAYS
from support.recorder import Recorder
from support.signing import source_url

RUNNERS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
DEAD, REFUSES, ALIVE = "127.0.0.2", "127.0.0.3", "127.0.0.1"


@contextlib.contextmanager
def silent(port: int) -> Iterator[None]:
    """An address at which nothing answers: the queue of its listener is full, and each SYN is dropped."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((DEAD, port))
    listener.listen(0)
    held = []
    for _ in range(3):
        one = socket.socket()
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            one.connect((DEAD, port))
        held.append(one)
    try:
        yield
    finally:
        for one in (*held, listener):
            one.close()


def test_families_take_turns_and_keep_their_order() -> None:
    found = in_turns([("2001:db8::1", 1), ("2001:db8::2", 1), ("10.0.0.1", 1), ("2001:db8::1", 1)])
    assert found == [("2001:db8::1", 1), ("10.0.0.1", 1), ("2001:db8::2", 1)]
    assert in_turns([("10.0.0.1", 1), ("10.0.0.2", 1)]) == [("10.0.0.1", 1), ("10.0.0.2", 1)]
    assert in_turns([]) == []


@RUNNERS
@pytest.mark.parametrize("before", [[DEAD], [REFUSES], [DEAD, REFUSES, REFUSES]])
def test_the_next_address_is_tried_while_the_first_is_silent(run: Any, before: list[str]) -> None:
    hand = ByHand()

    async def work() -> None:
        link = await connected([(one, hand.port) for one in (*before, ALIVE)])
        assert link.getpeername() == (ALIVE, hand.port)
        link.close()
        assert len(asyncio.all_tasks()) <= 1 + before.count(DEAD), "the other attempts end with it"

    with silent(hand.port):
        run(work())
    hand.stop()


@RUNNERS
def test_where_none_answers_the_reason_is_that_of_an_attempt(run: Any) -> None:
    async def work() -> None:
        with pytest.raises(ConnectionRefusedError):
            await connected([(REFUSES, 1), ("127.0.0.4", 1)])
        with pytest.raises(OSError, match="no address"):
            await connected([])

    run(work())


def test_whoever_stops_waiting_leaves_no_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_race, "STAGGER", 0.01)
    hand = ByHand()

    async def work() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await connected([(DEAD, hand.port)])
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1

    with silent(hand.port):
        asyncio.run(work())
    hand.stop()


def test_of_a_name_with_a_thousand_addresses_a_few_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    async def attempt(address: tuple[str, int], local: Any) -> socket.socket:
        tried.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(address_race, "_attempt", attempt)
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(connected([(f"10.0.{number // 256}.{number % 256}", 1) for number in range(1000)]))
    assert len(tried) == MOST


@pytest.mark.parametrize("way", ["lane", "flows"])
def test_a_name_whose_first_address_is_dead_is_served(
    make_gateway: MakeGateway, upstream: Recorder, way: str
) -> None:
    """On both paths. A request that waited for its deadline would be answered 504."""
    connection = bearer_connection(
        f"http://api.many.test:{upstream.port}", SECRET, insecure_upstream=True, timeouts={"connect": "20s"}
    )
    source = {
        "scheme": "source",
        "mode": "signed",
        "allowed_origins": [f"http://api.many.test:{upstream.port}"],
        "allow_networks": ["127.0.0.0/8"],
        "formats": ["jpg"],
        "ports": [upstream.port],
        "signing_keys": [{"secret": SECRET}],
    }
    gateway = make_gateway(
        {"connections": {"conn": connection, "pk": source}},
        *WAYS[way],
        dns={"api.many.test": [DEAD, REFUSES, ALIVE]},
    )
    with silent(upstream.port):
        assert ask(gateway.port, Grant("conn").target("x")).status == 200
        url = f"http://api.many.test:{upstream.port}/ok/a.jpg"
        assert ask(gateway.port, source_url(SECRET, "pk", url, in_an_hour(), "jpg")).status == 200
