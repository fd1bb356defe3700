"""The fields of a head over HTTP/2, counted before HPACK decodes any of them (RFC 7541).

One byte of a head may stand for four thousand of an earlier one (RFC 7541, 6.1).
"""

from __future__ import annotations

from typing import Final

from .http2_excess import Excess

MAX_BLOCK_FIELDS: Final = 256
"""Fields of a head that is decoded at all, so that it can be answered; more end the connection."""
_MAX_INTEGER: Final = 5
"""Bytes of an integer in HPACK: 28 bits, more than any head has bytes."""


def count_fields(block: bytes) -> int:
    """Count the fields of a head as HPACK has it, without decoding any (RFC 7541, 6).

    A head that ends in the middle of a field is counted as far as it goes: the decoder refuses it.

    Raises Excess over `MAX_BLOCK_FIELDS`, and for what a decoder could spend its time on without making a
    field of it.
    """
    at = fields = updates = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0xE0 == 0x20:  # another size for the table: two at most (RFC 7541, 4.2)
                updates += 1
                _, at = _integer(block, at, 0x1F)
                if updates > 2:
                    raise Excess("a head changes the size of its table again and again")
                continue
            fields += 1
            if fields > MAX_BLOCK_FIELDS:
                raise Excess("a head has too many fields")
            if first & 0x80:
                _, at = _integer(block, at, 0x7F)
                continue
            index, at = _integer(block, at, 0x3F if first & 0x40 else 0x0F)
            for _ in range(1 if index else 2):
                length, at = _integer(block, at, 0x7F)
                at += length
    except IndexError:
        return fields
    return fields


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    """Read an integer (RFC 7541, 5.1); return it and where it ends. Raises Excess, IndexError."""
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in range(0, 7 * _MAX_INTEGER, 7):
        octet = block[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
    raise Excess("a head holds a number that is too large")
