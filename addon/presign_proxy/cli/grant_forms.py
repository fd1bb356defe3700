"""The printed forms of a grant, and remarks for its holder."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from ..regexes import late
from ..signing.keys import signature_id
from ..signing.signer import Signed
from ..units import instant
from .environment import CA, key_variables
from .policy_options import as_json

if TYPE_CHECKING:
    from .exported_trust import ExportedTrust
    from .output import Output
    from .place import Place

BEGINS_URL = late(r"https?://[^/?#]+", re.IGNORECASE)
FORMS: Final = ("url", "headers", "token", "base-url", "key", "curl", "env")
BASE: Final = "http://127.0.0.1:8080"
BASE_VARIABLE: Final = "PRESIGN_BASE"
_UNKNOWN_VARIABLE: Final = (
    "No preset says where the program reads its key: API_KEY holds it here; rename that, or sign with"
    " --env NAME."
)


class GrantForm(NamedTuple):
    """The parameters for printing a grant."""

    path: str
    base: str
    local: bool = False
    """True if the API is on this machine."""
    trust: ExportedTrust | None = None
    """What `env` exports."""
    variables: Sequence[str] = ()
    """The variables that hold the key in `env`, instead of those of the preset."""


def _base(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    """Return the URL of --base, or of the variable; None if neither is given. Raises BadParameter."""
    text = given if given is not None else os.environ.get(BASE_VARIABLE)
    if not text and given is None:
        return None
    try:
        return _checked(text or "")
    except click.BadParameter as error:
        if given is not None:
            raise
        raise click.UsageError(f"the variable {BASE_VARIABLE} {error.message}") from None


def _checked(text: str) -> str:
    if BEGINS_URL.match(text) and not set("?#") & set(text):
        # It goes into URLs, variables and options of other programs, where a blank would end it.
        if not text.isprintable() or " " in text:
            raise click.BadParameter("must be a URL without blanks and control characters")
        return text.rstrip("/")
    if BEGINS_URL.match(text):
        raise click.BadParameter("must be the URL of the gateway alone, without ? and #")
    from ..http.hosts import is_loopback, parse_authority

    rest = text.rpartition("://")[2]
    authority = parse_authority(rest.partition("/")[0], "http")
    scheme = "http" if authority is not None and is_loopback(authority.host) else "https"
    raise click.BadParameter(f"must be a URL with http:// or https://: {scheme}://{rest}?")


base_option = click.option(
    "--base",
    metavar="URL",
    callback=_base,
    help=f"The gateway's URL. Default: ${BASE_VARIABLE}, else gateway.url, else {BASE}.",
)


def check_form(form: str, ca: str, variables: Sequence[str] = (), shape: str | None = None) -> None:
    """Refuse options of another form, so that none is silently ignored. Raises UsageError."""
    if ca != CA and form != "env":
        raise click.UsageError("--ca needs --as env")
    if variables and form != "env":
        raise click.UsageError("--env needs --as env")
    if shape is not None and form != "key":
        raise click.UsageError("--shape needs --as key")


def trust_for(
    place: Place, output: Output, form: str, base: str, ca: str, *, configured: bool
) -> ExportedTrust | None:
    """Return the authorities that `env` exports; None for the other forms. Raises Failure, ConfigError.

    Args:
        configured: whether the gateway is that of the configuration here.
    """
    if form != "env" or output.as_json:  # JSON has no exports
        return None
    from .exported_trust import exported_trust
    from .workspace import Workspace

    workspace = Workspace(place.path, place.environ) if configured else None
    return exported_trust(workspace, place.environ, base, ca)


def described(grant: Signed, form: GrantForm, preset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the grant in all its forms, as JSON."""
    expires = int(grant.expires)
    can_be_url = bool(form.path) and "*" not in form.path
    return {
        "connection": grant.connection_id,
        "methods": grant.methods.split(","),
        "paths": grant.paths.split(","),
        **({} if grant.written is None else {"terms": as_json(grant.written)}),
        "expires": expires,
        "expires_at": instant(expires) if expires else None,
        "url": _url(grant, form) if can_be_url else None,
        "base_url": _base_url(grant, form, preset),
        "token": grant.token,
        "headers": grant.headers,
        "send_to": _send_to(grant, form),
        "signature_id": signature_id(grant.signature),
    }


def shown(grant: Signed, what: str, form: GrantForm, preset: Mapping[str, Any]) -> list[str]:
    """Return the grant in one form, as lines."""
    if what in ("token", "key"):
        return [grant.token]
    if what == "headers":
        return [f"{name}: {value}" for name, value in grant.headers.items()]
    if what == "base-url":
        return [_base_url(grant, form, preset)]
    if form.trust is not None:
        from .shell_exports import exports

        names = key_variables(preset)
        names = names._replace(secret=form.variables or names.secret)
        return exports(grant, form.base, form.trust, names, local=form.local)
    url = _url(grant, form)
    if what == "url":
        return [url]
    method = grant.methods.split(",")[0]
    return [f"curl {'' if method in ('GET', '*') else f'-X {method} '}{shlex.quote(url)}"]


def remarks(grant: Signed, what: str, form: GrantForm, preset: Mapping[str, Any]) -> list[str]:
    """Return remarks for the user of the form, which are not part of the form."""
    if what == "headers":
        return [f"Send them with a request to {_send_to(grant, form)}"]
    if form.trust is None:
        return []
    found = list(form.trust.remarks)
    if not preset.get("env") and not form.variables:
        found.insert(0, _UNKNOWN_VARIABLE)
    return found


def _send_to(grant: Signed, form: GrantForm) -> str:
    """Return the URL for a request with the headers; with a pattern, only the URL before the path."""
    return f"{form.base}/api/proxy/{grant.connection_id}/{form.path if '*' not in form.path else ''}"


def _url(grant: Signed, form: GrantForm) -> str:
    if not form.path or "*" in form.path:
        raise click.UsageError("a URL needs one PATH without *: give it, and the patterns with --paths")
    try:
        return grant.url(form.path, form.base)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _base_url(grant: Signed, form: GrantForm, preset: Mapping[str, Any]) -> str:
    """Return the base URL with its final slash: some SDKs request it as it is, and `/p/TOKEN` is no path."""
    inner = preset.get("sdk_base") or ""
    return f"{form.base}/p/{grant.token}/{inner}"
