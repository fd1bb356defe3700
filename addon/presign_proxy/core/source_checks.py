"""The checks of a source URL, in the order of the specification: the first that fails ends them.

`SOURCE_CHECKS` is that order. `grant.grant_source` runs it, and `explain` tells it.
"""

from __future__ import annotations

from typing import Final

from ..errors import Denied
from ..http.message import Request
from ..signing import canonical
from ..signing.keys import NO_KEYS, SigningKey
from ..signing.source_scheme import Source
from ..signing.source_url import SourceUrl
from . import policy, source_rules
from .common_checks import Check, check_names, check_revoked, verify
from .connection import Connection, SourceRules
from .decision import Facts
from .registry import Registry
from .source_rules import Admitted

# Stands in for a project that does not exist, and is checked in the very same steps.
_NO_PROJECT: Final = Connection(id="", source=SourceRules())
_WITHOUT_SIG: Final = "the project is in signed mode, and the URL has no sig"


class SourceClaim:
    """A source URL under verification: what came, and what the checks have found so far."""

    rules: SourceRules
    """Set once the project was found; `admitted`, once the origin was."""
    admitted: Admitted

    __slots__ = (
        "admitted",
        "connection",
        "facts",
        "gateway",
        "key",
        "now",
        "registry",
        "request",
        "rules",
        "source",
    )

    def __init__(
        self, registry: Registry, request: Request, source: Source, facts: Facts, now: int, *, gateway: bool
    ) -> None:
        self.registry = registry
        self.request = request
        self.source = source
        self.facts = facts
        self.now = now
        self.gateway = gateway
        self.connection = _NO_PROJECT
        self.key: SigningKey | None = None


def _project(claim: SourceClaim) -> None:
    """Find the project. Without a signature, one that is unknown or wants signatures is refused here."""
    claim.connection = claim.registry.get(claim.source.project, "source", _NO_PROJECT)
    claim.facts.known = claim.connection
    rules = claim.connection.source
    if claim.source.signature is None and (rules is None or rules.signed):
        # The answer is the same for both: only the audit log tells them apart.
        known = claim.connection is not _NO_PROJECT
        raise Denied("invalid", _WITHOUT_SIG if known else "there is no such project")


def _signature(claim: SourceClaim) -> None:
    source, rules = claim.source, claim.connection.source
    if source.signature is not None:
        message = canonical.source(source.project, source.url, source.exp or "")
        ring = claim.connection.keys if rules is not None and rules.signed else NO_KEYS
        claim.key = verify(claim.registry, ring, message, source.signature, claim.facts, claim.now)
    if rules is None:
        raise Denied("invalid", "there is no such project")
    claim.rules = rules


def _expiry(claim: SourceClaim) -> None:
    if claim.source.signature is not None:
        # exp=0 is not "never" here but long past.
        claim.facts.expires = int(claim.source.exp or "0") or 1
        policy.check_expiry(claim.facts.expires, claim.now)


def _revocation(claim: SourceClaim) -> None:
    check_revoked(claim.registry, claim.connection, claim.key, claim.facts)


def _origin(claim: SourceClaim) -> None:
    """Check that the project allows the source's origin."""
    signed = claim.source.signature is not None
    admit = source_rules.admit_signed if signed else source_rules.admit_plain
    claim.admitted = admit(claim.source.url, claim.rules)
    claim.facts.path = shown_path(claim.admitted.url)


def shown_path(url: SourceUrl) -> str:
    """Return a source without its query, for the audit log."""
    return f"{url.origin}{url.target.partition(b'?')[0].decode('ascii')}"


def _format(claim: SourceClaim) -> None:
    if claim.source.format is not None and claim.source.format not in claim.rules.formats:
        raise Denied("invalid", "the project does not serve this format")


def _methods(claim: SourceClaim) -> None:
    policy.check_method(claim.request.method, ("GET", "HEAD"), claim.connection.ceiling)


def _host(claim: SourceClaim) -> None:
    check_names(claim.request, gateway=claim.gateway)


SOURCE_CHECKS: Final = (
    Check("project", _project),
    Check("signature", _signature),
    Check("expiry", _expiry),
    Check("revocation", _revocation),
    Check("origin", _origin),
    Check("format", _format),
    Check("methods", _methods),
    Check("host", _host),
)
