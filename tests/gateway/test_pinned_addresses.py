"""Addresses that were judged, and that a client's connections go to from then on."""

from __future__ import annotations

import gc

from presign_proxy.gateway.pinned_addresses import MAX_PINS, PinnedAddresses


class Client:
    pass


def test_a_name_that_answers_differently_later_does_not_move_a_client() -> None:
    pins, client, other = PinnedAddresses(), Client(), Client()
    pins.pin(client, "api.test", 443, "192.0.2.1")
    assert pins.find(client, "api.test", 443) == "192.0.2.1"
    assert pins.find(client, "api.test", 80) is None
    assert pins.find(client, "other.test", 443) is None
    assert pins.find(other, "api.test", 443) is None, "each client has its own"


def test_the_address_that_was_judged_last_is_in_force() -> None:
    pins, client = PinnedAddresses(), Client()
    for address in ("192.0.2.1", "192.0.2.2"):
        pins.pin(client, "api.test", 443, address)
    assert pins.find(client, "api.test", 443) == "192.0.2.2"


def test_a_client_that_asks_for_ever_new_names_does_not_fill_the_memory() -> None:
    pins, client = PinnedAddresses(), Client()
    for number in range(MAX_PINS + 1):
        pins.pin(client, f"{number}.test", 443, "192.0.2.1")
    assert len(pins._of[client]) == 1
    assert pins.find(client, f"{MAX_PINS}.test", 443) == "192.0.2.1"


def test_nothing_is_kept_of_a_client_that_has_gone() -> None:
    pins, client, freed = PinnedAddresses(), Client(), Client()
    for one in (client, freed):
        pins.pin(one, "api.test", 443, "192.0.2.1")
    pins.forget(client)
    assert pins.find(client, "api.test", 443) is None
    del one, freed
    gc.collect()
    assert len(pins._of) == 0
    pins.forget(client)
