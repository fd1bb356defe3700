"""base64url of text, without padding (RFC 4648, 5), and strictly: one spelling for each text."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from .errors import Malformed

_STANDARD: Final = bytes.maketrans(b"-_", b"+/")


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
        standard = encoded.translate(_STANDARD)
        raw = binascii.a2b_base64(standard + b"=" * (-len(encoded) % 4))
        if binascii.b2a_base64(raw, newline=False).rstrip(b"=") != standard:
            raise Malformed(f"the base64url of {what} is not canonical")
        return raw.decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise Malformed(f"{what} is not base64url of UTF-8") from None
