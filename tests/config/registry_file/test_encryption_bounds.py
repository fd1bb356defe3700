"""How far a hostile registry may go: what a derivation may cost, how long a header may be, what a key is."""

from __future__ import annotations

import base64
import json
import os
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf import argon2

from presign_proxy.config.registry_file import encryption
from presign_proxy.config.registry_file.encryption import (
    Passphrase,
    VaultError,
    VaultKey,
    kid_of,
    new_key,
    parse_key,
    seal,
    unseal,
)
from presign_proxy.signing.secret import Secret

PHRASE = Passphrase(Secret("correct horse battery staple"))
COST: dict[str, Any] = {"salt": base64.urlsafe_b64encode(bytes(range(16))).rstrip(b"=").decode()}
COST |= {"m": 65536, "t": 3, "p": 4}
GCM: dict[str, Any] = {"alg": "dir", "enc": "A256GCM"}


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def forged(header: Any, *, raw: bytes | None = None) -> bytes:
    """A file that nobody encrypted, under a header of one's own."""
    protected = b64(json.dumps(header).encode() if raw is None else raw)
    return f"{protected}..{b64(bytes(12))}.{b64(b'x' * 40)}.{b64(bytes(16))}".encode()


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, int]]:
    """Every derivation that is begun, which then costs nothing."""
    found: list[dict[str, int]] = []

    class Cheap:
        def __init__(self, **given: Any) -> None:
            found.append(given)

        def derive(self, _: bytes) -> bytes:
            return bytes(32)

    monkeypatch.setattr(argon2, "Argon2id", Cheap)
    return found


# -- what a derivation may cost -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "most",
    [
        {"m": 8 * 1024},
        {"m": 512 * 1024},
        {"t": 1},
        {"t": 16},
        {"p": 1},
        {"p": 16},
        {"salt": b64(bytes(16))},
        {"salt": b64(bytes(64))},
    ],
    ids=str,
)
def test_a_file_may_ask_for_so_much(most: dict[str, Any], derived: list[dict[str, int]]) -> None:
    cost = COST | most
    with pytest.raises(VaultError, match="the passphrase is wrong, or the file was changed"):
        unseal(forged(GCM | {"argon2id": cost}), [PHRASE])
    (given,) = derived
    assert (given["memory_cost"], given["iterations"], given["lanes"]) == (cost["m"], cost["t"], cost["p"])
    assert given["length"] == 32
    assert b64(given["salt"]) == cost["salt"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "more",
    [
        {"m": 8 * 1024 - 1},
        {"m": 512 * 1024 + 1},
        {"m": 512 * 1024 * 1024},
        {"t": 0},
        {"t": 17},
        {"p": 0},
        {"p": 17},
        {"salt": b64(bytes(15))},
        {"salt": b64(bytes(65))},
        {"salt": "é" * 22},
        {"salt": "=" * 22},
        {"salt": None},
        {"m": True},
        {"t": True},
        {"p": 4.0},
        {"p": "4"},
        {"x": 1},
    ],
    ids=str,
)
def test_a_file_that_asks_for_more_is_refused_before_anything_is_derived(
    more: dict[str, Any], derived: list[dict[str, int]]
) -> None:
    """Half a gigabyte is the most: one file must not take the memory of the machine."""
    with pytest.raises(VaultError, match="parameters of Argon2id are out of bounds"):
        unseal(forged(GCM | {"argon2id": COST | more}), [PHRASE])
    assert derived == []


@pytest.mark.parametrize("missing", ["salt", "m", "t", "p"])
def test_a_file_that_leaves_a_parameter_out_is_refused(missing: str, derived: list[dict[str, int]]) -> None:
    cost = {name: value for name, value in COST.items() if name != missing}
    for found in (cost, [1], "cost", None, 7):
        with pytest.raises(VaultError, match="out of bounds"):
            unseal(forged(GCM | {"argon2id": found}), [PHRASE])
    assert derived == []


def test_what_is_sealed_under_a_passphrase_costs_what_the_rfc_recommends(
    derived: list[dict[str, int]],
) -> None:
    sealed = seal(b"{}", PHRASE)
    header = json.loads(base64.urlsafe_b64decode(sealed.split(b".")[0] + b"=="))
    assert header == GCM | {"cty": "json", "argon2id": header["argon2id"]}
    assert header["argon2id"] == {"salt": header["argon2id"]["salt"], "m": 65536, "t": 3, "p": 4}
    assert len(base64.urlsafe_b64decode(header["argon2id"]["salt"] + "==")) == 16
    assert unseal(sealed, [PHRASE]) == b"{}"
    assert len(derived) == 2
    assert derived[0] == derived[1]


# -- headers ------------------------------------------------------------------------------------------


def key_of(number: int) -> VaultKey:
    return parse_key(Secret(b64(bytes(range(number, number + 32)))))


def padded(length: int) -> bytes:
    """A header of a known content whose encoding is so long."""
    for filler in range(length):
        raw = json.dumps(GCM | {"typ": "x" * filler}).encode()
        if len(b64(raw)) == length:
            return raw
    raise AssertionError


def test_a_header_is_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "_MAX_HEADER", 100)
    with pytest.raises(VaultError, match="was changed or cut off"):
        unseal(forged(None, raw=padded(100)), [key_of(1)])
    with pytest.raises(VaultError, match="header is not readable"):
        unseal(forged(None, raw=padded(102)), [key_of(1)])


def test_four_kilobytes_are_enough_for_a_header() -> None:
    assert encryption._MAX_HEADER == 4096


@pytest.mark.parametrize("raw", [b"[]", b"7", b"", b"{", b"\xff", b"[" * 2900])
def test_a_header_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(VaultError, match="header is not readable"):
        unseal(forged(None, raw=raw), [key_of(1)])


def test_a_header_with_a_key_twice_is_refused_whichever_counts() -> None:
    for twice in (b'{"alg":"none","alg":"dir","enc":"A256GCM"}', b'{"alg":"dir","enc":"A256GCM","enc":"x"}'):
        with pytest.raises(VaultError, match="header is not readable"):
            unseal(forged(None, raw=twice), [key_of(1)])


def test_a_header_that_is_not_as_it_would_be_encoded_is_refused() -> None:
    """Trailing bits that no encoder sets: two texts for one header."""
    protected, _, rest = forged(GCM).partition(b".")
    assert len(protected) % 4 != 0
    changed = protected[:-1] + bytes([protected[-1] + 1])
    with pytest.raises(VaultError, match="not readable"):
        unseal(changed + b"." + rest, [key_of(1)])


@pytest.mark.parametrize("header", [GCM | {"alg": "none"}, GCM | {"enc": "A128GCM"}, {"alg": "dir"}, {}])
def test_another_algorithm_is_refused(header: dict[str, str]) -> None:
    with pytest.raises(VaultError, match="its alg is not dir or its enc is not A256GCM"):
        unseal(forged(header), [key_of(1)])


@pytest.mark.parametrize("known", ["typ", "cty"])
def test_what_a_header_may_say_besides(known: str) -> None:
    with pytest.raises(VaultError, match="was changed or cut off"):
        unseal(forged(GCM | {known: "x"}), [key_of(1)])
    with pytest.raises(VaultError, match="unknown parameter"):
        unseal(forged(GCM | {known + "x": "x"}), [key_of(1)])


@pytest.mark.parametrize("kid", ["a" * 64, "A-_.9"])
def test_a_kid_that_can_be_read_is_told(kid: str) -> None:
    with pytest.raises(VaultError, match=f"is encrypted with the key {kid}; the configuration has"):
        unseal(forged(GCM | {"kid": kid}), [key_of(1)])
    assert kid_of(forged(GCM | {"kid": kid})) == kid


@pytest.mark.parametrize("kid", ["", "a" * 65, "a b", "a\n", 7, None])
def test_a_kid_that_cannot_be_read_is_not_repeated(kid: Any) -> None:
    with pytest.raises(VaultError, match=r"kid is not readable|was changed or cut off"):
        unseal(forged(GCM | {"kid": kid}), [key_of(1)])
    if not isinstance(kid, str):
        assert kid_of(forged(GCM | {"kid": kid})) is None


def test_a_file_of_a_passphrase_has_no_kid() -> None:
    assert kid_of(forged(GCM | {"argon2id": COST})) is None


# -- keys ---------------------------------------------------------------------------------------------


def test_the_key_that_is_named_opens_and_so_does_any_where_none_is() -> None:
    first, second = key_of(1), key_of(2)
    sealed = seal(b"{}", second)
    assert unseal(sealed, [first, second]) == b"{}"
    with pytest.raises(VaultError, match=f"has {first.kid}, {key_of(3).kid}"):
        unseal(sealed, [first, key_of(3)])


def test_a_key_is_named_by_its_thumbprint() -> None:
    """RFC 7638: the hash of the key's members in order, without a blank."""
    import hashlib

    text = b64(bytes(range(1, 33)))
    made = json.dumps({"k": text, "kty": "oct"}, separators=(",", ":"), sort_keys=True).encode()
    assert key_of(1).kid == b64(hashlib.sha256(made).digest())


@pytest.mark.parametrize(("different", "is_taken"), [(7, False), (8, True)])
def test_a_key_that_somebody_made_up_is_refused(different: int, is_taken: bool) -> None:
    text = Secret(b64(bytes(range(different)) + bytes(32 - different)))
    if is_taken:
        assert parse_key(text).secret is text
    else:
        with pytest.raises(VaultError, match="is not random: `python3 -c 'import secrets"):
            parse_key(text)


@pytest.mark.parametrize("text", [b64(bytes(range(33))), b64(bytes(range(31))), "", "é" * 43, "A" * 42 + "B"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(VaultError, match="is not 32 bytes in base64url"):
        parse_key(Secret(text))


def test_a_new_key_is_32_bytes_that_nobody_knows() -> None:
    made = {new_key().reveal() for _ in range(50)}
    assert len(made) == 50
    assert {len(base64.urlsafe_b64decode(text + "=")) for text in made} == {32}
    assert encryption.KEY_BYTES == 32


# -- the file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 29, 30, 31, 60, 61, 89, 90, 91])
def test_a_payload_of_any_number_of_blocks_comes_back(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encryption, "_BLOCK", 30)
    payload = os.urandom(size)
    assert unseal(seal(payload, key_of(1)), [key_of(1)]) == payload


def test_large_files_are_worked_on_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two, other threads run."""
    assert encryption._BLOCK == 768 * 1024
    sizes: list[int] = []
    decode = encryption._decode

    def counted(encoded: bytes) -> bytes:
        sizes.append(len(encoded))
        return decode(encoded)

    monkeypatch.setattr(encryption, "_BLOCK", 30)
    sealed = seal(bytes(300), key_of(1))
    monkeypatch.setattr(encryption, "_decode", counted)
    unseal(sealed, [key_of(1)])
    assert sizes.count(40) == 10
    assert max(sizes) < 150


@pytest.mark.parametrize("junk", [b" ", b"\n", b"*", b"+", b"/", b"=", b"\x00", b"\xff"])
@pytest.mark.parametrize("part", [0, 2, 3, 4])
def test_what_is_no_base64url_is_found_wherever_it_stands(junk: bytes, part: int) -> None:
    """A decoder that passes over it would open a file that was changed."""
    key = key_of(1)
    parts = seal(bytes(60), key).split(b".")
    for at in (0, 4, len(parts[part])):
        changed = [*parts]
        for times in (1, 4):  # four of them move no block of the others
            changed[part] = parts[part][:at] + junk * times + parts[part][at:]
            with pytest.raises(VaultError):
                unseal(b".".join(changed), [key])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "^is empty$"),
        (b"{}", "^is not an encrypted registry, or was cut off"),
        (b"a.b", "^is not an encrypted registry, or was cut off"),
        (b"a..c.d", "^is not a"),
        (b"....", "^is not a JWE of alg dir and enc A256GCM, or was cut off$"),
        (b"+..A.A.A", "^is not an encrypted registry, or was cut off"),
        (b"A..A+.A.A", "^is not an encrypted registry, or was cut off"),
    ],
)
def test_what_is_no_file_of_ours_is_told_from_one_that_was_changed(content: bytes, why: str) -> None:
    with pytest.raises(VaultError, match=why):
        unseal(content, [key_of(1)])


def test_a_file_that_carries_a_key_of_its_own_is_refused() -> None:
    """Algorithms that wrap keys are not ours; of `dir`, that part is empty."""
    parts = seal(b"{}", key_of(1)).split(b".")
    with pytest.raises(VaultError, match=r"^is not a JWE of alg dir"):
        unseal(b".".join([parts[0], b"AAAA", *parts[2:]]), [key_of(1)])


@pytest.mark.parametrize("part", [3, 4])
def test_bits_that_a_decoder_drops_are_not_passed_over(part: int) -> None:
    key = key_of(1)
    parts = seal(b"{}", key).split(b".")
    assert len(parts[part]) % 4
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = letters[letters.index(parts[part][-1:]) + 1 :][:1]
    changed = [*parts]
    changed[part] = parts[part][:-1] + last
    with pytest.raises(VaultError, match=r"its base64url is not canonical$"):
        unseal(b".".join(changed), [key])


def test_nonce_and_tag_have_their_whole_length() -> None:
    sealed = seal(b"{}", key_of(1))
    parts = [base64.urlsafe_b64decode(part + b"==") for part in sealed.split(b".")]
    assert [len(part) for part in parts[1:]] == [0, 12, 2, 16]
    for place, short in ((2, 11), (2, 13), (4, 15), (4, 12), (4, 17)):
        changed = [b64(part).encode() for part in parts]
        changed[place] = b64(bytes(short)).encode()
        with pytest.raises(VaultError):
            unseal(b".".join(changed), [key_of(1)])
