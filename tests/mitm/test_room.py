"""Who makes room for a new client of a full worker, and what it costs to find that out."""

from __future__ import annotations

import time
from ipaddress import ip_network
from typing import Any

import pytest

from presign_proxy.mitm import room as module
from presign_proxy.mitm.client_state import ClientStates
from presign_proxy.mitm.room import LASTING, PATIENCE, Room

KINDS = ["an idle stranger", "a late head", "the latest head", "an idle client", "the most silent client"]


class Client:
    alpn = b""

    def __init__(self, address: str = "192.0.2.1") -> None:
        self.peername = (address, 40000)
        self.timestamp_start = time.time()


class Served:
    """What serves a client, as far as it is asked here."""

    def __init__(self, *, stranger: bool = False, idle: bool = True) -> None:
        self.stranger, self.idle, self.asked = stranger, idle, 0

    def is_idle(self) -> bool:
        self.asked += 1
        return self.idle

    def is_idle_stranger(self) -> bool:
        return self.idle and self.stranger


@pytest.fixture
def clients() -> ClientStates:
    return ClientStates()


def serve(clients: ClientStates, served: Any, address: str = "192.0.2.1") -> Any:
    client: Any = Client(address)
    clients.attach(client, served)
    return client


@pytest.mark.parametrize("who", KINDS)
def test_room_is_made_of_the_client_that_is_missed_least(
    who: str, clients: ClientStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all kinds that are there, the one that stands first is chosen; of one kind, the longest there."""
    now, found, silent = time.monotonic(), {}, {}
    for name in KINDS[KINDS.index(who) :]:
        found[name] = serve(clients, Served(stranger=name == "an idle stranger"))
        silent[found[name]] = PATIENCE + (3 if name == "the most silent client" else 2)
        if name.endswith("head"):
            clients._heads[found[name]] = now - PATIENCE - (3 if name == "a late head" else 2)
    monkeypatch.setattr(module, "silent_for", silent.__getitem__)
    wanted = "the most silent client" if who == "an idle client" else who
    assert Room(clients).least_missed(now) is found[wanted]


def test_no_room_is_made_of_those_that_have_just_come_or_have_just_been_served(
    clients: ClientStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    come, served = serve(clients, Served()), serve(clients, Served())
    clients.await_head(come)
    monkeypatch.setattr(module, "silent_for", lambda _: PATIENCE)
    now = clients.awaits_head_since(come)
    assert now is not None
    assert Room(clients).least_missed(now + PATIENCE) is None
    assert Room(clients).least_missed(now + PATIENCE + 0.1) is come
    clients.forget(come)
    assert Room(clients).least_missed(now + PATIENCE + 0.1) is None
    monkeypatch.setattr(module, "silent_for", lambda _: PATIENCE + 0.1)
    assert Room(clients).least_missed(now) is served


def test_who_has_asked_for_something_since_the_last_look_does_not_have_to_go(
    clients: ClientStates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SHARE", 1e9)
    layers = [Served() for _ in range(6)]
    found = [serve(clients, layer) for layer in layers]
    silent = {client: 9.0 - number for number, client in enumerate(found)}
    monkeypatch.setattr(module, "silent_for", silent.__getitem__)
    room, now = Room(clients), time.monotonic()
    assert room.least_missed(now) is found[0]
    layers[1].idle = False
    silent[found[2]] = 0.0
    clients.await_head(found[3])
    clients.forget(found[4])
    assert room.least_missed(now) is found[5]
    assert room.least_missed(now) is None


def test_a_crowd_that_finds_no_room_does_not_have_all_clients_looked_through_each_time(
    clients: ClientStates,
) -> None:
    served: Any = Served(idle=False)
    kept = [serve(clients, served) for _ in range(2000)]
    room, begun, looking = Room(clients), time.monotonic(), 0.0
    while (now := time.monotonic()) - begun < 1:
        before = served.asked
        assert room.least_missed(now) is None
        looking += (time.monotonic() - now) if served.asked > before else 0.0
    assert served.asked >= len(kept)
    assert looking < 0.2


def test_after_a_look_in_vain_there_is_another_one(clients: ClientStates) -> None:
    room, now = Room(clients), time.monotonic()
    assert room.least_missed(now) is None
    stranger = serve(clients, Served(stranger=True))
    assert room.least_missed(now + 0.5) is stranger


def test_refused_requests_with_half_of_the_next_one_keep_no_place(clients: ClientStates) -> None:
    refused, granted = serve(clients, Served(stranger=True)), serve(clients, Served())
    for client in (refused, granted):
        clients.await_head(client)  # of the next request
    now = time.monotonic()
    assert Room(clients).least_missed(now) is None
    for client in (refused, granted):
        client.timestamp_start -= LASTING
    assert Room(clients).least_missed(now) is refused
    clients.forget(refused)
    assert Room(clients).least_missed(now) is None


# -- addresses that have very many places -----------------------------------------------------------------


def owing(clients: ClientStates, address: str) -> Any:
    """A new client, which owes a head."""
    client = serve(clients, Served(stranger=True), address)
    clients.await_head(client)
    return client


def test_an_address_that_keeps_all_places_with_new_clients_makes_room_for_another_one(
    clients: ClientStates,
) -> None:
    crowd = [owing(clients, f"2001:db8::{number:x}") for number in range(1, 13)]
    other, same, near = Client("192.0.2.9"), Client("2001:db8::99"), Client("2001:db8:0:1::1")
    room, now = Room(clients), time.monotonic()
    assert room.least_missed(now, same) is None  # type: ignore[arg-type]
    assert room.least_missed(now) is None
    assert room.least_missed(now, other) in crowd  # type: ignore[arg-type]
    assert room.least_missed(now, near) in crowd  # type: ignore[arg-type]


def test_a_request_of_a_crowd_that_is_under_way_does_not_have_to_go(clients: ClientStates) -> None:
    for _ in range(12):
        serve(clients, Served(idle=False), "192.0.2.1")
    newcomer: Any = Client("192.0.2.9")
    assert Room(clients).least_missed(time.monotonic(), newcomer) is None


@pytest.mark.parametrize(
    ("places", "own", "others", "found"),
    [
        (4, 0, 0, True),
        (3, 0, 0, False),
        (8, 1, 0, True),
        (7, 1, 0, False),
        (4, 0, 28, True),
        (4, 0, 29, False),
    ],
)
def test_only_an_address_with_many_times_the_places_makes_room_at_once(
    places: int, own: int, others: int, found: bool, clients: ClientStates
) -> None:
    kept = [owing(clients, "192.0.2.1") for _ in range(places)]
    kept += [owing(clients, "192.0.2.9") for _ in range(own)]
    kept += [owing(clients, f"198.51.100.{number}") for number in range(others)]
    newcomer: Any = Client("192.0.2.9")
    assert (Room(clients).least_missed(time.monotonic(), newcomer) in kept[:places]) is found


def test_clients_that_had_gone_before_they_were_accepted_keep_nobody_from_finding_room(
    clients: ClientStates,
) -> None:
    kept = [owing(clients, "192.0.2.1") for _ in range(12)]
    for one in kept[8:]:
        one.peername = None
    newcomer: Any = Client("192.0.2.9")
    nobody: Any = Client()
    nobody.peername = None
    assert Room(clients).least_missed(time.monotonic(), newcomer) in kept[:8]
    assert Room(clients).least_missed(time.monotonic(), nobody) in kept[:8]


def test_a_trusted_proxy_is_no_crowd(clients: ClientStates) -> None:
    clients.proxies = lambda: (ip_network("192.0.2.0/24"),)
    kept = [owing(clients, "192.0.2.1") for _ in range(12)]
    newcomer: Any = Client("198.51.100.1")
    assert Room(clients).least_missed(time.monotonic(), newcomer) is None
    del kept
