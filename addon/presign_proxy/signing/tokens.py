"""Tokens: a whole grant as one word, for places that take nothing else."""

from __future__ import annotations

from typing import Final

from ..errors import Malformed
from ..http.percent import decodings
from ..regexes import late
from . import base64url, grammar
from .signed_policy import PolicyText

PREFIXES: Final = (b"ps1_", b"ps2_")
"""Of version 1, and of version 2, which holds a signed policy."""
_TOKEN = late(rf"ps([12])_([A-Za-z0-9_-]+)\.({grammar.SIGNATURE})".encode())
# Ten fields take nineteen characters at least.
_BEGINS = late(rb"ps1_|ps2_[A-Za-z0-9_-]{16}")
_SIGNATURE = late(rf"\.{grammar.SIGNATURE}".encode())
_POLICY: Final = ("connection_id", "expires", "methods", "paths", *PolicyText._fields)


def parse_token(token: bytes) -> dict[str, str]:
    """The fields of a token, `ps1_` base64url(id LF expires LF methods LF paths) `.` signature, or `ps2_`
    with the six of a signed policy behind those four.

    Strict: the base64url re-encodes to itself, exactly four fields or ten, of which the six are not all
    empty: that would be version 1 in the clothes of version 2. Raises Malformed.
    """
    match = _TOKEN.fullmatch(token)
    if not match:
        raise Malformed("the token is not of the form ps1_{base64url}.{signature}, or ps2_ with a policy")
    version, encoded, signature = match.groups()
    values = base64url.decode(encoded, "the token").split("\n", len(_POLICY))
    if version == b"1":
        if len(values) != 4:
            raise Malformed("the token does not hold exactly four fields")
        connection_id, expires, methods, paths = values
        return {
            "connection_id": connection_id,
            "expires": expires,
            "methods": methods,
            "paths": paths,
            "signature": signature.decode("ascii"),
        }
    if len(values) != len(_POLICY):
        raise Malformed("the token does not hold exactly ten fields")
    fields = dict(zip(_POLICY, values, strict=True))
    terms = {name: fields.pop(name) for name in PolicyText._fields}
    if not any(terms.values()):
        raise Malformed("the token is of version 2 but holds no policy")
    present = {name: value for name, value in terms.items() if value}
    return {**fields, **present, "signature": signature.decode("ascii")}


def format_token(
    connection_id: str,
    expires: str,
    methods: str,
    paths: str,
    signature: str,
    written: PolicyText | None = None,
) -> str:
    """The token of a grant; the inverse of `parse_token`."""
    version, terms = ("1", ()) if written is None else ("2", tuple(written))
    payload = "\n".join((connection_id, expires, methods, paths, *terms))
    return f"ps{version}_{base64url.encode(payload)}.{signature}"


def begins(text: bytes) -> bool:
    """Whether a text is a token, be it cut or misspelled: then it is refused, not passed on.

    `ps2_` alone is not enough: it begins the names of things that people sell.
    """
    return text.startswith(b"ps") and _BEGINS.match(text) is not None


def has_start(text: bytes) -> bool:
    """Whether a token could begin in a text, as it stands."""
    return text.find(b"ps1_") >= 0 or text.find(b"ps2_") >= 0


def holds_token(text: bytes) -> bool:
    """Whether something that could be a token stands anywhere in a text, percent-encoded or not."""
    return any(map(shows_token, decodings(text)))


def shows_token(text: bytes) -> bool:
    """The same for a text as it stands. In linear time: a start, and somewhere behind it a dot with a
    signature.
    """
    for start in PREFIXES:
        at = text.find(start)
        if at >= 0 and _SIGNATURE.search(text, at):
            return True
    return False
