"""The options of `presign sign` that make a signed policy."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from ..config.values import duration, instant
from ..errors import Malformed
from ..regexes import late
from ..signing.signed_policy import NO_TERMS, PolicyText, Terms, wrong_with
from ..signing.signed_policy import parse as parse_terms
from .place import Failure
from .values import YEAR_10000, listed

if TYPE_CHECKING:
    from ..http.networks import Network

_SIZE = late(r"([0-9]{1,12})([KMG]?)", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

_OPTIONS: Final[tuple[tuple[tuple[str, str], dict[str, Any]], ...]] = (
    (
        ("--not-before", "not_before"),
        {"metavar": "WHEN", "help": "First moment of validity: a duration from now, or an instant."},
    ),
    (
        ("--max-uses", "max_uses"),
        {"type": click.IntRange(1), "metavar": "N", "help": "Number of requests allowed."},
    ),
    (
        ("--client", "clients"),
        {"multiple": True, "metavar": "CIDR,…", "help": "Only from these networks."},
    ),
    (
        ("--max-body", "max_body"),
        {"metavar": "SIZE", "help": "Largest request body in bytes: 0, 512, 64K, 10M."},
    ),
    (
        ("--bind-key", "bind_key"),
        {"is_flag": True, "help": "Also sign the key's id: no other key verifies it."},
    ),
    (
        ("--id", "presign_id"),
        {"metavar": "NAME", "help": "A name, for audit log and revocation."},
    ),
)
"""The options of a signed policy: flag and parameter, and how click takes them."""


def given_of(options: dict[str, Any]) -> list[str]:
    """Return the options of a policy that were given."""
    return [flag for (flag, parameter), _ in _OPTIONS if options[parameter] not in (None, (), False)]


def policy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a signed policy to a command."""
    for names, settings in reversed(_OPTIONS):
        command = click.option(*names, **settings)(command)
    return command


def terms_of(options: dict[str, Any], key: str | None) -> Terms:
    """Return the terms that the options state; `key` is the id of the signing key. Raises UsageError."""
    if options["bind_key"] and key is None:
        raise click.UsageError("--bind-key needs a configured connection: a secret alone has no key id")
    name = options["presign_id"]
    if name and (why := wrong_with("id", name)):
        raise click.UsageError(f"--id {why}")
    return Terms(
        not_before=_moment(options["not_before"]) if options["not_before"] is not None else None,
        max_uses=options["max_uses"],
        clients=tuple(_network(text) for text in listed(options["clients"], "--client")),
        max_body=_bytes(options["max_body"]) if options["max_body"] is not None else None,
        key=key if options["bind_key"] else None,
        id=name,
    )


def _moment(text: str) -> int:
    try:
        found = int(time.time()) + duration(text)
    except ValueError:
        try:
            found = instant(text)
        except ValueError:
            raise click.UsageError(
                "--not-before needs a duration, such as 15m, or an instant, such as 2027-01-01T00:00:00Z"
            ) from None
    if not 0 < found < YEAR_10000:
        raise click.UsageError("--not-before lies outside the years 1970 to 9999")
    return found


def _network(text: str) -> Network:
    import ipaddress  # few presigns list networks, and it is slow to import

    try:
        return ipaddress.ip_network(text)
    except ValueError:
        pass
    try:
        wider = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise click.UsageError("--client needs a network or an address, such as 203.0.113.0/24") from None
    raise click.UsageError(f"--client has host bits set: write {wider} for the whole network")


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise click.UsageError("--max-body needs a number of bytes, or of K, M or G (1024, 1024², 1024³)")
    return int(match[1]) * _UNITS[match[2].upper()]


def as_json(written: PolicyText | None) -> dict[str, Any]:
    """Return the terms that a grant has; empty for version 1. Raises Failure."""
    try:
        terms = parse_terms(written) if written else NO_TERMS
    except Malformed as error:
        raise Failure(f"its policy is not well-formed: {error.detail}") from None
    found = {
        "not_before": terms.not_before,
        "max_uses": terms.max_uses,
        "client": [str(network) for network in terms.clients] or None,
        "max_body": terms.max_body,
        "key": terms.key,
        "id": terms.id,
    }
    return {name: value for name, value in found.items() if value is not None}
