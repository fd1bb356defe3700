"""`presign convert`: convert a grant to another form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from ..explain.convert import signed_from
from ..explain.input.urls import UnreadableUrl
from .environment import CA
from .grant_forms import BASE, FORMS, GrantForm, base_option, check_form, described, remarks, shown, trust_for
from .output import Output, light_verb
from .paste import Pasted, presented_by
from .place import Failure, Place

OF_A_PATH: Final = ("url", "curl", "headers")
"""Forms for one path, or printed with one. JSON always has a URL."""


@click.command(cls=Pasted)
@click.argument("what", metavar="URL|TOKEN|HEADERS|-")
@click.option(
    "--as", "form", type=click.Choice(FORMS), default="token", show_default=True, help="Its new form."
)
@click.option("--path", metavar="PATH", help="--as url, curl, headers: the path, with query.")
@click.option("--connection", metavar="ID", help="The connection, if the text names none.")
@base_option
@click.option("--ca", default=CA, show_default=True, metavar="PATH", help="--as env: the gateway's CA.")
@light_verb
def convert(
    place: Place, output: Output, what: str, form: str, connection: str | None, **options: Any
) -> None:
    """Convert a grant to another form, without the secret: URL, token, headers, …

    It needs no configuration and verifies nothing.
    """
    check_form(form, options["ca"])
    if options["path"] and form not in OF_A_PATH and not output.as_json:
        raise click.UsageError(f"--path needs --as {', '.join(OF_A_PATH)}: {form} has no path")
    presented = presented_by(what)
    try:
        base = _base_path(place, connection)
        signed, path = signed_from(presented, connection=connection, base=base)
    except UnreadableUrl as error:
        raise Failure(str(error)) from None
    wanted = options["path"] or path or _only_path(signed.paths)
    gateway = options["base"] or _gateway(place)
    trust = trust_for(place, output, form, gateway, options["ca"], configured=place.exists)
    how = GrantForm(wanted.removeprefix("/"), gateway, trust=trust)
    preset = _preset(place, signed.connection_id)
    output.tell(described(signed, how, preset), *(() if output.as_json else shown(signed, form, how, preset)))
    output.note(*remarks(signed, form, how, preset))


def _only_path(paths: str) -> str:
    """Return the signed path if it is exactly one, else an empty text."""
    return "" if "," in paths or "*" in paths else paths


def _gateway(place: Place) -> str:
    if not place.exists:
        return BASE
    from .configured import gateway_of

    return gateway_of(place) or BASE


def _base_path(place: Place, connection: str | None) -> str:
    """Return the base path of the connection's upstream; empty if the connection is not configured here."""
    if connection is None or not place.exists:
        return ""
    from .configured import base_path_of

    return base_path_of(place, connection)


def _preset(place: Place, connection: str) -> Mapping[str, Any]:
    """Return the connection's preset; empty without a readable configuration."""
    if not place.exists:
        return {}
    from .configured import preset_of

    return preset_of(place, connection)
