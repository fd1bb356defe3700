"""The parts of a connection that a signer needs, built from its entry: signing keys and ceiling."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import Final, Protocol

from ..core.ceiling import Ceiling
from ..http.patterns import pattern
from ..signing.keys import WEAK_BYTES, KeyRing, SigningKey
from ..signing.secret import Secret
from .values import SecretSource

SHORT_BYTES: Final = 32


class KeyEntry(Protocol):
    """One signing key as an entry describes it."""

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
    """The section `allow` of an entry."""

    @property
    def methods(self) -> Sequence[str]: ...
    @property
    def paths(self) -> Sequence[str]: ...
    @property
    def every_path(self) -> bool: ...


class CeilingEntry(Protocol):
    """The members of an entry that make its ceiling."""

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
    @property
    def upstreams(self) -> Collection[str]: ...


def key_ring(
    entries: Sequence[KeyEntry],
    secret_of: Callable[[int, SecretSource], Secret],
    wrong: Callable[[int, str, str], None],
    warn: Callable[[int, str], None],
) -> KeyRing:
    """Build the keys of a connection.

    Args:
        secret_of: returns the secret of the key at an index. It returns an empty secret after it has reported
            a problem itself.
        wrong: is called with the index, the member and a message for each mistake that rules the keys out.
        warn: is called with the index and a message for each short secret.
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
            # After one of them is revoked, its URLs would still verify with the other.
            wrong(index, "secret", "another key of this connection has the same secret")
        if length:  # an empty secret must never verify anything
            keys.append(SigningKey(name, secret, entry.not_after, entry.added))
    return KeyRing(tuple(keys))


def ceiling(entry: CeilingEntry, wrong: Callable[[str], None]) -> Ceiling:
    """Build the ceiling, which a signature can only narrow. `wrong` is called with mistakes in `methods`."""
    methods, others = entry.allow.methods, tuple(entry.upstreams)
    paths = ["*", *[f"@{name}/*" for name in others]] if entry.allow.every_path else entry.allow.paths
    if "*" in methods and len(methods) > 1:
        wrong("'*' means all methods: remove the others")
    return _ceiling(
        tuple(methods),
        tuple([pattern(text) for text in paths]),
        entry.max_lifetime,
        entry.allow_no_expiry,
        entry.head_as_get,
        entry.allow_encoded_slash,
        others,
    )


# Equal ceilings share one object: most connections of a large registry differ only in their secrets.
_ceiling = lru_cache(maxsize=1024)(Ceiling)
