"""Header fields and trailers of an upstream, masked: also those that hold bytes, as gRPC's `…-bin` do."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Final

from .masking import Mask

_BINARY: Final = b"-bin"
"""The end of the names of fields whose values are bytes in base64 (gRPC over HTTP/2: Custom-Metadata)."""

Field = tuple[bytes, bytes]


def masked_fields(fields: Sequence[Field], text: bytes, mask: Mask) -> Sequence[Field]:
    """Return the fields without any form of a secret.

    One by one, each of up to 60,000 fields would cost a search for each form. The fields are joined by line
    breaks, which no field contains. Masked text has the same length, so splitting restores the fields.

    Args:
        text: names and values, one per line, the names first. It may hold more than the fields do.
    """
    if text.find(_BINARY + b"\n") >= 0:
        fields = [_without_secret(field, mask) for field in fields]
    if not fields or mask.mask(text) == text:
        return fields
    pieces = mask.mask(b"\n".join([piece for field in fields for piece in field])).split(b"\n")
    return list(zip(pieces[::2], pieces[1::2], strict=True))


def _without_secret(field: Field, mask: Mask) -> Field:
    """Return a field whose bytes are masked, if its value is base64 of bytes that hold a secret.

    Asterisks in base64 would be an error to its reader, who would get neither the value nor the status.
    """
    name, value = field
    if not name.endswith(_BINARY):
        return field
    values = [one.strip() for one in value.split(b",")]
    found = [_without_secret_in(one, mask) for one in values]
    return field if found == values else (name, b",".join(found))


def _without_secret_in(encoded: bytes, mask: Mask) -> bytes:
    try:
        plain = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error:
        return encoded  # it is masked as text
    found = mask.mask(plain)
    return encoded if found == plain else base64.b64encode(found).rstrip(b"=")
