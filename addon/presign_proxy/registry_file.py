"""The registry's file: connections that the command manages, and what is revoked; encrypted, or plain."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import TypeAdapter, ValidationError

from . import grammar, members
from .connections import Connection
from .document import Document, parse
from .filling import Presets, with_presets
from .plainly import explain
from .problems import ConfigError, Problem
from .registering import Registrar
from .registry_opening import openers_of, read_payload
from .revocations import Revocations
from .schema import (
    ConnectionEntry,
    ConnectionId,
    PresignConnection,
    RegistryConfig,
    RegistryFile,
    Revoked,
)
from .storing import StoreError
from .vault import VaultError

_ENTRY: Final = TypeAdapter(dict[ConnectionId, ConnectionEntry])
_ID = re.compile(grammar.CONNECTION_ID)
_YAML: Final = (".yaml", ".yml")


class _Known(NamedTuple):
    """One connection as it was read before, and what was warned of."""

    digest: bytes
    connection: Connection
    warnings: tuple[Problem, ...]


@dataclass(slots=True)
class Memory:
    """What was read of a registry: after a change of one connection, only that one is read again.

    `built` counts the connections of the last time that were not the same as before.
    """

    context: object = None
    known: dict[str, _Known] = field(default_factory=dict)
    built: int = 0


@dataclass(slots=True)
class Registered:
    """The content of a registry."""

    connections: dict[str, Connection] = field(default_factory=dict)
    revocations: Revocations = field(default_factory=Revocations)
    warnings: list[Problem] = field(default_factory=list)


def read_registry(
    path: Path,
    config: RegistryConfig,
    environ: Mapping[str, str],
    base: Path,
    presets: Presets,
    memory: Memory,
) -> Registered:
    """Read a registry.

    Args:
        base: the directory from which relative paths in it count.
        memory: of the last time; it is brought up to date where everything is well.

    Raises ConfigError with everything that is wrong.
    """
    try:
        openers = openers_of(config, base, environ)
        payload = read_payload(path, openers)
    except (StoreError, VaultError) as error:
        raise ConfigError([Problem(str(path), 0, 0, "", str(error))]) from None
    if openers is None and path.suffix in _YAML:
        found = _from_yaml(payload, path, environ, base, presets)
        memory.built = len(found.connections)
        return found
    reader = _JsonReader(path, environ, base, presets, memory)
    problems = reader.read(payload)
    if problems and openers is None:
        _from_yaml(payload, path, environ, base, presets)  # every JSON is YAML, and YAML has line numbers
    if problems:
        raise ConfigError(problems)
    before, memory.context, memory.known = memory.known, reader.context, reader.known
    memory.built = reader.built
    while before:  # all at once, it would be noticed
        before.popitem()
    return reader.found


def _from_yaml(
    raw: bytes, path: Path, environ: Mapping[str, str], base: Path, presets: Presets
) -> Registered:
    document = parse(raw, str(path))
    if document.data is None:
        raise ConfigError([Problem(str(path), 0, 0, "", "is empty")])
    data, problems = with_presets(document, presets)
    try:
        content = RegistryFile.model_validate(data)
    except ValidationError as error:
        rest = problems_of_connections(data, document, base, environ)
        raise ConfigError([*problems, *explain(document, error), *rest]) from None
    registrar = Registrar(document, base, environ)
    connections = registrar.connections(content.connections)
    if problems := problems + registrar.problems:
        raise ConfigError(problems)
    return Registered(connections, _revocations(content.revoked), registrar.warnings)


def problems_of_connections(
    data: Any, document: Document, base: Path, environ: Mapping[str, str]
) -> list[Problem]:
    """What is wrong with those connections whose shape is right, where others are not even that."""
    registrar = Registrar(document, base, environ)
    connections = data.get("connections") if isinstance(data, dict) else None
    for name, entry in connections.items() if isinstance(connections, dict) else ():
        with contextlib.suppress(ValidationError):
            registrar.connections(_ENTRY.validate_python({name: entry}))
    return registrar.problems


def _validated(entries: dict[str, Any]) -> dict[str, ConnectionEntry]:
    """Raises ValidationError. Most entries need no union to be tried."""
    ((name, entry),) = entries.items()
    if isinstance(entry, dict) and "scheme" not in entry and _ID.fullmatch(name):
        with contextlib.suppress(ValidationError):
            return {name: PresignConnection.model_validate(entry)}
    return _ENTRY.validate_python(entries)


class _JsonReader:
    """Reads each connection by itself, and only if it is not what it was the last time."""

    def __init__(
        self, path: Path, environ: Mapping[str, str], base: Path, presets: Presets, memory: Memory
    ) -> None:
        self._path = path
        self._environ = environ
        self._base = base
        self._presets = presets
        self.context = (path, base, presets)
        self._before = memory.known if memory.context == self.context else {}
        self.known: dict[str, _Known] = {}
        self.built = 0
        self.found = Registered()
        self._problems: list[Problem] = []
        self._text = ""

    def read(self, payload: bytes) -> list[Problem]:
        """Everything that is wrong."""
        try:
            self._text = payload.decode("utf-8")
            members.end(self._text, members.each(self._text, 0, self._section))
        except UnicodeDecodeError:
            self._wrong("is not UTF-8")
        except JSONDecodeError as error:
            self._wrong(f"is not JSON at line {error.lineno}, column {error.colno}: {error.msg}")
        except ValueError as error:
            self._wrong(f"is not accepted: {error}")
        return self._problems

    def _wrong(self, message: str) -> None:
        self._problems.append(Problem(str(self._path), 0, 0, "", message))

    def _section(self, name: str, start: int) -> int:
        if name == "connections":
            return members.each(self._text, start, self._connection)
        found, end = members.value(self._text, start)
        document = Document(str(self._path), {name: found})
        try:
            content = RegistryFile.model_validate({name: found})
        except ValidationError as error:
            self._problems += explain(document, error)
        else:
            self.found.revocations = _revocations(content.revoked)
        return end

    def _connection(self, name: str, start: int) -> int:
        text, before = self._text, self._before.get(name)
        if before is not None:
            # As we write it, one connection stands on a line; what has the digest is the whole value.
            end = text.find("\n", start)
            end -= text.startswith(",", end - 1)
            if _digest(text[start:end]) == before.digest:
                self._keep(name, before)
                return end
        found, end = members.value(text, start)
        self._build(name, found, _digest(text[start:end]))
        return end

    def _build(self, name: str, entry: Any, digest: bytes) -> None:
        document = Document(str(self._path), {"connections": {name: entry}})
        data: Any = document.data
        problems: list[Problem] = []
        if not isinstance(entry, dict) or "preset" in entry or "vars" in entry:
            data, problems = with_presets(document, self._presets)
        registrar = Registrar(document, self._base, self._environ)
        try:
            connections = registrar.connections(_validated(data["connections"]))
        except ValidationError as error:
            self._problems += problems + explain(document, error, ("connections",))
            return
        self._problems += problems + registrar.problems
        self.built += 1
        known = _Known(digest, connections[name], tuple(registrar.warnings))
        self._keep(name, known, again=not registrar.contained)

    def _keep(self, name: str, known: _Known, *, again: bool = False) -> None:
        self.found.connections[name] = known.connection
        self.found.warnings += known.warnings
        if not again:
            self.known[name] = known


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def revocations_of(found: Any, path: Path) -> Revocations:
    """The section `revoked` of a registry. Raises ConfigError."""
    try:
        return _revocations(Revoked.model_validate(found))
    except ValidationError as error:
        raise ConfigError(explain(Document(str(path), {"revoked": found}), error, ("revoked",))) from None


def _revocations(revoked: Revoked) -> Revocations:
    return Revocations(
        frozenset(revoked.urls),
        frozenset(revoked.keys),
        frozenset(revoked.connections),
        dict(revoked.added_before),
        frozenset(revoked.ids),
    )
