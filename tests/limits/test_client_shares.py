"""What one client over HTTP/2 may have of a worker, beside others."""

from __future__ import annotations

import pytest

from presign_proxy.config.descriptors import FILES, needed
from presign_proxy.limits.client_shares import MAX_STREAMS, MAX_WAITING, STREAMS, Shares, streams_of

MIB = 1024 * 1024


class Client:
    pass


def test_the_bounds_are_those_that_the_documents_name() -> None:
    assert (STREAMS, MAX_STREAMS, MAX_WAITING) == (5000, 100, 64 * MIB)
    assert Shares()._most() == STREAMS


@pytest.mark.parametrize(("clients", "streams"), [(1, 1), (5000, 5000), (5001, 5000), (30_000, 5000)])
def test_there_are_as_many_streams_as_there_may_be_clients_up_to_a_bound(clients: int, streams: int) -> None:
    """So that 65,536 descriptors are enough for all that can be configured."""
    assert streams_of(clients) == streams
    assert needed(clients) == 2 * clients + streams + 256 <= FILES


def test_a_client_that_is_alone_may_have_half_of_all_streams() -> None:
    shares, client = Shares(lambda: 20), Client()
    own = 0
    while shares.may_begin(own):
        own += 1
        shares.note(client, own, 0)
    assert own == 10


def test_greedy_clients_leave_room_for_the_next_one() -> None:
    shares, clients = Shares(lambda: 1000), [Client() for _ in range(10)]
    own = dict.fromkeys(clients, 0)
    for _ in range(MAX_STREAMS):
        for client in clients:
            if shares.may_begin(own[client]):
                own[client] += 1
                shares.note(client, own[client], 0)
    assert set(own.values()) <= {90, 91}
    newcomer, begun = Client(), 0
    while shares.may_begin(begun):
        begun += 1
        shares.note(newcomer, begun, 0)
    assert begun == 45


def test_the_first_stream_of_a_client_is_always_begun_with() -> None:
    shares = Shares(lambda: 1)
    clients = [Client() for _ in range(5)]
    for client in clients:
        assert shares.may_begin(0)
        shares.note(client, 1, 0)
    assert not shares.may_begin(1)


def test_what_others_do_not_take_leaves_less_room_and_comes_back() -> None:
    shares, one, other = Shares(), Client(), Client()
    assert shares.room == MAX_WAITING
    shares.note(one, 1, 10 * MIB)
    shares.note(other, 1, 20 * MIB)
    shares.note(other, 1, 20 * MIB)
    assert shares.room == MAX_WAITING - 30 * MIB
    shares.note(one, 2, 60 * MIB)
    assert shares.room == 0, "never below"
    shares.note(one, 0, 0)
    assert shares.room == MAX_WAITING - 20 * MIB
    shares.forget(other)
    assert shares.room == MAX_WAITING
    assert not shares._of


@pytest.mark.parametrize("again", [1, 2])
def test_a_client_that_has_gone_has_nothing(again: int) -> None:
    shares, client = Shares(lambda: 10), Client()
    shares.note(client, 9, MIB)
    assert not shares.may_begin(1)
    for _ in range(again):
        shares.forget(client)
    assert shares.may_begin(9)
    assert not shares.may_begin(10)
