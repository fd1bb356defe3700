"""Presets guessed from the names and values of variables, and the connections that these make."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..config.auth_types import GROUPS
from ..config.secret_sources import SecretError, checked
from .env_file import Variable

_SUFFIX: Final = re.compile(r"_(API_KEY|API_TOKEN|ACCESS_TOKEN|AUTH_TOKEN|SECRET_KEY|TOKEN|KEY)")
_SHORTEST: Final = 20
"""Characters of the shortest value that is taken for a key by how it begins."""


@dataclass(slots=True)
class Guesses:
    """What the variables of a file are for."""

    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Connections by preset, without signing keys."""
    sources: dict[str, list[str]] = field(default_factory=dict)
    """The variables of each."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Variables that are of a provider and make no connection, each with the reason."""
    unknown: list[str] = field(default_factory=list)


def guesses(
    variables: Mapping[str, Variable], presets: Mapping[str, dict[str, Any]], told: Mapping[str, str]
) -> Guesses:
    """Sort out the variables.

    Args:
        told: presets that the user named for variables; "" leaves a variable out.
    """
    found = Guesses()
    meant: dict[str, list[str]] = {}
    for name in variables:
        preset = told[name] if name in told else _preset(name, presets) or _shaped(variables[name], presets)
        if preset:
            meant.setdefault(preset, []).append(name)
        elif name not in told:
            found.unknown.append(name)
    for preset, names in meant.items():
        _add(found, preset, presets[preset], names, variables)
    return found


def _preset(name: str, presets: Mapping[str, dict[str, Any]]) -> str:
    """Return the preset that a variable belongs to, or "". A provider's own name for it comes first."""
    for preset, known in presets.items():
        if name in known.get("env", ()):
            return preset
    if (plain := name.lower().replace("_", "-")) in presets:
        return plain  # {openai: sk-…}
    stem = _SUFFIX.search(name)
    word = name[: stem.start()].lower().replace("_", "-") if stem and stem.end() == len(name) else ""
    return word if word in presets else ""


def _shaped(variable: Variable, presets: Mapping[str, dict[str, Any]]) -> str:
    """Return the preset whose keys begin as a value does, or "" where several have keys like it."""
    if variable.refers or len(variable.value) < _SHORTEST:
        return ""
    fitting = [
        (shape, preset)
        for preset, known in presets.items()
        if known.get("env")
        for shape in known.get("key_shapes", ())
        if variable.value.startswith(shape)
    ]
    longest = max((len(shape) for shape, _ in fitting), default=0)
    found = [preset for shape, preset in fitting if len(shape) == longest]
    # Two presets may be of one provider, which has one variable for its key.
    return found[0] if len({presets[preset]["env"][0] for preset in found}) == 1 else ""


def _add(
    found: Guesses, preset: str, known: dict[str, Any], names: list[str], variables: Mapping[str, Variable]
) -> None:
    asks = list(known["auth"].get("asks", ()))
    wanted = list(known.get("env", ()))
    if known.get("vars"):
        why = f"{preset} needs --var {', '.join(known['vars'])}: add it with `connections add`"
    elif asks and (len(wanted) != len(asks) or set(wanted) != set(names)):
        why = f"{preset} needs {', '.join(asks)}: add it with `connections add`"
    else:
        used, rest = (wanted, []) if asks else (names[:1], names[1:])
        bad = {name: wrong for name in used if (wrong := _wrong(name, variables[name]))}
        found.left_out |= bad
        if not bad:
            secrets = [variables[name].value for name in used]
            found.entries[preset] = {"preset": preset, "auth": _auth(known["auth"]["type"], asks, secrets)}
            found.sources[preset] = used
        found.left_out |= dict.fromkeys(rest, f"{preset} has {used[0]} already")
        return
    found.left_out |= dict.fromkeys(names, why)


def _auth(kind: str, asks: list[str], secrets: list[str]) -> dict[str, Any]:
    if not asks:
        return {"token": secrets[0]}
    given = dict(zip(asks, secrets, strict=True))
    return {"type": kind, **({GROUPS[kind]: given} if kind in GROUPS else given)}


def _wrong(name: str, variable: Variable) -> str:
    """Return why the value is no secret; "" if it may be one."""
    if variable.refers:
        return "refers to another variable or a program, which is not looked up"
    try:
        checked(variable.value, name)
    except SecretError as error:
        return str(error).removeprefix(f"{name} ")
    return ""
