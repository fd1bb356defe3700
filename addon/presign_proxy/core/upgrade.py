"""WebSocket: the handshake of a client (RFC 6455, 4.2.1), and the upstream's answer to it (4.1).

The handshake is an ordinary GET to the signature and to the ceilings. What makes it a WebSocket is read here,
written again for the upstream, and compared with the answer. After the answer, frames pass as they come.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from typing import Final, NamedTuple

from ..errors import Denied, Malformed
from ..http.field_names import header_key
from ..http.message import TOKEN, WEBSOCKET, Fields, Head, Request, asks_for_websocket, listed
from ..signing.disclosure import discloses
from ..signing.key_token import KEY_SUBPROTOCOLS, SUBPROTOCOL
from .connection import Connection
from .strip_list import EXPECT, nominated

SWITCHING: Final = 101
_FAMILY: Final = b"sec-websocket-"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
"""Sixteen bytes in base64, written in the only way in which an encoder writes them."""
_NO_WEBSOCKET: Final = ((b"Upgrade", b"HTTP/1.1"), (b"Connection", b"Upgrade"))
"""The protocol that is served instead (RFC 9110, 15.5.22)."""
_VERSION: Final = ((b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"Sec-WebSocket-Version", b"13"))
"""The version that is served (RFC 6455, 4.4)."""
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))
OLD_HTTP: Final = "WebSocket is served over HTTP/1.1 only."
OLD_VERSION: Final = "Only version 13 of WebSocket is served."


class Handshake(NamedTuple):
    """What a client has asked for: its key, and what it offers. The upstream may choose nothing else."""

    key: bytes
    protocols: tuple[bytes, ...] = ()
    extensions: bytes = b""

    @property
    def fields(self) -> Fields:
        """The fields that make the outgoing GET a handshake, all of them written by the gateway."""
        offered = ((b"Sec-WebSocket-Protocol", b", ".join(self.protocols)),) if self.protocols else ()
        extended = ((b"Sec-WebSocket-Extensions", self.extensions),) if self.extensions else ()
        return (
            (b"Upgrade", WEBSOCKET),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Version", b"13"),
            (b"Sec-WebSocket-Key", self.key),
            *offered,
            *extended,
        )

    @property
    def accept(self) -> bytes:
        """The proof that the upstream has read this very handshake."""
        digest = hashlib.sha1(self.key + _GUID, usedforsecurity=False).digest()
        return binascii.b2a_base64(digest, newline=False)


def is_of_handshake(key: bytes) -> bool:
    """Return whether a header, by its folded name, belongs to a handshake, and so is written again."""
    return key.startswith(_FAMILY)


def handshake_of(request: Request, head: Head, connection: Connection) -> Handshake | None:
    """Return the handshake of a request that asks for WebSocket; None if it asks for something else.

    Other upgrades are offers that a server may ignore (RFC 9110, 7.8); their headers are stripped.

    Raises Denied if the connection does not allow WebSocket, or if the handshake is not exactly that of
    RFC 6455. A client would wait in vain for an upgrade that is only ignored.
    """
    if b"upgrade" not in head.names or not asks_for_websocket(request.fields):
        return None
    if not connection.conduct.websocket:
        raise Denied("upgrade_required", "the connection does not allow WebSocket", fields=_NO_WEBSOCKET)
    if request.version != b"HTTP/1.1":  # RFC 8441 is not spoken, and HTTP/1.0 has no upgrades
        raise Denied("upgrade_required", "WebSocket over another version of HTTP", sentence=OLD_HTTP)
    if why := _fault(request, head):
        raise Malformed(why, f"This is not a WebSocket handshake: {why}.")
    if _values(request.fields, b"sec-websocket-version") != [b"13"]:
        raise Denied(
            "upgrade_required",
            "another version of WebSocket is asked for",
            sentence=OLD_VERSION,
            fields=_VERSION,
        )
    # A presign is not sent on, and is no credential of the client's own.
    offered = [one for one in _protocols(request.fields) if not discloses(one)]
    kept = tuple([one for one in offered if not one.startswith(KEY_SUBPROTOCOLS)])
    if connection.conduct.reject_client_credentials and len(kept) < len(offered):
        raise Malformed("the client brings a credential of its own, the connection rejects that")
    extensions = b", ".join(_values(request.fields, b"sec-websocket-extensions"))
    return Handshake(_values(request.fields, b"sec-websocket-key")[0], kept, extensions)


def _fault(request: Request, head: Head) -> str:
    """Return what keeps a request from being a handshake; empty if nothing does."""
    options = listed(request.fields, b"connection")
    keys = _values(request.fields, b"sec-websocket-key")
    if request.method != b"GET":
        return "its method is not GET"
    if not _FRAMING.isdisjoint(head.names) or EXPECT in head.names:
        return "it has a body"
    if listed(request.fields, b"upgrade") != [WEBSOCKET] or b"upgrade" not in options or b"close" in options:
        return "it needs exactly Upgrade: websocket and Connection: Upgrade"
    if any(key.startswith((_FAMILY, b"host", b"origin")) for key in nominated(request.fields)):
        return "Connection names a header that belongs to the handshake"
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        return "Sec-WebSocket-Key is not one value of 16 bytes in base64"
    return ""


def _protocols(fields: Fields) -> list[bytes]:
    """Return the subprotocols that a client offers, in its order. Raises Malformed."""
    found = [one.strip() for value in _values(fields, SUBPROTOCOL) for one in value.split(b",")]
    if len(set(found)) < len(found) or any(not one or one.translate(None, TOKEN) for one in found):
        raise Malformed("Sec-WebSocket-Protocol is not a list of different tokens")
    return found


def switched(fields: Fields, handshake: Handshake) -> Fields:
    """Return the fields that make an upstream's 101 the answer to a handshake.

    Raises Denied("upstream") if it is not: whatever came behind it would reach the client as frames.
    """
    why, protocols, extensions = "", _values(fields, SUBPROTOCOL), _extensions(fields)
    offered = [_name(one) for one in handshake.extensions.split(b",")]
    if listed(fields, b"upgrade") != [WEBSOCKET] or b"upgrade" not in listed(fields, b"connection"):
        why = "the upstream switches to something else than WebSocket"
    elif any(name.lower() in _FRAMING for name, _ in fields):
        why = "the upstream's 101 announces a body"
    elif _values(fields, b"sec-websocket-accept") != [handshake.accept]:
        why = "the upstream's Sec-WebSocket-Accept is not the answer to the client's key"
    elif len(protocols) > 1 or any(one not in handshake.protocols for one in protocols):
        why = "the upstream chooses a subprotocol that was not offered"
    elif len(set(extensions)) < len(extensions) or any(one not in offered for one in extensions):
        why = "the upstream chooses an extension that was not offered"
    if why:
        raise Denied("upstream", why)
    chosen = [(b"Sec-WebSocket-Protocol", one) for one in protocols]
    if extensions:
        chosen.append((b"Sec-WebSocket-Extensions", b", ".join(_values(fields, b"sec-websocket-extensions"))))
    start = ((b"Upgrade", WEBSOCKET), (b"Connection", b"Upgrade"))
    return (*start, (b"Sec-WebSocket-Accept", handshake.accept), *chosen)


def _extensions(fields: Fields) -> list[bytes]:
    values = _values(fields, b"sec-websocket-extensions")
    return [_name(one) for value in values for one in value.split(b",")]


def _name(extension: bytes) -> bytes:
    return extension.partition(b";")[0].strip().lower()


def _values(fields: Fields, key: bytes) -> list[bytes]:
    """Return the values of a header, one for each line; also in a spelling that upstreams may fold."""
    return [value.strip(b" \t") for name, value in fields if header_key(name) == key]
