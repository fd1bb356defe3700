"""What is taken off the environment of a program of `presign run`: the gateway's secrets, under any name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from ..config.auth_types import GROUPS, PLAIN

_KEPT: Final = ("PRESIGN_BASE",)
_LEAST: Final = 8
"""Shorter values are no secrets by which a variable is recognised: other variables hold them by chance."""
_NAMES: Final = frozenset(("username", "client_id"))
"""Members of `auth` that say who someone is, if another member holds the secret."""


def without_secrets(
    environ: Mapping[str, str], secret: Iterable[str], values: Iterable[str] = ()
) -> dict[str, str]:
    """Return the environment without the gateway's secrets.

    A user may have the same API key in a second variable, for another program. It is taken off, too.

    Args:
        secret: further variables that hold one.
        values: secrets that are written out in the configuration.
    """
    gone = set(secret)
    gone |= {name for name in environ if name not in _KEPT and name.upper().startswith("PRESIGN_")}
    known = {environ[name] for name in gone if name in environ} | set(values)
    known = {value for value in known if len(value) >= _LEAST}
    return {name: value for name, value in environ.items() if name not in gone and value not in known}


def variables_in(data: object) -> Iterator[str]:
    """Yield every variable that a configuration, or a part of it, names as the source of a secret."""
    waiting = [data]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if isinstance(name := found.get("env"), str):
                yield name
            waiting += found.values()
        elif isinstance(found, list):
            waiting += found


def values_in(connections: object) -> Iterator[str]:
    """Yield every secret that is written out in connections."""
    for entry in connections.values() if isinstance(connections, dict) else ():
        if not isinstance(entry, dict):
            continue
        keys, auth = entry.get("signing_keys"), entry.get("auth")
        yield from _texts(one.get("secret") for one in keys or () if isinstance(one, dict))
        if isinstance(auth, dict):
            yield from _texts(_secrets_of(auth))


def _secrets_of(auth: dict[str, Any]) -> Iterator[object]:
    secrets = {name: value for name, value in auth.items() if name not in PLAIN}
    others = [value for name, value in secrets.items() if name not in _NAMES]
    # A password that is too short to be one stands beside a user name that is the key, as in `key:X`.
    if any(not isinstance(value, str) or len(value) >= _LEAST for value in others):
        secrets = {name: value for name, value in secrets.items() if name not in _NAMES}
    for name, value in secrets.items():
        if name in GROUPS.values() and isinstance(value, dict):
            yield from value.values()
        else:
            yield value


def _texts(found: Iterable[object]) -> Iterator[str]:
    return (value for value in found if isinstance(value, str))
