"""`presign connections …`: what the registry's file holds, and the life of a signing secret."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

import click

from ..config.presets.model import LABEL
from ..config.registry_file.edit import Draft, changing
from ..config.strict_yaml import Document
from ..config.values import duration
from ..signing.keys import MAX_KEYS
from . import prompts
from .completion import complete_connections, complete_presets
from .credential import absent, auth_of
from .hints import command, no_preset, quoted
from .mask import PLACES, masked
from .methods import methods_of, slips
from .output import Voice, table, verb
from .values import YEAR_10000, instant, listed
from .workspace import Desk, Entry, Failure

_NUMBERED: Final = re.compile(r"k[0-9]{1,9}")
_PLAIN: Final = "plain.json"


@click.group(name="connections")
def connections() -> None:
    """Add, show and change what is in the registry file."""


def new_secret() -> str:
    """256 bits, in a form that survives a shell and a URL."""
    return f"sk_{secrets.token_urlsafe(32)}"


@contextmanager
def _changing(desk: Desk) -> Iterator[Draft]:
    """The registry to be changed; written, if the block says nothing against it, once it is well-formed."""
    openers = desk.openers
    with changing(desk.registry_path, openers) as draft:
        yield draft
        draft.write()


def _managed(desk: Desk, draft: Draft, name: str) -> dict[str, Any]:
    found = draft.connections.get(name)
    if found is None:
        entry = desk.entry(name)
        raise Failure(f"{entry.id} is in {desk.path.name}, not in the registry: change it there")
    return dict(found)


def _check(desk: Desk, name: str, data: dict[str, Any], draft: Draft) -> Entry:
    """Raises ConfigError: what would not load is not written."""
    entry = Entry(name, data, Document(str(draft.path), {}), managed=True)
    desk.connection(entry)
    return entry


# -- add ----------------------------------------------------------------------------------------------


@connections.command()
@click.argument("name", required=False)
@click.option("--preset", shell_complete=complete_presets, help="A provider that is known (presign presets).")
@click.option(
    "--var", "variables", multiple=True, metavar="NAME=VALUE", help="A host variable of the preset."
)
@click.option("--upstream", metavar="URL", help="Any other API: https://host[:port][/base].")
@click.option(
    "--auth", "kind", type=click.Choice(["bearer", "basic", "header", "query"]), help="How its key goes on."
)
@click.option("--name", "places", multiple=True, metavar="NAME", help="The header or parameter of the key.")
@click.option("--credential-env", metavar="NAME", help="Keep the key in this environment variable.")
@click.option("--credential-file", metavar="PATH", help="Keep the key in this file.")
@click.option("--credential-exec", metavar="COMMAND", help="Have this program print the key; no shell.")
@click.option("--methods", multiple=True, metavar="M,…", help="Ceiling: methods that may be signed.")
@click.option("--paths", multiple=True, metavar="P,…", help="Ceiling: path patterns that may be signed.")
@click.option("--max-lifetime", metavar="7d", help="Ceiling: how long a URL may live.")
@click.option("--import-secret", is_flag=True, help="Ask for the signing secret instead of making one.")
@verb
def add(desk: Desk, voice: Voice, name: str | None, import_secret: bool, **options: Any) -> None:
    """Register an API and its key; print a new signing secret, once.

    The key is asked for, or read from standard input, one line; so is, after it, an imported secret.
    """
    preset = options["preset"]
    name = name or (f"conn_{preset.replace('-', '_')}" if preset else None)
    if name is None:
        raise click.UsageError("name the connection, or a --preset to name it after")
    if (preset is None) == (options["upstream"] is None):
        raise click.UsageError("say --preset, or --upstream and --auth")
    if preset is not None and (options["kind"] or options["places"]):
        raise click.UsageError("--auth and --name are for --upstream: a preset knows how its key goes on")
    if preset is None and options["variables"]:
        raise click.UsageError("--var is for --preset")
    if name in desk.entries:
        raise Failure(_there_is(name))
    data = _described(options)
    _ask_for_variables(desk, data)
    data["auth"] = auth_of(desk, name, options)
    own = prompts.secret(f"signing secret of {name}") if import_secret else new_secret()
    with _changing(desk) as draft:
        if name in draft.connections:  # while the key was asked for
            raise Failure(_there_is(name))
        if name in draft.revoked("connections"):
            undo = quoted("revoke", "--undo", "--connection", name)
            raise Failure(f"{name} was revoked: take another name, or {undo}")
        key = next(key for key in _names_of_keys() if f"{name}/{key}" not in draft.revoked("keys"))
        data["signing_keys"] = [{"id": key, "secret": own, "added": instant()}]
        entry = _check(desk, name, data, draft)
        draft.connections[name] = data
    upstream = desk.filled(entry).get("upstream")
    sample = (desk.presets.known.get(preset) or {}).get("sample") or "PATH"
    shown = None if import_secret else own
    voice.tell(
        {"id": name, "upstream": upstream, "signing_key": {"id": key, "secret": shown}},
        f"{name} leads to {upstream}",
        *_shown_once(shown),
    )
    voice.note(*(f"--methods {question}" for question in slips(data.get("allow", {}).get("methods", ()))))
    voice.note(*absent(desk, options))
    voice.note(f"Next: {command('sign', name, sample)}")


def _there_is(name: str) -> str:
    return f"there is a connection {name} already: {quoted('connections', 'rotate', name)}, or another name"


def _names_of_keys(after: int = 0) -> Iterator[str]:
    return (f"k{number}" for number in itertools.count(after + 1))


def _shown_once(secret: str | None) -> list[str]:
    if secret is None:
        return []
    return ["", "Its signing secret, shown this once; whoever has it can sign:", "", f"  {secret}", ""]


def _described(options: dict[str, Any]) -> dict[str, Any]:
    """All but the secrets."""
    data: dict[str, Any] = {}
    if options["preset"]:
        data["preset"] = options["preset"]
        if options["variables"]:
            data["vars"] = dict(_variable(text) for text in options["variables"])
    else:
        data["upstream"] = options["upstream"]
    ceiling = {"methods": methods_of(options["methods"]), "paths": listed(options["paths"])}
    allow = {what: found for what, found in ceiling.items() if found}
    if allow:
        data["allow"] = allow
    if options["max_lifetime"]:
        data["max_lifetime"] = options["max_lifetime"]
    return data


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not LABEL.fullmatch(value):
        raise click.UsageError("--var is NAME=VALUE, the value a part of a host name")
    return name, value


def _ask_for_variables(desk: Desk, data: dict[str, Any]) -> None:
    """Before the key is asked for, which would have to be given again. Raises Failure, UsageError."""
    preset = data.get("preset")
    if preset is None:
        return
    if preset not in desk.presets.known:
        raise Failure(no_preset(preset, desk.presets.known))
    given = data.get("vars", {})
    for name, variable in desk.presets.known[preset].get("vars", {}).items():
        if name in given:
            continue
        if not prompts.somebody_is_there():
            raise click.UsageError(f"--var {name}=VALUE is required: {variable['about']}")
        given[name] = _variable(f"{name}={click.prompt(variable['about'], err=True)}")[1]
    if given:
        data["vars"] = given


# -- look ---------------------------------------------------------------------------------------------


@connections.command("list")
@verb
def list_(desk: Desk, voice: Voice) -> None:
    """All connections, of the configuration and of the registry."""
    rows = [_summary(desk, entry) for entry in desk.entries.values()]
    head = ("ID", "UPSTREAM", "AUTH", "KEYS", "STATE", "IN")
    lines = [(r["id"], r["upstream"], r["auth"], ",".join(r["keys"]), r["state"], r["file"]) for r in rows]
    none = f"No connections yet: {command('connections', 'add', '--preset', 'openai')}"
    voice.tell(rows, *(table([head, *lines]) if rows else [none]))


def _summary(desk: Desk, entry: Entry) -> dict[str, Any]:
    desk.model(entry)  # says what is wrong with it
    filled = desk.filled(entry)
    auth = filled.get("auth") or {}
    origins = ", ".join(filled.get("allowed_origins") or []) or "any public origin"
    keys = [key.get("id") or f"k{n}" for n, key in enumerate(filled.get("signing_keys") or [], 1)]
    return {
        "id": entry.id,
        "scheme": filled.get("scheme", "presign"),
        "upstream": filled.get("upstream", origins),
        "auth": auth.get("type", "none"),
        "keys": keys,
        "state": _state(desk, entry),
        "file": entry.document.file.rpartition("/")[2],
    }


def _state(desk: Desk, entry: Entry) -> str:
    if entry.id in desk.revocations.connections:
        return "revoked"
    return "enabled" if entry.data.get("enabled", True) else "disabled"


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@verb
def show(desk: Desk, voice: Voice, name: str) -> None:
    """One connection, without its secrets."""
    import yaml

    entry = desk.entry(name)
    data = {**_summary(desk, entry), "entry": masked(desk.filled(entry))}
    body = yaml.safe_dump(data["entry"], sort_keys=False, allow_unicode=True).rstrip().splitlines()
    voice.tell(data, f"{name}  ({data['state']}, in {data['file']})", "", *(f"  {line}" for line in body))


# -- change -------------------------------------------------------------------------------------------


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@click.option("--retire-after", metavar="30d", help="Let the older keys verify for so long; else for ever.")
@click.option("--drop", multiple=True, metavar="ID", help="Take out an older key: its URLs stop at once.")
@click.option("--credential", is_flag=True, help="Replace the API key instead; every URL lives on.")
@verb
def rotate(
    desk: Desk, voice: Voice, name: str, retire_after: str | None, drop: tuple[str, ...], credential: bool
) -> None:
    """Make a new signing secret, shown once. URLs signed with the older ones live on."""
    if credential and (retire_after or drop):
        raise click.UsageError("--credential is not about signing secrets: without --retire-after and --drop")
    _managed(desk, _draft(desk), name)
    if credential:
        _replace_credential(desk, voice, name)
        return
    fresh, now = new_secret(), time.time()
    end = instant(now + _seconds(retire_after)) if retire_after else None
    with _changing(desk) as draft:
        data = _managed(desk, draft, name)
        before = _keys(desk, name, data, draft)
        older = _kept(name, before, drop, now)
        if end is not None:
            older = [_retired(key, end) for key in older]
        identity = _next_key(name, before, draft)
        data["signing_keys"] = [{"id": identity, "secret": fresh, "added": instant(now)}, *older]
        _check(desk, name, data, draft)
        draft.connections[name] = data
    kept = [key["id"] for key in older]
    still = f"{', '.join(kept) or 'no older key'} {'verify' if len(kept) > 1 else 'verifies'} still"
    until = f", until {end}" if end and kept else ""
    voice.tell(
        {"id": name, "signing_key": {"id": identity, "secret": fresh}, "older": kept},
        f"{name} signs with {identity} from now on; {still}{until}.",
        *_shown_once(fresh),
    )


def _keys(desk: Desk, name: str, data: dict[str, Any], draft: Draft) -> list[dict[str, Any]]:
    """The signing keys of a connection, each with its id. Raises ConfigError where it is not well-formed."""
    desk.model(Entry(name, data, Document(str(draft.path), {}), managed=True))
    found = data.get("signing_keys")
    if not found:
        raise Failure(f"{name} has no signing keys: nothing is signed for it")
    # An id that is not said goes by the place, which is about to change.
    return [key | {"id": key.get("id") or f"k{place}"} for place, key in enumerate(found, 1)]


def _kept(name: str, keys: list[dict[str, Any]], drop: tuple[str, ...], now: float) -> list[dict[str, Any]]:
    known = [key["id"] for key in keys]
    for identity in drop:
        if identity not in known:
            raise Failure(f"{name} has no key {identity[:64]!r}: it has {', '.join(known)}")
    kept = [key for key in keys if key["id"] not in drop and not _is_past(key, now)]
    if len(kept) >= MAX_KEYS:
        raise Failure(f"{name} has {MAX_KEYS} keys already: take one out with --drop {kept[-1]['id']}")
    return kept


def _next_key(name: str, keys: list[dict[str, Any]], draft: Draft) -> str:
    """An id that no key has, and none that was revoked."""
    after = _highest({key["id"] for key in keys})
    return next(key for key in _names_of_keys(after) if f"{name}/{key}" not in draft.revoked("keys"))


def _draft(desk: Desk) -> Draft:
    _ = desk.openers  # says what is missing where there is no registry
    draft = desk.draft
    if draft is None:
        raise Failure("there is no registry")
    return draft


def _highest(used: set[str]) -> int:
    """Of those that we have numbered ourselves."""
    return max((int(one[1:]) for one in used if _NUMBERED.fullmatch(one)), default=0)


def _is_past(key: dict[str, Any], now: float) -> bool:
    end = key.get("not_after")
    return end is not None and datetime.fromisoformat(end).timestamp() < now


def _retired(key: dict[str, Any], end: str) -> dict[str, Any]:
    """Never later than it was to end before."""
    before = key.get("not_after")
    sooner = before and datetime.fromisoformat(before) < datetime.fromisoformat(end)
    return key if sooner else {**key, "not_after": end}


def _seconds(text: str) -> int:
    try:
        found = duration(text)
    except ValueError as error:
        raise click.UsageError(f"--retire-after {error}") from None
    if time.time() + found >= YEAR_10000:
        raise click.UsageError("--retire-after ends behind the year 9999")
    return found


def _replace_credential(desk: Desk, voice: Voice, name: str) -> None:
    filled = desk.filled(desk.entry(name))
    if not filled.get("auth"):
        raise Failure(f"{name} has no credential")
    given = prompts.secret(f"new API key of {name}")
    with _changing(desk) as draft:
        data = _managed(desk, draft, name)
        desk.model(Entry(name, data, Document(str(draft.path), {}), managed=True))
        auth = dict(data.get("auth") or {})
        place = next((p for p in ("token", "password", "username") if p in auth), None)
        if place is None:
            group = PLACES.get(filled.get("auth", {}).get("type", "none"), "")
            if len(auth.get(group) or {}) != 1:
                before, after = quoted("decrypt", "--out", _PLAIN), quoted("encrypt", "--replace", _PLAIN)
                raise Failure(f"{name} has several secrets: {before}, change that file, {after}")
            auth[group] = dict.fromkeys(auth[group], given)
        else:
            auth[place] = given
        data["auth"] = auth
        _check(desk, name, data, draft)
        draft.connections[name] = data
    voice.tell({"id": name, "credential": "replaced"}, f"{name} has a new API key; its URLs live on.")


def _switch(desk: Desk, voice: Voice, name: str, *, enabled: bool) -> None:
    with _changing(desk) as draft:
        data = _managed(desk, draft, name)
        data.pop("enabled", None)
        if not enabled:
            data["enabled"] = False
        draft.connections[name] = data
    state = "enabled" if enabled else "disabled"
    voice.tell({"id": name, "state": state}, f"{name} is {state}; gateways notice within a second.")


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@verb
def disable(desk: Desk, voice: Voice, name: str) -> None:
    """Answer `revoked` to everything signed for a connection, until it is enabled again."""
    _switch(desk, voice, name, enabled=False)


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@verb
def enable(desk: Desk, voice: Voice, name: str) -> None:
    """Undo `disable`."""
    _switch(desk, voice, name, enabled=True)


@connections.command()
@click.argument("name", shell_complete=complete_connections)
@click.option("--yes", is_flag=True, help="Do not ask.")
@verb
def remove(desk: Desk, voice: Voice, name: str, yes: bool) -> None:
    """Forget a connection and its API key."""
    _managed(desk, _draft(desk), name)
    prompts.sure(f"Remove {name}, its API key and its signing secrets?", yes=yes)
    with _changing(desk) as draft:
        _managed(desk, draft, name)
        del draft.connections[name]
    voice.tell({"id": name, "state": "removed"}, f"{name} is gone; what was signed for it is invalid.")
