"""base64url of text and bytes, without padding (RFC 4648, 5). Strict: each text has exactly one encoding."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from ..errors import Malformed

_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_ALPHABET: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_PADDING: Final = (b"", b"", b"==", b"=")  # a single last digit is an error, which a2b_base64 raises
# The permitted last digits, by the number of digits after the last group of four. Four, two or none of the
# six bits of the last digit are unused. With one of them set, a text would have a second encoding
# (RFC 4648, 3.5).
_LAST: Final = tuple(
    frozenset(bytes((digit,)) for digit in digits)
    for digits in (_ALPHABET, b"", _ALPHABET[::16], _ALPHABET[::4])
)


def encode(text: str) -> str:
    return encode_bytes(text.encode())


def encode_bytes(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(encoded: bytes, what: str) -> str:
    """Decode a text that `encode` encoded. Raises Malformed for any other encoding of it.

    Args:
        encoded: only A-Z a-z 0-9 _ -; the caller has checked this.
        what: a name for the value, for the detail of the error.
    """
    try:
        raw = binascii.a2b_base64(encoded.translate(_STANDARD) + _PADDING[len(encoded) % 4])
        if encoded and encoded[-1:] not in _LAST[len(encoded) % 4]:
            raise Malformed(f"the base64url of {what} is not canonical")
        return raw.decode()
    except (binascii.Error, UnicodeDecodeError):
        raise Malformed(f"{what} is not base64url of UTF-8") from None
