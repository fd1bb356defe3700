"""What is under way and was revoked with `now`: each name by itself, and what goes on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from presign_proxy.core.connection import Connection
from presign_proxy.core.decision import Facts
from presign_proxy.core.registry import Registry
from presign_proxy.core.revocations import EVERY, Revocations
from presign_proxy.core.under_way import Basis, basis_of, is_ended
from presign_proxy.signing.keys import KeyRing, SigningKey
from presign_proxy.signing.secret import Secret
from support.deciding import SECRET, connection

SID = "0123456789abcdef" * 2
BASIS = Basis("conn", "k1", 100, SID, "nightly")


def keyed(*added: int | None) -> Connection:
    keys = [SigningKey(f"k{n}", Secret(f"{SECRET}{n}"), added=when) for n, when in enumerate(added, 1)]
    return replace(connection(), id="conn", keys=KeyRing(tuple(keys)))


def under(now: Revocations, found: Connection | None = None) -> Registry:
    """A registry in which what is marked is revoked, too."""
    return Registry(now.applied({"conn": found or keyed(100, 200)}), revoked=now)


MARKS = {
    "its url": (Revocations(urls=frozenset({SID})), True),
    "another url": (Revocations(urls=frozenset({"f" * 32})), False),
    "its id": (Revocations(ids=frozenset({"conn/nightly"})), True),
    "another id": (Revocations(ids=frozenset({"conn/weekly", "other/nightly"})), False),
    "its key": (Revocations(keys=frozenset({"conn/k1"})), True),
    "another key": (Revocations(keys=frozenset({"conn/k2", "other/k1"})), False),
    "its connection": (Revocations(connections=frozenset({"conn"})), True),
    "another connection": (Revocations(connections=frozenset({"other"})), False),
    "keys before": (Revocations(added_before={"conn": 101}), True),
    "every key before": (Revocations(added_before={EVERY: 101}), True),
    "keys before, and not this one": (Revocations(added_before={"conn": 100}), False),
    "keys of another before": (Revocations(added_before={"other": 101}), False),
}


@pytest.mark.parametrize("mark", MARKS)
def test_a_request_is_ended_by_each_name_that_its_grant_rests_on(mark: str) -> None:
    now, ended = MARKS[mark]
    assert is_ended(under(now), now, BASIS) is ended
    assert not is_ended(under(now), None, BASIS)  # revoked without the mark


@pytest.mark.parametrize("mark", [name for name, (_, ended) in MARKS.items() if ended])
def test_what_is_not_refused_goes_on_though_it_is_marked(mark: str) -> None:
    assert not is_ended(under(Revocations()), MARKS[mark][0], BASIS)


def test_what_was_taken_back_since_ends_before_the_registry_is_read() -> None:
    now = Revocations(keys=frozenset({"conn/k1"}))
    registry = under(Revocations())
    assert is_ended(registry.under(now), now, BASIS)
    assert not is_ended(registry.under(Revocations(keys=frozenset({"conn/k2"}))), now, BASIS)


def test_a_disabled_connection_ends_what_is_under_way_and_an_enabled_one_does_not() -> None:
    now = Revocations(connections=frozenset({"conn"}))
    for enabled in (True, False):
        registry = Registry({"conn": replace(keyed(100), enabled=enabled)})
        assert is_ended(registry, now, BASIS) is not enabled


def test_a_key_or_a_connection_that_is_gone_is_as_good_as_revoked() -> None:
    assert is_ended(Registry({"conn": keyed()}), Revocations(keys=frozenset({"conn/k1"})), BASIS)
    assert is_ended(Registry({}), Revocations(connections=frozenset({"conn"})), BASIS)


def test_what_nobody_signed_has_only_its_connection_to_be_revoked_by() -> None:
    plain = Basis("conn", None, None, None, None)
    everything = Revocations(
        frozenset({SID}), frozenset({"conn/k1", "conn/None"}), ids=frozenset({"conn/None"})
    )
    assert not is_ended(under(everything), everything, plain)
    assert not is_ended(under(Revocations()), Revocations(added_before={EVERY: 10**9}), plain)
    now = Revocations(connections=frozenset({"conn"}))
    assert is_ended(under(now), now, plain)


@pytest.mark.parametrize(("key", "added"), [("k1", 100), ("k2", None), ("k9", None), (None, None)])
def test_a_grant_rests_on_the_key_that_made_it(key: str | None, added: int | None) -> None:
    facts = Facts("req_x", known=keyed(100, None), key=key, signature=SID, id="nightly")
    assert basis_of(facts) == Basis("conn", key, added, SID, "nightly")
    assert basis_of(Facts("req_x")).connection == ""


def test_marks_are_joined_like_what_they_mark() -> None:
    one, two = Revocations(urls=frozenset({SID})), Revocations(keys=frozenset({"conn/k1"}))
    marked = Revocations(now=one)
    assert (marked | Revocations()).now == (Revocations() | marked).now == one
    assert (marked | Revocations(now=two)).now == one | two
    assert (Revocations() | Revocations()).now is None
    assert marked
    assert not Revocations()
