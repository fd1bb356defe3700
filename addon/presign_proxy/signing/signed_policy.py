"""The signed policy: what a signer may add to methods, paths and an end (`PRESIGN-HMAC-SHA256-2`).

Six fields, each optional, all of them signed. A presign with one or more is of version 2, one with none is of
version 1: nothing can be read as either, because an empty field is malformed where it stands alone, and a
token of version 2 in which all six are empty is too.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import Malformed
from ..regexes import late
from . import grammar

if TYPE_CHECKING:
    from ..http.networks import Network

MAX_CLIENTS: Final = 64
"""Networks of a list, as many as methods or paths."""

_GRAMMAR: Final = {
    "not_before": (grammar.NUMBER, "is not a plain Unix time in seconds"),
    "max_uses": (grammar.NUMBER, "is not a whole number from 1 on"),
    "client": (r"[0-9a-f:.]+/[0-9]+(?:,[0-9a-f:.]+/[0-9]+)*", "is not a comma-separated list of networks"),
    "max_body": (grammar.UNIX_TIME, "is not a whole number of bytes"),
    "key": (grammar.KEY_ID, "is not 1 to 64 of A-Z a-z 0-9 _ . -"),
    "id": (grammar.PRESIGN_ID, "is not 1 to 64 of A-Z a-z 0-9 _ -"),
}
# All six at once: none of them holds a line break, so each stands on its line or nothing matches.
_WRITTEN = late("\n".join(f"(?:{form})?" for form, _ in _GRAMMAR.values()))
_MAX_TEXT: Final = 8 * 1024


class PolicyText(NamedTuple):
    """The six fields as they stand in the canonical string, in its order; empty where absent."""

    not_before: str = ""
    max_uses: str = ""
    client: str = ""
    max_body: str = ""
    key: str = ""
    id: str = ""


class Terms(NamedTuple):
    """What was signed beyond methods, paths and expiry; None, or no network, where it was not.

    `not_before` is the first valid second (Unix time); `max_uses`, how many requests are admitted; `clients`,
    the networks a client may come from, none for any; `max_body`, bytes of a request body; `key`, the id of
    the only signing key that verifies; `id`, a name for audit and revocation.
    """

    not_before: int | None = None
    max_uses: int | None = None
    clients: tuple[Network, ...] = ()
    max_body: int | None = None
    key: str | None = None
    id: str | None = None


NO_TERMS: Final = Terms()
"""Of version 1."""


def check_written(written: PolicyText) -> None:
    """Raises Malformed. In linear time, and without looking at what a network is: nothing is verified yet."""
    text = "\n".join(written)
    if len(text) <= _MAX_TEXT and _WRITTEN.fullmatch(text):
        return
    for name, value in written._asdict().items():
        if value and (why := wrong_with(name, value)):
            raise Malformed(f"{name} {why}")
    raise Malformed(f"the signed policy is longer than {_MAX_TEXT} bytes")


def wrong_with(name: str, value: str) -> str:
    """What is wrong with the grammar of one field; empty where nothing is."""
    form, why = _GRAMMAR[name]
    return "" if re.fullmatch(form, value) else why


@lru_cache(maxsize=4096)  # only what was signed gets here
def parse(written: PolicyText) -> Terms:
    """The terms of fields whose grammar was checked. Raises Malformed for a list that is not canonical."""
    return Terms(
        not_before=int(written.not_before) if written.not_before else None,
        max_uses=int(written.max_uses) if written.max_uses else None,
        clients=_networks(written.client) if written.client else (),
        max_body=int(written.max_body) if written.max_body else None,
        key=written.key or None,
        id=written.id or None,
    )


def _networks(text: str) -> tuple[Network, ...]:
    items = text.split(",")
    if len(items) > MAX_CLIENTS:
        raise Malformed(f"client holds more than {MAX_CLIENTS} networks")
    if any(a >= b for a, b in pairwise(items)):
        raise Malformed("client is not sorted by code point, or holds a network twice")
    return tuple(map(_network, items))


def _network(text: str) -> Network:
    """A network in its one spelling: RFC 4632 for IPv4, RFC 5952 for IPv6, no bit set behind the prefix."""
    from ..http.networks import parse_network  # most presigns list no networks, and it is slow to import

    network = parse_network(text)
    if network is None or str(network) != text:
        raise Malformed("client holds something that is not a network in its canonical form")
    return network


def _digits(number: int | None) -> str:
    return "" if number is None else str(number)


def write(terms: Terms) -> PolicyText | None:
    """The fields of terms, None where there are none (version 1); the inverse of `parse`.

    Raises ValueError for what no gateway would take.
    """
    if terms == NO_TERMS:
        return None
    written = PolicyText(
        not_before=_digits(terms.not_before),
        max_uses=_digits(terms.max_uses),
        client=",".join(sorted({str(network) for network in terms.clients})),
        max_body=_digits(terms.max_body),
        key=terms.key or "",
        id=terms.id or "",
    )
    try:
        check_written(written)
        known = parse(written)
    except Malformed as error:
        raise ValueError(error.detail) from None
    if (known.key, known.id) != (terms.key, terms.id):
        raise ValueError("a key id and a name are not empty")
    return written
