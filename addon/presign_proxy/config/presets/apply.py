"""Fill presets into connections. What a connection says itself takes precedence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ...config_problems import Location, Problem
from ...similar_names import did_you_mean
from ..auth_types import AUTH_TYPES
from ..pasteable_command import presign
from ..strict_yaml import Document
from .builtin import upstreams_of
from .model import LABEL, VARIABLE

# Placeholders used after a problem was reported, so that the rest can still be checked. Such a configuration
# is never used. Even if it were, no name under .invalid resolves (RFC 6761, 6.4).
_NOWHERE: Final = "https://preset.invalid"
_NOTHING: Final = "-"
_CONDUCT: Final = (
    "allow_encoded_slash",
    "challenge",
    "key_shapes",
    "key_slots",
    "redirects",
    "url_headers",
    "websocket",
)
"""Members that a connection takes from its preset unless it has them itself."""


@dataclass(frozen=True, slots=True)
class Presets:
    """The presets that connections may name. Not `complete` if some could not be read; that was reported."""

    known: Mapping[str, dict[str, Any]]
    complete: bool = True


def with_presets(document: Document, presets: Presets) -> tuple[Any, list[Problem]]:
    """Return the data with the preset of each connection filled in, and the problems.

    What a connection says itself takes precedence. Use the data only if there are no problems.
    """
    data, problems = document.data, list[Problem]()
    connections = data.get("connections") if isinstance(data, dict) else None
    if not isinstance(data, dict) or not isinstance(connections, dict):
        return data, problems
    filled: dict[str, Any] = {}
    for name, entry in connections.items():
        filled[name] = entry
        if isinstance(entry, dict) and entry.get("scheme") != "source":
            filled[name] = _Filling(document, ("connections", name), problems).by_name(entry, presets)
    return {**data, "connections": filled}, problems


def _near(name: str, known: Mapping[str, Any]) -> str:
    return ": " + (did_you_mean(name, known) or f"`{presign('presets')}` lists them")


@dataclass(frozen=True, slots=True)
class _Filling:
    """Fills the preset into one connection and collects the problems."""

    document: Document
    at: Location
    problems: list[Problem]

    def wrong(self, at: Location, message: str) -> None:
        self.problems.append(self.document.problem((*self.at, *at), message))

    def by_name(self, entry: dict[str, Any], presets: Presets) -> dict[str, Any]:
        preset = entry.get("preset")
        if not isinstance(preset, str):
            if "vars" in entry:
                self.wrong(("vars",), "has no effect without a preset: remove it")
            return entry
        if preset in presets.known:
            return self.fill(entry, presets.known[preset])
        if presets.complete:
            self.wrong(("preset",), f"there is no such preset{_near(preset, presets.known)}")
        # Otherwise it may be a preset that could not be read. Placeholders keep the schema from reporting
        # what that preset would have filled in.
        auth = entry.get("auth")
        unknown = isinstance(auth, dict) and "type" not in auth
        return {
            "upstream": _NOWHERE,
            **entry,
            **({"auth": {"type": "bearer", "token": _NOTHING}} if unknown else {}),
        }

    def fill(self, entry: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
        filled = {"upstream": self._upstream(entry, preset), **entry}
        headers = entry.get("default_headers", {})
        if isinstance(headers, dict):
            mine = {str(name).lower() for name in headers}
            known = {
                name: value for name, value in preset.get("headers", {}).items() if name.lower() not in mine
            }
            if both := {**known, **headers}:
                filled["default_headers"] = both
        filled |= {key: preset[key] for key in _CONDUCT if key in preset and key not in entry}
        filled |= upstreams_of(entry, preset)
        if "also" in preset and not entry.keys() & {"also", "upstream"}:
            filled["also"] = preset["also"]  # these hosts belong to the provider's upstream, to no other
        auth, wanted = entry.get("auth"), preset["auth"]
        if isinstance(auth, dict) and auth.get("type", wanted["type"]) == wanted["type"]:
            typed = {**auth, "type": wanted["type"]}
            typed = self._fixed(typed, entry, preset)
            filled["auth"] = self._asked(typed, wanted) if "asks" in wanted else self._placed(typed, wanted)
        return filled

    def _fixed(self, auth: dict[str, Any], entry: dict[str, Any], preset: dict[str, Any]) -> dict[str, Any]:
        """Return `auth` with what the preset says about it besides the places of secrets."""
        wanted, values = preset["auth"], entry.get("vars", {})
        if AUTH_TYPES[wanted["type"]].group:
            return auth
        if wanted["type"] == "registry_token" and "upstream" in entry:
            return auth  # the password for one registry must not go to the token service of another one
        fixed = {member: wanted[member] for member in AUTH_TYPES[wanted["type"]].plain if member in wanted}
        if "token_url" in fixed and isinstance(values, dict):
            usable = all(isinstance(values.get(name), str) for name in VARIABLE.findall(fixed["token_url"]))
            # Otherwise a problem was reported. Values were checked as parts of a host: they hold no slash.
            fixed["token_url"] = (
                VARIABLE.sub(lambda found: values[found[1]], fixed["token_url"]) if usable else _NOWHERE
            )
        return fixed | auth

    def _upstream(self, entry: dict[str, Any], preset: dict[str, Any]) -> str:
        """Return the preset's upstream with the connection's variables in its host."""
        variables, values = preset.get("vars", {}), entry.get("vars", {})
        upstream: str = preset["upstream"]
        if not isinstance(values, dict):
            return _NOWHERE  # the schema reports it
        if not variables and not values:
            return upstream
        if "upstream" in entry:
            kept = VARIABLE.findall(preset["auth"].get("token_url", ""))
            for name in values.keys() - {*kept}:
                self.wrong(("vars", name), "has no effect: the connection has an upstream of its own")
            upstream, variables = _NOWHERE, {name: variables[name] for name in kept}
            values = {name: value for name, value in values.items() if name in kept}
        for name in values.keys() - variables.keys():
            known = ", ".join(variables) or "none"
            self.wrong(("vars", name), f"is not a variable of this preset, which has {known}")
        for name in variables.keys() - values.keys():
            self.wrong(("vars", name), f"is required: {variables[name]['about']}")
        usable = values.keys() == variables.keys()
        for name in values.keys() & variables.keys():
            usable = self._fits(name, values[name], variables[name]) and usable
        return VARIABLE.sub(lambda found: values[found[1]], upstream) if usable else _NOWHERE

    def _fits(self, name: str, value: Any, variable: dict[str, Any]) -> bool:
        """Return whether a value stays inside its label of the host and matches the provider's pattern."""
        if not isinstance(value, str):
            return False  # the schema reports it
        if LABEL.fullmatch(value) and re.fullmatch(variable["pattern"], value):
            return True
        self.wrong(("vars", name), f"does not match {variable['pattern']}: {variable['about']}")
        return False

    def _placed(self, auth: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
        """Return `auth` with the key of `auth: {token: …}` in the place that the provider requires."""
        kind = wanted["type"]
        if kind == "basic":
            return self._in_basic(auth, wanted)
        if kind == "oauth2" and "token" in auth:
            if "private_key" in auth:
                self.wrong(("auth", "token"), "means the same as private_key: give only one of them")
            return {key: value for key, value in auth.items() if key != "token"} | {
                "private_key": auth["token"]
            }
        if "token" not in auth or not AUTH_TYPES[kind].group:
            return auth
        group, place = AUTH_TYPES[kind].group, AUTH_TYPES[kind].named_by
        name, others = wanted[place], auth.get(group, {})
        rest = {key: value for key, value in auth.items() if key != "token"}
        if not isinstance(others, dict):
            return rest  # the schema reports it
        if name.lower() in {str(other).lower() for other in others}:
            self.wrong(("auth", "token"), f"means the same as {name}: give only one of them")
            return rest
        filled = {**rest, group: {**others, name: auth["token"]}}
        words = auth.get("prefix", {})
        if "prefix" in wanted and isinstance(words, dict):
            filled["prefix"] = {name: wanted["prefix"], **words}
        return filled

    def _in_basic(self, auth: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
        """Return `auth` with the key as the user name, or as the password if the preset has the user name."""
        fixed: dict[str, Any] = {key: wanted[key] for key in ("username", "password") if key in wanted}
        filled = fixed | auth
        if "token" in auth:
            place = "password" if "username" in wanted else "username"
            if place in auth:
                self.wrong(("auth", "token"), f"means the same as {place}: give only one of them")
            filled[place] = filled.pop("token")
        return filled

    def _asked(self, auth: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
        """Check that `auth` gives each secret that the provider asks for by name."""
        asks, kind = wanted["asks"], wanted["type"]
        group = AUTH_TYPES[kind].group
        given = auth.get(group, {}) if group else auth
        if not isinstance(given, dict):
            return auth  # the schema reports it
        missing = [name for name in asks if name.lower() not in {str(other).lower() for other in given}]
        if "token" not in auth and not missing:
            return auth
        if "token" in auth:
            self.wrong(("auth", "token"), f"is one secret, but this preset needs {_listed(group, asks)}")
        else:
            self.wrong(("auth", group) if group else ("auth",), f"needs {_listed(group, asks)}")
        rest = {key: value for key, value in auth.items() if key != "token"}
        stand_in = {**dict.fromkeys(missing, _NOTHING), **(given if group else {})}
        return {**rest, group: stand_in} if group else {**rest, **stand_in}


def _listed(group: str, asks: Mapping[str, str]) -> str:
    each = ", ".join(f"{name}: {about}" for name, about in asks.items())
    return f"{group}: {{{each}}}" if group else f"{{{each}}}"
