"""The registry's file: connections that the command manages, and what is revoked; encrypted, or plain."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from json.decoder import JSONDecodeError
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from pydantic import TypeAdapter, ValidationError

from ...core.connection import Connection
from ...core.revocations import Revocations
from ...problems import ConfigError, Problem
from ...signing import grammar
from .. import strict_json
from ..build_connections import Registrar
from ..outside_secrets import Lent
from ..presets.apply import Presets, with_presets
from ..schema.config import RegistryConfig
from ..schema.connections import ConnectionEntry, PresignConnection
from ..schema.registry import RegistryFile, Revoked
from ..schema.values import ConnectionId
from ..strict_yaml import Document, parse
from ..validation import explain
from ..whole_file import Form
from . import taken_back
from .encryption import VaultError
from .open import Payload, RegistryPlace, openers_of, read_payload
from .storage import StoreError

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
    """What was read of a configuration: after a change of one connection, only that one is read again."""

    context: tuple[Path, Path, Presets] | None = None
    known: dict[str, _Known] = field(default_factory=dict)
    forms: dict[Path, Form] = field(default_factory=dict)
    """Of the YAML files that are in force."""
    place: RegistryConfig | None = None
    """Of the registry that is in force."""
    lent: Lent = field(default_factory=lambda: Lent(strict=True))
    """Secrets from outside of the files, for the configuration as well."""


@dataclass(slots=True)
class Registered:
    """The content of a registry."""

    connections: dict[str, Connection] = field(default_factory=dict)
    revocations: Revocations = field(default_factory=Revocations)
    warnings: list[Problem] = field(default_factory=list)


class SeenRegistry:
    """The file of a registry, read and taken apart; nothing is built of it yet, and no secret is read.

    `digest` is of its file. `form` is what tells whether it is whole, None where it could not be read else.
    """

    def __init__(self, path: Path, payload: Payload, *, sealed: bool, memory: Memory) -> None:
        self.path = path
        self.digest = payload.digest
        self.form: Form | None = None
        self._payload = payload.plain
        self._sealed = sealed
        self._memory = memory
        self._context = memory.context
        """With what those entries were built that are kept."""
        self._document: Document | None = None
        self._problems: list[Problem] = []
        self._entries = _Entries(path, memory.known if self._is_known() else {})
        if not sealed and path.suffix in _YAML:
            self._parse()
        else:
            self._problems = self._entries.read(payload.plain)

    def _is_known(self) -> bool:
        context = self._memory.context
        return context is not None and context[0] == self.path

    def _parse(self) -> None:
        try:
            self._document = parse(self._payload, str(self.path))
        except ConfigError as error:
            self._problems = error.problems
        else:
            self.form = self._document.form

    @property
    def is_complete(self) -> bool:
        """Whether what is not in it is not in the registry."""
        return not self._problems

    def taken_back(self) -> Revocations:
        """What it says to be revoked or disabled, as far as it could be read."""
        if self._document is not None:
            return taken_back.said(self._document.data)
        return self._entries.taken_back()

    def present(self) -> dict[str, frozenset[str]] | None:
        """Its connections, and the ids of their keys; None where it has no section of them."""
        if self._document is not None:
            return taken_back.present(self._document.data)
        return self._entries.present()

    def build(self, environ: Mapping[str, str], base: Path, presets: Presets) -> Registered:
        """Build its connections; the memory is brought up to date where everything is well.

        Args:
            base: the directory from which relative paths in it count.

        Raises ConfigError with everything that is wrong.
        """
        memory = self._memory
        if self._document is not None:
            return _from_yaml(self._document, self.path, environ, base, presets, memory)
        if self._problems:
            self._refuse(self._problems, environ, base, presets)
        context = (self.path, base, presets)
        if self._context != context and self._entries.kept:
            self._entries = _Entries(self.path, {})  # what was built with other presets is another one
            self._entries.read(self._payload)
        builder = _Builder(self.path, environ, base, presets, memory)
        problems = builder.build(self._entries)
        if problems:
            self._refuse(problems, environ, base, presets)
        before, memory.context, memory.known = memory.known, context, builder.known
        # Where it is built once more, because a program had to run first.
        self._context = context
        self._entries.keep(builder.known)
        while before:  # all at once, it would be noticed
            before.popitem()
        return builder.found

    def _refuse(
        self, problems: list[Problem], environ: Mapping[str, str], base: Path, presets: Presets
    ) -> NoReturn:
        """Raises ConfigError."""
        if not self._sealed and self.path.suffix not in _YAML:
            # Every JSON is YAML, and YAML has line numbers.
            again = parse(self._payload, str(self.path))
            _from_yaml(again, self.path, environ, base, presets, self._memory)
        raise ConfigError(problems)


def see_registry(
    path: Path, config: RegistryPlace, environ: Mapping[str, str], base: Path, memory: Memory
) -> SeenRegistry:
    """Read a registry's file.

    Args:
        base: the directory from which relative paths count.
        memory: of the last time.

    Raises ConfigError where it cannot be opened; what is wrong inside is told by `SeenRegistry.build`.
    """
    try:
        openers = openers_of(config, base, environ)
        payload = read_payload(path, openers)
    except (StoreError, VaultError) as error:
        raise ConfigError([Problem(str(path), 0, 0, "", str(error))]) from None
    return SeenRegistry(path, payload, sealed=openers is not None, memory=memory)


def _from_yaml(
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
    registrar = Registrar(document, base, environ, memory.lent)
    connections = registrar.connections(content.connections)
    if problems := problems + registrar.problems:
        raise ConfigError(problems)
    return Registered(connections, _revocations(content.revoked), registrar.warnings)


def problems_of_connections(
    data: Any, document: Document, base: Path, environ: Mapping[str, str], lent: Lent
) -> list[Problem]:
    """What is wrong with those connections whose shape is right, where others are not even that."""
    registrar = Registrar(document, base, environ, lent.anew(strict=True))
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


class _Entries:
    """The parts of a registry in JSON; connections that are what they were before are not read."""

    def __init__(self, path: Path, before: dict[str, _Known]) -> None:
        self._path = path
        self.before = before
        self.kept: dict[str, _Known] = {}
        self.fresh: dict[str, tuple[Any, bytes]] = {}
        """Entries that were not there before, each with the digest of its text."""
        self.names: list[str] = []
        self.sections: dict[str, Any] = {}
        self._has_connections = False
        self._problems: list[Problem] = []
        self._text = ""

    def read(self, payload: bytes) -> list[Problem]:
        """Everything that is wrong with its grammar."""
        try:
            self._text = payload.decode("utf-8")
            strict_json.end(self._text, strict_json.each(self._text, 0, self._section))
        except UnicodeDecodeError:
            self._wrong("is not UTF-8")
        except JSONDecodeError as error:
            self._wrong(f"is not JSON at line {error.lineno}, column {error.colno}: {error.msg}")
        except ValueError as error:
            self._wrong(f"is not accepted: {error}")
        self._text = ""
        return self._problems

    def keep(self, known: dict[str, _Known]) -> None:
        """These are built, and are not fresh any more."""
        for name in self.fresh.keys() & known.keys():
            del self.fresh[name]
            self.kept[name] = known[name]

    def taken_back(self) -> Revocations:
        disabled = [name for name, known in self.kept.items() if not known.connection.enabled]
        disabled += [name for name, (entry, _) in self.fresh.items() if taken_back.is_disabled(entry)]
        return taken_back.said(self.sections) | Revocations(connections=frozenset(disabled))

    def present(self) -> dict[str, frozenset[str]] | None:
        if not self._has_connections:
            return None
        found = {name: known.connection.key_ids for name, known in self.kept.items()}
        found.update((name, taken_back.keys_of(entry)) for name, (entry, _) in self.fresh.items())
        return found

    def _wrong(self, message: str) -> None:
        self._problems.append(Problem(str(self._path), 0, 0, "", message))

    def _section(self, name: str, start: int) -> int:
        if name == "connections":
            self._has_connections = True
            return strict_json.each(self._text, start, self._connection)
        self.sections[name], end = strict_json.value(self._text, start)
        return end

    def _connection(self, name: str, start: int) -> int:
        text, before = self._text, self.before.get(name)
        self.names.append(name)
        if before is not None:
            # As we write it, one connection stands on a line; what has the digest is the whole value.
            end = text.find("\n", start)
            end -= text.startswith(",", end - 1)
            if _digest(text[start:end]) == before.digest:
                self.kept[name] = before
                return end
        found, end = strict_json.value(text, start)
        self.fresh[name] = found, _digest(text[start:end])
        return end


class _Builder:
    """Builds each connection by itself, and only if it is not what it was the last time."""

    def __init__(
        self, path: Path, environ: Mapping[str, str], base: Path, presets: Presets, memory: Memory
    ) -> None:
        self._path = path
        self._environ = environ
        self._base = base
        self._presets = presets
        self._lent = memory.lent
        self.known: dict[str, _Known] = {}
        self.found = Registered()
        self._problems: list[Problem] = []

    def build(self, entries: _Entries) -> list[Problem]:
        """Everything that is wrong."""
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
        registrar = Registrar(document, self._base, self._environ, self._lent)
        try:
            connections = registrar.connections(_validated(data["connections"]))
        except ValidationError as error:
            self._problems += problems + explain(document, error, ("connections",))
            return
        self._problems += problems + registrar.problems
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
