"""Tokens: a whole grant as one word, for places that accept only one word."""

from __future__ import annotations

from typing import Final

from ..errors import Malformed
from ..http.percent import decodings
from ..regexes import late
from . import base64url, grammar
from .signed_policy import SIGNED_AS, PolicyText, lines_of, read_lines

PREFIXES: Final = (b"ps1_", b"ps2_")
"""The prefixes of version 1, and of version 2, which contains a signed policy."""
_TOKEN = late(rf"ps([12])_([A-Za-z0-9_-]+)\.({grammar.SIGNATURE})".encode())
# The shortest grant with one field, such as `id:a`, takes twelve bytes: sixteen characters.
_BEGINS = late(rb"ps1_|ps2_[A-Za-z0-9_-]{16}")
_SIGNATURE = late(rf"\.{grammar.SIGNATURE}".encode())
SHAPE: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,30}[A-Za-z0-9._-])?"
"""Text that programs expect at the beginning of a provider's keys, as `sk-ant-api03-`."""
_SHAPE = late(SHAPE.encode())
_LONGEST_SHAPE: Final = 32
_LINES: Final = 4
"""The lines of a grant: id, expires, methods and paths."""


def parse_token(token: bytes) -> dict[str, str]:
    """Parse a token into its fields. Raises Malformed.

    The form is `ps1_` base64url(id LF expires LF methods LF paths) `.` signature. After `ps2_`, the signed
    lines of a policy follow those four.

    Strict: the base64url is canonical, and there are exactly four lines, or four and those of a policy in
    their one form. The policy of `ps2_` must not be empty, because such a token would be a second form of
    version 1.
    """
    match = _TOKEN.fullmatch(token)
    if not match:
        raise Malformed("the token is not of the form ps1_{base64url}.{signature}, or ps2_ with a policy")
    version, encoded, signature = match.groups()
    values = base64url.decode(encoded, "the token").split("\n", _LINES + len(SIGNED_AS))
    if len(values) < _LINES or (version == b"1" and len(values) > _LINES):
        raise Malformed("the token does not hold exactly four fields")
    connection_id, expires, methods, paths = values[:_LINES]
    fields = {
        "connection_id": connection_id,
        "expires": expires,
        "methods": methods,
        "paths": paths,
        "signature": signature.decode("ascii"),
    }
    if version == b"1":
        return fields
    if len(values) == _LINES:
        raise Malformed("the token is of version 2 but holds no policy")
    return fields | read_lines(values[_LINES:])


def format_token(
    connection_id: str,
    expires: str,
    methods: str,
    paths: str,
    signature: str,
    written: PolicyText | None = None,
) -> str:
    """Return the token of a grant. The inverse of `parse_token`."""
    version, lines = ("1", []) if written is None else ("2", lines_of(written))
    payload = "\n".join((connection_id, expires, methods, paths, *lines))
    return f"ps{version}_{base64url.encode(payload)}.{signature}"


def begins(text: bytes) -> bool:
    """Return whether a text begins like a token. A truncated or misspelled token is refused, not forwarded.

    `ps2_` alone is not enough, because names of products begin with it.
    """
    return text.startswith(b"ps") and _BEGINS.match(text) is not None


def split_shape(text: bytes) -> tuple[bytes, bytes] | None:
    """Return the shape before a token, and the token; None if the text is no token.

    The shape is empty if the text begins like a token. After a shape, only a whole token counts: other keys
    may contain the beginning of a token by chance. Takes linear time.
    """
    if begins(text):
        return b"", text
    end = _LONGEST_SHAPE + len(PREFIXES[0])
    starts = [at for start in PREFIXES if (at := text.find(start, 1, end)) > 0]
    at = min(starts, default=0)
    if not at or not _SHAPE.fullmatch(text, 0, at) or not _TOKEN.fullmatch(text, at):
        return None
    return text[:at], text[at:]


def has_start(text: bytes) -> bool:
    """Return whether a text contains the beginning of a token. Does not decode the text."""
    return text.find(b"ps1_") >= 0 or text.find(b"ps2_") >= 0


def holds_token(text: bytes) -> bool:
    """Return whether a text contains something that could be a token, percent-encoded or not."""
    return any(map(shows_token, decodings(text)))


def shows_token(text: bytes) -> bool:
    """Return whether a text contains a start of a token and, after it, a dot with a signature.

    Does not decode the text. Takes linear time.
    """
    for start in PREFIXES:
        at = text.find(start)
        if at >= 0 and _SIGNATURE.search(text, at):
            return True
    return False
