"""The operator's workspace: the configuration, the registry, and single connections from them.

It works offline. It reads no credentials, and signing secrets only of the connection that is requested.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from ..config.build_connections import Registrar
from ..config.build_credentials import FileSecrets
from ..config.load import Shape, shape_of
from ..config.path import DEFAULT_PATH, ENVIRONMENT
from ..config.presets.apply import Presets, with_presets
from ..config.presets.builtin import providers
from ..config.registry_file.build import revocations_of
from ..config.registry_file.edit import Draft
from ..config.registry_file.encryption import Opener, VaultError
from ..config.registry_file.open import openers_of
from ..config.schema.config import Config
from ..config.schema.connections import ConnectionEntry
from ..config.schema.values import ConnectionId
from ..config.strict_yaml import Document
from ..config.validation import explain
from ..config.way_out import way_out
from ..config_problems import ConfigError, Problem
from ..core.connection import Connection
from ..core.registry import Registry
from ..core.revocations import Revocations
from ..core.way_out import WayOut
from ..http.hosts import parse_host
from ..http.networks import parse_network
from ..similar_names import did_you_mean
from .hints import quoted
from .place import Failure, Place

__all__ = ["Entry", "Failure", "Workspace"]

_MANY: Final = 2000
_ELSEWHERE: Final = f"name its file with --config or {ENVIRONMENT}"
_ENTRY: TypeAdapter[dict[str, Any]] = TypeAdapter(dict[ConnectionId, ConnectionEntry])


@dataclass(frozen=True, slots=True)
class Entry:
    """One connection as written in a file. `managed` means that the file is the registry."""

    id: str
    data: dict[str, Any]
    document: Document
    managed: bool


def no_configuration(path: Path) -> ConfigError:
    """Return the error for a configuration that is not there."""
    hint = "is the path right?"
    if path.name == DEFAULT_PATH:
        hint = f"{quoted('init')} makes one. For a gateway elsewhere, {_ELSEWHERE}"
    return ConfigError([Problem(str(path), 0, 0, "", f"no such file; {hint}")])


class Workspace(Place):
    """The operator's view of one configuration, which is read on first use."""

    @cached_property
    def _shape(self) -> Shape:
        if not self.exists:
            raise no_configuration(self.path)
        problems: list[Problem] = []
        shape = shape_of(self.path, self.environ, problems)
        if problems:
            raise ConfigError(problems)
        return shape

    @property
    def config(self) -> Config:
        """The configuration, checked for its shape, without any secrets read. Raises ConfigError."""
        return self._shape.config

    @property
    def presets(self) -> Presets:
        """The built-in presets, and those of the configuration if there is one."""
        return self._shape.presets if self.exists else Presets(providers())

    @cached_property
    def openers(self) -> list[Opener] | None:
        """The keys that open the registry. Raises ConfigError if there is no registry, or no key."""
        if self.config.registry is None:
            why = "names no registry file: `registry: {file: connections.enc, key: …}`"
            raise ConfigError([Problem(str(self.path), 0, 0, "registry", why)])
        try:
            return openers_of(self.config.registry, self.base, self.environ)
        except VaultError as error:
            raise ConfigError([Problem(str(self.path), 0, 0, "registry.key", str(error))]) from None

    @property
    def registry_path(self) -> Path:
        if self.config.registry is None:
            raise LookupError("there is no registry")
        return self.base / self.config.registry.file

    @cached_property
    def draft(self) -> Draft | None:
        """The content of the registry, for reading only; None if no registry is configured."""
        if self.config.registry is None:
            return None
        return Draft.read(self.registry_path, self.openers)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """The connections of both files, by id."""
        document = self._shape.document
        data = document.data if isinstance(document.data, dict) else {}
        own = data.get("connections") or {}
        found = {name: Entry(name, entry, document, managed=False) for name, entry in own.items()}
        if self.draft is not None:
            beside = Document(str(self.draft.path), {})
            for name, entry in self.draft.connections.items():
                found[name] = Entry(name, entry, beside, managed=True)
        return found

    def entry(self, name: str) -> Entry:
        """Return the connection with this id. Raises Failure."""
        found = self.entries.get(name)
        if found is None:
            hint = did_you_mean(name, self.entries) or f"{quoted('connections', 'list')} shows them"
            raise Failure(f"there is no connection {name[:64]!r}: {hint}")
        return found

    def filled(self, entry: Entry) -> dict[str, Any]:
        """Return the entry with its preset filled in. Raises ConfigError."""
        document = Document(
            entry.document.file, {"connections": {entry.id: entry.data}}, entry.document.marks
        )
        data, problems = with_presets(document, self.presets)
        if problems:
            raise ConfigError(problems)
        found: dict[str, Any] = data["connections"][entry.id]
        return found

    def model(self, entry: Entry) -> ConnectionEntry:
        """Return the validated model of an entry. Raises ConfigError."""
        data = {entry.id: self.filled(entry)}
        document = Document(entry.document.file, {"connections": data}, entry.document.marks)
        try:
            found: ConnectionEntry = _ENTRY.validate_python(data)[entry.id]
        except ValidationError as error:
            raise ConfigError(explain(document, error, ("connections",))) from None
        return found

    def connection(self, entry: Entry) -> Connection:
        """Return the connection with its signing keys and revocations, without its credential.

        Raises ConfigError, also for a signing secret that is not available here.
        """
        return self.revocations.applied({entry.id: self.unrevoked(entry)})[entry.id]

    def unrevoked(self, entry: Entry) -> Connection:
        """Return the connection without revocations; the registry need not exist yet. Raises ConfigError."""
        document = Document(entry.document.file, None, entry.document.marks)
        secrets = FileSecrets(document, self.base, self.environ, offline=True)
        found = Registrar(secrets).connections({entry.id: self.model(entry)})
        if secrets.problems:
            raise ConfigError(secrets.problems)
        return found[entry.id]

    @cached_property
    def revocations(self) -> Revocations:
        return revocations_of(self.draft.content("revoked"), self.draft.path) if self.draft else Revocations()

    def hosts(self) -> frozenset[str]:
        """Return the names of the gateway."""
        return frozenset(host for name in self.config.gateway.hosts if (host := parse_host(name)))

    def registry(self, named: frozenset[str] = frozenset()) -> tuple[Registry, list[str]]:
        """Return the connections that are readable here, and a sentence for each that is not.

        Args:
            named: in a large registry, only these connections are read.
        """
        found: dict[str, Connection] = {}
        left_out: list[str] = []
        wanted = list(self.entries.values())
        if len(wanted) > _MANY:
            left_out.append(f"Of {len(wanted)} connections, only those that the request names were checked.")
            wanted = [self.entries[name] for name in named & self.entries.keys()]
        for entry in wanted:
            try:
                found[entry.id] = self.connection(entry)
            except ConfigError as error:
                left_out += [f"{entry.id} was left out: {problem}" for problem in error.problems]
        registry = Registry(
            found,
            self.hosts(),
            deny_unsigned=self.config.gateway.unsigned != "pass",
            revoked=self.revocations,
            trusted_proxies=tuple(filter(None, map(parse_network, self.config.gateway.trusted_proxies))),
            way_out=self.way_out(),
            tls_only=self.config.gateway.tls_only,
        )
        return registry, left_out

    def way_out(self) -> WayOut:
        """Return the way to upstreams, without the password of a proxy."""
        secrets = FileSecrets(Document(str(self.path)), self.base, self.environ, offline=True)
        return way_out(self.config, secrets, self.environ, [])
