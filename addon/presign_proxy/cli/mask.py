"""A connection as it may be shown: with stars in place of secrets."""

from __future__ import annotations

from typing import Any, Final

from ..config.auth_types import GROUPS

_SHOWN: Final = "********"


def masked(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry with stars in place of secrets. The place where a secret is kept is no secret."""
    auth = {key: _hidden(key, value) for key, value in (entry.get("auth") or {}).items()}
    keys = [{**key, "secret": _masked(key.get("secret"))} for key in entry.get("signing_keys") or []]
    shown = {**entry, "signing_keys": keys}
    return {**shown, "auth": auth} if auth else shown


def _hidden(key: str, value: Any) -> Any:
    """Mask one member of `auth`. Members of a group have their own names, which may be `env` too."""
    if key == "type":
        return value
    if key in GROUPS.values():
        return {name: _masked(secret) for name, secret in value.items()}
    return _masked(value)


def _masked(value: Any) -> Any:
    if not isinstance(value, dict) or not value.keys() & {"env", "file", "exec"}:
        return _SHOWN
    return {**value, "exec": [value["exec"][0], "…"]} if value.get("exec") else value
