"""The signed policy: conditions that a signer may add to methods, paths and expiry (`PRESIGN-HMAC-SHA256-2`).

All of its fields are optional, and all that are present are signed, each as a line `name:value`. A presign
with at least one is of version 2, a presign with none is of version 1. No presign can be read as both: an
empty field is malformed, and so is a token of version 2 without any field.

A field that is not known is malformed. So a field can be added without a third version: a gateway that does
not know it refuses what it cannot check.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from ..errors import Malformed
from ..regexes import late
from . import grammar
from .carrier_names import TERMS

if TYPE_CHECKING:
    from ..http.networks import Network

MAX_CLIENTS: Final = 64
"""Most networks of a list; the same limit as for methods and paths."""

_GRAMMAR: Final = {
    "client": (r"[0-9a-f:.]+/[0-9]+(?:,[0-9a-f:.]+/[0-9]+)*", "is not a comma-separated list of networks"),
    "id": (grammar.PRESIGN_ID, "is not 1 to 64 of A-Z a-z 0-9 _ -"),
    "key": (grammar.KEY_ID, "is not 1 to 64 of A-Z a-z 0-9 _ . -"),
    "max_body": (grammar.UNIX_TIME, "is not a whole number of bytes"),
    "max_uses": (grammar.NUMBER, "is not a whole number from 1 on"),
    "not_before": (grammar.NUMBER, "is not a plain Unix time in seconds"),
}
SIGNED_AS: Final = {field: name.removeprefix("X-Presign-").lower() for field, name in TERMS.items()}
"""The name of each field in its signed line, in the order of the lines: sorted by code point."""
_FIELDS: Final = {name: field for field, name in SIGNED_AS.items()}
# One pattern for all lines, each ending in LF. No value may contain a LF, so each matches its own line.
_WRITTEN = late("".join(rf"(?:{SIGNED_AS[field]}:(?:{form})\n)?" for field, (form, _) in _GRAMMAR.items()))
_MAX_TEXT: Final = 8 * 1024
"""Most bytes of all lines, with the newline of each."""


class PolicyText(NamedTuple):
    """The values of the fields as they are signed, in the order of their lines; empty if absent."""

    client: str = ""
    id: str = ""
    key: str = ""
    max_body: str = ""
    max_uses: str = ""
    not_before: str = ""


class Terms(NamedTuple):
    """The signed conditions beyond methods, paths and expiry. Those that were not signed are None or empty.

    `not_before` is the first valid second (Unix time). `max_uses` is how many requests are admitted.
    `clients` are the networks from which a client may connect; empty for any. `max_body` is the most bytes of
    a request body. `key` is the id of the only signing key that verifies. `id` is a name for audit and
    revocation.
    """

    not_before: int | None = None
    max_uses: int | None = None
    clients: tuple[Network, ...] = ()
    max_body: int | None = None
    key: str | None = None
    id: str | None = None


NO_TERMS: Final = Terms()
"""The terms of every presign of version 1."""


def lines_of(written: PolicyText) -> list[str]:
    """Return the signed lines of the present fields, `name:value`, sorted by name."""
    return [f"{name}:{value}" for name, value in zip(_FIELDS, written, strict=True) if value]


def read_lines(lines: list[str]) -> dict[str, str]:
    """Return the fields that lines state, as `lines_of` writes them. Raises Malformed.

    Strict: the names are known, sorted, each is there once, and no value is empty. So a policy has one form.
    """
    pairs = [(name, value) for name, _, value in (line.partition(":") for line in lines)]
    if any(name not in _FIELDS or not value for name, value in pairs):
        raise Malformed("the signed policy holds a line that is not a known field with a value")
    if any(one[0] >= other[0] for one, other in pairwise(pairs)):
        raise Malformed("the fields of the signed policy are not sorted by name, or one is given twice")
    return {_FIELDS[name]: value for name, value in pairs}


def check_written(written: PolicyText) -> None:
    """Check the grammar of the fields. Raises Malformed.

    Nothing is verified yet, so this takes linear time and does not parse networks.
    """
    text = "".join(f"{line}\n" for line in lines_of(written))
    if len(text) <= _MAX_TEXT and _WRITTEN.fullmatch(text):
        return
    for name, value in written._asdict().items():
        if value and (why := wrong_with(name, value)):
            raise Malformed(f"{name} {why}")
    raise Malformed(f"the signed policy is longer than {_MAX_TEXT} bytes")


def wrong_with(name: str, value: str) -> str:
    """Return what is wrong with the grammar of one field; empty if nothing is."""
    form, why = _GRAMMAR[name]
    return "" if re.fullmatch(form, value) else why


@lru_cache(maxsize=4096)  # only what was signed gets here
def parse(written: PolicyText) -> Terms:
    """Parse fields whose grammar was checked. Raises Malformed for a list that is not canonical."""
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
    """Parse a network in its canonical form: RFC 4632 for IPv4, RFC 5952 for IPv6, host bits zero."""
    from ..http.networks import parse_network  # most presigns list no networks, and it is slow to import

    network = parse_network(text)
    if network is None or str(network) != text:
        raise Malformed("client holds something that is not a network in its canonical form")
    return network


def _digits(number: int | None) -> str:
    return "" if number is None else str(number)


def write(terms: Terms) -> PolicyText | None:
    """Write terms as fields, or return None if there are none (version 1). The inverse of `parse`.

    Raises ValueError for terms that no gateway would accept.
    """
    if terms == NO_TERMS:
        return None
    written = PolicyText(
        client=",".join(sorted({str(network) for network in terms.clients})),
        id=terms.id or "",
        key=terms.key or "",
        max_body=_digits(terms.max_body),
        max_uses=_digits(terms.max_uses),
        not_before=_digits(terms.not_before),
    )
    try:
        check_written(written)
        known = parse(written)
    except Malformed as error:
        raise ValueError(error.detail) from None
    if (known.key, known.id) != (terms.key, terms.id):
        raise ValueError("a key id and a name must not be empty")
    return written
