"""`presign sign` for a connection of scheme source: the URL of a file at an origin."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from ..errors import Denied
from ..signing.keys import signature_id
from ..signing.signer import Signer
from .grant_forms import BEGINS_URL
from .output import Output
from .place import Failure, Place
from .policy_options import given_of
from .signing_key import KnownKey, guessed_base

if TYPE_CHECKING:
    from ..config.signing_view import SigningView


def sign_source(
    place: Place, output: Output, known: KnownKey, url: str, expires_at: int, options: dict[str, Any]
) -> None:
    """Print the URL of a source. Raises Failure if the gateway would refuse it, UsageError."""
    if given := given_of(options):
        raise click.UsageError(f"a source URL has no signed policy: leave out {' and '.join(given)}")
    if options["methods"] or options["paths"]:
        raise click.UsageError("a source URL is only for itself: leave out --methods and --paths")
    if options["form"] not in ("url", "curl"):
        raise click.UsageError(f"--as {options['form']} is for scheme presign")
    view = known.view
    extension = options["extension"] or url.partition("?")[0].rpartition(".")[2].lower()
    if view is not None and extension not in (formats := view.formats or ()):
        raise Failure(f"{known.id} serves only {', '.join(sorted(formats))}: choose one with --format")
    if (view is None or view.signed) and not BEGINS_URL.match(url):
        raise click.UsageError("give the whole URL of the source, such as https://cdn.acme.com/hero.png")
    if view is not None:
        _check_origin(place, view, url)
        if not view.signed:
            _print_unsigned(output, known, url, extension, options)
            return
    if not expires_at:
        raise click.UsageError("a source URL always expires: leave out --no-expiry")
    try:
        signed = Signer(known.id, known.secret).sign_source(url, extension, expires_at=expires_at)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    text = signed.url(known.base(options["base"]))
    output.note(*guessed_base(place, known, options["base"]))
    more = {"expires": expires_at, "signature_id": signature_id(signed.signature), "key": known.key}
    _print(output, known, text, more, options["form"])


def _check_origin(place: Place, view: SigningView, url: str) -> None:
    """Refuse a source that the connection's origins do not admit. Raises Failure."""
    from ..core.source_rules import admit_plain, admit_signed
    from .configured import source_rules_of

    rules = source_rules_of(place, view.id)
    if rules is None:
        return
    try:
        if view.signed:
            admit_signed(url, rules)
        else:
            admit_plain(url.partition("://")[2] or url, rules)
    except Denied as denied:
        allowed = f"; {view.id} allows {', '.join(map(str, rules.origins))}" if rules.origins else ""
        raise Failure(f"the gateway would answer 403: {denied.detail}{allowed}") from None


def _print_unsigned(
    output: Output, known: KnownKey, url: str, extension: str, options: dict[str, Any]
) -> None:
    if options["expires"] or options["no_expiry"] or options["key_id"]:
        raise click.UsageError(f"URLs of {known.id} are not signed: leave out the expiry and --key")
    plain = f"{known.base(options['base'])}/v1/{known.id}/{url.partition('://')[2] or url}.{extension}"
    _print(output, known, plain, {"expires": None}, "url")


def _print(output: Output, known: KnownKey, url: str, more: dict[str, Any], form: str) -> None:
    data = {"connection": known.id, "url": url, "token": None, "headers": {}, **more}
    output.tell(data, f"curl {shlex.quote(url)}" if form == "curl" else url)
