"""base64url of text, without padding (RFC 4648, 5), and strictly: one spelling for each text."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from ..errors import Malformed

_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_PADDING: Final = (b"", b"", b"==", b"=")  # one digit alone is none: a2b_base64 says so
# By the digits behind the last whole four: of the last one, four, two or none of its six bits mean nothing,
# and any that is set would be another spelling (RFC 4648, 3.5).
_LAST: Final = tuple(
    frozenset(bytes((digit,)) for digit in digits)
    for digits in (_ALPHABET, b"", _ALPHABET[::16], _ALPHABET[::4])
)


def encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode(encoded: bytes, what: str) -> str:
    """The text that `encode` makes this of.

    Args:
        encoded: A-Z a-z 0-9 _ - only; the caller has checked the grammar.
        what: whose it is, for the detail.

    Raises Malformed.
    """
    try:
        raw = binascii.a2b_base64(encoded.translate(_STANDARD) + _PADDING[len(encoded) % 4])
        if encoded and encoded[-1:] not in _LAST[len(encoded) % 4]:
            raise Malformed(f"the base64url of {what} is not canonical")
        return raw.decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Malformed(f"{what} is not base64url of UTF-8") from None
