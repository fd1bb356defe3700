"""Several upstreams of one connection, and how its credential is put on requests to each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from ..config_problems import Location
from ..core.aws_hosts import scope_of
from ..core.aws_sigv4 import SigV4Credential
from ..core.connection import NO_OTHERS, Connection, Reached, Upstream
from ..core.credentials import (
    BasicCredential,
    CredentialSlots,
    HeaderCredential,
    Injector,
    NoCredential,
    QueryCredential,
    bearer,
)
from ..core.path_credential import PathCredential, path_credential
from ..http.patterns import pattern
from ..signing.secret import Secret
from .schema.upstreams import AuthForm, FullUpstream, UpstreamEntry, full

_SEVERAL: Final = "needs a connection with one secret, to put it in another place"
_NOT_SIGNED: Final = "aws_sigv4 needs a connection whose auth is of type aws_sigv4"
_EMPTY: Final = Secret("")

Wrong = Callable[[Location, str], None]
Parse = Callable[[Location, str], Upstream | None]


def reached_of(
    at: Location,
    entries: Mapping[str, UpstreamEntry],
    default: Reached,
    *,
    parse: Parse,
    wrong: Wrong,
) -> Mapping[str, Reached]:
    """Return all upstreams by name, the default one under the empty name; nothing if there is only that.

    Args:
        parse: returns the upstream that a URL names; None after it has reported a problem.
    """
    if not entries:
        return NO_OTHERS
    found = {"": default}
    for name, entry in entries.items():
        one, place = full(entry), (*at, name)
        there = (*place, "url") if isinstance(entry, FullUpstream) else place
        upstream = parse(there, one.url)
        if upstream is None:
            continue
        twins = [other.upstream.name for other in found.values() if _is_same(other.upstream, upstream)]
        if twins:
            which = f"@{twins[0]}" if twins[0] else "upstream, the default one,"
            wrong(there, f"is where {which} leads too: no request could tell them apart")
        upstream = replace(upstream, name=name)
        found[name] = Reached(upstream, _injector((*place, "auth"), one.auth, default, upstream, wrong))
    return found


def check_paths(at: Location, paths: Iterable[str], names: Iterable[str], wrong: Wrong) -> None:
    """Check that each pattern that begins with `@` names an upstream of the connection, if it has several."""
    known = [f"@{name}" for name in names]
    for index, text in enumerate(paths if known else ()):
        one = pattern(text)
        if one.at and f"@{one.upstream}" not in known:
            wrong(
                (*at, index),
                f"begins with the name of no upstream: there are {', '.join(known)}; for a path of the"
                " default upstream that begins with @, write %40",
            )


def slots_of(found: Iterable[Reached], more: CredentialSlots) -> CredentialSlots:
    """Return the places of credentials at any of these upstreams, and those in which a key may also stand."""
    each = [more, *[one.injector.slots for one in found]]
    return CredentialSlots(
        frozenset().union(*[one.headers for one in each]), frozenset().union(*[one.params for one in each])
    )


def with_upstreams(found: Connection, upstreams: Mapping[str, Reached]) -> Connection:
    """Return a connection that has these upstreams, led to its default one."""
    if not upstreams:
        return found
    several = replace(found, upstreams=upstreams, upstream=None)
    return several.at(upstreams[""])


def _is_same(one: Upstream, other: Upstream) -> bool:
    return (one.origin, one.base) == (other.origin, other.base)


def _injector(
    at: Location, form: AuthForm | None, default: Reached, upstream: Upstream, wrong: Wrong
) -> Injector:
    if form is None:
        return _moved(default.injector, upstream)
    if form.type == "none":
        return NoCredential()
    if form.type == "aws_sigv4":
        if isinstance(default.injector, SigV4Credential):
            return _scoped(default.injector, upstream, form.service, form.region)
        wrong((*at, "type"), _NOT_SIGNED)
        return NoCredential()
    secret = _only_secret(default.injector)
    if secret is None:
        wrong((*at, "type"), _SEVERAL)
        return NoCredential()
    return _placed(form, secret, upstream)


def _placed(form: AuthForm, secret: Secret, upstream: Upstream) -> Injector:
    """Return what puts a secret into the place that a form names."""
    match form.type:
        case "basic" if form.username is not None:
            return BasicCredential(Secret(form.username), secret)
        case "basic":
            return BasicCredential(secret, Secret(form.password) if form.password is not None else _EMPTY)
        case "header":
            words = (form.prefix or "").encode()
            return HeaderCredential((((form.header or "").encode(), words, secret),))
        case "query":
            return QueryCredential(((form.param or "", secret),))
        case "path":
            return path_credential(upstream.base, form.template or "", secret)
        case _:
            return bearer(secret)


def _moved(injector: Injector, upstream: Upstream) -> Injector:
    """Return the same credential for another upstream, in the same form."""
    if isinstance(injector, PathCredential):
        before = injector.before.removeprefix(injector.base)
        return replace(injector, base=upstream.base, before=upstream.base + before)
    if isinstance(injector, SigV4Credential):
        return _scoped(injector, upstream, None, None)
    return injector


def _scoped(
    signer: SigV4Credential, upstream: Upstream, service: str | None, region: str | None
) -> SigV4Credential:
    """Return the same keys for another host, whose name may tell service and region."""
    told = scope_of(upstream.origin.host) or (signer.service, signer.region)
    return replace(
        signer,
        service=service or told[0] or signer.service,
        region=region or told[1] or signer.region,
    )


def _only_secret(injector: Injector) -> Secret | None:
    """Return the secret of a credential that has one; None if it has several."""
    match injector:
        case HeaderCredential(headers=((_, _, secret),)):
            return secret
        case QueryCredential(params=((_, secret),)):
            return secret
        case PathCredential():
            return injector.secret
        case BasicCredential():
            return injector.key
    return None
