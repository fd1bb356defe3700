"""A chunked body of a request, read as RFC 9112, 7.1 has it and in no other way.

h11 takes blanks after a size, sizes of twenty digits, and anything at all for an extension. A balancer in
front of the gateway that reads one of them otherwise sees the next request where we see the body.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

from h11 import LocalProtocolError
from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer

# Beyond 15 digits every parser has an overflow of its own. An extension holds no control but HTAB.
_SIZE_LINE: Final = re.compile(rb"[0-9A-Fa-f]{1,15}(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class StrictChunks(ChunkedReader):
    """h11's reader over lines that were looked at before."""

    def __call__(self, buf: Any) -> Any:
        return super().__call__(cast(ReceiveBuffer, _SizeLines(buf)))


class _SizeLines:
    """A receive buffer; the one thing that is read line by line from it is the size of a chunk."""

    def __init__(self, buf: Any) -> None:
        self._buf = buf

    def maybe_extract_next_line(self) -> Any:
        line = self._buf.maybe_extract_next_line()
        if line is not None and not _SIZE_LINE.fullmatch(line):
            raise LocalProtocolError("the size of a chunk is not as HTTP/1.1 has it")
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._buf, name)
