"""`presign connections add`: register an API and its key, and make its signing secret."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from ..explain.literal_address import refusal_of
from ..http.patterns import meets, pattern
from . import prompts
from .credential import absent, auth_of
from .hints import command, quoted
from .new_connection import AddCommand, check_described, described, described_by_options, name_of, there_is
from .output import Output, verb
from .registry_entries import changing_registry, check, names_of_keys, new_secret, shown_once
from .upstream_option import check_upstream
from .values import present
from .workspace import Entry, Failure, Workspace


@click.command(cls=AddCommand)
@click.argument("name", required=False)
@described_by_options
@click.option("--credential-env", metavar="NAME", help="Keep the key in this environment variable.")
@click.option("--credential-file", metavar="PATH", help="Keep the key in this file.")
@click.option("--credential-exec", metavar="COMMAND", help="Read the key from this program; no shell.")
@click.option("--import-secret", is_flag=True, help="Ask for the signing secret instead of making one.")
@verb
def add(workspace: Workspace, output: Output, name: str | None, import_secret: bool, **options: Any) -> None:
    """Register an API and its key; print a new signing secret, once.

    The command prompts for the key, or reads it as one line of standard input. An imported secret follows.
    """
    name, preset = name_of(workspace, name, options), options["preset"]
    data = described(workspace, options)
    check_upstream(options["upstream"], data)
    check_described(workspace, name, data, options)
    if auth := auth_of(workspace, name, options):
        data["auth"] = auth | data.get("auth", {})
    own = prompts.secret(f"signing secret of {name}") if import_secret else new_secret()
    with changing_registry(workspace) as draft:
        if name in draft.connections:  # added while this command waited for the key
            raise Failure(there_is(name))
        if name in draft.revoked("connections"):
            undo = quoted("revoke", "--undo", "--connection", name)
            raise Failure(f"{name} was revoked: choose another name, or {undo}")
        key = next(key for key in names_of_keys() if f"{name}/{key}" not in draft.revoked("keys"))
        data["signing_keys"] = [{"id": key, "secret": own, "added": present()}]
        entry = check(workspace, name, data, draft)
        draft.connections[name] = data
    filled = workspace.filled(entry)
    leads = filled.get("upstream") or ", ".join(filled["allowed_origins"])
    sample = (workspace.presets.known.get(preset) or {}).get("sample")
    shown = None if import_secret else own
    output.tell(
        {"id": name, "upstream": filled.get("upstream"), "signing_key": {"id": key, "secret": shown}},
        f"{name} leads to {leads}",
        *shown_once(shown),
    )
    output.note(*absent(workspace, options), *_closed(workspace, entry))
    output.note(f"Next: {command('sign', name, *_sampled(data, sample))}")


def _closed(workspace: Workspace, entry: Entry) -> Iterator[str]:
    """Yield a remark for each origin of sources that the gateway refuses by its address."""
    rules = workspace.unrevoked(entry).source
    for origin in rules.origins if rules else ():
        if rules and refusal_of(origin.host, rules.networks):
            host = origin.host.strip("[]")
            allow = command("connections", "set", entry.id, "--allow-networks", host)
            yield f"The gateway refuses {origin}: it is no public address, and not in allow_networks."
            yield f"To allow it: {allow}"


def _sampled(data: dict[str, Any], sample: str | None) -> list[str]:
    """Return the words after the name in an example of `sign`, within what the connection allows.

    An empty `sample` is the root, which only `*` matches: a webhook has no paths below it.
    """
    if data.get("scheme") == "source":
        extension = data["formats"][0]
        return [f"{data['allowed_origins'][0]}/FILE.{extension}", "--format", extension]
    allowed = data.get("allow", {})
    methods, paths = allowed.get("methods", ["*"]), allowed.get("paths", ["*"])
    if sample == "":
        return ["/", "--paths", "*", "--methods", "POST"]
    sample = sample or "PATH"
    if not any(meets(pattern(sample), pattern(one)) for one in paths):
        sample = paths[0].removeprefix("/").replace("*", "PATH")
    return [sample, *([] if {"GET", "*"} & set(methods) else ["--methods", methods[0]])]
