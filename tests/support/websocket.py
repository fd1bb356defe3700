"""Both ends of a WebSocket by hand: its handshake, its 101, and frames as they stand on the wire."""

import base64
import hashlib
import struct
from typing import Any

from support.byhand import Wire
from support.lanes import LaneLab

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""The answer to KEY, both from RFC 6455, 1.3."""
UPGRADE = ("Upgrade: websocket", "Connection: Upgrade")
VERSION, KEYED = "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"
HANDSHAKE = (*UPGRADE, VERSION, KEYED)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def accept_of(key: str) -> str:
    digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode(), usedforsecurity=False)
    return base64.b64encode(digest.digest()).decode()


def switching(*fields: str, accept: str = ACCEPT) -> bytes:
    """The head of a 101 with these fields besides the usual ones."""
    lines = ["HTTP/1.1 101 Switching Protocols", *UPGRADE, f"Sec-WebSocket-Accept: {accept}", *fields]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(payload: bytes, opcode: int = TEXT, *, masked: bool = False, last: bool = True) -> bytes:
    """One frame (RFC 6455, 5.2); a client's are masked."""
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes((last << 7 | opcode, bit | size))
    elif size < 1 << 16:
        head = bytes((last << 7 | opcode, bit | 126)) + struct.pack("!H", size)
    else:
        head = bytes((last << 7 | opcode, bit | 127)) + struct.pack("!Q", size)
    if not masked:
        return head + payload
    mask = b"\x37\xfa\x21\x3d"
    masks = (mask * (size // 4 + 1))[:size]
    masked_ = int.from_bytes(payload, "big") ^ int.from_bytes(masks, "big")
    return head + mask + masked_.to_bytes(size, "big")


def opened(lab: LaneLab, client: Wire, *fields: str, **options: Any) -> Wire:
    """The upstream's end of a WebSocket that both ends have agreed on."""
    client.send(lab.head(*HANDSHAKE, *fields, **options))
    api = lab.hand.accept()
    api.read_head()
    api.send(switching())
    assert client.read_head().startswith(b"HTTP/1.1 101 ")
    return api
