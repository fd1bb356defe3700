"""What is known of client connections, and what is forgotten with them."""

from __future__ import annotations

from typing import Any

import pytest

from presign_proxy.core.decision import PASS
from presign_proxy.mitm.client_state import ClientStates, LaneDecision
from support.deciding import request, signed


class Client:
    alpn = b""


class Layer:
    """What serves a client, as far as it is asked here."""

    waker = None

    def __init__(self, *, stranger: bool = True, idle: bool = True, full: bool = False) -> None:
        self.stranger, self.idle, self.full = stranger, idle, full

    def is_idle(self) -> bool:
        return self.idle

    def is_idle_stranger(self) -> bool:
        return self.stranger

    def holds_too_much(self) -> bool:
        return self.full


def serve(states: ClientStates, **given: Any) -> Any:
    client: Any = Client()
    layer: Any = Layer(**given)
    states.attach(client, layer)
    return client


def test_room_is_made_by_a_client_that_was_never_granted_anything_and_sends_nothing() -> None:
    states = ClientStates()
    serve(states, stranger=False)
    asking = serve(states)
    states.await_head(asking)
    assert states.idle_strangers() == []
    idle = [serve(states), serve(states)]
    assert states.idle_strangers() == idle


def test_idle_is_who_asks_for_nothing_whatever_was_granted_before() -> None:
    states = ClientStates()
    serve(states, idle=False)
    states.await_head(serve(states))
    idle = [serve(states, stranger=False), serve(states)]
    assert states.idle() == idle


def test_a_head_that_comes_in_pieces_does_not_start_its_deadline_again() -> None:
    states, client = ClientStates(), serve(ClientStates())
    states.await_head(client)
    since = states.awaits_head_since(client)
    states.await_head(client)
    assert since is not None
    assert states.awaits_head_since(client) == since
    assert states.awaited_longer_than(10, since + 10) == []
    assert states.awaited_longer_than(10, since + 11) == [client]
    states.head_came(client)
    assert states.awaits_head_since(client) is None


def test_the_end_of_a_client_is_looked_for_while_so_much_of_its_data_waits_that_it_is_not_read_from() -> None:
    states = ClientStates()
    client = serve(states, full=True)
    assert states.holds_too_much(client)
    assert states.silent() == {client}
    states.layer_of(client).full = False  # type: ignore[union-attr]
    assert not states.holds_too_much(client)
    assert states.silent() == set()


@pytest.mark.parametrize("differs", ["", "request", "registry", "taken"])
def test_a_decision_of_the_lane_holds_for_that_very_request_alone(differs: str) -> None:
    states, registry = ClientStates(), object()
    client = serve(states)
    asked: Any = request(signed())
    known: Any = registry
    states.hand_over(client, LaneDecision(asked, known, PASS))
    if differs == "request":
        asked = asked._replace(method=b"PUT")
    elif differs == "registry":
        known = object()
    elif differs == "taken":
        states.take_over(client, asked, known)
    assert states.take_over(client, asked, known) is (None if differs else PASS)
    assert states.take_over(client, asked, known) is None, "it is for one request"


def test_nothing_but_its_end_is_known_of_a_client_that_has_gone() -> None:
    states = ClientStates()
    client = serve(states, full=True)
    states.await_head(client)
    states.half_closed.add(client)
    states.pause(client, True)
    states.holds_too_much(client)
    states.raw_tunnels.add(client)
    states.cut_off.add(client)
    assert not states.has_departed(client)
    states.note_gone(client)
    assert states.has_departed(client)
    states.forget(client)
    assert states.layer_of(client) is None
    assert states.awaits_head_since(client) is None
    assert states.silent() == set()
    assert client not in states.cut_off
    assert states.has_departed(client), "its upstreams may still be being ended"
