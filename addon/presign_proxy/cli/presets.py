"""`presign presets`: the built-in and configured providers."""

from __future__ import annotations

from typing import Any

import click

from ..config.presets.markdown_table import markdown, url_of
from .completion import complete_presets
from .hints import no_preset
from .output import Output, table, verb
from .width import columns, hanging
from .workspace import Failure, Workspace


@click.command()
@click.argument("name", required=False, shell_complete=complete_presets)
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table of docs/presets.md.")
@verb
def presets(workspace: Workspace, output: Output, name: str | None, as_markdown: bool) -> None:
    """List the providers for `connections add --preset`, or show one of them."""
    known = workspace.presets.known
    if name is not None:
        if name not in known:
            raise Failure(no_preset(name, known))
        known = {name: known[name]}
    if as_markdown and output.as_json:
        raise click.UsageError("--markdown and --json exclude each other")
    if as_markdown:
        click.echo(markdown(known), nl=False)
        return
    if name is not None:
        output.tell(known[name], *_one(name, known[name]))
        return
    rows = [(key, one["name"], one["upstream"], _auth(one["auth"])) for key, one in known.items()]
    output.tell(known, *table([("PRESET", "PROVIDER", "UPSTREAM", "AUTH"), *rows]))


def _auth(auth: dict[str, Any]) -> str:
    place = auth.get("header") or auth.get("param") or auth.get("template") or ", ".join(auth.get("asks", {}))
    return f"{auth['type']} {place}".rstrip()


def _slots(slots: dict[str, list[str]]) -> list[str]:
    """Return the further places in which a client may put its key."""
    params = [f"?{name}=" for name in slots.get("params", [])]
    return [*slots.get("headers", []), *params, *(f"basic …:{one}" for one in slots.get("passwords", []))]


def _one(key: str, preset: dict[str, Any]) -> list[str]:
    rows = [
        ("upstream", preset["upstream"]),
        *(("", f"@{name} {url_of(one)}") for name, one in preset.get("upstreams", {}).items()),
        ("auth", _auth(preset["auth"])),
        ("key also in", ", ".join(_slots(preset.get("key_slots", {})))),
        *(("variable", f"{name}: {one['about']}") for name, one in preset.get("vars", {}).items()),
        *(("header", f"{name}: {value}") for name, value in preset.get("headers", {}).items()),
        ("sample", preset.get("sample", "")),
        ("environment", ", ".join([*preset.get("env", []), *preset.get("base_env", [])])),
        ("docs", preset.get("docs", "")),
    ]
    lines = [f"{key}  {preset['name']}", "", *(f"  {what:<12} {text}" for what, text in rows if text)]
    return hanging(lines, columns())
