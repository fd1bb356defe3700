"""From a configuration file to a registry, or to everything that is wrong with the file."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from .connections import Connection, Registry
from .document import ConfigError, Document, Location, Problem, read
from .filling import Presets, with_presets
from .hosts import parse_host
from .permissions import readable_by_others, writable_by_others
from .presets import providers
from .presets.model import PresetsFile
from .registering import Registrar
from .schema import PRESETS_FILE, Config, RegistryFile
from .watching import Version, version_of

DEFAULT_PATH: Final = "config.yaml"
ENVIRONMENT: Final = "PRESIGN_CONFIG"

UNSIGNED: Final = ("config", "pass", "deny")
"""What the option `presign_unsigned` may say."""

# pydantic speaks to programmers; these are its few messages that people meet, said plainly.
_PLAINLY: Final = {
    "missing": "is required",
    "extra_forbidden": "is not a key that is known here",
    "union_tag_not_found": "is required: one of bearer, basic, header, query",
    "union_tag_invalid": "is not one of bearer, basic, header, query",
    "bool_type": "is true or false",
    "string_type": "is text: put it in quotes",
    "int_type": "is a whole number",
    "list_type": "is a list",
    "dict_type": "is a mapping",
    "model_type": "is a mapping",
    "model_attributes_type": "is a mapping",
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A usable configuration, and the files it was read from."""

    path: Path
    config: Config
    registry: Registry
    warnings: tuple[Problem, ...]
    files: tuple[Path, ...]
    version: Version
    """Of the files, taken before they were read."""


def locate(option: str, environ: Mapping[str, str]) -> Path:
    """Which file is meant: the option, else `$PRESIGN_CONFIG`, else `./config.yaml`."""
    path = Path(option or environ.get(ENVIRONMENT) or DEFAULT_PATH)
    with contextlib.suppress(RuntimeError):  # no such user: the file will not be found
        path = path.expanduser()
    return path.absolute()


def load(path: Path, environ: Mapping[str, str], unsigned: str = "config") -> Loaded:
    """Read, check and resolve a configuration, and the registry file it names.

    Args:
        unsigned: "pass" or "deny" instead of what the file says.

    Raises ConfigError with every problem there is.
    """
    problems = writable_by_others(path)
    version = version_of([path])
    document = _read(path, problems)
    own = _own_presets(document, path.parent)
    version += version_of(own)
    presets = _presets(own, problems)
    config = _validated(Config, document, path, environ, problems, presets)
    registrar = Registrar(document, path.parent, environ)
    connections = registrar.connections(config.connections)
    hosts = _hosts(config, document, problems)
    problems += registrar.problems
    warnings, files = registrar.warnings, [path, *own]
    if config.registry is not None:
        other = path.parent / config.registry.file
        files.append(other)
        version += version_of([other])
        found, more = _registered(other, path.parent, environ, problems, presets)
        for name in found.keys() & connections.keys():
            at = ("connections", name)
            problems.append(document.problem(at, f"the registry file {config.registry.file} has this id too"))
        connections |= found
        warnings = [*warnings, *more]
    if problems:
        raise ConfigError(sorted(problems, key=lambda problem: (problem.file, problem.line, problem.column)))
    warnings = [*warnings, *_without_effect(config, document)]
    wanted = config.gateway.unsigned if unsigned == "config" else unsigned
    # Whatever is not plainly "pass" denies.
    registry = Registry(connections, hosts, deny_unsigned=wanted != "pass")
    return Loaded(path, config, registry, tuple(warnings), tuple(files), version)


def _without_effect(config: Config, document: Document) -> list[Problem]:
    """What is accepted so that a configuration can be written ahead, and does nothing yet."""
    said = {
        ("gateway", "trusted_proxies"): bool(config.gateway.trusted_proxies),
        ("limits",): config.limits is not None,
        ("admin",): config.admin is not None,
    }
    return [document.problem(at, "has no effect yet") for at, is_said in said.items() if is_said]


def _own_presets(document: Document, base: Path) -> list[Path]:
    """The file of presets that a configuration names, if it does."""
    named = document.data.get("presets") if isinstance(document.data, dict) else None
    return [base / named] if isinstance(named, str) and re.fullmatch(PRESETS_FILE, named) else []


def _presets(own: list[Path], problems: list[Problem]) -> Presets:
    """The presets that connections may name: the built-in ones, and those of one's own."""
    known = dict(providers())
    for path in own:
        problems += writable_by_others(path)
        try:
            document = _read(path, [])
        except ConfigError as error:
            problems += error.problems
            return Presets(known, complete=False)
        try:
            found = PresetsFile.model_validate(document.data).presets
        except ValidationError as error:
            details = error.errors(include_input=False, include_url=False)
            problems += [_explain(document, detail) for detail in details]
            return Presets(known, complete=False)
        for name in found.keys() & known.keys():
            problems.append(document.problem(("presets", name), "is the name of a built-in preset"))
        known = {name: preset.model_dump(exclude_defaults=True) for name, preset in found.items()} | known
    return Presets(known)


def _registered(
    path: Path, base: Path, environ: Mapping[str, str], problems: list[Problem], presets: Presets
) -> tuple[dict[str, Connection], list[Problem]]:
    """The connections of a plain registry file, and what to warn of."""
    problems += writable_by_others(path) + readable_by_others(path)
    document = _read(path, problems)
    content = _validated(RegistryFile, document, base / path.name, environ, problems, presets)
    registrar = Registrar(document, base, environ)
    connections = registrar.connections(content.connections)
    problems += registrar.problems
    return connections, registrar.warnings


def _read(path: Path, problems: list[Problem]) -> Document:
    """Raises ConfigError, with the problems that are known already."""
    try:
        document = read(path)
    except ConfigError as error:
        raise ConfigError([*problems, *error.problems]) from None
    if document.data is None:
        # Not the same as saying nothing: a file that is just being written would open what was closed.
        raise ConfigError([*problems, Problem(str(path), 0, 0, "", "is empty")])
    return document


def _validated[Model: (Config, RegistryFile)](
    model: type[Model],
    document: Document,
    path: Path,
    environ: Mapping[str, str],
    problems: list[Problem],
    presets: Presets,
) -> Model:
    """The document as a model. Raises ConfigError, with the problems that are known already."""
    data, ill_filled = with_presets(document, presets)
    problems += ill_filled
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_input=False, include_url=False)
        problems += [_explain(document, detail) for detail in details]
        problems += _problems_of_the_rest(data, document, path, environ)
        raise ConfigError(problems) from None


def _problems_of_the_rest(
    data: Any, document: Document, path: Path, environ: Mapping[str, str]
) -> list[Problem]:
    """What else is wrong with the connections whose shape is right, so that all is told at once."""
    registrar = Registrar(document, path.parent, environ)
    gateway = data.get("gateway") if isinstance(data, dict) else None
    hosts = gateway.get("hosts") if isinstance(gateway, dict) else None
    with contextlib.suppress(ValidationError):
        _hosts(Config.model_validate({"gateway": {"hosts": hosts}}), document, registrar.problems)
    connections = data.get("connections") if isinstance(data, dict) else None
    for name, entry in connections.items() if isinstance(connections, dict) else ():
        with contextlib.suppress(ValidationError):
            registrar.connections(RegistryFile.model_validate({"connections": {name: entry}}).connections)
    return registrar.problems


def _hosts(config: Config, document: Document, problems: list[Problem]) -> frozenset[str]:
    found = set()
    for index, name in enumerate(config.gateway.hosts):
        host = parse_host(name)
        if host is None:
            problems.append(document.problem(("gateway", "hosts", index), "is not a host name or address"))
        else:
            found.add(host)
    return frozenset(found)


def _explain(document: Document, detail: Any) -> Problem:
    """One of pydantic's errors, at the place in the file it is about."""
    location: list[str | int] = []
    data: Any = document.data
    for step in detail["loc"]:
        inside = (isinstance(data, dict) and step in data) or (
            isinstance(data, list) and isinstance(step, int) and step < len(data)
        )
        if inside:
            data = data[step]
            location.append(step)
        elif step == detail["loc"][-1] and detail["type"] in ("missing", "extra_forbidden"):
            location.append(step)
        # Any other step is the tag of a union, which is not in the file.
    at: Location = tuple(location)
    if detail["type"] == "union_tag_invalid" and len(at) == 2:
        return document.problem((*at, "scheme"), "is presign or source")
    if detail["type"].startswith("union_tag"):
        at = (*at, "type")
    message = _PLAINLY.get(detail["type"], detail["msg"].removeprefix("Value error, "))
    return document.problem(at, message[:1].lower() + message[1:])
