"""What a signer needs of a connection, built from its entry in a file: its signing keys and its ceiling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, Protocol

from ..core.ceiling import Ceiling
from ..http.paths import pattern
from ..signing.keys import WEAK_BYTES, KeyRing, SigningKey
from ..signing.secret import Secret
from .values import SecretSource

SHORT_BYTES: Final = 32


class KeyEntry(Protocol):
    """One signing key, as an entry says it."""

    @property
    def id(self) -> str | None: ...
    @property
    def secret(self) -> SecretSource: ...
    @property
    def added(self) -> int | None: ...
    @property
    def not_after(self) -> int | None: ...
    @property
    def weak(self) -> bool: ...


class AllowEntry(Protocol):
    """The section `allow`."""

    @property
    def methods(self) -> Sequence[str]: ...
    @property
    def paths(self) -> Sequence[str]: ...


class CeilingEntry(Protocol):
    """The ceiling, as an entry says it."""

    @property
    def allow(self) -> AllowEntry: ...
    @property
    def max_lifetime(self) -> int | None: ...
    @property
    def allow_no_expiry(self) -> bool: ...
    @property
    def head_as_get(self) -> bool: ...
    @property
    def allow_encoded_slash(self) -> bool: ...


def key_ring(
    entries: Sequence[KeyEntry],
    secret_of: Callable[[int, SecretSource], Secret],
    wrong: Callable[[int, str, str], None],
    warn: Callable[[int, str], None],
) -> KeyRing:
    """The keys of a connection.

    Args:
        secret_of: reads the secret of the key at an index; an empty one was told already.
        wrong: told the index, the member and a message of everything that makes the keys unusable.
        warn: told the index and a message of a secret that is short.
    """
    keys: list[SigningKey] = []
    for index, entry in enumerate(entries):
        secret = secret_of(index, entry.secret)
        length = len(secret.reveal().encode())
        if 0 < length < WEAK_BYTES and not entry.weak:
            message = f"is shorter than {WEAK_BYTES} bytes: take a longer one, or say weak: true"
            wrong(index, "secret", message)
        elif 0 < length < SHORT_BYTES:
            warn(index, f"is shorter than {SHORT_BYTES} bytes")
        name = entry.id or f"k{index + 1}"
        if any(name == other.id for other in keys):
            wrong(index, "id", "another key has this id")
        if length and any(secret.reveal() == other.secret.reveal() for other in keys):
            # Revoking one of them would leave its URLs to the other.
            wrong(index, "secret", "another key of this connection has the same secret")
        if length:  # nothing is ever verified with an empty secret
            keys.append(SigningKey(name, secret, entry.not_after, entry.added))
    return KeyRing(tuple(keys))


def ceiling(entry: CeilingEntry, wrong: Callable[[str], None]) -> Ceiling:
    """What a signature can only narrow. `wrong` is told what is wrong with the methods."""
    methods = entry.allow.methods
    if "*" in methods and len(methods) > 1:
        wrong("'*' stands alone")
    return _ceiling(
        tuple(methods),
        tuple([pattern(text) for text in entry.allow.paths]),
        entry.max_lifetime,
        entry.allow_no_expiry,
        entry.head_as_get,
        entry.allow_encoded_slash,
    )


# One object for all that are equal: most connections of a large registry differ in their secrets only.
_ceiling = lru_cache(maxsize=1024)(Ceiling)
