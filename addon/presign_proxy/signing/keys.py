"""Signing keys: who may have made this signature, and which of their keys did."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping
from os import urandom  # `secrets` is the same, and imports `random`, which takes longer than to sign
from typing import Final, NamedTuple

from .secret import Secret

MAX_KEYS: Final = 4
WEAK_BYTES: Final = 16
"""Of a secret; a gateway takes a shorter one only where its key says `weak: true`."""
_GUESSABLE_BYTES: Final = 6
MIN_BEGINNING: Final = 8
"""Bytes of a signature from which on it is not matched by chance."""


class SigningKey(NamedTuple):
    """One signing secret.

    `added` is when it was made, None where nobody knows; `not_after`, its last valid second, None for no
    end (both Unix time). A revoked key verifies still, so that the answer is `revoked` and not `invalid`.
    """

    id: str
    secret: Secret
    not_after: int | None = None
    added: int | None = None
    revoked: bool = False

    def is_live(self, now: int) -> bool:
        return self.not_after is None or now <= self.not_after


def mac(secret: bytes, message: bytes) -> bytes:
    """HMAC-SHA256, 32 bytes."""
    return hmac.digest(secret, message, "sha256")


def signature_id(signature: str) -> str:
    """The only form of a signature in stores and audit: 32 hex digits that cannot be used to sign."""
    return hashlib.sha256(signature.encode("ascii")).hexdigest()[:32]


_BLOCK: Final = 64
"""Bytes of a block of SHA-256."""


def _block(secret: bytes) -> bytes:
    """A secret as HMAC uses it (RFC 2104, 2): all of one length, so that none costs more than another."""
    if len(secret) > _BLOCK:
        secret = hashlib.sha256(secret).digest()
    return secret.ljust(_BLOCK, b"\0")


_DECOYS: Final = tuple(_block(urandom(32)) for _ in range(MAX_KEYS))


def _revealed(key: SigningKey) -> bytes:
    return key.secret.reveal().encode()


def is_weak(secret: Secret) -> bool:
    return len(secret.reveal().encode()) < WEAK_BYTES


def is_guessable(secret: Secret) -> bool:
    """Whether anybody who has a URL finds the secret by trying."""
    return len(secret.reveal().encode()) < _GUESSABLE_BYTES


class Try(NamedTuple):
    """One guess that came true: which key, which message, which misreading of the secret, by their names."""

    key: SigningKey
    message: str
    variant: str


class KeyRing:
    """At most `MAX_KEYS` signing keys; the first signs, each that is live verifies.

    Every verification under one registry computes the same number of MACs, decoys filling the ring, so
    that its time tells neither which key matched nor how many the connection has, nor (see `NO_KEYS`)
    whether it exists.
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
        """The live key that signed this message, or None.

        Args:
            message: a canonical string.
            signature: 64 lower-case hex digits; the caller has checked the grammar.
            macs: how many MACs to compute: at least as many as there are keys in any ring beside this one.
            only: the id of the one key that may have signed it. It is asked for last, of a good signature,
                so that no key costs less for not being named.
        """
        given = bytes.fromhex(signature)
        same = [hmac.compare_digest(mac(secret, message), given) for secret in self._secrets[:macs]]
        if True not in same:  # not even the keys are looked at, of which there are more or fewer
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
        """Which mistakes of a signer lead to a signature that begins so: offline only, for `explain`.

        Never part of a decision: what it finds is not verified, its time tells which guess was right, and
        keys past their `not_after` are tried too.

        Args:
            messages: by name, each something that may have been signed.
            variants: by name, what may have been done to the secret; None where it cannot have been.
            beginning: a signature or its first bytes, 8 at least.
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
"""Stands in for the ring of a connection that does not exist: the same work, never a match."""
