"""`presign sign`: sign a grant, in a form that its holder can use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import click

from ..config.values import duration, instant
from ..errors import Denied
from ..signing.signer import Signed, Signer
from ..signing.tokens import split_shape
from .completion import complete_connections, complete_keys
from .environment import CA
from .grant_forms import (
    BEGINS_URL,
    FORMS,
    GrantForm,
    base_option,
    check_form,
    described,
    remarks,
    shown,
    trust_for,
)
from .hints import quoted
from .methods import check_methods, methods_of
from .output import Output, light_verb
from .place import Failure, Place
from .policy_options import policy_options, terms_of
from .sign_source import sign_source
from .signing_key import KnownKey, guessed_base, secret_source_of, signer_of
from .values import YEAR_10000, listed

_HOUR: Final = 3600
_EXAMPLE: Final = f"ps1_AAAA.{'0' * 64}"
"""A text with the form of a token."""


@click.command()
@click.argument("connection", shell_complete=complete_connections)
@click.argument("path", required=False, default="")
@click.option("--methods", multiple=True, metavar="M,…", help="Default: GET.")
@click.option("--paths", multiple=True, metavar="P,…", help="Patterns; * is anything. Default: exactly PATH.")
@click.option(
    "--expires", metavar="1h", help="A duration, or an instant. Default: 1h, or max_lifetime if that is less."
)
@click.option("--no-expiry", is_flag=True, help="Valid without expiry.")
@click.option(
    "--as", "form", type=click.Choice(FORMS), default="url", show_default=True, help="What to print."
)
@click.option(
    "--shape", metavar="TEXT", help="--as key: put this before it, one of the connection's key_shapes."
)
@base_option
@click.option("--format", "extension", metavar="EXT", help="Scheme source: the file extension.")
@click.option("--ca", default=CA, show_default=True, metavar="PATH", help="--as env: the gateway's CA.")
@click.option(
    "--env", multiple=True, metavar="NAME,…", help="--as env: the variables that hold the key instead."
)
@click.option(
    "--key",
    "key_id",
    metavar="ID",
    shell_complete=complete_keys,
    help="Sign with this key instead of the first.",
)
@click.option(
    "--secret-env", metavar="NAME", help="Sign without a configuration, with this variable's secret."
)
@click.option("--secret-file", metavar="PATH", help="Sign without a configuration: the secret's file.")
@policy_options
@light_verb
def sign(place: Place, output: Output, connection: str, path: str, **options: Any) -> None:
    """Sign a grant for PATH, relative to the connection: a URL, or one of the other forms (--as).

    url is for curl and fetch; base-url for SDKs that take one; key replaces an API key, with HTTPS_PROXY set;
    env prints the exports for that. For a connection of scheme source, PATH is the URL of the source.
    """
    source = secret_source_of(options["secret_env"], options["secret_file"])
    check_form(options["form"], options["ca"], options["env"], options["shape"])
    if source is not None and options["key_id"]:
        raise click.UsageError("--key needs a connection of the configuration: a secret alone is one key")
    if BEGINS_URL.match(connection):
        connection, path = _owner(place, connection, path, known=source is None), connection
    known = signer_of(place, output, connection, source, options["key_id"])
    expires_at = expiry(options["expires"], usual_lifetime(known), never=options["no_expiry"])
    is_source = known.view is not None and known.view.formats is not None
    if is_source or (source is not None and options["extension"]):
        sign_source(place, output, known, path, expires_at, options)
        return
    if options["extension"]:
        raise click.UsageError(f"--format is for scheme source, and {known.id} is of scheme presign")
    if not path and not options["paths"]:
        raise click.UsageError("give PATH, or --paths")
    path = _below(place, known, path)
    grant = granted(output, known, path, expires_at, options)
    shape = shape_of(known, options["shape"])
    local = known.view is not None and known.view.local
    base = known.base(options["base"])
    trust = trust_for(place, output, options["form"], base, options["ca"], configured=source is None)
    form = GrantForm(path, base, local, trust, _variables(known, options["env"]))
    data = {**described(grant, form, known.preset), "key": known.key}
    if shape:
        data["shaped_key"] = f"{shape}{grant.token}"
    # As JSON, patterns without a path have no URL; for a person that is an error.
    lines = () if output.as_json else shown(grant, options["form"], form, known.preset)
    output.tell(data, *[f"{shape}{line}" for line in lines])
    if options["form"] not in ("token", "key"):
        output.note(*guessed_base(place, known, options["base"]))
    output.note(*remarks(grant, options["form"], form, known.preset))


def _variables(known: KnownKey, given: Sequence[str]) -> Sequence[str]:
    """Return the variables of `--env`; empty without it. Raises UsageError."""
    if not given:
        return ()
    from .program_environment import named

    return named("--env", given, [known.id])[known.id]


def shape_of(known: KnownKey, shape: str | None) -> str:
    """Return the text to put before the key; empty if none is wanted. Raises Failure, UsageError."""
    if not shape:
        return ""
    if known.view is not None and shape not in known.view.shapes:
        listed = ", ".join(sorted(known.view.shapes)) or "none"
        raise Failure(
            f"the gateway would answer malformed: key_shapes of {known.id} has {listed}, not {shape[:32]}"
        )
    if split_shape(f"{shape}{_EXAMPLE}".encode()) is None:
        raise click.UsageError(
            "--shape needs the text at the beginning of a provider's keys, as in sk-ant-api03-"
        )
    return shape


def granted(output: Output, known: KnownKey, path: str, expires_at: int, options: dict[str, Any]) -> Signed:
    """Sign what the options say. Raises UsageError; Failure if the gateway would refuse it."""
    methods = methods_of(options["methods"], "--methods") or ["GET"]
    check_methods("--methods", methods, options["methods"], known.view.ceiling.methods if known.view else ())
    paths = listed(options["paths"], "--paths") or [_exactly(path)]
    if paths == [""]:
        raise click.UsageError("no pattern matches the root alone: sign --paths '*', or a path below it")
    terms = terms_of(options, known.key)
    try:
        grant = Signer(known.id, known.secret).sign(methods, paths, expires_at=expires_at, terms=terms)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    _hold_against(output, known, grant, path)
    if known.view is not None and f"{known.id}/{terms.id}" in known.view.revoked_ids:
        raise Failure(f"the gateway would answer revoked: --id {terms.id} is revoked; choose another --id")
    return grant


def _below(place: Place, known: KnownKey, path: str) -> str:
    """Return the path below the connection, also for a URL of the API itself. Raises Failure, UsageError."""
    if "PATH" in path.split("/"):
        raise click.UsageError("replace PATH by the path of the request, for example v1/models")
    if not BEGINS_URL.match(path):
        return path
    if known.view is None:
        raise click.UsageError(
            "PATH must be relative to the connection: without a configuration, its upstream is unknown"
        )
    from .configured import path_below, upstreams_of

    below = path_below(place, known.id, path)
    if below is None:
        each = " or ".join(f"{one}/" for one in upstreams_of(place, known.id))
        raise Failure(f"the URL does not begin with {each}, the upstream of {known.id}")
    return below


def _owner(place: Place, url: str, path: str, *, known: bool) -> str:
    """Return the connection for a URL of an API that was given in its place. Raises Failure, UsageError."""
    if path or not known:
        raise click.UsageError("put CONNECTION before the URL" if path else "give CONNECTION, then the URL")
    from .configured import owners_of

    owners = owners_of(place, url)
    if len(owners) == 1:
        return owners[0]
    if owners:
        raise Failure(
            f"{', '.join(owners[:8])} lead there: choose one, as in {quoted('sign', owners[0], url)}"
        )
    raise Failure(f"no connection leads there: {quoted('connections', 'list')} shows them")


def _exactly(path: str) -> str:
    """Return the pattern for exactly this path. A comma would end it; its escape matches both spellings."""
    return path.partition("?")[0].removeprefix("/").replace(",", "%2C")


def usual_lifetime(known: KnownKey) -> str:
    """Return what `--expires` is by default: an hour, or what the connection allows if that is less."""
    most = known.view.ceiling.max_lifetime if known.view else None
    return f"{min(_HOUR, most or _HOUR)}s"


def expiry(text: str | None, usual: str, *, never: bool = False) -> int:
    """Return the Unix time of `--expires`; 0 for no expiry. Raises UsageError."""
    if never and text is not None:
        raise click.UsageError("--expires and --no-expiry exclude each other")
    if never:
        return 0
    now = int(time.time())
    text = usual if text is None else text
    try:
        found = now + duration(text)
    except ValueError:
        try:
            found = instant(text)
        except ValueError:
            raise click.UsageError(
                "--expires needs a duration, such as 15m or 7d, or an instant, such as 2027-01-01T00:00:00Z;"
                " for no expiry, use --no-expiry"
            ) from None
    if not now < found < YEAR_10000:
        where = "in the past" if found <= now else "after the year 9999; for no expiry, use --no-expiry"
        raise click.UsageError(f"--expires lies {where}")
    return found


def _hold_against(output: Output, known: KnownKey, grant: Signed, path: str) -> None:
    """Refuse to mint what the gateway would always refuse; warn about what it refuses at present."""
    view = known.view
    if view is None:
        return
    from ..core import policy
    from ..http.paths import canonical_path

    ceiling = view.ceiling
    _check_lifetime(int(grant.expires), int(time.time()), ceiling.max_lifetime)
    _check_names(known.id, grant.paths.split(","), ceiling.upstreams)
    allowed = [one.text for one in ceiling.paths]
    _check_patterns(known.id, grant.paths.split(","), allowed, several=bool(ceiling.upstreams))
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
        output.note(f"{known.id} is {state}: this works once it no longer is")


def _check_names(name: str, signed: list[str], upstreams: Sequence[str]) -> None:
    """Refuse a pattern that begins with the name of no upstream. Raises Failure."""
    from ..http.patterns import pattern

    if not upstreams:
        return  # then an @ is a character like any other
    for text in signed:
        one = pattern(text)
        if one.at and one.upstream not in upstreams:
            known = ", ".join(f"@{other}" for other in upstreams)
            raise Failure(
                f"the gateway would answer path_not_allowed: {text} begins with the name of no upstream of"
                f" {name}, which has {known}; where a path of the default upstream has @ at its beginning,"
                " write %40"
            )


def _check_patterns(name: str, signed: list[str], allowed: list[str], *, several: bool) -> None:
    """Refuse a pattern if the connection allows none of its paths. Raises Failure."""
    from ..http.patterns import meets, pattern

    for text in signed:
        if not any(meets(pattern(text), pattern(other), several=several) for other in allowed):
            raise Failure(
                f"the gateway would answer path_not_allowed: {name} allows {', '.join(allowed)}, and nothing"
                f" of {text}"
            )


def _check_lifetime(expires: int, now: int, most: int | None) -> None:
    """Refuse a lifetime above the connection's maximum. Raises Failure."""
    if most is not None and expires - now > most:
        from ..units import in_words

        asked = -(-(expires - now) // 60) * 60  # rounded up: some moments have passed since the request
        raise Failure(
            f"the gateway would answer lifetime_too_long: {in_words(asked)}, at most {in_words(most)}"
        )
