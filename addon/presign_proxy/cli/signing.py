"""`presign sign`: a grant, in whichever form its holder can use."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from ..errors import Denied
from ..keys import SigningKey, signature_id
from ..secret import Secret
from ..secrets import resolve
from ..signer import Signed, Signer
from ..terms import NO_TERMS
from ..values import SecretSource, duration, instant
from .completing import complete_connections
from .hints import quoted
from .place import Failure, Place
from .terms import as_json, policy_options, terms_of
from .values import YEAR_10000, listed
from .voice import Voice, light_verb

if TYPE_CHECKING:
    from ..signing_view import SigningView

FORMS: Final = ("url", "headers", "token", "base-url", "key", "curl", "env")
BASE: Final = "http://127.0.0.1:8080"
CA: Final = "~/.mitmproxy/mitmproxy-ca-cert.pem"
_CA_VARIABLES: Final = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
)


class Known(NamedTuple):
    """Who signs: a connection of the configuration, or only its name and its secret."""

    id: str
    secret: Secret
    key: str | None = None
    view: SigningView | None = None

    @property
    def preset(self) -> Mapping[str, Any]:
        return self.view.preset if self.view else {}


class Form(NamedTuple):
    """How a grant is to be printed."""

    path: str
    base: str
    ca: str


@click.command()
@click.argument("connection", shell_complete=complete_connections)
@click.argument("path", required=False, default="")
@click.option("--methods", multiple=True, metavar="M,…", help="Default: GET.")
@click.option("--paths", multiple=True, metavar="P,…", help="Patterns, * is anything. Default: exactly PATH.")
@click.option("--expires", default="1h", metavar="1h", show_default=True, help="A duration, or an instant.")
@click.option("--no-expiry", is_flag=True, help="Valid for ever.")
@click.option(
    "--as", "form", type=click.Choice(FORMS), default="url", show_default=True, help="What to print."
)
@click.option("--base", default=BASE, show_default=True, metavar="URL", help="Where the gateway is.")
@click.option("--format", "extension", metavar="EXT", help="Scheme source: the format.")
@click.option("--ca", default=CA, show_default=True, metavar="PATH", help="--as env: the gateway's CA.")
@click.option("--key", "key_id", metavar="ID", help="Sign with this key instead of the first.")
@click.option(
    "--secret-env", metavar="NAME", help="Sign without a configuration, with this variable's secret."
)
@click.option("--secret-file", metavar="PATH", help="Sign without a configuration: the secret's file.")
@policy_options
@light_verb
def sign(place: Place, voice: Voice, connection: str, path: str, **options: Any) -> None:
    """Sign a grant for PATH, relative to the connection: a URL, or one of the other forms (--as).

    url for curl and fetch; base-url for SDKs that take one; key in place of an API key, with HTTPS_PROXY set;
    env prints the exports for that. For a connection of scheme source, PATH is the URL of the source.
    """
    secret_source = _secret_source(options["secret_env"], options["secret_file"])
    if secret_source is not None:
        known = Known(connection, resolve(secret_source, Path.cwd(), place.environ))
    else:
        known = _known(place, connection, options["key_id"])
    expires_at = _expires_at(options["expires"], options["no_expiry"])
    source = known.view is not None and known.view.formats is not None
    if source or (secret_source is not None and options["extension"]):
        _sign_source(voice, known, path, expires_at, options)
        return
    if not path and not options["paths"]:
        raise click.UsageError("PATH, or --paths")
    methods = listed(options["methods"]) or ["GET"]
    paths = listed(options["paths"]) or [path.partition("?")[0].removeprefix("/")]
    terms = terms_of(options, known.key)
    try:
        grant = Signer(known.id, known.secret).sign(methods, paths, expires_at=expires_at, terms=terms)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _hold_against(voice, known, grant, path)
    if known.view is not None and f"{known.id}/{terms.id}" in known.view.revoked_ids:
        raise Failure(f"the gateway would answer revoked: what is signed as {terms.id} is; take another --id")
    form = Form(path, options["base"].rstrip("/"), options["ca"])
    data = {**described(grant, form, known.preset), "key": known.key}
    voice.tell(data, *shown(grant, options["form"], form, known.preset))


def _secret_source(env: str | None, file: str | None) -> SecretSource | None:
    if env and file:
        raise click.UsageError("--secret-env or --secret-file")
    if env:
        return SecretSource(env=env)
    return SecretSource(file=str(Path(file).expanduser())) if file else None


def _known(place: Place, name: str, key_id: str | None) -> Known:
    from .configured import view_of  # reads YAML and decrypts: a secret alone needs neither

    view = view_of(place, name)
    key = _signing_key(view, key_id, int(time.time()))
    return Known(name, key.secret, key.id, view)


def _signing_key(view: SigningView, key_id: str | None, now: int) -> SigningKey:
    if not view.signed:
        return SigningKey("", Secret("-"))
    for key in view.keys.keys:
        if key_id not in (None, key.id):
            continue
        if key.is_live(now) and not key.revoked:
            return key
        if key_id is not None:
            raise Failure(f"the key {key.id} of {view.id} is revoked, or past its not_after")
    if key_id is not None:
        raise Failure(f"{view.id} has no key {key_id[:64]!r}")
    raise Failure(f"{view.id} has no key in force: {quoted('connections', 'rotate', view.id)}")


def _expires_at(text: str, never: bool) -> int:
    if never:
        return 0
    now = int(time.time())
    try:
        found = now + duration(text)
    except ValueError:
        try:
            found = instant(text)
        except ValueError:
            raise click.UsageError(
                "--expires is a duration, as in 15m or 7d, or an instant, as in 2027-01-01T00:00:00Z;"
                " for ever is --no-expiry"
            ) from None
    if not now < found < YEAR_10000:
        where = "in the past" if found <= now else "behind the year 9999; for ever is --no-expiry"
        raise click.UsageError(f"--expires lies {where}")
    return found


def _hold_against(voice: Voice, known: Known, grant: Signed, path: str) -> None:
    """Refuse to mint what the gateway would refuse for ever; warn of what it refuses as things are."""
    view = known.view
    if view is None:
        return
    from .. import policy
    from ..paths import canonical_path

    ceiling = view.ceiling
    try:
        policy.check_lifetime(int(grant.expires), int(time.time()), ceiling)
        for method in grant.methods.split(","):
            if method != "*":
                policy.check_method(method.encode(), (method,), ceiling)
        if path and "*" not in path:
            raw = b"/" + path.partition("?")[0].removeprefix("/").encode()
            canonical = canonical_path(raw, allow_encoded_slash=ceiling.allow_encoded_slash)
            policy.check_path(canonical, tuple(grant.paths.split(",")), ceiling)
    except Denied as denied:
        raise Failure(f"the gateway would answer {denied.code}: {denied.detail}") from None
    if view.revoked or not view.enabled:
        state = "revoked" if view.revoked else "disabled"
        voice.note(f"{known.id} is {state}: this works once it no longer is")


def described(grant: Signed, form: Form, preset: Mapping[str, Any]) -> dict[str, Any]:
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
        "signature_id": signature_id(grant.signature),
    }


def shown(grant: Signed, what: str, form: Form, preset: Mapping[str, Any]) -> list[str]:
    """The grant in one form, as lines."""
    if what in ("token", "key"):
        return [grant.token]
    if what == "headers":
        return [f"{name}: {value}" for name, value in grant.headers.items()]
    if what == "base-url":
        return [_base_url(grant, form, preset)]
    if what == "env":
        return _exports(grant, form, preset)
    url = _url(grant, form)
    if what == "url":
        return [url]
    method = grant.methods.split(",")[0]
    return [f"curl {'' if method in ('GET', '*') else f'-X {method} '}{shlex.quote(url)}"]


def _url(grant: Signed, form: Form) -> str:
    if not form.path or "*" in form.path:
        raise click.UsageError("a URL is for one PATH, without *: say it, and the patterns with --paths")
    try:
        return grant.url(form.path, form.base)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def _base_url(grant: Signed, form: Form, preset: Mapping[str, Any]) -> str:
    """With its last slash: some SDKs ask for exactly what they are given, and `/p/TOKEN` is no path."""
    inner = preset.get("sdk_base") or ""
    return f"{form.base}/p/{grant.token}/{inner}"


def _exports(grant: Signed, form: Form, preset: Mapping[str, Any]) -> list[str]:
    names = preset.get("env") or ["API_KEY"]
    ca = str(Path(form.ca).expanduser())
    # Node reads the proxy's variables only when it is told to (22.21, 24).
    values = {
        names[0]: grant.token,
        "HTTPS_PROXY": form.base,
        "HTTP_PROXY": form.base,
        "NODE_USE_ENV_PROXY": "1",
        **dict.fromkeys(_CA_VARIABLES, ca),
    }
    return [f"export {name}={shlex.quote(value)}" for name, value in values.items()]


def _sign_source(voice: Voice, known: Known, url: str, expires_at: int, options: dict[str, Any]) -> None:
    if terms_of(options, "") != NO_TERMS:
        raise click.UsageError("a source URL has no policy: leave its options out")
    if options["form"] not in ("url", "curl"):
        raise click.UsageError(f"--as {options['form']} is for scheme presign")
    view = known.view
    extension = options["extension"] or url.partition("?")[0].rpartition(".")[2].lower()
    if view is not None and extension not in (formats := view.formats or ()):
        raise Failure(f"{known.id} serves {', '.join(sorted(formats))}: --format")
    base = options["base"].rstrip("/")
    if view is not None and not view.signed:
        plain = f"{base}/v1/{known.id}/{url.partition('://')[2] or url}.{extension}"
        voice.tell(
            {"connection": known.id, "url": plain, "token": None, "headers": {}, "expires": None}, plain
        )
        return
    if not expires_at:
        raise click.UsageError("a source URL expires: without --no-expiry")
    try:
        signed = Signer(known.id, known.secret).sign_source(url, extension, expires_at=expires_at)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    text = signed.url(base)
    data: dict[str, Any] = {
        "connection": known.id,
        "url": text,
        "token": None,
        "headers": {},
        "expires": expires_at,
        "signature_id": signature_id(signed.signature),
        "key": known.key,
    }
    voice.tell(data, f"curl {shlex.quote(text)}" if options["form"] == "curl" else text)
