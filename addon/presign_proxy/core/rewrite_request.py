"""The outgoing request, computed as a whole: strip the presign and unsafe headers, and set the new target."""

from __future__ import annotations

from typing import Final

from ..errors import Malformed
from ..http.field_names import header_key
from ..http.message import Fields, Head, Request
from ..http.query import without
from ..signing.disclosure import discloses
from ..signing.key_token import SUBPROTOCOL
from .confirmation import without_confirmation
from .connection import Connection
from .credentials import CredentialSlots, Outgoing
from .redact import holds_presign
from .strip_list import EXPECT, is_credential, nominated, passing
from .upgrade import Handshake, is_of_handshake

_METHODS: Final = frozenset(
    b"x-http-method x-http-method-override x-http-methodoverride x-method-override real-method "
    b"x-ajax-real-method".split()
)
"""The headers of `strip_list.OVERRIDES` in which clients send the method that they mean."""
_DESTINATION: Final = b"destination"
_TWO_PATHS: Final = frozenset((b"MOVE", b"COPY"))
"""Methods whose second path is in `Destination` (RFC 4918, 9.8 and 9.9)."""
_TAKES: Final = frozenset((b"copy", b"rename", b"move", b"fetch"))
_FROM: Final = frozenset((b"source", b"from"))
_LEADS: Final = (frozenset((b"symlink", b"target")), frozenset((b"object", b"manifest")))
"""Words in the names of headers that name a second object, to copy or move from, or to link to.

Object stores have such headers: S3 and compatible ones, Google's, Azure's, Swift.
"""
_MEANING: Final = (b"method", _DESTINATION, *sorted(_TAKES), b"symlink", b"manifest")
"""Parts of the names of all headers that `check_meaning` may refuse, for a fast search."""
NO_OVERRIDE: Final = "A header that overrides the method is not forwarded: send the method itself."
NO_SECOND_PATH: Final = "MOVE and COPY with a Destination are not forwarded: only one path is signed."
NO_COPY: Final = "A header that names a second object is not forwarded: only one path is signed."

_ASKS_FOR_MORE: Final = frozenset((b"service-worker", b"expect"))
PROXY_AUTHORIZATION: Final = b"proxy-authorization"


def check_meaning(request: Request, head: Head) -> None:
    """Refuse a request whose headers change its method or add a second path. Raises Malformed.

    The other method and the second path were not checked against the signature, so they must not reach the
    upstream. If the headers were only stripped, a POST that means DELETE would run as a POST, and a MOVE
    would have no destination.
    """
    if not any(head.joined.find(part) >= 0 for part in _MEANING):
        return
    for name, value in request.fields:
        key = header_key(name)
        if key in _METHODS and value.strip().upper() != request.method:
            raise Malformed(f"{key.decode()} asks for another method than the one that is sent", NO_OVERRIDE)
        if key == _DESTINATION and request.method in _TWO_PATHS:
            raise Malformed(f"{request.method.decode()} with destination has a second path", NO_SECOND_PATH)
        words = frozenset(key.split(b"-"))
        if (words & _TAKES and words & _FROM) or any(leads <= words for leads in _LEADS):
            raise Malformed(f"{key.decode()} names a second path", NO_COPY)


def check_wishes(request: Request, head: Head, *, gateway: bool) -> None:
    """Refuse service workers at the gateway, and any Expect but 100-continue. Raises Malformed.

    A service worker would outlive the presign.
    """
    if _ASKS_FOR_MORE.isdisjoint(head.names):
        return
    for name, value in request.fields:
        key = name.lower()
        if key == b"service-worker" and gateway:
            raise Malformed("service workers are not served")
        if key == EXPECT and value.strip().lower() != b"100-continue":
            raise Malformed("Expect is not 100-continue")


def outgoing(
    request: Request,
    path: bytes,
    query: bytes | None,
    connection: Connection,
    token_in: tuple[bytes, ...] = (),
    handshake: Handshake | None = None,
) -> Outgoing:
    """Return the request for the upstream, without credential and `Host`.

    Args:
        path: the canonical path, base included.
        query: the query without the presign.
        token_in: the lower-case headers that contained the presign, if it was a key token.
        handshake: of a WebSocket, if it is one.
    """
    slots = connection.slots
    kept = _kept(request.fields, slots, connection)
    if connection.conduct.reject_client_credentials:
        _reject(request.fields, query, slots, token_in)
    if defaults := connection.conduct.default_fields:
        present = {header_key(name) for name, _ in kept}
        kept += tuple(field for field in defaults if header_key(field[0]) not in present)
    # The mask could miss the credential in an encoded reply.
    kept += ((b"Accept-Encoding", b"identity"),)
    if handshake is not None:
        kept = tuple([field for field in kept if not is_of_handshake(header_key(field[0]))])
        kept += handshake.fields
    return Outgoing(path, without(query, slots.params) if slots.params else query, kept)


def _kept(fields: Fields, slots: CredentialSlots, connection: Connection) -> Fields:
    gone = slots.headers | nominated(fields)
    if connection.conduct.cookies:
        fields = tuple([kept for field in fields if (kept := _without_ours(field)) is not None])
    else:
        gone |= {b"cookie"}
    return tuple(
        [
            field
            for field in fields
            if (key := passing(field[0]))
            and key not in gone
            and not (key == b"referer" and holds_presign(field[1]))
            and not discloses(field[1])
        ]
    )


def _without_ours(field: tuple[bytes, bytes]) -> tuple[bytes, bytes] | None:
    return without_confirmation(field) if header_key(field[0]) == b"cookie" else field


def _reject(fields: Fields, query: bytes | None, slots: CredentialSlots, token_in: tuple[bytes, ...]) -> None:
    """Raise Malformed if the client sends a credential of its own."""
    # Of the subprotocols of a WebSocket, those that are a credential are rejected with its handshake.
    keys = [key for name, _ in fields if (key := header_key(name)) != SUBPROTOCOL]
    brought = [
        key for key in keys if key in slots.headers or (key != PROXY_AUTHORIZATION and is_credential(key))
    ]
    for key in map(header_key, token_in):
        if key in brought:
            brought.remove(key)  # once: that is the presign
    if brought or without(query, slots.params) != query:
        raise Malformed("the client brings a credential of its own, the connection rejects that")
