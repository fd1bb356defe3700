"""Build the connections of a registry: each by itself, and only if it is new or has changed."""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from ...config_problems import ConfigError, Problem
from ...core.connection import Connection
from ...core.revocations import Revocations
from ...signing import grammar
from ..build_connections import Registrar
from ..build_credentials import FileSecrets
from ..outside_secrets import Lent
from ..presets.apply import Presets, with_presets
from ..schema.connections import ConnectionEntry, PresignConnection
from ..schema.registry import RegistryFile, Revoked, RevokedNow
from ..schema.values import ConnectionId
from ..strict_yaml import Document
from ..validation import explain
from .entries import Entries
from .memory import Known, Memory

_ENTRY: Final = TypeAdapter(dict[ConnectionId, ConnectionEntry])
_ID = re.compile(grammar.CONNECTION_ID)


@dataclass(slots=True)
class Registered:
    """The content of a registry."""

    connections: dict[str, Connection] = field(default_factory=dict)
    revocations: Revocations = field(default_factory=Revocations)
    warnings: list[Problem] = field(default_factory=list)


def from_yaml(
    document: Document,
    path: Path,
    environ: Mapping[str, str],
    base: Path,
    presets: Presets,
    memory: Memory,
) -> Registered:
    if document.data is None:
        raise ConfigError([Problem(str(path), 0, 0, "", "is empty")])
    data, problems = with_presets(document, presets)
    try:
        content = RegistryFile.model_validate(data)
    except ValidationError as error:
        rest = problems_of_connections(data, document, base, environ, memory.lent)
        raise ConfigError([*problems, *explain(document, error), *rest]) from None
    secrets = FileSecrets(document, base, environ, memory.lent)
    connections = Registrar(secrets).connections(content.connections)
    if problems := problems + secrets.problems:
        raise ConfigError(problems)
    return Registered(connections, _revocations(content.revoked), secrets.warnings)


def problems_of_connections(
    data: Any, document: Document, base: Path, environ: Mapping[str, str], lent: Lent
) -> list[Problem]:
    """Return the problems of the connections that match the schema, if others do not even match it."""
    secrets = FileSecrets(document, base, environ, lent.for_next_build(strict=True))
    registrar = Registrar(secrets)
    connections = data.get("connections") if isinstance(data, dict) else None
    for name, entry in connections.items() if isinstance(connections, dict) else ():
        try:
            registrar.connections(_ENTRY.validate_python({name: entry}))
        except ValidationError as error:
            _judge_the_rest(name, entry, error, registrar, secrets)
    return secrets.problems


def _judge_the_rest(
    name: Any, entry: Any, wrong: ValidationError, registrar: Registrar, secrets: FileSecrets
) -> None:
    """Add the problems of the secrets of an entry that is wrong elsewhere."""
    rest = copy.deepcopy({name: entry})
    for detail in wrong.errors(include_input=False, include_url=False):
        _remove(rest, detail["loc"])
    before = len(secrets.problems)
    with contextlib.suppress(ValidationError):
        registrar.connections(_ENTRY.validate_python(rest))
    # Other problems may be due to what was removed.
    places = [f"connections.{name}.{key}." for key in ("auth", "signing_keys") if key in rest.get(name, {})]
    secrets.problems[before:] = [
        one for one in secrets.problems[before:] if one.path.startswith(tuple(places))
    ]


def _remove(data: Any, location: tuple[int | str, ...]) -> None:
    """Remove the innermost key at a location. Steps that the data lacks are tags of a union."""
    holder: dict[Any, Any] = {}
    key: Any = None
    for step in location:
        if isinstance(data, dict) and step in data:
            holder, key, data = data, step, data[step]
    holder.pop(key, None)


def _validated(entries: dict[str, Any]) -> dict[str, ConnectionEntry]:
    """Validate one entry. Raises ValidationError. Most entries do not need the slower union."""
    ((name, entry),) = entries.items()
    if isinstance(entry, dict) and "scheme" not in entry and _ID.fullmatch(name):
        with contextlib.suppress(ValidationError):
            return {name: PresignConnection.model_validate(entry)}
    return _ENTRY.validate_python(entries)


class Builder:
    """Builds each connection by itself, and only if it is new or has changed since the last load."""

    def __init__(
        self, path: Path, environ: Mapping[str, str], base: Path, presets: Presets, memory: Memory
    ) -> None:
        self._path = path
        self._environ = environ
        self._base = base
        self._presets = presets
        self._lent = memory.lent
        self.known: dict[str, Known] = {}
        self.found = Registered()
        self._problems: list[Problem] = []

    def build(self, entries: Entries) -> list[Problem]:
        """Build all connections and return the problems."""
        for name, section in entries.sections.items():
            document = Document(str(self._path), {name: section})
            try:
                content = RegistryFile.model_validate({name: section})
            except ValidationError as error:
                self._problems += explain(document, error)
            else:
                self.found.revocations = _revocations(content.revoked)
        for name in entries.names:
            if name in entries.kept:
                self._keep(name, entries.kept[name])
            else:
                self._build(name, *entries.fresh[name])
        return self._problems

    def _build(self, name: str, entry: Any, digest: bytes) -> None:
        document = Document(str(self._path), {"connections": {name: entry}})
        data: Any = document.data
        problems: list[Problem] = []
        if not isinstance(entry, dict) or "preset" in entry or "vars" in entry:
            data, problems = with_presets(document, self._presets)
        secrets = FileSecrets(document, self._base, self._environ, self._lent)
        try:
            connections = Registrar(secrets).connections(_validated(data["connections"]))
        except ValidationError as error:
            self._problems += problems + explain(document, error, ("connections",))
            return
        self._problems += problems + secrets.problems
        known = Known(digest, connections[name], tuple(secrets.warnings))
        self._keep(name, known, again=not secrets.contained)

    def _keep(self, name: str, known: Known, *, again: bool = False) -> None:
        self.found.connections[name] = known.connection
        self.found.warnings += known.warnings
        if not again:
            self.known[name] = known


def revocations_of(found: Any, path: Path) -> Revocations:
    """Parse the section `revoked` of a registry. Raises ConfigError."""
    try:
        return _revocations(Revoked.model_validate(found))
    except ValidationError as error:
        raise ConfigError(explain(Document(str(path), {"revoked": found}), error, ("revoked",))) from None


def _revocations(revoked: Revoked | RevokedNow) -> Revocations:
    return Revocations(
        frozenset(revoked.urls),
        frozenset(revoked.keys),
        frozenset(revoked.connections),
        dict(revoked.added_before),
        frozenset(revoked.ids),
        _revocations(revoked.now) if isinstance(revoked, Revoked) else None,
    )
