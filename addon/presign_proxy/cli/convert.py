"""`presign convert`: the same grant, carried another way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from ..explain.convert import signed_from
from ..explain.input.urls import UnreadableUrl
from .environment import CA
from .grant_forms import FORMS, GrantForm, base_option, check_ca, described, remarks, shown
from .output import Output, light_verb
from .paste import Pasted, presented_by
from .place import Failure, Place

OF_A_PATH: Final = ("url", "curl", "headers")
"""Forms that are for one path, or are printed with one. In JSON, there is always a URL."""


@click.command(cls=Pasted)
@click.argument("what", metavar="URL|TOKEN|HEADERS|-")
@click.option(
    "--as", "form", type=click.Choice(FORMS), default="token", show_default=True, help="Its new form."
)
@click.option("--path", metavar="PATH", help="--as url, curl, headers: the path, with query.")
@click.option("--connection", metavar="ID", help="Where the text names none.")
@base_option
@click.option("--ca", default=CA, show_default=True, metavar="PATH", help="--as env: the gateway's CA.")
@light_verb
def convert(
    place: Place, output: Output, what: str, form: str, connection: str | None, **options: Any
) -> None:
    """Carry the same grant another way, without the secret: URL, token, headers, …

    Needs no configuration; nothing is verified.
    """
    check_ca(form, options["ca"])
    if options["path"] and form not in OF_A_PATH and not output.as_json:
        raise click.UsageError(f"--path is for --as {', '.join(OF_A_PATH)}: {form} names no path")
    presented = presented_by(what)
    try:
        base = _base_path(place, connection)
        signed, path = signed_from(presented, connection=connection, base=base)
    except UnreadableUrl as error:
        raise Failure(str(error)) from None
    wanted = options["path"] or path or _only_path(signed.paths)
    how = GrantForm(wanted.removeprefix("/"), options["base"], options["ca"])
    preset = _preset(place, signed.connection_id)
    output.tell(described(signed, how, preset), *shown(signed, form, how, preset))
    output.note(*remarks(signed, form, how, preset))


def _only_path(paths: str) -> str:
    """The only path that was signed, if it is one."""
    return "" if "," in paths or "*" in paths else paths


def _base_path(place: Place, connection: str | None) -> str:
    """What a URL of the API's own begins with, where the connection is known here."""
    if connection is None or not place.exists:
        return ""
    from .configured import base_path_of

    return base_path_of(place, connection)


def _preset(place: Place, connection: str) -> Mapping[str, Any]:
    """The connection's preset, where there is a configuration that can be read."""
    if not place.exists:
        return {}
    from .configured import preset_of

    return preset_of(place, connection)
