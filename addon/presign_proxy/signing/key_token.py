"""Key tokens: tokens of scheme presign that a request carries in place of an API key."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, Literal, NamedTuple

from ..errors import Malformed
from ..http.field_names import header_key, param_key
from ..http.message import Fields, Head, Request, asks_for_websocket
from ..http.query import check_parameters
from ..regexes import late
from .tokens import begins, has_start, holds_token, split_shape

# Bytes that are in no base64 alphabet, standard or URL-safe.
_NOT_BASE64: Final = bytes(
    octet
    for octet in range(256)
    if not (chr(octet).isascii() and chr(octet).isalnum()) and octet not in b"+/-_"
)
# The form of key that some providers require: `Authorization: Token token=…`.
_TOKEN_PARAM: Final = b"token="
_AUTHORIZATIONS: Final = frozenset((b"authorization", b"proxy-authorization"))
SUBPROTOCOL: Final = b"sec-websocket-protocol"
"""The header in which a page offers subprotocols: a browser adds no other one to a WebSocket."""
PLAIN_KEY: Final = b"openai-insecure-api-key."
"""What a page offers before its key, as a subprotocol. A key token may stand there."""
KEY_SUBPROTOCOLS: Final = (PLAIN_KEY, b"base64url.bearer.authorization.k8s.io.")
"""The beginnings of all subprotocols that are a credential. They are never sent on."""
# One element of the list, with something like a token behind `PLAIN_KEY` and at most the longest shape. No
# part gives back what it has taken, so the search takes linear time.
_PLAIN_KEYS = late(
    rb"(?:^|,)[ \t]*+" + re.escape(PLAIN_KEY) + rb"([^, \t]{0,32}?ps[12]_[^, \t]*+)[ \t]*+(?=,|\Z)"
)


class TokenSlot(NamedTuple):
    """The place of a key token: a lower-case header name or a folded query parameter."""

    kind: Literal["header", "param"]
    name: bytes


class Beside(NamedTuple):
    """What stands beside a key token in its place. The connection says which of it is admitted.

    `shape` is the text before it, empty if there is none. `password` is the password of Basic, if the token
    is the user name beside one.
    """

    shape: bytes = b""
    password: bytes = b""


NOTHING: Final = Beside()


class KeyToken(NamedTuple):
    """A token in the place of an API key."""

    slot: TokenSlot
    token: bytes
    beside: Beside = NOTHING


def key_tokens(request: Request, head: Head, query: bytes | None) -> list[KeyToken]:
    """Return the tokens in places for a credential. Raises Malformed for a token in any other place.

    Args:
        query: the query without presign parameters; None if it contains no token.
    """
    found: list[KeyToken] = []
    marked = has_start(head.values)
    # A search for the first letters of a token finds every token, except inside base64.
    encoded = head.values.lower().find(b"basic") >= 0 and not _AUTHORIZATIONS.isdisjoint(head.names)
    if marked or encoded:
        # One search in each field is enough.
        start = b"ps" if head.values.find(b"ps2_") >= 0 else b"ps1_"
        for name, (_, value) in zip(head.names, request.fields, strict=False):
            if value.find(start) < 0 and name not in _AUTHORIZATIONS:
                continue
            # A presigned URL in Referer is where a browser came from. The request does not carry it.
            if name.startswith(b"x-presign") or (name == b"referer" and not begins(value)):
                continue
            if name == SUBPROTOCOL:
                token = _token_in_subprotocols(request.fields, value)
            else:
                token = _token_in_value(name, value)
            if token is not None:
                found.append(token)
    if query is not None and holds_token(query):
        check_parameters(query)
        for piece in query.split(b"&"):
            name, _, value = piece.partition(b"=")
            if (split := split_shape(value)) is not None:
                found.append(KeyToken(TokenSlot("param", param_key(name)), split[1], _behind(split[0])))
            elif holds_token(piece):
                raise Malformed("a token in the query is not a plain value")
    return found


def _behind(shape: bytes) -> Beside:
    return Beside(shape) if shape else NOTHING


def _token_in_value(name: bytes, value: bytes) -> KeyToken | None:
    """Return the token of one header: the whole value, or the part after a scheme word, or inside Basic."""
    if (split := split_shape(value)) is not None:
        return KeyToken(TokenSlot("header", name), split[1], _behind(split[0]))
    if name in _AUTHORIZATIONS:
        word, *rest = value.split(None, 1) or (b"",)
        rest_value = rest[0] if rest else b""
        if word.lower() == b"basic":
            return _token_in_basic(name, rest_value)
        split = split_shape(rest_value.removeprefix(_TOKEN_PARAM))
        if name == b"authorization" and split is not None:
            return KeyToken(TokenSlot("header", name), split[1], _behind(split[0]))
    if holds_token(value):
        raise Malformed("a token is in a place that is not for a credential")
    return None


def _token_in_basic(name: bytes, encoded: bytes) -> KeyToken | None:
    """Return the token in Basic's password, or in its user name (RFC 7617).

    The search decodes like the most lenient decoder. A token is accepted only if the strictest decoder finds
    it too. Raises Malformed otherwise.
    """
    alphabet = encoded.translate(None, _NOT_BASE64).replace(b"-", b"+").replace(b"_", b"/")
    # Padded with zero bits. So an extra last digit, which some decoders drop, is not an error here.
    lenient = base64.b64decode(alphabet + b"A" * (-len(alphabet) % 4))
    if not holds_token(lenient):
        return None
    try:
        username, _, password = base64.b64decode(encoded, validate=True).partition(b":")
    except binascii.Error:
        raise Malformed("Basic holds a token but is not well-formed") from None
    is_user = not holds_token(password)
    if name != b"authorization" or (not is_user and holds_token(username)):
        raise Malformed("a token in Basic is neither the password nor the user name")
    held = username if is_user else password
    shape, token = split_shape(held) or (b"", held)
    return KeyToken(TokenSlot("header", name), token, Beside(shape, password if is_user else b""))


def _token_in_subprotocols(fields: Fields, value: bytes) -> KeyToken | None:
    """Return the token that one line of subprotocols holds as a key. Raises Malformed.

    Only a handshake of WebSocket is written again without the key, so in another request it is refused.
    """
    keys = _PLAIN_KEYS.findall(value)
    split = split_shape(keys[0]) if keys else None
    beside = value.replace(split[1], b"", 1) if split is not None else value
    if len(keys) > 1 or holds_token(beside):
        raise Malformed("a token in Sec-WebSocket-Protocol is not the one key among the subprotocols")
    if split is None:
        return None
    if not asks_for_websocket(fields):
        raise Malformed("a token is a subprotocol of a request that asks for no WebSocket")
    return KeyToken(TokenSlot("header", SUBPROTOCOL), split[1], _behind(split[0]))


def check_once(keys: list[KeyToken]) -> None:
    """Raise Malformed if a token is in the same slot twice, in any spelling of its name."""
    if len({(one.slot.kind, header_key(one.slot.name)) for one in keys}) < len(keys):
        raise Malformed("a slot holds the token twice")


def without_token(query: bytes | None) -> bytes | None:
    kept = [piece for piece in (query or b"").split(b"&") if split_shape(piece.partition(b"=")[2]) is None]
    return b"&".join(kept) if kept else None
