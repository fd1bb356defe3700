"""Percent-encoding of what was signed, and percent-decoding of what nobody has verified.

What is decoded takes the same few steps for each byte, whatever the bytes are.
`urllib.parse.unquote_to_bytes` raises and catches an exception for each `%` that begins no escape, which
costs as much as a hundred good bytes. Here one search splits the text at its escapes; what is none costs no
more than any other byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ..regexes import late

ROUNDS: Final = 3
"""How often an upstream and the proxies before it may decode one after the other."""

HEX_DIGITS: Final = "0123456789abcdefABCDEF"
_ESCAPE: Final = late(rb"%([0-9A-Fa-f]{2})")
_INCOMPLETE: Final = late(rb"%(?![0-9A-Fa-f]{2})")
_octet = {(a + b).encode(): bytes.fromhex(a + b) for a in HEX_DIGITS for b in HEX_DIGITS}.__getitem__
_RESERVED: Final = late(r"[^A-Za-z0-9_.~-]+")

CONTROL: Final = r"[\x00-\x1f\x7f-\x9f]"
"""C0, DEL and C1."""


def query(fields: Mapping[str, str]) -> str:
    """Fields as the query of a URL: as `urllib.parse.urlencode` writes them, which is slow to import."""
    return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in fields.items())


def _encoded(text: str) -> str:
    # A plus that stood there is %2B by then, and %20 can only be a blank.
    return _RESERVED.sub(_escaped, text).replace("%20", "+")


def _escaped(reserved: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in reserved[0].encode())


def decode(raw: bytes) -> bytes:
    """One round of decoding. A `%` that begins no escape stays as it is."""
    if raw.find(b"%") < 0:
        return raw
    parts = _ESCAPE.split(raw)
    parts[1::2] = map(_octet, parts[1::2])
    return b"".join(parts)


def decodings(raw: bytes) -> list[bytes]:
    """The text as received and after each round that changes it, `ROUNDS` at most."""
    found = [raw]
    while len(found) <= ROUNDS:
        decoded = decode(found[-1])
        if decoded is found[-1] or decoded == found[-1]:
            break
        found.append(decoded)
    return found


def is_incomplete(raw: bytes) -> bool:
    """Whether some `%` begins no escape."""
    return _INCOMPLETE.search(raw) is not None
