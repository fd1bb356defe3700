"""The outgoing request, computed whole: strip, retarget, inject."""

from __future__ import annotations

from typing import Final

from ..errors import Denied, Malformed
from ..http.field_names import header_key
from ..http.message import Fields, Head, Request
from ..http.query import without
from ..signing.disclosure import discloses
from .connection import Connection
from .credentials import CredentialSlots, Outgoing
from .redact import holds_presign
from .strip_list import EXPECT, is_credential, nominated, passing

_METHODS: Final = frozenset(
    b"x-http-method x-http-method-override x-http-methodoverride x-method-override real-method "
    b"x-ajax-real-method".split()
)
"""Of `strip.OVERRIDES`, the headers in which clients send the method that they mean."""
_DESTINATION: Final = b"destination"
_TWO_PATHS: Final = frozenset((b"MOVE", b"COPY"))
"""RFC 4918, 9.8 and 9.9: methods whose second path is in `Destination`."""
_TAKES: Final = frozenset((b"copy", b"rename", b"move", b"fetch"))
_FROM: Final = frozenset((b"source", b"from"))
_LEADS: Final = (frozenset((b"symlink", b"target")), frozenset((b"object", b"manifest")))
"""Words of the names of headers in which object stores are told of a second object (S3 and its kin, Google's,
Azure's, Swift): one to copy or to move from, or to lead to.
"""
_MEANING: Final = (b"method", _DESTINATION, *sorted(_TAKES), b"symlink", b"manifest")
"""Parts of the names of headers that may give a request another meaning."""
NO_OVERRIDE: Final = "A header that overrides the method is not forwarded: send the method itself."
NO_SECOND_PATH: Final = "MOVE and COPY with a Destination are not forwarded: only one path is signed."
NO_COPY: Final = "A header that names a second object is not forwarded: only one path is signed."

_WEBSOCKET: Final = b"websocket"
_NO_WEBSOCKET: Final = ((b"Upgrade", b"HTTP/1.1"), (b"Connection", b"Upgrade"))
"""RFC 9110, 15.5.22: which protocol is served instead."""
_ASKS_FOR_MORE: Final = frozenset((b"upgrade", b"service-worker", b"expect"))
PROXY_AUTHORIZATION: Final = b"proxy-authorization"


def check_meaning(request: Request, head: Head) -> None:
    """Refuse a request that means more than its method and its path say. Raises Malformed.

    A POST that is to be a DELETE would reach the upstream as a POST, and a MOVE would lead nowhere. Neither
    may go on as it is: another method, and a second path, were not held against what was signed.
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


def check_upgrade(request: Request, head: Head, *, gateway: bool) -> None:
    """Refuse WebSocket, for which a client would wait in vain, and to register a script that would outlive
    the presign. Other upgrades are offers that a server may ignore (RFC 9110, 7.8); they are taken off.
    """
    if _ASKS_FOR_MORE.isdisjoint(head.names):
        return
    for name, value in request.fields:
        key = name.lower()
        if key == b"upgrade" and _WEBSOCKET in [one.strip().lower() for one in value.split(b",")]:
            raise Denied("upgrade_required", "WebSocket is not served", fields=_NO_WEBSOCKET)
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
) -> Outgoing:
    """The request as it goes to the upstream, without credential and `Host`.

    Args:
        path: the canonical path, base included.
        query: the query without the presign.
        token_in: the lower-case headers in which the presign itself stood, if it was a key token.
    """
    slots = connection.injector.slots
    kept = _kept(request.fields, slots, connection)
    if connection.conduct.reject_client_credentials:
        _reject(request.fields, query, slots, token_in)
    if defaults := connection.conduct.default_fields:
        present = {header_key(name) for name, _ in kept}
        kept += tuple(field for field in defaults if header_key(field[0]) not in present)
    # An encoded reply could carry the credential past the mask.
    kept += ((b"Accept-Encoding", b"identity"),)
    return Outgoing(path, without(query, slots.params) if slots.params else query, kept)


def _kept(fields: Fields, slots: CredentialSlots, connection: Connection) -> Fields:
    gone = slots.headers | nominated(fields)
    if not connection.conduct.cookies:
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


def _reject(fields: Fields, query: bytes | None, slots: CredentialSlots, token_in: tuple[bytes, ...]) -> None:
    """Raises Malformed where the client brings a credential of its own."""
    keys = [header_key(name) for name, _ in fields]
    brought = [
        key for key in keys if key in slots.headers or (key != PROXY_AUTHORIZATION and is_credential(key))
    ]
    for key in map(header_key, token_in):
        if key in brought:
            brought.remove(key)  # once: that is the presign
    if brought or without(query, slots.params) != query:
        raise Malformed("the client brings a credential of its own, the connection rejects that")
