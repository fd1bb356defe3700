"""Signing keys, MACs, and the verification of a signature with the keys of a connection."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping
from os import urandom  # `secrets` uses it too, but imports `random`, which takes longer than signing
from typing import Final, NamedTuple

from .secret import Secret

MAX_KEYS: Final = 4
WEAK_BYTES: Final = 16
"""Bytes below which a secret is weak. A gateway accepts a weak one only if its key says `weak: true`."""
_GUESSABLE_BYTES: Final = 6
MIN_BEGINNING: Final = 8
"""Bytes of the beginning of a signature that are enough to rule out a match by chance."""


class SigningKey(NamedTuple):
    """One signing secret.

    `added` is when it was made, or None if that is unknown. `not_after` is its last valid second, or None for
    no end. Both are Unix times. A revoked key still verifies, so that the answer is `revoked`, not `invalid`.
    """

    id: str
    secret: Secret
    not_after: int | None = None
    added: int | None = None
    revoked: bool = False

    def is_live(self, now: int) -> bool:
        return self.not_after is None or now <= self.not_after


def mac(secret: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA256, 32 bytes."""
    return hmac.digest(secret, message, "sha256")


def signature_id(signature: str) -> str:
    """Return the id of a signature: 32 hex digits from which the signature cannot be computed.

    Stores and the audit log contain this id, never the signature.
    """
    return hashlib.sha256(signature.encode("ascii")).hexdigest()[:32]


_BLOCK: Final = 64
"""Block size of SHA-256 in bytes."""


def _block(secret: bytes) -> bytes:
    """Return a secret as HMAC uses it (RFC 2104, 2). All have the same length, so all cost the same."""
    if len(secret) > _BLOCK:
        secret = hashlib.sha256(secret).digest()
    return secret.ljust(_BLOCK, b"\0")


_DECOYS: Final = tuple(_block(urandom(32)) for _ in range(MAX_KEYS))


def _revealed(key: SigningKey) -> bytes:
    return key.secret.reveal().encode()


def is_weak(secret: Secret) -> bool:
    return len(secret.reveal().encode()) < WEAK_BYTES


def is_guessable(secret: Secret) -> bool:
    """Return whether a holder of one signed URL can find the secret by trying."""
    return len(secret.reveal().encode()) < _GUESSABLE_BYTES


_BRACES: Final = frozenset("{}[]")
_QUOTES: Final = frozenset("\"'`\u2018\u2019\u201c\u201d")


def copied_with(secret: Secret) -> str:
    """Return what was probably copied together with the secret; empty if nothing is conspicuous.

    People copy it out of a file of variables or a JSON text. A secret may have any character, so this is no
    error.
    """
    text = secret.reveal()
    bare = text.strip()
    ends = {bare[:1], bare[-1:]}
    name, _, value = bare.partition("=")
    if ends & _BRACES:
        return "braces"
    if name.split()[-1:] and name.split()[-1].isidentifier() and value.strip("="):
        return "the name of a variable"
    if ends & _QUOTES:
        return "quotes"
    return "a blank" if len(text.split()) > 1 or bare != text else ""


class Try(NamedTuple):
    """A guess that matched: the key, the name of the message, and the name of the change to the secret."""

    key: SigningKey
    message: str
    variant: str


class KeyRing:
    """At most `MAX_KEYS` signing keys. The first one signs, every live one verifies.

    Every verification under one registry computes the same number of MACs; decoys fill the ring. So the time
    does not reveal which key matched, how many keys the connection has, or (see `NO_KEYS`) whether the
    connection exists.
    """

    __slots__ = ("_secrets", "keys")

    def __init__(self, keys: tuple[SigningKey, ...]) -> None:
        if len(keys) > MAX_KEYS:
            raise ValueError(f"at most {MAX_KEYS} signing keys")
        self.keys = keys
        self._secrets = tuple(_block(_revealed(key)) for key in keys) + _DECOYS[len(keys) :]

    def verify(
        self, message: bytes, signature: str, now: int, macs: int = MAX_KEYS, only: str | None = None
    ) -> SigningKey | None:
        """Return the live key that signed this message, or None.

        Args:
            message: a canonical string.
            signature: 64 lower-case hex digits; the caller has checked the grammar.
            macs: how many MACs to compute: at least the number of keys in every ring of the registry.
            only: the id of the only key that may have signed it. It is compared last, after a match, so that
                a key that is not named costs the same.
        """
        given = bytes.fromhex(signature)
        same = [hmac.compare_digest(mac(secret, message), given) for secret in self._secrets[:macs]]
        if True not in same:  # return before the loop over the keys: its length would show in the time
            return None
        for key, is_same in zip(self.keys, same, strict=False):
            if is_same and key.is_live(now) and (only is None or only == key.id):
                return key
        return None

    def tries(
        self,
        messages: Mapping[str, bytes],
        variants: Mapping[str, Callable[[bytes], bytes | None]],
        beginning: bytes,
    ) -> Iterator[Try]:
        """Yield guesses about a signer's mistake that lead to this signature. Offline only, for `explain`.

        Never use it for a decision. The result is not a verification, the time reveals which guess was right,
        and keys past their `not_after` are tried too.

        Args:
            messages: by name, texts that may have been signed.
            variants: by name, changes that may have been made to the secret; a change that does not apply
                returns None.
            beginning: a signature or its first bytes, at least 8.
        """
        if len(beginning) < MIN_BEGINNING:
            return
        for key in self.keys:
            secret = _revealed(key)
            for variant, change in variants.items():
                if (changed := change(secret)) is None:
                    continue
                for name, message in messages.items():
                    if hmac.compare_digest(mac(changed, message)[: len(beginning)], beginning):
                        yield Try(key, name, variant)


NO_KEYS: Final = KeyRing(())
"""The ring of a connection that does not exist: it does the same work and never matches."""
