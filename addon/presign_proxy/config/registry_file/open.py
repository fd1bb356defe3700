"""Opening the registry's file: its keys from where they are kept, and its content."""

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
"""Keys that one source may hold, one a line."""


class RegistryPlace(Protocol):
    """The section `registry` of a configuration: its file, and where its keys are; None for a plain one."""

    @property
    def file(self) -> str: ...

    @property
    def key(self) -> tuple[KeySource, ...] | None: ...


def openers_of(place: RegistryPlace, base: Path, environ: Mapping[str, str]) -> list[Opener] | None:
    """The keys of the registry, the first of which encrypts; None for a plain one.

    Raises VaultError, which names the source.
    """
    encrypted = place.file.endswith(".enc")
    if place.key is None:
        if encrypted:
            raise VaultError("a registry that is called .enc needs a key: registry.key")
        return None
    if not encrypted:
        raise VaultError("a registry with a key is called .enc, one without is called .yaml or .json")
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
    """What tells one content of a file from every other one: 32 hex digits."""
    return hashlib.sha256(raw).hexdigest()[:32]


class Payload(NamedTuple):
    """The content of a registry, decrypted. `digest`: of the file as it is on the disk."""

    plain: bytes
    digest: str


def read_payload(path: Path, openers: Sequence[Opener] | None) -> Payload:
    """Raises StoreError, VaultError."""
    raw = read_private(path)
    if openers is not None:
        return Payload(unseal(raw, openers), digest_of(raw))
    if not raw.strip():
        # Not the same as saying nothing: a file that is just being written would open what was closed.
        raise PrivateFileError("is empty")
    return Payload(raw, digest_of(raw))
