"""`presign rekey`, `decrypt`, `encrypt`: the registry's file as a whole."""

from __future__ import annotations

from pathlib import Path

import click

from ..config.registry_file.build import revocations_of
from ..config.registry_file.edit import Draft, changing, from_json, naming, shaped
from ..config.registry_file.encryption import Passphrase, VaultKey, kid_of, new_key, parse_key
from ..config.registry_file.open import MAX_KEYS, read_payload
from ..config.registry_file.storage import MAX_BYTES, read_private, remove_drafts, write_private
from ..config.strict_yaml import Document
from ..config_problems import ConfigError, Problem
from ..signing.secret import Secret
from . import prompts
from .hints import quoted
from .output import Output, counted, verb
from .progress import counting, working
from .workspace import Entry, Failure, Workspace


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write here (0600) instead of standard output.")
@verb
def decrypt(workspace: Workspace, output: Output, out: Path | None) -> None:
    """Print the registry as JSON, including all secrets."""
    openers = workspace.openers
    with naming(workspace.registry_path), working("decrypting the registry"):
        payload = read_payload(workspace.registry_path, openers).plain
    if out is None:
        click.echo(payload, nl=False)
        return
    if out.exists() or out.is_symlink():
        raise Failure(f"{out} exists already; nothing was changed")
    with naming(out):
        write_private(out, payload)
    output.tell({"wrote": str(out)}, f"Wrote {out}. It contains every secret: delete it when you are done.")


@click.command()
@click.argument("source", type=click.Path(path_type=Path, allow_dash=True))
@click.option("--replace", is_flag=True, help="Replace a registry that has connections.")
@verb
def encrypt(workspace: Workspace, output: Output, source: Path, replace: bool) -> None:
    """Encrypt a plain registry (JSON or YAML) into the registry file.

    For the file, - reads JSON from standard input.
    """
    openers = workspace.openers
    if openers is None:
        raise Failure("the registry is not encrypted: write `registry: {file: connections.enc, key: …}`")
    with working(f"reading {source}"):
        draft = _plain(source, workspace)
    target = workspace.registry_path
    if target.exists():
        with changing(target, openers) as before:
            if before.connections and not replace:
                has = counted(len(before.connections), "connection")
                raise Failure(f"{target.name} has {has} already; --replace replaces them")
            draft.instead_of(before)
            _write(workspace, draft)
    else:
        _write(workspace, draft)
    count = len(draft.connections)
    said = f"Wrote {target.name} with {counted(count, 'connection')}."
    output.tell({"wrote": str(target), "connections": count}, said)
    if source != Path("-"):
        output.note(f"{source} still contains every secret in plain text: delete it when you are done.")


def _plain(source: Path, workspace: Workspace) -> Draft:
    if source == Path("-"):
        name = Path("standard input")
        draft = Draft(name, None, shaped(from_json(prompts.everything(MAX_BYTES), name), name))
    else:
        draft = Draft.read(source, None)
    content = {"connections": draft.connections, "revoked": draft.content("revoked")}
    return Draft(workspace.registry_path, workspace.openers, content)


def _write(workspace: Workspace, draft: Draft) -> None:
    """Write the registry if it would load. Raises ConfigError."""
    problems: list[Problem] = []
    each = counting("checking connections", draft.connections.items(), len(draft.connections))
    for name, data in each:
        try:
            workspace.unrevoked(Entry(name, data, Document(str(draft.path), {}), managed=True))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    revocations_of(draft.content("revoked"), draft.path)
    with working("writing the registry"):
        draft.write()


@click.command()
@click.option(
    "--drop-old", is_flag=True, help="Remove the older keys from the key file; backups still need them."
)
@verb
def rekey(workspace: Workspace, output: Output, drop_old: bool) -> None:
    """Encrypt the registry again: with a new key if the key is in a file, else with the first key."""
    openers, path = workspace.openers, workspace.registry_path
    if openers is None:
        wanted = "`registry: {file: connections.enc, key: …}`"
        raise Failure(f"the registry is not encrypted: write {wanted}, then {quoted('encrypt', str(path))}")
    with working("encrypting the registry"), changing(path, openers) as draft:
        source = (
            workspace.config.registry.key[0]
            if workspace.config.registry and workspace.config.registry.key
            else None
        )
        file = source.source.file if source and not source.passphrase else None
        kid = _with_key_file(workspace.base / file, draft, drop_old) if file else _with_first(draft)
    what = f"the key with the fingerprint {kid}" if kid else "the passphrase"
    said = f"{path.name} is now encrypted with {what}."
    if file is not None and drop_old:
        said = f"{file} now holds only the key of {path.name}, with the fingerprint {kid}."
    output.tell({"registry": str(path), "kid": kid}, said)
    if file is not None and not drop_old:
        output.note(f"{file} keeps the older keys, for running gateways and backups: --drop-old later.")


def _with_key_file(file: Path, draft: Draft, drop_old: bool) -> str:
    """Encrypt with a new key. At every moment, the key file holds a key that opens the registry."""
    with naming(file):
        remove_drafts(file)  # of a killed command: no other writes while the registry is locked
        older = read_private(file).decode("utf-8").split()
    kid = kid_of(draft.path.read_bytes())
    current = next((text for text in older if _key(text).kid == kid), None)
    if drop_old:
        if current is None:
            raise Failure(f"no key in {file} opens the present registry")
        _write_keys(file, [current])
        return _key(current).kid
    fresh = new_key().reveal()
    if current is not None:  # first, because only MAX_KEYS keys are kept
        older = [current, *(text for text in older if text != current)]
    _write_keys(file, [fresh, *older[: MAX_KEYS - 1]])
    draft.openers = [_key(fresh)]
    draft.write()
    return _key(fresh).kid


def _write_keys(file: Path, keys: list[str]) -> None:
    with naming(file):
        write_private(file, "".join(f"{text}\n" for text in keys).encode())


def _key(text: str) -> VaultKey:
    return parse_key(Secret(text))


def _with_first(draft: Draft) -> str | None:
    first = (draft.openers or [])[0]
    current = kid_of(draft.path.read_bytes())
    if isinstance(first, VaultKey) and first.kid == current:
        raise Failure(
            "the registry is already encrypted with the first key: put a new key before it in registry.key,"
            " as a list [{env: NEW}, {env: OLD}]"
        )
    draft.openers = [first]
    draft.write()
    return None if isinstance(first, Passphrase) else first.kid
