"""What ends an HTTP/2 connection: its peer sends more than it may."""

from __future__ import annotations

from typing import Final

ENHANCE_YOUR_CALM: Final = 0xB
FRAME_SIZE_ERROR: Final = 0x6


class Excess(Exception):
    """The connection has to end.

    Args:
        why: in words of ours.
        code: of the GOAWAY.
    """

    def __init__(self, why: str, code: int = ENHANCE_YOUR_CALM) -> None:
        super().__init__(why)
        self.why = why
        self.code = code
