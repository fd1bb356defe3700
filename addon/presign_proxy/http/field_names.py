"""Folded names of headers and parameters: two names are equal here if some upstream takes them as equal."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from .percent import decodings

# CGI maps all characters that are not letters or digits to the same one, and some frameworks strip the ends.
_FOLDED: Final = bytes(
    ord(chr(octet).lower()) if octet < 128 and chr(octet).isalnum() else ord("-") for octet in range(256)
)
CACHED: Final = 64
"""Bytes of the longest name that is cached. A cache of longer names would let clients fill the memory."""
DROPPED: Final = b" +\t\r\n\x00]"
"""Bytes that frameworks drop at both ends of a parameter's name."""


def header_key(name: bytes) -> bytes:
    """Return the folded name of a header: lower-case, with one `-` for each run of other characters.

    Other characters are those that are neither letters nor digits.
    """
    return _short_key(name) if len(name) <= CACHED else _key(name)


def _key(name: bytes) -> bytes:
    return b"-".join(filter(None, name.translate(_FOLDED).split(b"-")))


_short_key = lru_cache(maxsize=4096)(_key)


def fold(raw: bytes) -> bytes:
    """Decode as often as upstreams and their proxies may, convert to lower case, and replace `_` by `-`."""
    return fold_decoded(decodings(raw)[-1] if raw.find(b"%") >= 0 else raw)


def fold_decoded(text: bytes) -> bytes:
    """Fold a text that is already decoded, as `fold` does."""
    return text.lower().replace(b"_", b"-")


def param_key(name: bytes) -> bytes:
    """Return the folded name of a query parameter, without `[…]`, and with `.` as `-`.

    Blanks, NUL and the other bytes of `DROPPED` are stripped, as frameworks do.
    """
    return fold(name).partition(b"[")[0].replace(b".", b"-").strip(DROPPED)
