"""The bodies of a granted request as a UI shows them: what was sent to either side, up to a bound."""

from __future__ import annotations

import re
from typing import Final

MAX_SHOWN: Final = 1024 * 1024
"""Bytes of one body. A UI keeps flows, and with them these bytes, until they are removed."""

_TELLS: Final = re.compile(rb"presign[-_]signature|ps[12]_|sig(?:=|%3d)", re.IGNORECASE)
# In a token the signature follows a dot; in a URL, a form or JSON, its name and a few separators.
_SIGNATURE: Final = re.compile(
    rb"(presign[-_]signature(?:%[0-9a-f]{2}|[^%0-9a-z]){1,8}|sig(?:=|%3d)|[0-9a-z_-]\.)[0-9a-f]{64}",
    re.IGNORECASE,
)


class ShownBody:
    """The beginning of one body."""

    __slots__ = ("_kept", "size")

    def __init__(self) -> None:
        self._kept = bytearray()
        self.size = 0

    def add(self, piece: bytes) -> None:
        room = MAX_SHOWN - self.size
        self.size += len(piece)
        if room > 0:
            self._kept += piece[:room]

    @property
    def is_cut(self) -> bool:
        return self.size > MAX_SHOWN

    def content(self) -> bytes:
        """Without the signature of a presign that is part of the body: it may be good."""
        kept = bytes(self._kept)
        return _SIGNATURE.sub(rb"\1" + b"*" * 64, kept) if _TELLS.search(kept) else kept


class ShownBodies:
    """Those of one exchange."""

    __slots__ = ("request", "response")

    def __init__(self) -> None:
        self.request = ShownBody()
        self.response = ShownBody()
