"""Open the registry's file: get its keys from their sources, and its content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from ..permissions import readable_by_others
from ..secret_sources import SecretError, checked, name_of, text_of
from ..values import KeySource
from .encryption import Opener, Passphrase, VaultError, parse_key, unseal
from .storage import PrivateFileError, read_private

MAX_KEYS: Final = 4
"""The most keys in one source, one per line."""


class RegistryPlace(Protocol):
    """The section `registry` of a configuration: its file, and the sources of its keys (None if plain)."""

    @property
    def file(self) -> str: ...

    @property
    def key(self) -> tuple[KeySource, ...] | None: ...


def openers_of(place: RegistryPlace, base: Path, environ: Mapping[str, str]) -> list[Opener] | None:
    """Return the keys of the registry, of which the first encrypts; None for a plain registry.

    Raises VaultError, which names the source.
    """
    encrypted = place.file.endswith(".enc")
    if place.key is None:
        if encrypted:
            raise VaultError("a registry whose name ends in .enc needs a key: set registry.key")
        return None
    if not encrypted:
        raise VaultError("the name has to end in .enc with registry.key, in .yaml or .json without it")
    return [opener for source in place.key for opener in _openers(source, base, environ)]


def _openers(key: KeySource, base: Path, environ: Mapping[str, str]) -> list[Opener]:
    source, where = key.source, name_of(key.source)
    if source.file is not None and (problems := readable_by_others(base / source.file)):
        raise VaultError(f"{where}: {problems[0].message}")
    try:
        text = text_of(source, base, environ)
        if key.passphrase:
            return [Passphrase(checked(text, where))]
        lines = [checked(line, where) for line in text.split()]
    except SecretError as error:
        raise VaultError(str(error)) from None
    if not 1 <= len(lines) <= MAX_KEYS:
        raise VaultError(f"{where} is not set or empty, or holds more than {MAX_KEYS} keys")
    try:
        return [parse_key(line) for line in lines]
    except VaultError as error:
        raise VaultError(f"{where} {error}") from None


def digest_of(raw: bytes) -> str:
    """Return a digest that identifies the content of a file: 32 hex digits."""
    return hashlib.sha256(raw).hexdigest()[:32]


class Payload(NamedTuple):
    """The decrypted content of a registry. `digest`: of the file as it is on the disk."""

    plain: bytes
    digest: str


def read_payload(path: Path, openers: Sequence[Opener] | None) -> Payload:
    """Read and decrypt the registry's file. Raises PrivateFileError, VaultError."""
    raw = read_private(path)
    if openers is not None:
        return Payload(unseal(raw, openers), digest_of(raw))
    if not raw.strip():
        # An empty file is an error, not an empty registry: a file that is caught while it is being written
        # must not lift revocations.
        raise PrivateFileError("is empty")
    return Payload(raw, digest_of(raw))
