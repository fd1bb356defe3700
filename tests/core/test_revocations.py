"""What is revoked: each way by itself, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from presign_proxy.core.revocations import EVERY, Revocations
from presign_proxy.signing.keys import KeyRing, SigningKey
from presign_proxy.signing.secret import Secret
from support.deciding import SECRET, connection


def ring(*added: int | None) -> KeyRing:
    return KeyRing(
        tuple(SigningKey(f"k{n}", Secret(f"{SECRET}{n}"), added=when) for n, when in enumerate(added, 1))
    )


def revoked(found: Revocations, keys: KeyRing, name: str = "conn") -> list[bool]:
    return [key.revoked for key in found.applied_to(name, keys).keys]


def test_a_key_is_revoked_by_its_connection_and_its_id() -> None:
    keys = ring(1, 2)
    assert revoked(Revocations(keys=frozenset({"conn/k1"})), keys) == [True, False]
    assert revoked(Revocations(keys=frozenset({"conn/k2", "other/k1"})), keys) == [False, True]
    assert revoked(Revocations(keys=frozenset({"other/k1", "connk1", "k1"})), keys) == [False, False]


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [
        ({}, [False, False, False]),
        ({"conn": 10}, [True, False, True]),
        ({"conn": 9}, [False, False, True]),
        ({"conn": 11}, [True, False, True]),
        ({"conn": 12}, [True, True, True]),
        ({EVERY: 10}, [True, False, True]),
        ({EVERY: 12, "conn": 1}, [True, True, True]),
        ({EVERY: 1, "conn": 12}, [True, True, True]),
        ({"other": 12}, [False, False, False]),
        ({"conn": 0}, [False, False, False]),
        ({"conn": 1}, [False, False, True]),
    ],
)
def test_keys_added_before_an_instant_are_revoked_and_those_of_unknown_age(
    bounds: dict[str, int], wanted: list[bool]
) -> None:
    assert revoked(Revocations(added_before=bounds), ring(9, 11, None)) == wanted


def test_keys_of_which_none_is_revoked_are_the_same_ring() -> None:
    keys = ring(9, 11)
    assert Revocations(keys=frozenset({"other/k1"})).applied_to("conn", keys) is keys


def test_all_but_the_mark_stays_as_it_was() -> None:
    keys = ring(9, 11)
    found = Revocations(keys=frozenset({"conn/k1"})).applied_to("conn", keys)
    assert [(key.id, key.secret, key.added) for key in found.keys] == [
        (key.id, key.secret, key.added) for key in keys.keys
    ]


def applied(found: Revocations) -> dict[str, Any]:
    known = {name: connection(name, keys=ring(9, 11)) for name in ("a", "b")}
    after = found.applied(known)
    assert set(after) == set(known)
    for name, one in after.items():
        assert one.id == name
    return {
        name: (one.revoked, [key.revoked for key in one.keys.keys], one is known[name])
        for name, one in after.items()
    }


UNTOUCHED = (False, [False, False], True)


def test_a_connection_is_revoked_with_its_neighbours_left_alone() -> None:
    assert applied(Revocations(connections=frozenset({"a", "c"}))) == {
        "a": (True, [False, False], False),
        "b": UNTOUCHED,
    }


def test_each_kind_is_applied_by_itself() -> None:
    assert applied(Revocations(keys=frozenset({"a/k2"}))) == {
        "a": (False, [False, True], False),
        "b": UNTOUCHED,
    }
    assert applied(Revocations(added_before={EVERY: 10})) == {
        name: (False, [True, False], False) for name in ("a", "b")
    }
    assert applied(Revocations(urls=frozenset({"x"}), ids=frozenset({"a/x"}))) == dict.fromkeys(
        ("a", "b"), UNTOUCHED
    )
    assert applied(Revocations()) == dict.fromkeys(("a", "b"), UNTOUCHED)


def test_what_is_applied_is_a_copy() -> None:
    known = {"a": connection("a")}
    for found in (Revocations(), Revocations(connections=frozenset({"a"}))):
        after = found.applied(known)
        assert after is not known
    assert known["a"].revoked is False
    assert EVERY == "*"
