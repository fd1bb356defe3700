"""A token of scheme presign in place of an API key: where it may stand, and where it stands."""

from __future__ import annotations

import base64
import binascii
from typing import Final, Literal, NamedTuple

from ..errors import Malformed
from ..http.field_names import param_key
from ..http.message import Head, Request
from ..http.query import check_parameters
from .tokens import begins, has_start, holds_token

# Runs of bytes that no decoder of base64 reads, standard or URL-safe.
_NOT_BASE64: Final = bytes(
    octet
    for octet in range(256)
    if not (chr(octet).isascii() and chr(octet).isalnum()) and octet not in b"+/-_"
)
# As some providers want their keys: `Authorization: Token token=…`.
_TOKEN_PARAM: Final = b"token="
_AUTHORIZATIONS: Final = frozenset((b"authorization", b"proxy-authorization"))


class TokenSlot(NamedTuple):
    """Where a key token stood: a lower-case header name or a folded query parameter."""

    kind: Literal["header", "param"]
    name: bytes


def key_tokens(request: Request, head: Head, query: bytes | None) -> list[tuple[TokenSlot, bytes]]:
    """Tokens that stand where a credential would. Raises Malformed for one that stands anywhere else.

    Args:
        query: the query without presign parameters; None where it holds no token.
    """
    found: list[tuple[TokenSlot, bytes]] = []
    marked = has_start(head.values)
    # Only base64 hides a token from a search for its first letters.
    encoded = head.values.lower().find(b"basic") >= 0 and not _AUTHORIZATIONS.isdisjoint(head.names)
    if marked or encoded:
        # One search in each field is enough.
        start = b"ps" if head.values.find(b"ps2_") >= 0 else b"ps1_"
        for name, (_, value) in zip(head.names, request.fields, strict=False):
            if value.find(start) < 0 and name not in _AUTHORIZATIONS:
                continue
            # A page's own URL is where a browser came from, not what it carries.
            if name.startswith(b"x-presign") or (name == b"referer" and not begins(value)):
                continue
            if (token := _token_in_value(name, value)) is not None:
                found.append((TokenSlot("header", name), token))
    if query is not None and holds_token(query):
        check_parameters(query)
        for piece in query.split(b"&"):
            name, _, value = piece.partition(b"=")
            if begins(value):
                found.append((TokenSlot("param", param_key(name)), value))
            elif holds_token(piece):
                raise Malformed("a token in the query is not a plain value")
    return found


def _token_in_value(name: bytes, value: bytes) -> bytes | None:
    """The token of one header: the whole value, or behind a scheme word, or in Basic."""
    if begins(value):
        return value
    if name in _AUTHORIZATIONS:
        word, *rest = value.split(None, 1) or (b"",)
        rest_value = rest[0] if rest else b""
        if word.lower() == b"basic":
            return _token_in_basic(name, rest_value)
        rest_value = rest_value.removeprefix(_TOKEN_PARAM)
        if name == b"authorization" and begins(rest_value):
            return rest_value
    if holds_token(value):
        raise Malformed("a token stands where no credential does")
    return None


def _token_in_basic(name: bytes, encoded: bytes) -> bytes | None:
    """The token in Basic's password, or in its user name where the password is empty (RFC 7617).

    Looked for as the most lenient decoder would, accepted only as the strictest does.
    """
    alphabet = encoded.translate(None, _NOT_BASE64).replace(b"-", b"+").replace(b"_", b"/")
    # Zeros for padding: with them a digit too many, which some decoders drop, is no error either.
    lenient = base64.b64decode(alphabet + b"A" * (-len(alphabet) % 4))
    if not holds_token(lenient):
        return None
    try:
        username, _, password = base64.b64decode(encoded, validate=True).partition(b":")
    except binascii.Error:
        raise Malformed("Basic holds a token but is not well-formed") from None
    if name != b"authorization" or (password and holds_token(username)):
        raise Malformed("a token in Basic is neither the password nor a user name without one")
    return password or username


def without_token(query: bytes | None) -> bytes | None:
    kept = [piece for piece in (query or b"").split(b"&") if not begins(piece.partition(b"=")[2])]
    return b"&".join(kept) if kept else None
