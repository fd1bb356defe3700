"""A connection as it may be shown: with stars in place of secrets."""

from __future__ import annotations

from typing import Any, Final

from ..config.auth_types import GROUPS, PLAIN

_SHOWN: Final = "********"
_CUT: Final = "…"
"""Stands for the arguments of a program."""


def masked(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the entry with stars in place of secrets. The place where a secret is kept is no secret."""
    auth = {key: _hidden(key, value) for key, value in (entry.get("auth") or {}).items()}
    keys = [{**key, "secret": _masked(key.get("secret"))} for key in entry.get("signing_keys") or []]
    shown = {**entry, "signing_keys": keys}
    return {**shown, "auth": auth} if auth else shown


Wrong = tuple[tuple[str | int, ...], str]
"""A place in an entry, and what is wrong there."""
_TYPED: Final = "is a secret, which this file never holds: leave the stars, and use `connections rotate`"


def unmasked(edited: dict[str, Any], before: dict[str, Any]) -> tuple[dict[str, Any], list[Wrong]]:
    """Return an edited entry with its former secrets in place of the stars, and what is wrong."""
    wrong: list[Wrong] = []
    found = dict(edited)
    if isinstance(auth := edited.get("auth"), dict):
        old = before.get("auth") or {}
        found["auth"] = {key: _kept(("auth", key), value, old.get(key), wrong) for key, value in auth.items()}
    if isinstance(keys := edited.get("signing_keys"), list):
        olds = before.get("signing_keys") or []
        found["signing_keys"] = [_key(at, key, olds, wrong) for at, key in enumerate(keys)]
    return found, wrong


def _key(at: int, key: Any, olds: list[dict[str, Any]], wrong: list[Wrong]) -> Any:
    """Return one signing key with its secret: that of the same id, else of the same place."""
    if not isinstance(key, dict) or "secret" not in key:
        return key
    name = key.get("id")
    same = [one for one in olds if one.get("id") == name] if name is not None else olds[at : at + 1]
    before = same[0] if same else {}
    place = ("signing_keys", at, "secret")
    return {**key, "secret": _secret(place, key["secret"], before.get("secret"), wrong)}


def _kept(at: tuple[str | int, ...], value: Any, before: Any, wrong: list[Wrong]) -> Any:
    """Return one member of `auth` with its secrets."""
    if at[-1] in PLAIN:
        return value
    if at[-1] in GROUPS.values() and isinstance(value, dict):
        old = before if isinstance(before, dict) else {}
        return {name: _secret((*at, name), one, old.get(name), wrong) for name, one in value.items()}
    return _secret(at, value, before, wrong)


def _secret(at: tuple[str | int, ...], value: Any, before: Any, wrong: list[Wrong]) -> Any:
    if before is not None and value == _masked(before):
        return before
    if isinstance(value, dict) and _CUT not in (value.get("exec") or ()):
        return value  # a reference, which is no secret
    wrong.append((at, _TYPED))
    return value


def _hidden(key: str, value: Any) -> Any:
    """Mask one member of `auth`. Members of a group have their own names, which may be `env` too."""
    if key in PLAIN:
        return value
    if key in GROUPS.values():
        return {name: _masked(secret) for name, secret in value.items()}
    return _masked(value)


def _masked(value: Any) -> Any:
    if not isinstance(value, dict) or not value.keys() & {"env", "file", "exec"}:
        return _SHOWN
    return {**value, "exec": [value["exec"][0], _CUT]} if value.get("exec") else value
