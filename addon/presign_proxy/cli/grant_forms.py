"""The forms of a grant: what is printed for its holder, and what there is to say of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import click

from ..config.path import expanded
from ..regexes import late
from ..signing.keys import signature_id
from ..signing.signer import Signed
from .environment import CA, exports
from .policy_options import as_json

BEGINS_URL = late(r"https?://[^/?#]+", re.IGNORECASE)
FORMS: Final = ("url", "headers", "token", "base-url", "key", "curl", "env")
BASE: Final = "http://127.0.0.1:8080"


class GrantForm(NamedTuple):
    """How a grant is to be printed."""

    path: str
    base: str
    ca: str
    local: bool = False
    """Whether the API is on this machine."""


def _base(_: click.Context, __: click.Parameter, text: str) -> str:
    if BEGINS_URL.match(text):
        return text.rstrip("/")
    from ..http.hosts import is_loopback, parse_authority

    rest = text.rpartition("://")[2]
    authority = parse_authority(rest.partition("/")[0], "http")
    scheme = "http" if authority is not None and is_loopback(authority.host) else "https"
    raise click.BadParameter(f"has to be a URL, with http:// or https://: {scheme}://{rest}?")


base_option = click.option(
    "--base",
    default=BASE,
    show_default=True,
    metavar="URL",
    callback=_base,
    help="Where the gateway is.",
)


def check_ca(form: str, ca: str) -> None:
    """Raises UsageError: no option is ignored in silence."""
    if ca != CA and form != "env":
        raise click.UsageError("--ca is for --as env")


def described(grant: Signed, form: GrantForm, preset: Mapping[str, Any]) -> dict[str, Any]:
    """The grant in all its forms, as JSON."""
    expires = int(grant.expires)
    can_be_url = bool(form.path) and "*" not in form.path
    return {
        "connection": grant.connection_id,
        "methods": grant.methods.split(","),
        "paths": grant.paths.split(","),
        **({} if grant.written is None else {"terms": as_json(grant.written)}),
        "expires": expires,
        "expires_at": datetime.fromtimestamp(expires, UTC).isoformat() if expires else None,
        "url": _url(grant, form) if can_be_url else None,
        "base_url": _base_url(grant, form, preset),
        "token": grant.token,
        "headers": grant.headers,
        "send_to": _send_to(grant, form),
        "signature_id": signature_id(grant.signature),
    }


def shown(grant: Signed, what: str, form: GrantForm, preset: Mapping[str, Any]) -> list[str]:
    """The grant in one form, as lines."""
    if what in ("token", "key"):
        return [grant.token]
    if what == "headers":
        return [f"{name}: {value}" for name, value in grant.headers.items()]
    if what == "base-url":
        return [_base_url(grant, form, preset)]
    if what == "env":
        return exports(grant, form.base, form.ca, preset, local=form.local)
    url = _url(grant, form)
    if what == "url":
        return [url]
    method = grant.methods.split(",")[0]
    return [f"curl {'' if method in ('GET', '*') else f'-X {method} '}{shlex.quote(url)}"]


def remarks(grant: Signed, what: str, form: GrantForm, preset: Mapping[str, Any]) -> list[str]:
    """What somebody has to know or to do who uses the form; nothing of it is part of the form."""
    if what == "headers":
        return [f"Send them with a request to {_send_to(grant, form)}"]
    if what != "env":
        return []
    found = []
    if not preset.get("env"):
        found.append("No preset says where the program reads its key: it is in API_KEY here; rename that.")
    if not expanded(form.ca).is_file():
        found.append(
            f"{form.ca} is not there: no program will trust what it names. The gateway makes it at its first"
            " start, in its --confdir: copy it from there, and say --ca PATH."
        )
    if form.base.lower().startswith("https:"):
        found.append(
            f"{form.base} is asked over TLS: where no public authority has signed its certificate, add the"
            f" one that has to {form.ca}."
        )
    return found


def _send_to(grant: Signed, form: GrantForm) -> str:
    """Where the gateway takes the headers: the path is the only one, or stands for any that was signed."""
    return f"{form.base}/api/proxy/{grant.connection_id}/{form.path if '*' not in form.path else ''}"


def _url(grant: Signed, form: GrantForm) -> str:
    if not form.path or "*" in form.path:
        raise click.UsageError("a URL is for one PATH, without *: say it, and the patterns with --paths")
    try:
        return grant.url(form.path, form.base)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _base_url(grant: Signed, form: GrantForm, preset: Mapping[str, Any]) -> str:
    """With its last slash: some SDKs ask for exactly what they are given, and `/p/TOKEN` is no path."""
    inner = preset.get("sdk_base") or ""
    return f"{form.base}/p/{grant.token}/{inner}"
