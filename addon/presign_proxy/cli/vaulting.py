"""`presign rekey`, `decrypt`, `encrypt`: the registry's file itself."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ..document import ConfigError, Document, Problem
from ..draft import Draft, changing, from_json
from ..registry_file import MAX_KEYS, read_payload, revocations_of
from ..secret import Secret
from ..storing import read_private, write_private
from ..vault import Passphrase, VaultKey, kid_of, new_key, parse_key, seal
from .desk import Desk, Entry, Failure
from .voice import Voice, verb


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write here (0600) instead of standard output.")
@verb
def decrypt(desk: Desk, voice: Voice, out: Path | None) -> None:
    """Print the registry as JSON, all its secrets included."""
    payload = read_payload(desk.registry_path, desk.openers)
    if out is None:
        click.echo(payload.decode("utf-8"), nl=False)
        return
    if out.exists():
        raise Failure(f"{out} is there already; nothing was changed")
    write_private(out, payload)
    voice.tell({"wrote": str(out)}, f"Wrote {out}. It holds every secret: delete it when you are done.")


@click.command()
@click.argument("source", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--replace", is_flag=True, help="Replace a registry that has connections.")
@verb
def encrypt(desk: Desk, voice: Voice, source: Path, replace: bool) -> None:
    """Make a plain registry (JSON or YAML; - reads JSON from standard input) the encrypted one."""
    openers = desk.openers
    if openers is None:
        raise Failure("the configured registry is a plain one: `registry: {file: connections.enc, key: …}`")
    draft = _plain(source, desk)
    target = desk.registry_path
    if target.exists():
        with changing(target, openers) as before:
            if before.connections and not replace:
                raise Failure(
                    f"{target.name} has {len(before.connections)} connections; --replace replaces them"
                )
            _write(desk, draft)
    else:
        _write(desk, draft)
    count = len(draft.connections)
    voice.tell({"wrote": str(target), "connections": count}, f"Wrote {target.name} with {count} connections.")
    if source != Path("-"):
        voice.note(f"{source} still holds every secret in plain text: delete it when you are done.")


def _plain(source: Path, desk: Desk) -> Draft:
    if source == Path("-"):
        data = from_json(sys.stdin.buffer.read(), source)
        draft = Draft(source, None, data if isinstance(data, dict) else {"connections": data})
    else:
        draft = Draft.read(source, None)
    content = {"connections": draft.connections, "revoked": draft.content("revoked")}
    return Draft(desk.registry_path, desk.openers, content)


def _write(desk: Desk, draft: Draft) -> None:
    """Raises ConfigError: what would not load is not written."""
    problems: list[Problem] = []
    for name, data in draft.connections.items():
        try:
            desk.connection(Entry(name, data, Document(str(draft.path), {}), managed=True))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    revocations_of(draft.content("revoked"), draft.path)
    draft.write()


@click.command()
@click.option(
    "--drop-old", is_flag=True, help="Take the older keys out of the key file; backups need them still."
)
@verb
def rekey(desk: Desk, voice: Voice, drop_old: bool) -> None:
    """Encrypt the registry anew: with a fresh key where the key is in a file, else with the first key."""
    openers, path = desk.openers, desk.registry_path
    if openers is None:
        raise Failure("the registry is not encrypted: `presign encrypt`")
    with changing(path, openers) as draft:
        source = desk.config.registry.key[0] if desk.config.registry and desk.config.registry.key else None
        file = source.source.file if source and not source.passphrase else None
        kid = _with_key_file(desk.base / file, draft, drop_old) if file else _with_first(draft)
    voice.tell(
        {"registry": str(path), "kid": kid}, f"{path.name} is encrypted with {kid or 'the passphrase'} now."
    )
    if file is not None and not drop_old:
        voice.note(f"{file} holds the older keys too, for gateways that run and backups: --drop-old later.")


def _with_key_file(file: Path, draft: Draft, drop_old: bool) -> str:
    """At every moment the key file holds a key that opens the registry."""
    older = read_private(file).decode("utf-8").split()
    current = next((text for text in older if _key(text).kid == kid_of(draft.path.read_bytes())), None)
    if drop_old:
        if current is None:
            raise Failure("no key of the file opens the registry as it is")
        write_private(file, f"{current}\n".encode())
        return _key(current).kid
    fresh = new_key().reveal()
    # First the one that opens it: the next line may fail, again and again, and each time leave a fresh key.
    older.sort(key=lambda text: text != current)
    write_private(file, "\n".join([fresh, *older[: MAX_KEYS - 1], ""]).encode())
    draft.openers = [_key(fresh)]
    draft.write()
    return _key(fresh).kid


def _key(text: str) -> VaultKey:
    return parse_key(Secret(text))


def _with_first(draft: Draft) -> str | None:
    first = (draft.openers or [])[0]
    current = kid_of(draft.path.read_bytes())
    if isinstance(first, VaultKey) and first.kid == current:
        raise Failure(
            "the registry is encrypted with the first key already: put a new one before it in registry.key,"
            " as a list [{env: NEW}, {env: OLD}]"
        )
    write_private(draft.path, seal(draft.payload, first))
    return None if isinstance(first, Passphrase) else first.kid
