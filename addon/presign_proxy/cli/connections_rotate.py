"""`presign connections rotate`: make a new signing secret, or replace the API key."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import click

from ..config.auth_types import AUTH_TYPES, AuthType
from ..config.registry_file.edit import Draft
from ..config.registry_file.notice import place_of, read_notice
from ..config.registry_file.storage import PrivateFileError
from ..config.strict_yaml import Document
from ..config.values import duration
from ..signing.keys import MAX_KEYS
from ..similar_names import did_you_mean
from ..units import instant
from . import prompts
from .completion import complete_connections, complete_keys
from .hints import command, quoted
from .output import Output, verb
from .registry_entries import (
    changing_registry,
    check,
    draft_of,
    managed,
    names_of_keys,
    new_secret,
    shown_once,
)
from .revocation_words import AT_ONCE
from .revoked_now import mark
from .values import YEAR_10000
from .workspace import Entry, Failure, Workspace

_NUMBERED: Final = re.compile(r"k[0-9]{1,9}")
_PLAIN: Final = "plain.json"


@click.command()
@click.argument("name", shell_complete=complete_connections)
@click.option("--retire-after", metavar="30d", help="How long older keys still verify; default: for ever.")
@click.option(
    "--leaked", is_flag=True, help="Refuse what older keys signed at once, and end what is under way."
)
@click.option(
    "--drop",
    multiple=True,
    metavar="ID",
    shell_complete=complete_keys,
    help="Remove an older key: its URLs stop at once.",
)
@click.option("--credential", is_flag=True, help="Replace the API key instead; all URLs stay valid.")
@verb
def rotate(
    workspace: Workspace,
    output: Output,
    name: str,
    retire_after: str | None,
    leaked: bool,
    drop: tuple[str, ...],
    credential: bool,
) -> None:
    """Make a new signing secret, shown once. URLs signed with older secrets stay valid, unless --leaked.

    With --drop alone, keys are removed and no new one is made, as long as one is left that signs.
    """
    if credential and (retire_after or drop or leaked):
        raise click.UsageError(
            "--credential replaces the API key: leave out --retire-after, --leaked and --drop"
        )
    if leaked and (retire_after or drop):
        raise click.UsageError("--leaked ends every older key at once: leave out --retire-after and --drop")
    managed(workspace, draft_of(workspace), name)
    if credential:
        _replace_credential(workspace, output, name)
    elif leaked:
        _replace_leaked(workspace, output, name)
    elif drop and not retire_after and _is_any_left(workspace, name, drop):
        _drop(workspace, output, name, drop)
    else:
        _renew(workspace, output, name, retire_after, drop)


def _renew(
    workspace: Workspace, output: Output, name: str, retire_after: str | None, drop: tuple[str, ...]
) -> None:
    """Make a new signing secret beside the older ones."""
    fresh, now = new_secret(), time.time()
    end = instant(now + _seconds(retire_after)) if retire_after else None
    with changing_registry(workspace) as draft:
        data = managed(workspace, draft, name)
        before = _keys(workspace, name, data, draft)
        older = _room(name, _kept(name, before, drop, now), draft)
        if end is not None:
            older = [_retired(key, end) for key in older]
        identity = _next_key(name, before, draft)
        data["signing_keys"] = [{"id": identity, "secret": fresh, "added": instant(now)}, *older]
        check(workspace, name, data, draft)
        draft.connections[name] = data
        kept = [key["id"] for key in older if _signs(name, key, draft)]
    still = f"{', '.join(kept) or 'no older key'} still {'verify' if len(kept) > 1 else 'verifies'}"
    until = f", until {end}" if end and kept else ""
    output.tell(
        {"id": name, "signing_key": {"id": identity, "secret": fresh}, "older": kept},
        f"{name} signs with {identity} from now on; {still}{until}.",
        *shown_once(fresh),
    )


def _is_any_left(workspace: Workspace, name: str, drop: tuple[str, ...]) -> bool:
    """Return whether a key is left that signs, without these. Raises ConfigError, Failure."""
    draft = draft_of(workspace)
    before = _keys(workspace, name, managed(workspace, draft, name), draft)
    return any(_signs(name, key, draft) for key in _kept(name, before, drop, time.time()))


def _signs(name: str, key: dict[str, Any], draft: Draft) -> bool:
    return f"{name}/{key['id']}" not in draft.revoked("keys")


def _drop(workspace: Workspace, output: Output, name: str, drop: tuple[str, ...]) -> None:
    """Remove keys, and make no new one."""
    now = time.time()
    with changing_registry(workspace) as draft:
        data = managed(workspace, draft, name)
        kept = _kept(name, _keys(workspace, name, data, draft), drop, now)
        if not any(_signs(name, key, draft) for key in kept):
            raise Failure(f"{name} was changed by another command meanwhile: no key would be left that signs")
        kept.sort(key=lambda key: not _signs(name, key, draft))  # the first one signs
        data["signing_keys"] = kept
        check(workspace, name, data, draft)
        draft.connections[name] = data
    ids = [key["id"] for key in kept]
    output.tell(
        {"id": name, "signing_key": None, "older": ids, "dropped": sorted(set(drop))},
        f"{name} has no {' and no '.join(sorted(set(drop)))} any more; gateways notice within a second.",
        f"It signs with {ids[0]}; no new key was made.",
    )


def _replace_leaked(workspace: Workspace, output: Output, name: str) -> None:
    """Make a new signing secret, revoke every older one, and have what is under way ended.

    The older keys stay in the registry, as many as there is room for: what they signed is then answered
    `revoked`, and the audit log names the key of everybody who still tries.
    """
    fresh, now = new_secret(), time.time()
    with changing_registry(workspace) as draft:
        data = managed(workspace, draft, name)
        before = _keys(workspace, name, data, draft)
        identity = _next_key(name, before, draft)
        for key in before:  # also one that has ended: what it began may be under way
            draft.revoked("keys")[f"{name}/{key['id']}"] = instant(now)
            mark(draft, "keys", f"{name}/{key['id']}", instant(now))
        kept = before[: MAX_KEYS - 1]
        data["signing_keys"] = [{"id": identity, "secret": fresh, "added": instant(now)}, *kept]
        check(workspace, name, data, draft)
        draft.connections[name] = data
    ids = [key["id"] for key in before]
    output.tell(
        {
            "id": name,
            "signing_key": {"id": identity, "secret": fresh},
            "older": [],
            "revoked": ids,
            "dropped": ids[MAX_KEYS - 1 :],
        },
        *_consequences(name, identity, ids),
        *shown_once(fresh),
    )


def _consequences(name: str, identity: str, revoked: list[str]) -> list[str]:
    """Return in plain words what stops working."""
    keys, are = " and ".join(filter(None, (", ".join(revoked[:-1]), revoked[-1]))), len(revoked) > 1
    return [
        f"{name} signs with {identity} from now on; {keys} {'are' if are else 'is'} revoked.",
        f"Every URL, token and key token that was signed with {keys} is refused: {AT_ONCE}.",
        "Whoever needs access gets a new one, signed with the new secret.",
        f"Who still tries: {command('audit', '--key', f'{name}/{revoked[0]}', '--since', '1h')}",
    ]


def _keys(workspace: Workspace, name: str, data: dict[str, Any], draft: Draft) -> list[dict[str, Any]]:
    """Return the signing keys of a connection, each with its id. Raises ConfigError, Failure."""
    workspace.model(Entry(name, data, Document(str(draft.path), {}), managed=True))
    found = data.get("signing_keys")
    if not found:
        raise Failure(f"{name} has no signing keys: its URLs are not signed")
    # A key without an id is named by its place, which is about to change.
    return [key | {"id": key.get("id") or f"k{place}"} for place, key in enumerate(found, 1)]


def _kept(name: str, keys: list[dict[str, Any]], drop: tuple[str, ...], now: float) -> list[dict[str, Any]]:
    known = [key["id"] for key in keys]
    for identity in drop:
        if identity not in known:
            hint = did_you_mean(identity, known) or f"it has {', '.join(known)}"
            raise Failure(f"{name} has no key {identity[:64]!r}: {hint}")
    return [key for key in keys if key["id"] not in drop and not _is_past(key, now)]


def _room(name: str, kept: list[dict[str, Any]], draft: Draft) -> list[dict[str, Any]]:
    """Return the keys, if there is room for one more. Raises Failure, which names no key that still signs."""
    if len(kept) < MAX_KEYS:
        return kept
    revoked = next((key["id"] for key in reversed(kept) if not _signs(name, key, draft)), None)
    if revoked is not None:
        raise Failure(f"{name} has {MAX_KEYS} keys already: remove the revoked one with --drop {revoked}")
    which = ", ".join(key["id"] for key in kept)
    raise Failure(f"{name} has {MAX_KEYS} keys already, {which}: choose one that is removed, with --drop ID")


def _next_key(name: str, keys: list[dict[str, Any]], draft: Draft) -> str:
    """Return an id that no key has or had, as far as that is known: the audit log names keys by id."""
    gone = {*draft.revoked("keys")}
    with suppress(PrivateFileError):
        gone |= {*read_notice(place_of(draft.path)).removed}
    after = _highest({key["id"] for key in keys})
    return next(key for key in names_of_keys(after) if f"{name}/{key}" not in gone)


def _highest(used: set[str]) -> int:
    """Return the highest number among the ids of the form `k1`."""
    return max((int(one[1:]) for one in used if _NUMBERED.fullmatch(one)), default=0)


def _is_past(key: dict[str, Any], now: float) -> bool:
    end = key.get("not_after")
    return end is not None and datetime.fromisoformat(end).timestamp() < now


def _retired(key: dict[str, Any], end: str) -> dict[str, Any]:
    """Return the key with this end, but never later than its present end."""
    before = key.get("not_after")
    sooner = before and datetime.fromisoformat(before) < datetime.fromisoformat(end)
    return key if sooner else {**key, "not_after": end}


def _seconds(text: str) -> int:
    try:
        found = duration(text)
    except ValueError as error:
        raise click.UsageError(f"--retire-after {error}") from None
    if time.time() + found >= YEAR_10000:
        raise click.UsageError("--retire-after ends after the year 9999")
    return found


def _replace_credential(workspace: Workspace, output: Output, name: str) -> None:
    kind, auth = _auth_of(workspace, draft_of(workspace), name)
    given = _asked(name, kind, auth)
    with changing_registry(workspace) as draft:
        data = managed(workspace, draft, name)
        kind, auth = _auth_of(workspace, draft, name)
        group = kind.group
        if None not in given:
            auth |= {str(place): value for place, value in given.items()}
        elif len(auth.get(group) or {}) != 1:
            raise Failure(_several(name))
        else:
            auth[group] = dict.fromkeys(auth[group], given[None])
        data["auth"] = auth
        check(workspace, name, data, draft)
        draft.connections[name] = data
    output.tell({"id": name, "credential": "replaced"}, f"{name} has a new API key; its URLs stay valid.")


def _auth_of(workspace: Workspace, draft: Draft, name: str) -> tuple[AuthType, dict[str, Any]]:
    """Return the type of the credential, and its members as they are written. Raises Failure."""
    data = managed(workspace, draft, name)
    model = workspace.model(Entry(name, data, Document(str(draft.path), {}), managed=True))
    if model.auth is None:
        raise Failure(f"{name} has no credential")
    return AUTH_TYPES[model.auth.type], dict(data.get("auth") or {})


def _asked(name: str, kind: AuthType, auth: dict[str, Any]) -> dict[str | None, str]:
    """Ask for what replaces members of `auth`; None stands for the only member of its group."""
    if kind.together:
        there = [member for member in kind.together if member in auth]
        return {member: prompts.secret(f"new {member} of {name}") for member in there}
    # With a preset, the only secret is `token`, whatever the type.
    place = next((member for member in ("token", *kind.replaced) if member in auth), None)
    if place is None and len(auth.get(kind.group) or {}) != 1:
        raise Failure(_several(name))
    what = f"new API key of {name}"
    has_lines = place == "private_key" or (place == "token" and "private_key" in kind.replaced)
    return {place: prompts.lines(what) if has_lines else prompts.secret(what)}


def _several(name: str) -> str:
    before, after = quoted("decrypt", "--out", _PLAIN), quoted("encrypt", "--replace", _PLAIN)
    return f"{name} has several secrets: run {before}, edit that file, then run {after}"
