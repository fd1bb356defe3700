"""An encoder of heads over HTTP/2 that remembers few of them."""

from __future__ import annotations

from typing import Any, Final

import hpack

_MAX_TABLE: Final = 4096
"""Bytes of the table of what we have sent. A peer may allow more, and need not get it (RFC 7541, 4.2)."""
_MAX_SHORTENED: Final = 1024
"""Bytes of a field that is written in Huffman's code. A longer one goes as it stands, which every decoder
reads (RFC 7541, 5.2).
"""

_table_size: Any = vars(hpack.Encoder)["header_table_size"]


class BoundedEncoder(hpack.Encoder):
    """An encoder with a small table, which shortens no long field.

    hpack keeps as much of the heads as the peer allows, up to four gigabytes, and searches all of that for
    each field of the next head. It makes one number of a field that it shortens, digit by digit: that takes
    the square of the field's length, four seconds for 256 KiB.
    """

    @property
    def header_table_size(self) -> int:
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        _table_size.fset(self, min(value, _MAX_TABLE))

    def add(self, to_add: tuple[bytes, bytes], sensitive: bool, huffman: bool = False) -> bytes:
        name, value = to_add
        short = len(name) + len(value) <= _MAX_SHORTENED
        return super().add(to_add, sensitive, huffman and short)
