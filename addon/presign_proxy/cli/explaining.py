"""`presign explain`, `verify` and `convert`: what a URL, a token, headers or a curl command line is worth."""

from __future__ import annotations

import shlex
import time
from contextlib import suppress
from typing import Any

import click

from .. import loosely
from ..converting import signed_from
from ..document import ConfigError
from ..explaining import explain as explained
from ..explaining.explanation import Explanation, headline, render
from ..hosts import parse_address
from ..message import Request
from ..presenting import Presented, parse
from ..presenting.urls import Unreadable
from ..schema import instant
from . import asking
from .desk import Desk, Failure
from .signing import BASE, CA, FORMS, Form, described, shown
from .voice import DONE, REFUSED, Voice, verb


class Pasted(click.Command):
    """Takes a curl command line as it is: from the word `curl` on, everything is one text."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "curl" in args:
            at = args.index("curl")
            args = [*args[:at], shlex.join(args[at:])]
        return super().parse_args(ctx, args)


def _text(given: str) -> str:
    """What was pasted; `-` reads standard input, where no other user of the machine can see it."""
    return asking.text() if given == "-" else given


def _presented(given: str, **wanted: str | None) -> Presented:
    try:
        return parse(_text(given), **{name: value for name, value in wanted.items() if value is not None})
    except Unreadable as error:
        raise Failure(str(error)) from None


def _at(text: str | None) -> int:
    if text is None:
        return int(time.time())
    try:
        return instant(text)
    except ValueError as error:
        raise click.UsageError(f"--at {error}") from None


def _address(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    if text is not None and parse_address(text) is None:
        raise click.UsageError("--from is an IP address")
    return text


def _judged(desk: Desk, given: str, at: str | None, **wanted: str | None) -> tuple[Explanation, list[str]]:
    """The explanation, and what was assumed for it."""
    # What names no host goes to the gateway, by a name that it answers to.
    host = min(desk.hosts(), default=None)
    presented = _presented(given, **wanted, gateway=f"http://{host}" if host else None)
    registry, left_out = desk.registry(named(presented.request))
    explanation = explained(registry, presented.request, _at(at))
    return explanation, [*presented.assumed, *left_out]


def named(request: Request) -> frozenset[str]:
    """Connections that a request may mean, however it names them."""
    loose = loosely.read(request)
    segments = request.path.decode("utf-8", "replace").split("/")[1:5]
    return frozenset(filter(None, (loose.first("connection_id"), *segments)))


_METHOD = click.option("--method", metavar="M", help="Where the text names none.")
_PATH = click.option("--path", metavar="PATH", help="Below the connection, for tokens and headers.")
_TO = click.option("--to", metavar="URL", help="Where headers are sent, if not to the gateway.")
_FROM = click.option("--from", "client", metavar="ADDRESS", callback=_address, help="The client's address.")
_AT = click.option("--at", metavar="INSTANT", help="Judge as at this time, as in 2027-01-01T00:00:00Z.")


@click.command(cls=Pasted)
@click.argument("what", metavar="URL|TOKEN|HEADERS|curl …|-")
@_METHOD
@_PATH
@_TO
@_FROM
@_AT
@verb
def explain(
    desk: Desk,
    voice: Voice,
    what: str,
    to: str | None,
    at: str | None,
    **asked: str | None,
) -> int:
    """Say step by step what the gateway would do with a request, and why; name the usual mistakes.

    Offline, with the configuration that lies here. Exit code 0 where it would be granted.
    """
    explanation, assumed = _judged(desk, what, at, **asked, url=to)
    tail = ["", "Assumed:", *(f"  -  {one}" for one in assumed)] if assumed else []
    voice.tell(explanation.to_json() | {"assumed": assumed}, *render(explanation), *tail)
    return DONE if explanation.verdict.decision == "forward" else REFUSED


@click.command(cls=Pasted)
@click.argument("what", metavar="URL|TOKEN|HEADERS|curl …|-")
@_METHOD
@_PATH
@_TO
@_FROM
@_AT
@verb
def verify(
    desk: Desk,
    voice: Voice,
    what: str,
    to: str | None,
    at: str | None,
    **asked: str | None,
) -> int:
    """Say whether the gateway would grant a request. Exit code 0 where it would."""
    explanation, _ = _judged(desk, what, at, **asked, url=to)
    data = {**explanation.verdict._asdict(), "claimed": explanation.claimed._asdict()}
    voice.tell(data, headline(explanation.verdict))
    return DONE if explanation.verdict.decision == "forward" else REFUSED


@click.command(cls=Pasted)
@click.argument("what", metavar="URL|TOKEN|HEADERS|-")
@click.option(
    "--as", "form", type=click.Choice(FORMS), default="token", show_default=True, help="Its new form."
)
@click.option("--path", metavar="PATH", help="For a URL: the path, with query, if the text names none.")
@click.option("--connection", metavar="ID", help="Where the text names none.")
@click.option("--base", default=BASE, show_default=True, metavar="URL", help="Where the gateway is.")
@click.option("--ca", default=CA, show_default=True, metavar="PATH", help="--as env: the gateway's CA.")
@verb
def convert(desk: Desk, voice: Voice, what: str, form: str, connection: str | None, **options: Any) -> None:
    """Carry the same grant another way, without the secret: URL, token, headers, …

    Needs no configuration; nothing is verified.
    """
    presented = _presented(what)
    try:
        base = _base_path(desk, connection)
        signed, path = signed_from(presented, connection=connection, base=base)
    except Unreadable as error:
        raise Failure(str(error)) from None
    wanted = options["path"] or path or _only_path(signed.paths)
    how = Form(wanted.removeprefix("/"), options["base"].rstrip("/"), options["ca"])
    preset = _preset(desk, signed.connection_id)
    voice.tell(described(signed, how, preset), *shown(signed, form, how, preset))


def _only_path(paths: str) -> str:
    """The only path that was signed, if it is one."""
    return "" if "," in paths or "*" in paths else paths


def _base_path(desk: Desk, connection: str | None) -> str:
    """What a URL of the API's own begins with, where the connection is known here."""
    if connection is None or not desk.exists or connection not in desk.entries:
        return ""
    upstream = desk.connection(desk.entry(connection)).upstream
    return upstream.base.decode() if upstream else ""


def _preset(desk: Desk, connection: str) -> dict[str, Any]:
    """The connection's preset, where there is a configuration that can be read."""
    found: dict[str, Any] = {}
    with suppress(ConfigError):
        if desk.exists and connection in desk.entries:
            found = desk.presets.known.get(desk.entries[connection].data.get("preset") or "", {})
    return found
