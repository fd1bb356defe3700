"""`presign sign`: a grant, in whichever form its holder can use."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from ..config.path import expanded
from ..config.secret_sources import name_of, resolve
from ..config.values import SecretSource, duration, instant
from ..errors import Denied
from ..regexes import late
from ..signing.keys import WEAK_BYTES, SigningKey, is_guessable, is_weak, signature_id
from ..signing.secret import Secret
from ..signing.signed_policy import NO_TERMS
from ..signing.signer import Signed, Signer
from .completion import complete_connections
from .environment import CA, exports
from .hints import quoted
from .methods import methods_of, slips
from .output import Voice, light_verb
from .place import Failure, Place
from .policy_options import as_json, policy_options, terms_of
from .values import YEAR_10000, listed

if TYPE_CHECKING:
    from ..config.signing_view import SigningView

_SCHEME = late(r"https?://[^/?#]+", re.IGNORECASE)
FORMS: Final = ("url", "headers", "token", "base-url", "key", "curl", "env")
_HOUR: Final = "1h"
BASE: Final = "http://127.0.0.1:8080"


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
    local: bool = False
    """Whether the API is on this machine."""


def _base(_: click.Context, __: click.Parameter, text: str) -> str:
    if _SCHEME.match(text):
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


@click.command()
@click.argument("connection", shell_complete=complete_connections)
@click.argument("path", required=False, default="")
@click.option("--methods", multiple=True, metavar="M,…", help="Default: GET.")
@click.option("--paths", multiple=True, metavar="P,…", help="Patterns, * is anything. Default: exactly PATH.")
@click.option("--expires", metavar="1h", help="A duration, or an instant; 1h unless told otherwise.")
@click.option("--no-expiry", is_flag=True, help="Valid for ever.")
@click.option(
    "--as", "form", type=click.Choice(FORMS), default="url", show_default=True, help="What to print."
)
@base_option
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
    check_ca(options["form"], options["ca"])
    if secret_source is not None and options["key_id"]:
        raise click.UsageError("--key is for a connection of the configuration: a secret alone is one key")
    if _SCHEME.match(connection):
        connection, path = _owner(place, connection, path, known=secret_source is None), connection
    if secret_source is not None:
        known = Known(
            connection, _strong(voice, resolve(secret_source, Path.cwd(), place.environ), secret_source)
        )
    else:
        known = _known(place, connection, options["key_id"])
    expires_at = _expires_at(options["expires"], options["no_expiry"])
    source = known.view is not None and known.view.formats is not None
    if source or (secret_source is not None and options["extension"]):
        _sign_source(voice, known, path, expires_at, options)
        return
    if options["extension"]:
        raise click.UsageError(f"--format is for scheme source, and {known.id} is of scheme presign")
    if not path and not options["paths"]:
        raise click.UsageError("PATH, or --paths")
    path = _below(place, known, path)
    methods = methods_of(options["methods"]) or ["GET"]
    _meant(voice, known, methods)
    paths = listed(options["paths"]) or [_exactly(path)]
    if paths == [""]:
        raise click.UsageError("no pattern stands for the root alone: sign --paths '*', or a path below it")
    terms = terms_of(options, known.key)
    try:
        grant = Signer(known.id, known.secret).sign(methods, paths, expires_at=expires_at, terms=terms)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _hold_against(voice, known, grant, path)
    if known.view is not None and f"{known.id}/{terms.id}" in known.view.revoked_ids:
        raise Failure(f"the gateway would answer revoked: what is signed as {terms.id} is; take another --id")
    local = known.view is not None and known.view.local
    form = Form(path, options["base"], options["ca"], local)
    data = {**described(grant, form, known.preset), "key": known.key}
    voice.tell(data, *shown(grant, options["form"], form, known.preset))
    voice.note(*remarks(grant, options["form"], form, known.preset))


def check_ca(form: str, ca: str) -> None:
    """Raises UsageError: no option is ignored in silence."""
    if ca != CA and form != "env":
        raise click.UsageError("--ca is for --as env")


def _strong(voice: Voice, secret: Secret, source: SecretSource) -> Secret:
    """Raises Failure. The seeds' own example has 14 bytes, so that a weak one signs, with a warning."""
    if is_guessable(secret):
        raise Failure(f"{name_of(source)} is too short: whoever has a URL could guess the secret")
    if is_weak(secret):
        voice.note(f"{name_of(source)} holds less than {WEAK_BYTES} bytes: a gateway wants weak: true for it")
    return secret


def _meant(voice: Voice, known: Known, methods: list[str]) -> None:
    """Refuse what is all but a method that is known. Raises UsageError.

    An API may have methods of its own: its connection lists them. A secret alone knows of no list.
    """
    for question in slips(methods, known.view.ceiling.methods if known.view else ()):
        if known.view is not None:
            own = f"A method of that name is signed where allow.methods of {known.id} lists it."
            raise click.UsageError(f"--methods {question} {own}")
        voice.note(f"It is signed as it stands, but --methods {question}")


def _below(place: Place, known: Known, path: str) -> str:
    """The path below the connection: also of a URL of the API itself. Raises Failure, UsageError."""
    if path == "PATH":
        raise click.UsageError("PATH stands for what the URL is for, as in v1/models")
    if not _SCHEME.match(path):
        return path
    if known.view is None:
        raise click.UsageError(
            "PATH is below the connection: its upstream is not known without a configuration"
        )
    from .configured import upstream_of

    upstream = upstream_of(place, known.id)
    if path.startswith(f"{upstream}/"):
        return path[len(upstream) + 1 :]
    raise Failure(f"{known.id} leads to {upstream}, and the URL does not begin so")


def _owner(place: Place, url: str, path: str, *, known: bool) -> str:
    """The connection of a URL of an API that was given instead of it. Raises Failure, UsageError."""
    if path or not known:
        raise click.UsageError("CONNECTION goes before the URL" if path else "CONNECTION, and then the URL")
    from .configured import owners_of

    owners = owners_of(place, url)
    if len(owners) == 1:
        return owners[0]
    if owners:
        raise Failure(f"{', '.join(owners[:8])} lead there: {quoted('sign', owners[0], url)}, or another one")
    raise Failure(f"no connection leads there: {quoted('connections', 'list')} shows them")


def _exactly(path: str) -> str:
    """The pattern for this very path. A comma would end it; its escape matches both spellings."""
    return path.partition("?")[0].removeprefix("/").replace(",", "%2C")


def _secret_source(env: str | None, file: str | None) -> SecretSource | None:
    if env and file:
        raise click.UsageError("--secret-env or --secret-file")
    if env:
        return SecretSource(env=env)
    return SecretSource(file=str(expanded(file))) if file else None


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


def _expires_at(text: str | None, never: bool) -> int:
    if never and text is not None:
        raise click.UsageError("--expires or --no-expiry")
    if never:
        return 0
    now = int(time.time())
    text = _HOUR if text is None else text
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
    from ..core import policy
    from ..http.paths import canonical_path

    ceiling = view.ceiling
    _check_lifetime(int(grant.expires), int(time.time()), ceiling.max_lifetime)
    _check_patterns(known.id, grant.paths.split(","), [one.text for one in ceiling.paths])
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


def _check_patterns(name: str, signed: list[str], allowed: list[str]) -> None:
    """Refuse a pattern of which the connection allows no path at all. Raises Failure."""
    from ..http.paths import meets, pattern

    for text in signed:
        if not any(meets(pattern(text), pattern(other)) for other in allowed):
            raise Failure(
                f"the gateway would answer path_not_allowed: {name} allows {', '.join(allowed)}, and nothing"
                f" of {text}"
            )


def _check_lifetime(expires: int, now: int, most: int | None) -> None:
    """Raises Failure."""
    if most is not None and expires - now > most:
        from ..explain.explanation import span

        asked = -(-(expires - now) // 60) * 60  # as it was asked for, some moments ago
        raise Failure(f"the gateway would answer lifetime_too_long: {span(asked)}, and {span(most)} allowed")


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
        "send_to": _send_to(grant, form),
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
        return exports(grant, form.base, form.ca, preset, local=form.local)
    url = _url(grant, form)
    if what == "url":
        return [url]
    method = grant.methods.split(",")[0]
    return [f"curl {'' if method in ('GET', '*') else f'-X {method} '}{shlex.quote(url)}"]


def remarks(grant: Signed, what: str, form: Form, preset: Mapping[str, Any]) -> list[str]:
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


def _send_to(grant: Signed, form: Form) -> str:
    """Where the gateway takes the headers: the path is the only one, or stands for any that was signed."""
    return f"{form.base}/api/proxy/{grant.connection_id}/{form.path if '*' not in form.path else ''}"


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


def _sign_source(voice: Voice, known: Known, url: str, expires_at: int, options: dict[str, Any]) -> None:
    if terms_of(options, "") != NO_TERMS:
        raise click.UsageError("a source URL has no policy: leave its options out")
    if options["methods"] or options["paths"]:
        raise click.UsageError("a source URL is for itself and nothing else: without --methods and --paths")
    if options["form"] not in ("url", "curl"):
        raise click.UsageError(f"--as {options['form']} is for scheme presign")
    view = known.view
    extension = options["extension"] or url.partition("?")[0].rpartition(".")[2].lower()
    if view is not None and extension not in (formats := view.formats or ()):
        raise Failure(f"{known.id} serves {', '.join(sorted(formats))}: --format")
    base = options["base"]
    if view is not None and not view.signed:
        if options["expires"] or options["no_expiry"] or options["key_id"]:
            raise click.UsageError(f"URLs of {known.id} are not signed: without an expiry and --key")
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
