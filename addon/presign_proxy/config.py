"""From a configuration file to a registry, or to everything that is wrong with the file."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from .connections import Registry
from .document import ConfigError, Document, Location, Problem, read
from .hosts import parse_host
from .presets import providers
from .registering import Registrar
from .schema import Config

DEFAULT_PATH: Final = "config.yaml"
ENVIRONMENT: Final = "PRESIGN_CONFIG"

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
    """A usable configuration."""

    path: Path
    config: Config
    registry: Registry
    warnings: tuple[Problem, ...]


def locate(option: str, environ: Mapping[str, str]) -> Path:
    """Which file is meant: the option, else `$PRESIGN_CONFIG`, else `./config.yaml`."""
    return Path(option or environ.get(ENVIRONMENT) or DEFAULT_PATH).expanduser().absolute()


def load(path: Path, environ: Mapping[str, str], unsigned: str = "config") -> Loaded:
    """Read, check and resolve a configuration.

    Args:
        unsigned: "pass" or "deny" instead of what the file says.

    Raises ConfigError with every problem there is.
    """
    problems = _writable_by_others(path)
    document = read(path)
    if document.data is None:
        # Not the same as saying nothing: a file that is just being written would open what was closed.
        raise ConfigError([*problems, Problem(str(path), 0, 0, "", "is empty")])
    data, preset_problems = _with_presets(document)
    problems += preset_problems
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        problems += [
            _explain(document, detail) for detail in error.errors(include_input=False, include_url=False)
        ]
        problems += _problems_of_the_rest(data, document, path, environ)
        raise ConfigError(problems) from None
    registrar = Registrar(document, path.parent, environ)
    connections = registrar.connections(config)
    hosts = _hosts(config, document, problems)
    problems += registrar.problems
    if problems:
        raise ConfigError(problems)
    wanted = config.gateway.unsigned if unsigned == "config" else unsigned
    registry = Registry(connections, hosts, deny_unsigned=wanted == "deny")
    return Loaded(path, config, registry, tuple(registrar.warnings))


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
            registrar.connections(Config.model_validate({"connections": {name: entry}}))
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


def _writable_by_others(path: Path) -> list[Problem]:
    """Whoever can write the file, or replace it in its directory, can register an upstream of their own."""
    if os.name != "posix":
        return []
    found: list[Problem] = []
    # Where links lead, too: whoever can write there needs no link.
    for place in dict.fromkeys((path, path.parent, path.resolve(), path.resolve().parent)):
        try:
            mode = place.stat().st_mode
        except OSError:
            continue  # reading it will say what is wrong
        sticky = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
        if mode & (stat.S_IWGRP | stat.S_IWOTH) and not sticky:
            what = "the directory" if stat.S_ISDIR(mode) else "the file"
            found.append(Problem(str(place), 0, 0, "", f"{what} is writable by others: chmod go-w {place}"))
    return found


def _with_presets(document: Document) -> tuple[Any, list[Problem]]:
    """The data with each connection's preset filled in below what the connection itself says."""
    data, problems = document.data, list[Problem]()
    connections = data.get("connections") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(connections, dict):
        return data, problems
    filled: dict[str, Any] = {}
    for name, entry in connections.items():
        filled[name] = entry
        if not isinstance(entry, dict) or not isinstance(preset := entry.get("preset"), str):
            continue
        known = providers().get(preset)
        if known is None:
            at = ("connections", name, "preset")
            problems.append(
                document.problem(at, f"there is no such preset: {', '.join(sorted(providers()))}")
            )
        else:
            filled[name] = _fill(entry, known)
    return {**data, "connections": filled}, problems


def _fill(entry: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
    """`auth: {token: …}` puts the key where the provider wants it."""
    filled = {"upstream": preset["upstream"], **entry}
    headers = entry.get("default_headers", {})
    if isinstance(headers, dict):
        filled["default_headers"] = {**preset.get("headers", {}), **headers}
    auth, wanted = entry.get("auth"), preset["auth"]
    if isinstance(auth, dict) and auth.get("type", wanted["type"]) == wanted["type"]:
        rest = {key: value for key, value in auth.items() if key != "token"}
        token = {"token": auth["token"]} if "token" in auth else {}
        if token and wanted["type"] == "header":
            rest = {"headers": {wanted["header"]: auth["token"]}, **rest}
        elif token and wanted["type"] == "query":
            rest = {"params": {wanted["param"]: auth["token"]}, **rest}
        elif token and wanted["type"] == "basic":
            rest = {"username": auth["token"], **rest}
        else:
            rest |= token
        filled["auth"] = {**rest, "type": wanted["type"]}
    return filled


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
