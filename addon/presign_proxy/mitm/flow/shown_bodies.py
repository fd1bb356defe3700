"""The bodies of a granted request as a UI shows them: what was sent to either side, up to a bound."""

from __future__ import annotations

import re
from typing import Final

MAX_SHOWN: Final = 1024 * 1024
"""Bytes of one body. A UI keeps flows, and with them these bytes, until they are removed."""

_DIGITS: Final = 8
"""Digits of a hexadecimal run that are shown: a checksum is recognised, a signature is not usable."""
# 64 digits may be a signature, whatever stands before them, in whatever escapes.
_SIGNATURE: Final = re.compile(rb"(?<![0-9a-f])([0-9a-f]{%d})([0-9a-f]{56,})" % _DIGITS, re.IGNORECASE)
# Where a body is cut, its last digits may be the beginning of one.
_BEGUN: Final = re.compile(rb"(?<![0-9a-f])([0-9a-f]{%d})([0-9a-f]+)\Z" % _DIGITS, re.IGNORECASE)
_LONGEST: Final = 64


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
        """Return the bytes, without most digits of what may be the good signature of a presign."""
        shown = _SIGNATURE.sub(_hidden, bytes(self._kept))
        if not self.is_cut:
            return shown
        return shown[:-_LONGEST] + _BEGUN.sub(_hidden, shown[-_LONGEST:])


def _hidden(run: re.Match[bytes]) -> bytes:
    return run[1] + b"*" * len(run[2])


class ShownBodies:
    """The two bodies of one exchange."""

    __slots__ = ("request", "response")

    def __init__(self) -> None:
        self.request = ShownBody()
        self.response = ShownBody()
