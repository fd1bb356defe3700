"""Load a configuration file: into a registry, or into a list of everything that is wrong with it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from ..config_problems import ConfigError, Problem
from ..core.registry import Registry
from ..core.revocations import Revocations
from ..limits.stores.open import Choice, problem_of
from .build_connections import Registrar
from .build_credentials import FileSecrets
from .gateway_section import doubtful, hosts_of, trusted_of, unsigned_of
from .outside_secrets import Lent
from .pasteable_command import presign
from .permissions import readable_by_others, writable_by_others
from .presets.apply import Presets, with_presets
from .presets.custom import own_presets, read_presets
from .read_files import FileRecord, Seen, see
from .registry_file.build import Registered, problems_of_connections
from .registry_file.memory import Memory
from .salvage import with_the_rest
from .schema.config import Config, LimitsConfig
from .strict_yaml import Document, read
from .tls_certificate import Certificate, advice_on, files_of, read_certificate
from .validation import explain
from .way_out import way_out

UNSIGNED: Final = ("config", "explicit", "closed", "pass", "deny")
"""Values of the option `presign_unsigned`.

config: the file decides; if it says nothing, pass. explicit: the file decides; if it says nothing, deny.
closed: deny, and a file that says pass is refused. pass, deny: this value, whatever the file says.
"""


MAX_WARNINGS: Final = 20
"""The most warnings of one configuration that are logged."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A usable configuration, and the files it was read from."""

    path: Path
    config: Config
    registry: Registry
    warnings: tuple[Problem, ...]
    record: FileRecord
    lent: Lent
    store: Choice
    front: Certificate | None = None
    now: Revocations | None = None
    """What was revoked with `now`, so that what is under way is ended."""

    @property
    def limited(self) -> bool:
        """True if any connection has a limit."""
        return any(one.limits or one.max_uses is not None for one in self.registry.connections.values())

    @property
    def told(self) -> list[str]:
        """The first `MAX_WARNINGS` warnings, and a line about the rest."""
        more = len(self.warnings) - MAX_WARNINGS
        said = [f"and {more} more: `{presign('check', '--config', str(self.path))}`"] if more > 0 else []
        return [*map(str, self.warnings[:MAX_WARNINGS]), *said]


def load(
    path: Path, environ: Mapping[str, str], unsigned: str = "config", memory: Memory | None = None
) -> Loaded:
    """Read, check and resolve a configuration, and the registry file it names.

    Args:
        unsigned: one of `UNSIGNED`.
        memory: of the last load, if there was one.

    Raises ConfigError with all problems.
    """
    memory = memory or Memory()
    return build(see(path, environ, memory), environ, unsigned, memory)


def build(seen: Seen, environ: Mapping[str, str], unsigned: str, memory: Memory) -> Loaded:
    """Build a configuration from its files as they were read. Raises ConfigError with all problems.

    The build is repeated until no secret program is missing. Between two builds, the missing ones run in
    parallel.
    """
    programs = memory.lent.programs
    programs.begin()
    while True:
        memory.lent = memory.lent.for_next_build()
        try:
            loaded = _built(seen, environ, unsigned, memory)
        except ConfigError as error:
            if programs.run(environ):
                continue
            once = list(dict.fromkeys(error.problems))  # files in one directory share its problems
            once.sort(key=lambda problem: (problem.file, problem.line, problem.column))
            raise ConfigError(once) from None
        if not programs.run(environ):
            programs.end()
            return loaded


def _built(seen: Seen, environ: Mapping[str, str], unsigned: str, memory: Memory) -> Loaded:
    """Do one build, with what programs have printed by now."""
    problems: list[Problem] = []
    path = seen.path
    shape = shape_of(path, environ, problems, memory.lent, seen)
    document, config, presets = shape.document, shape.config, shape.presets
    secrets = FileSecrets(document, path.parent, environ, memory.lent)
    connections = Registrar(secrets).connections(config.connections)
    hosts = hosts_of(config, document, problems)
    store, out = _store(config, document, secrets, path.parent), way_out(config, secrets, environ, problems)
    trusted = trusted_of(config, document, problems)
    problems += secrets.problems
    if secrets.holds_secrets:
        secrets.warnings += [
            one._replace(message=f"holds secrets, and {one.message}") for one in readable_by_others(path)
        ]
    warnings, revocations = secrets.warnings, Revocations()
    if config.registry is not None:
        found = _registered(seen, environ, presets, problems)
        for name in found.connections.keys() & connections.keys():
            at = ("connections", name)
            problems.append(document.problem(at, f"the registry file {config.registry.file} has this id too"))
        connections |= found.connections
        revocations, warnings = found.revocations, [*warnings, *found.warnings, *seen.warnings]
    front = _front(seen, config, document, problems)
    wanted = unsigned_of(config, unsigned, document, problems, warnings)
    if problems:
        raise ConfigError(problems)
    warnings = [*warnings, *doubtful(config, hosts, document), *advice_on(front, hosts, document)]
    registry = Registry(
        revocations.applied(connections),
        hosts,
        deny_unsigned=wanted != "pass",  # any other value denies
        revoked=revocations,
        trusted_proxies=trusted,
        way_out=out,
        tls_only=config.gateway.tls_only,
    )
    record = seen.record()
    return Loaded(path, config, registry, tuple(warnings), record, memory.lent, store, front, revocations.now)


def _front(seen: Seen, config: Config, document: Document, problems: list[Problem]) -> Certificate | None:
    """Return the certificate of the gateway's own names, whose files are watched from now on."""
    seen.look_at(files_of(config.gateway.tls, seen.path.parent))
    return read_certificate(config.gateway.tls, seen.path.parent, document, problems)


def _registered(
    seen: Seen, environ: Mapping[str, str], presets: Presets, problems: list[Problem]
) -> Registered:
    """Return the content of the registry; an empty one if it adds to the problems."""
    if seen.registry is None:
        problems += seen.wrong
        return Registered()
    problems += writable_by_others(seen.registry.path)
    try:
        return seen.registry.build(environ, seen.path.parent, presets)
    except ConfigError as error:
        problems += error.problems
        return Registered()


class Shape(NamedTuple):
    """A configuration that matches the schema, before any of its secrets is read."""

    document: Document
    config: Config
    presets: Presets


def shape_of(
    path: Path,
    environ: Mapping[str, str],
    problems: list[Problem],
    lent: Lent | None = None,
    seen: Seen | None = None,
) -> Shape:
    """Check a configuration against the schema, adding to the problems. Raises ConfigError if it fails.

    Args:
        lent: the secrets from outside; None if no program is to run.
        seen: the files, if they were read before.
    """
    problems += writable_by_others(path)
    document = seen.document if seen is not None else _read(path, environ, problems)
    if document is None:
        raise ConfigError([*problems, *_unread(path, seen.unread if seen else [], environ, lent)])
    if document.data is None:
        # An empty file is an error, not an empty configuration: a file that is caught while it is being
        # written must not lift restrictions.
        raise ConfigError([*problems, Problem(str(path), 0, 0, "", "is empty")])
    own = own_presets(document, path.parent)
    if seen is not None:
        seen.look_at(own)
    presets = read_presets(own, problems)
    config = _validated(document, path, environ, problems, presets, lent or Lent(strict=True))
    return Shape(document, config, presets)


def _read(path: Path, environ: Mapping[str, str], problems: list[Problem]) -> Document:
    """Read the file. Raises ConfigError, with the problems that are known already."""
    try:
        return read(path)
    except ConfigError as error:
        raise ConfigError([*problems, *_unread(path, error.problems, environ, None)]) from None


def _unread(
    path: Path, unread: list[Problem], environ: Mapping[str, str], lent: Lent | None
) -> list[Problem]:
    """Return why a file cannot be read; after a syntax error, also what is wrong in its readable rest."""

    def judged(document: Document) -> list[Problem]:
        if document.data is None:
            return []
        found: list[Problem] = []
        presets = read_presets(own_presets(document, path.parent), found)
        try:
            config = _validated(document, path, environ, found, presets, lent or Lent(strict=True))
        except ConfigError as error:
            return error.problems
        secrets = FileSecrets(document, path.parent, environ, lent or Lent(strict=True))
        Registrar(secrets).connections(config.connections)
        return found + secrets.problems

    return with_the_rest(path, unread, judged)


def store_choice(wanted: LimitsConfig, secrets: FileSecrets, base: Path) -> Choice:
    """Return the choice of the store that the section `limits` names."""
    password = secrets.secret(("limits", "password"), wanted.password) if wanted.password else None
    return Choice(wanted.store, base, password, wanted.ca)


def _store(config: Config, document: Document, secrets: FileSecrets, base: Path) -> Choice:
    choice = store_choice(config.limits, secrets, base)
    if wrong := problem_of(choice):
        secrets.problems.append(document.problem(("limits", "store"), wrong))
    if choice.path is not None:
        secrets.problems += writable_by_others(choice.path)
    return choice


def _validated(
    document: Document,
    path: Path,
    environ: Mapping[str, str],
    problems: list[Problem],
    presets: Presets,
    lent: Lent,
) -> Config:
    """Return the document as a model. Raises ConfigError, with the problems that are known already."""
    data, ill_filled = with_presets(document, presets)
    problems += ill_filled
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        problems += explain(document, error)
        problems += _problems_of_the_rest(data, document, path, environ, lent)
        raise ConfigError(problems) from None


def _problems_of_the_rest(
    data: Any, document: Document, path: Path, environ: Mapping[str, str], lent: Lent
) -> list[Problem]:
    """Return the problems in the parts that match the schema, so that all are reported at once."""
    problems: list[Problem] = []
    gateway = data.get("gateway") if isinstance(data, dict) else None
    for key, check in (("hosts", hosts_of), ("trusted_proxies", trusted_of)):
        given = gateway.get(key) if isinstance(gateway, dict) else None
        with contextlib.suppress(ValidationError):
            check(Config.model_validate({"gateway": {key: given}}), document, problems)
    return problems + problems_of_connections(data, document, path.parent, environ, lent)
