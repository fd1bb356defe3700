"""Percent-encoding of signed text, and percent-decoding of text that is not verified yet.

Decoding takes the same few steps for each byte, whatever the bytes are. `urllib.parse.unquote_to_bytes`
raises and catches an exception for each `%` that begins no escape, which costs as much as a hundred good
bytes. Here one search splits the text at its escapes, and a `%` without digits costs no more than any other
byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from ..regexes import late

ROUNDS: Final = 3
"""Most rounds of decoding by an upstream and the proxies before it, one after the other."""

HEX_DIGITS: Final = "0123456789abcdefABCDEF"
_ESCAPE: Final = late(rb"%([0-9A-Fa-f]{2})")
_INCOMPLETE: Final = late(rb"%(?![0-9A-Fa-f]{2})")
_octet = {(a + b).encode(): bytes.fromhex(a + b) for a in HEX_DIGITS for b in HEX_DIGITS}.__getitem__
_RESERVED: Final = late(r"[^A-Za-z0-9_.~-]+")

CONTROL: Final = r"[\x00-\x1f\x7f-\x9f]"
"""The control characters C0, DEL and C1, as a pattern."""


def query(fields: Mapping[str, str]) -> str:
    """Write fields as the query of a URL, as `urllib.parse.urlencode` does. That is slow to import."""
    return "&".join(f"{_encoded(name)}={_encoded(value)}" for name, value in fields.items())


def _encoded(text: str) -> str:
    # A literal plus has become %2B, and every %20 is a blank.
    return _RESERVED.sub(_escaped, text).replace("%20", "+")


def _escaped(reserved: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in reserved[0].encode())


def decode(raw: bytes) -> bytes:
    """Decode once. A `%` that begins no escape stays as it is."""
    if raw.find(b"%") < 0:
        return raw
    parts = _ESCAPE.split(raw)
    parts[1::2] = map(_octet, parts[1::2])
    return b"".join(parts)


def decodings(raw: bytes) -> list[bytes]:
    """Return the text as received, and after each round of decoding that changes it, at most `ROUNDS`."""
    found = [raw]
    while len(found) <= ROUNDS:
        decoded = decode(found[-1])
        if decoded is found[-1] or decoded == found[-1]:
            break
        found.append(decoded)
    return found


def is_incomplete(raw: bytes) -> bool:
    """Return whether some `%` begins no escape."""
    return _INCOMPLETE.search(raw) is not None
