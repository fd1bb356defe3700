"""The spellings under which names of headers and parameters meet in upstreams that fold them."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from .percent import decodings

# CGI maps every character that is not a letter or digit to one, and some frameworks cut at the ends.
_FOLDED: Final = bytes(
    ord(chr(octet).lower()) if octet < 128 and chr(octet).isalnum() else ord("-") for octet in range(256)
)
CACHED: Final = 64
"""Bytes of the longest name that is worth remembering; longer ones are an attack on the memory."""
DROPPED: Final = b" +\t\r\n\x00]"
"""What frameworks drop at the ends of a parameter's name."""


def header_key(name: bytes) -> bytes:
    """The folded name of a header: lower-case, one `-` for each run of what is not a letter or digit."""
    return _short_key(name) if len(name) <= CACHED else _key(name)


def _key(name: bytes) -> bytes:
    return b"-".join(filter(None, name.translate(_FOLDED).split(b"-")))


_short_key = lru_cache(maxsize=4096)(_key)


def fold(raw: bytes) -> bytes:
    """Decoded as often as upstreams and the proxies before them may, lower-case, `-` for `_`."""
    return fold_decoded(decodings(raw)[-1] if raw.find(b"%") >= 0 else raw)


def fold_decoded(text: bytes) -> bytes:
    """What `fold` makes of a text that is decoded already."""
    return text.lower().replace(b"_", b"-")


def param_key(name: bytes) -> bytes:
    """The folded name of a query parameter: without `[]`; dots, blanks and NUL as frameworks read them."""
    return fold(name).partition(b"[")[0].replace(b".", b"-").strip(DROPPED)
