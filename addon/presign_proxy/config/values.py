"""Values of the configuration that have a form of their own: durations, instants and sources of secrets.

Each function returns the parsed value, or raises a ValueError whose text says what the value has to be.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

from ..regexes import late

_UNITS: Final = {
    r"w|weeks?": 604_800,
    r"d|days?": 86_400,
    r"h|hrs?|hours?": 3600,
    r"m|mins?|minutes?": 60,
    r"s|secs?|seconds?": 1,
}
"""The units of a duration in seconds, the longest first. No month is a unit: it has no fixed length."""
DURATION: Final = "(?=[0-9])" + "".join(rf"(?: ?([0-9]{{1,9}}) ?(?:{unit}))?" for unit in _UNITS)
"""The pattern of a duration: `90s`, `7d`, `1h30m`, `2 days`, `1 hour 30 minutes`."""
_DURATION = late(DURATION)
_ENV = late(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
GATEWAY_URL: Final = r"https?://[!-\"$->@-~]+"
"""The pattern of the gateway's own URL: without a query and a fragment."""
DEFAULT_TTL: Final = 300
MAX_REGISTRY_KEYS: Final = 4
REGISTRY_FILE: Final = r".+\.(enc|yaml|yml|json)"
"""The pattern of a registry's file name: encrypted (`.enc`), or plain."""


class SecretSource(NamedTuple):
    """The source of a secret value. Exactly one of the first four fields is set.

    `ttl`: seconds for which the output of `exec` is valid.
    """

    literal: str | None = None
    env: str | None = None
    file: str | None = None
    exec: tuple[str, ...] | None = None
    ttl: int = DEFAULT_TTL

    def __repr__(self) -> str:
        return "SecretSource(…)"


def secret_source(value: Any) -> SecretSource:
    """Parse a source: the text itself, `{env: NAME}`, `{file: PATH}` or `{exec: [argv…], ttl: 5m}`."""
    if isinstance(value, str) and value:
        return SecretSource(literal=value)
    if isinstance(value, dict):
        return _reference(value)
    raise ValueError("has to be a secret: write its text, {env: NAME}, {file: PATH} or {exec: [argv…]}")


def _reference(value: dict[str, Any]) -> SecretSource:
    if value.keys() == {"env"} and isinstance(name := value["env"], str):
        if not _ENV.fullmatch(name):
            raise ValueError("env has to be the name of an environment variable, not a value")
        return SecretSource(env=name)
    if value.keys() == {"file"} and isinstance(path := value["file"], str) and path:
        return SecretSource(file=path)
    if "exec" in value and value.keys() <= {"exec", "ttl"}:
        argv = value["exec"]
        if not isinstance(argv, list) or not argv or not all(isinstance(one, str) for one in argv):
            raise ValueError("exec has to be a list of texts, the program first: no shell reads it")
        if not argv[0] or any("\0" in one for one in argv):
            raise ValueError("exec names no program, or contains a NUL")
        ttl = duration(value["ttl"]) if "ttl" in value else DEFAULT_TTL
        return SecretSource(exec=tuple(argv), ttl=ttl)
    raise ValueError("has to be a secret: write its text, {env: NAME}, {file: PATH} or {exec: [argv…]}")


class KeySource(NamedTuple):
    """The source of a key of the registry, or of the passphrase from which the key is derived."""

    source: SecretSource
    passphrase: bool = False


def _key_source(value: Any) -> KeySource:
    """Parse `{env: NAME}`, `{file: PATH}`, `{exec: [argv…]}`, or `{passphrase: …}` around one of those."""
    if isinstance(value, dict) and value.keys() == {"passphrase"} and isinstance(value["passphrase"], dict):
        return KeySource(_reference(value["passphrase"]), passphrase=True)
    if isinstance(value, dict) and value.keys() != {"passphrase"}:
        return KeySource(_reference(value))
    raise ValueError(
        "has to be {env: NAME}, {file: PATH}, {exec: [argv…]}, or {passphrase: …} around one of those"
    )


def key_sources(value: Any) -> tuple[KeySource, ...]:
    listed = value if isinstance(value, list) else [value]
    if not 1 <= len(listed) <= MAX_REGISTRY_KEYS:
        raise ValueError(f"has to be one key, or a list of 1 to {MAX_REGISTRY_KEYS} of them")
    return tuple(map(_key_source, listed))


def duration(value: Any) -> int:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("has to be a duration: a number and one of s, m, h, d, w, as in 90s, 7d or 1h30m")
    seconds = sum(
        int(number or 0) * unit for number, unit in zip(match.groups(), _UNITS.values(), strict=True)
    )
    if seconds == 0:
        raise ValueError("has to be greater than zero")
    return seconds


def instant(value: Any) -> int:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("has to be a point in time with its zone, as in 2027-01-01T00:00:00Z")
    return int(moment.timestamp())
