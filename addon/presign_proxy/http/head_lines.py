"""Lines of a head over HTTP/1 that others could read in another way.

mitmproxy strips control characters, or takes them for blanks, before anybody can look: with one,
`Transfer-Encoding: \\x0bchunked` is chunked to us and nothing to others. At a LF alone, or a CR alone, others
may go on reading. All this is counted and never searched for by a pattern with several branches, which takes
a step of the interpreter for each byte: nobody has verified these bytes yet.
"""

from __future__ import annotations

from typing import Final

_CONTROLS: Final = bytes(octet for octet in (*range(32), 127) if octet not in b"\t\r\n")


def is_ambiguous(head: bytes) -> bool:
    """Whether a control character stands in a head, or a CR or LF that is no end of a line."""
    ends = head.count(b"\r\n")
    return (
        head.count(b"\n") != ends
        or head.count(b"\r") != ends
        or len(head.translate(None, _CONTROLS)) != len(head)
    )


def has_bare_lf(data: bytes, seen: int = 0) -> bool:
    """Whether a LF without CR is among the bytes behind those that were seen before."""
    return data.count(b"\n", seen) != data.count(b"\r\n", max(seen - 1, 0))
