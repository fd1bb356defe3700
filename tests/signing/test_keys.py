"""Keys and rings of keys, where they are easily got wrong by one."""

import hashlib
import re

import pytest

from presign_proxy.core.decision import Deny
from presign_proxy.signing import grammar
from presign_proxy.signing.keys import KeyRing, SigningKey, is_guessable, is_weak, signature_id
from presign_proxy.signing.secret import Secret
from support.deciding import NOW, SECRET, ask, request, ring
from support.signing import presign_target, sign

SIGNATURE = "0123456789abcdef" * 4


# -- keys -----------------------------------------------------------------------------------------------


def test_the_id_of_a_signature_is_the_beginning_of_its_hash() -> None:
    assert signature_id(SIGNATURE) == hashlib.sha256(SIGNATURE.encode()).hexdigest()[:32]


def test_four_keys_verify_and_a_fifth_is_refused() -> None:
    secrets = [f"sk_{number}_0123456789abcdef" for number in range(5)]
    four = ring(*secrets[:4])
    for secret in secrets[:4]:
        found = four.verify(b"message", sign(secret, "message"), NOW)
        assert found is not None
        assert found.secret.reveal() == secret
    assert four.verify(b"message", sign(secrets[4], "message"), NOW) is None
    with pytest.raises(ValueError, match="at most 4"):
        ring(*secrets)


def test_of_two_keys_with_one_secret_the_live_one_counts() -> None:
    old, new = SigningKey("old", Secret(SECRET), not_after=NOW - 1), SigningKey("new", Secret(SECRET))
    signature = sign(SECRET, "message")
    for keys in ((old, new), (new, old)):
        found = KeyRing(keys).verify(b"message", signature, NOW)
        assert found is not None
        assert found.id == "new"
    first = KeyRing((SigningKey("a", Secret(SECRET)), SigningKey("b", Secret(SECRET)))).verify(
        b"message", signature, NOW
    )
    assert first is not None
    assert first.id == "a"


@pytest.mark.parametrize(("now", "is_live"), [(NOW - 1, True), (NOW, True), (NOW + 1, False)])
def test_a_key_is_live_to_its_last_second(now: int, is_live: bool) -> None:
    assert SigningKey("k", Secret(SECRET), not_after=NOW).is_live(now) is is_live


@pytest.mark.parametrize("macs", [1, 2, 4])
def test_an_expired_key_alone_in_its_ring_is_no_key(macs: int) -> None:
    """Also where other rings hold more: the decoys beside it belong to no key."""
    keys = KeyRing((SigningKey("k", Secret(SECRET), not_after=NOW - 1),))
    assert keys.verify(b"message", sign(SECRET, "message"), NOW, macs) is None


def test_a_key_is_what_it_was_when_it_was_registered() -> None:
    key = SigningKey("k", Secret(SECRET), revoked=True)
    with pytest.raises(AttributeError):
        key.revoked = False  # type: ignore[misc]
    assert key.revoked
    assert not hasattr(key, "__dict__")  # a hundred thousand of them are kept


@pytest.mark.parametrize(
    ("name", "is_one"),
    [("k", True), ("2026-11.a_B", True), ("k" * 64, True), ("k" * 65, False), ("", False), ("a b", False)],
)
def test_the_id_of_a_key_is_one_word(name: str, is_one: bool) -> None:
    assert bool(re.fullmatch(grammar.KEY_ID, name)) is is_one


TRIED = {"asis": lambda secret: secret, "none": lambda _: None, "cut": lambda secret: secret[3:]}


@pytest.mark.parametrize("length", [8, 9, 32])
def test_a_guess_names_the_key_the_message_and_the_misreading(length: int) -> None:
    """For `explain`: which mistake of a signer leads to this signature."""
    keys = ring("sk_first_0123456789", "sk_second_123456789")
    beginning = bytes.fromhex(sign("second_123456789", "other"))[:length]
    found = list(keys.tries({"one": b"message", "two": b"other"}, TRIED, beginning))
    assert [(one.key.id, one.message, one.variant) for one in found] == [("k2", "two", "cut")]
    assert not list(keys.tries({"one": b"message"}, TRIED, beginning))


def test_a_guess_is_not_made_from_seven_bytes() -> None:
    beginning = bytes.fromhex(sign(SECRET, "message"))
    for length, expected in ((7, 0), (8, 1)):
        assert len(list(ring(SECRET).tries({"": b"message"}, TRIED, beginning[:length]))) == expected


def test_as_many_macs_as_the_largest_ring_needs() -> None:
    """Two of four MACs: a ring of two still verifies with both, and one beyond them does not."""
    secrets = ("sk_first_0123456789", "sk_second_123456789", "sk_third_0123456789")
    three = ring(*secrets)
    verified = [three.verify(b"m", sign(secret, "m"), NOW, 2) is not None for secret in secrets]
    assert verified == [True, True, False]


def test_no_key_stands_for_what_does_not_exist() -> None:
    """Its secrets are random: nobody can sign for nothing, also where the registry holds several keys."""
    assert KeyRing(()).verify(b"m", sign("", "m"), NOW) is None
    asked = request(presign_target("", "conn_none", "v1", NOW, "GET", "*"))
    decision = ask(asked)
    assert isinstance(decision, Deny)
    assert (decision.code, decision.facts.connection) == ("invalid", None)


@pytest.mark.parametrize(("size", "weak", "guessable"), [
    (5, True, True), (6, True, False), (15, True, False), (16, False, False),
])  # fmt: skip
def test_a_secret_is_weak_and_guessable_by_its_bytes(size: int, weak: bool, guessable: bool) -> None:
    for text in ("x" * size, "é" * (size // 2) + "x" * (size % 2)):
        assert (is_weak(Secret(text)), is_guessable(Secret(text))) == (weak, guessable)
