"""Checks for bytes in an HTTP/1 head that two parsers could read differently.

mitmproxy strips control characters, or takes them for blanks, before any hook sees the head. With one,
`Transfer-Encoding: \\x0bchunked` is chunked for us and unknown for another parser. A single LF or a single CR
ends a line for some parsers and not for others. These bytes are not verified yet, so they are counted. A
regular expression with several branches would take one step of the interpreter for each byte.
"""

from __future__ import annotations

from typing import Final

_CONTROLS: Final = bytes(octet for octet in (*range(32), 127) if octet not in b"\t\r\n")


def is_ambiguous(head: bytes) -> bool:
    """Return whether a head contains a control character, or a CR or LF that is not part of CR LF."""
    ends = head.count(b"\r\n")
    return (
        head.count(b"\n") != ends
        or head.count(b"\r") != ends
        or len(head.translate(None, _CONTROLS)) != len(head)
    )


def has_bare_lf(data: bytes, seen: int = 0) -> bool:
    """Return whether there is a LF without CR in `data`, after the first `seen` bytes."""
    return data.count(b"\n", seen) != data.count(b"\r\n", max(seen - 1, 0))
