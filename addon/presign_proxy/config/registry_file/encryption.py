"""The encrypted registry: one JWE in compact serialization (RFC 7516), `alg: dir`, `enc: A256GCM`.

Any JWE library can open the file with the 32 bytes of its key. If the key is derived from a passphrase, the
protected header has the parameters of Argon2id (RFC 9106) as `argon2id: {salt, m, t, p}`, with `m` in KiB.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from ...config_problems import Foreseen
from ...regexes import late
from ...signing.secret import Secret

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_TAG_BYTES: Final = 16
_MAX_HEADER: Final = 4096
_BLOCK: Final = 768 * 1024
"""Bytes per block, a multiple of 3. Other threads run between two blocks."""

_KNOWN: Final = frozenset(("alg", "enc", "kid", "typ", "cty", "argon2id"))
_KID = late(r"[A-Za-z0-9_.-]{1,64}")
_BASE64URL = late(rb"[A-Za-z0-9_-]*")
# From base64url to standard base64. Characters that only standard base64 has become invalid.
_STANDARD: Final = bytes.maketrans(b"-_+/=", b"+/***")
_KEY_TEXT = late(r"[A-Za-z0-9_-]{43}")
_MAKES_ONE: Final = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


class VaultError(Foreseen):
    """A file that cannot be decrypted. The text says why, and contains nothing from inside the file."""


class VaultKey(NamedTuple):
    """32 random bytes. `kid` is their JWK thumbprint (RFC 7638), as JOSE libraries compute it."""

    secret: Secret
    kid: str


class Passphrase(NamedTuple):
    """A passphrase. The key is derived from it with the parameters in the file."""

    secret: Secret


Opener = VaultKey | Passphrase


class _Cost(NamedTuple):
    """Parameters of Argon2id; the defaults are the second recommendation of RFC 9106, section 4."""

    salt: bytes
    m: int = 64 * 1024
    t: int = 3
    p: int = 4

    def is_bounded(self) -> bool:
        """Return whether the cost is acceptable: a hostile file could demand all memory, or hours."""
        return (
            16 <= len(self.salt) <= 64
            and 8 * 1024 <= self.m <= 512 * 1024
            and 1 <= self.t <= 16
            and 1 <= self.p <= 16
        )


def parse_key(text: Secret) -> VaultKey:
    """Parse a key from its text, base64url without padding. Raises VaultError."""
    encoded = text.reveal()
    if not _KEY_TEXT.fullmatch(encoded) or _encode(raw := _decode(encoded.encode())) != encoded.encode():
        raise VaultError("is not 32 bytes in base64url (43 characters, no padding)")
    if len(set(raw)) < 8:
        raise VaultError(f"is not random: `{_MAKES_ONE}` prints one that is")
    jwk = json.dumps({"k": encoded, "kty": "oct"}, separators=(",", ":"))
    return VaultKey(text, _encode(hashlib.sha256(jwk.encode()).digest()).decode())


def new_key() -> Secret:
    """Return a fresh key as the text that `parse_key` reads."""
    return Secret(_encode(os.urandom(KEY_BYTES)).decode())


def seal(payload: bytes, opener: Opener) -> bytes:
    """Encrypt with a fresh nonce, and for a passphrase with a fresh salt."""
    header: dict[str, Any] = {"alg": "dir", "enc": "A256GCM", "cty": "json"}
    if isinstance(opener, VaultKey):
        header["kid"] = opener.kid
        key = _decode(opener.secret.reveal().encode())
    else:
        cost = _Cost(os.urandom(16))
        header["argon2id"] = {"salt": _encode(cost.salt).decode(), "m": cost.m, "t": cost.t, "p": cost.p}
        key = _derive(opener.secret.reveal(), cost)
    protected = _encode(json.dumps(header, separators=(",", ":")).encode())
    nonce = os.urandom(_NONCE_BYTES)
    encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
    encryptor.authenticate_additional_data(protected)
    sealed = [_encode(encryptor.update(payload[at : at + _BLOCK])) for at in range(0, len(payload), _BLOCK)]
    # GCM buffers nothing, so `finalize` returns no bytes.
    encryptor.finalize()
    return b".".join((protected, b"", _encode(nonce), b"".join(sealed), _encode(encryptor.tag)))


def unseal(sealed: bytes, openers: Sequence[Opener]) -> bytes:
    """Decrypt. No part of the payload is used before all of it is authenticated. Raises VaultError."""
    parts = _parts(sealed)
    header = _header(parts.protected)
    step = _BLOCK // 3 * 4
    for key in _keys(header, openers):
        pieces = (
            _decode(sealed[at : min(at + step, parts.end)]) for at in range(parts.start, parts.end, step)
        )
        opened = _decrypt(key, parts.nonce, parts.protected, pieces, parts.tag)
        if opened is not None:
            return opened
    if "argon2id" in header:
        raise VaultError("the passphrase is wrong, or the file was changed or cut off")
    raise VaultError("the file was changed or cut off since it was written: restore it from a backup")


def _decrypt(key: bytes, nonce: bytes, aad: bytes, pieces: Iterable[bytes], tag: bytes) -> bytes | None:
    """Decrypt a ciphertext with AES-256-GCM; None unless the tag authenticates all of it."""
    decryptor = Cipher(algorithms.AES(key), modes.GCM(nonce, tag)).decryptor()
    decryptor.authenticate_additional_data(aad)
    opened = [decryptor.update(piece) for piece in pieces]
    try:
        decryptor.finalize()
    except InvalidTag:
        return None
    return b"".join(opened)


class _Parts(NamedTuple):
    """The parts of a JWE: the encoded protected header, and the offsets of the ciphertext in the file.

    The ciphertext is not copied: large files are decoded block by block, and other threads run in between.
    """

    protected: bytes
    nonce: bytes
    start: int
    end: int
    tag: bytes


def _parts(sealed: bytes) -> _Parts:
    if not sealed:
        raise VaultError("is empty")
    protected, encrypted_key, nonce = (*sealed[: _MAX_HEADER * 2].split(b".", 3), b"", b"", b"")[:3]
    start = len(protected) + len(encrypted_key) + len(nonce) + 3
    end = sealed.rfind(b".")
    tag = sealed[end + 1 :]
    if end < start or not all(map(_BASE64URL.fullmatch, (protected, encrypted_key, nonce, tag))):
        raise VaultError("is not an encrypted registry, or was cut off: a JWE has five parts of base64url")
    decoded = _decode(nonce), _decode(tag)
    if encrypted_key or (len(decoded[0]), len(decoded[1])) != (_NONCE_BYTES, _TAG_BYTES):
        raise VaultError("is not a JWE of alg dir and enc A256GCM, or was cut off")
    # Decoding drops bits of the last characters. Only the canonical spelling is accepted, so that no changed
    # file passes.
    tail = sealed[end - (end - start) % 4 : end]
    if _encode(decoded[0]) != nonce or _encode(decoded[1]) != tag or _encode(_decode(tail)) != tail:
        raise VaultError("the file was changed: its base64url is not canonical")
    return _Parts(protected, decoded[0], start, end, decoded[1])


def _header(protected: bytes) -> dict[str, Any]:
    try:
        if len(protected) > _MAX_HEADER or _encode(raw := _decode(protected)) != protected:
            raise ValueError
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError):
        raise VaultError("its protected header is not readable") from None
    if not isinstance(header, dict):
        raise VaultError("its protected header is not readable")
    if (header.get("alg"), header.get("enc")) != ("dir", "A256GCM"):
        raise VaultError("its alg is not dir or its enc is not A256GCM: it was not made by presign")
    if header.keys() - _KNOWN:
        raise VaultError("its protected header has an unknown parameter")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _keys(header: dict[str, Any], openers: Sequence[Opener]) -> list[bytes]:
    """Return the keys that may open the file. Raises VaultError if there are none."""
    if "argon2id" in header:
        cost = _parse_cost(header["argon2id"])
        phrases = [opener.secret for opener in openers if isinstance(opener, Passphrase)]
        if not phrases:
            raise VaultError("is encrypted with a passphrase, but the configuration names none")
        return [_derive(phrase.reveal(), cost) for phrase in phrases]
    keys = {opener.kid: opener.secret for opener in openers if isinstance(opener, VaultKey)}
    if not keys:
        raise VaultError("is encrypted with a key, but the configuration names only a passphrase")
    kid = header.get("kid")
    if kid is None:  # written by another tool
        return [_decode(secret.reveal().encode()) for secret in keys.values()]
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise VaultError("its kid is not readable")
    if kid not in keys:
        have = ", ".join(keys)
        raise VaultError(f"is encrypted with the key {kid}; the configuration has {have}")
    return [_decode(keys[kid].reveal().encode())]


def kid_of(sealed: bytes) -> str | None:
    """Return the id of the key that a file names; None for a passphrase. Raises VaultError."""
    kid = _header(_parts(sealed).protected).get("kid")
    return kid if isinstance(kid, str) else None


def _parse_cost(found: Any) -> _Cost:
    if isinstance(found, dict) and found.keys() == {"salt", "m", "t", "p"}:
        numbers = [found[name] for name in ("m", "t", "p")]
        if isinstance(found["salt"], str) and all(type(number) is int for number in numbers):
            try:
                cost = _Cost(_decode(found["salt"].encode("ascii")), *numbers)
            except (VaultError, UnicodeEncodeError):
                cost = _Cost(b"")
            if cost.is_bounded():
                return cost
    raise VaultError("its parameters of Argon2id are out of bounds: it was not made by presign")


def _derive(passphrase: str, cost: _Cost) -> bytes:
    from cryptography.hazmat.primitives.kdf.argon2 import Argon2id  # a random key needs no derivation

    derivation = Argon2id(
        salt=cost.salt, length=KEY_BYTES, iterations=cost.t, lanes=cost.p, memory_cost=cost.m
    )
    return derivation.derive(passphrase.encode())


def _encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def _decode(encoded: bytes) -> bytes:
    """Decode base64url, strict about the alphabet. Raises VaultError."""
    try:
        padded = encoded.translate(_STANDARD) + b"=" * (-len(encoded) % 4)
        return binascii.a2b_base64(padded, strict_mode=True)
    except (binascii.Error, ValueError):
        raise VaultError("is not base64url, or was cut off") from None
