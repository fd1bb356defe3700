"""The check of source URLs against the rules of a project."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import Denied
from ..http.message import Origin
from ..signing.source_url import SourceUrl, parse_source
from .connection import SourceRules


class Admitted(NamedTuple):
    """A source URL that a project's rules admit.

    `listed` is True if an allowed origin admits it. Then the project's own networks and the port of that
    origin are permitted. `exact` is True if its origin is itself listed. Then the project's credential may be
    sent.
    """

    url: SourceUrl
    listed: bool
    exact: bool


def admit_signed(text: str, rules: SourceRules) -> Admitted:
    """Check a signed source URL against a project's rules. Raises Denied("invalid")."""
    url = parse_source(text)
    listed = _is_listed(url.origin, rules)
    if not listed and rules.origins and not rules.any_public:
        raise Denied("invalid", "the source is not on an allowed origin")
    return _with_port(url, rules, listed=listed)


def admit_plain(text: str, rules: SourceRules) -> Admitted:
    """Check an unsigned source, without scheme, against a project's allowlist. Raises Denied("invalid")."""
    for scheme in ("https", "http"):
        url = parse_source(f"{scheme}://{text}")
        if _is_listed(url.origin, rules):
            return _with_port(url, rules, listed=True)
    raise Denied("invalid", "the source is not on an allowed origin")


def _with_port(url: SourceUrl, rules: SourceRules, *, listed: bool) -> Admitted:
    if not listed and url.origin.port not in (80, 443) and url.origin.port not in rules.ports:
        raise Denied("invalid", "the source's port is not allowed")
    return Admitted(url, listed, url.origin in rules.origins)


def _is_listed(origin: Origin, rules: SourceRules) -> bool:
    """Return whether an allowed origin admits this one: itself or a subdomain, on a label boundary."""
    return any(
        (origin.scheme, origin.port) == (allowed.scheme, allowed.port)
        and (origin.host == allowed.host or origin.host.endswith("." + allowed.host))
        for allowed in rules.origins
    )
