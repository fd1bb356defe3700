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
from ..signing.signed_policy import NO_TERMS, PolicyText, Terms
from ..signing.signed_policy import parse as parse_terms
from .place import Failure
from .values import YEAR_10000, listed

if TYPE_CHECKING:
    from ..http.networks import Network

_SIZE = late(r"([0-9]{1,12})([KMG]?)", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

_OPTIONS: Final = (
    click.option(
        "--not-before", metavar="WHEN", help="Valid from then on: a duration from now, or an instant."
    ),
    click.option("--max-uses", type=click.IntRange(1), metavar="N", help="Good for so many requests."),
    click.option("--client", "clients", multiple=True, metavar="CIDR,…", help="Only from these networks."),
    click.option("--max-body", metavar="SIZE", help="Bytes of a request body: 0, 512, 64K, 10M."),
    click.option("--bind-key", is_flag=True, help="Sign the key's id too: no other key verifies it."),
    click.option("--id", "presign_id", metavar="NAME", help="A name, for audit log and revocation."),
)


def policy_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def terms_of(options: dict[str, Any], key: str | None) -> Terms:
    """What the options say; `key` is the id of the key that signs. Raises click.UsageError."""
    if options["bind_key"] and key is None:
        raise click.UsageError("--bind-key: of a secret alone nobody knows the key's id")
    return Terms(
        not_before=_moment(options["not_before"]) if options["not_before"] is not None else None,
        max_uses=options["max_uses"],
        clients=tuple(_network(text) for text in listed(options["clients"])),
        max_body=_bytes(options["max_body"]) if options["max_body"] is not None else None,
        key=key if options["bind_key"] else None,
        id=options["presign_id"],
    )


def _moment(text: str) -> int:
    try:
        found = int(time.time()) + duration(text)
    except ValueError:
        try:
            found = instant(text)
        except ValueError:
            raise click.UsageError(
                "--not-before is a duration, as in 15m, or an instant, as in 2027-01-01T00:00:00Z"
            ) from None
    if not 0 < found < YEAR_10000:
        raise click.UsageError("--not-before lies outside of the calendar")
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
        raise click.UsageError("--client is a network or an address, as in 203.0.113.0/24") from None
    raise click.UsageError(f"--client has bits behind its prefix: for the whole network it is {wider}")


def _bytes(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise click.UsageError("--max-body is a number of bytes, with K, M or G for so many times 1024")
    return int(match[1]) * _UNITS[match[2].upper()]


def as_json(written: PolicyText | None) -> dict[str, Any]:
    """The terms of a grant that are there; empty for version 1. Raises Failure."""
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
