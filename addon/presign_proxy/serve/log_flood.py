"""A log handler with a bounded rate, so that no single cause can fill the disk and displace other lines."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

WINDOW: Final = 60.0
"""The length of a window, in seconds."""
OF_A_KIND: Final = 100
"""The maximum number of lines of one kind in a window."""
OF_ALL: Final = 1000
"""The maximum number of lines in a window, of all kinds."""
_LONGEST: Final = 40
_DIGITS: Final = re.compile(r"[0-9].*", re.DOTALL)

Kind = tuple[str, int, int, str]


class BoundedHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """A handler that writes a limited number of lines a minute, and how many it has left out.

    Lines from one place in the code that begin with the same words are of one kind. Lines that strangers
    cause (an aborted handshake, a malformed request) have the same limit as any other line.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to standard error.

        Args:
            clock: returns seconds of a monotonic clock.
        """
        super().__init__()
        self._clock = clock
        self._since = clock()
        self._written: Counter[Kind] = Counter()
        self._count = 0
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._clock() - self._since > WINDOW:
            self.tell()
        kind = _kind_of(record)
        if self._written[kind] >= OF_A_KIND or self._count >= OF_ALL:
            self._left_out += 1
            return
        self._written[kind] += 1
        self._count += 1
        super().emit(record)

    def tell(self) -> None:
        """Begin a new window, with a line about the lines that the last one left out."""
        left_out, self._left_out = self._left_out, 0
        self._written.clear()
        self._count = 0
        self._since = self._clock()
        if left_out:
            text = f"{left_out} more lines like those before were left out"
            super().emit(logging.LogRecord(__name__, logging.WARNING, __file__, 0, text, (), None))

    def close(self) -> None:
        self.tell()
        super().close()


def _kind_of(record: logging.LogRecord) -> Kind:
    words = _DIGITS.sub("", record.getMessage()[:_LONGEST])
    return record.name, record.levelno, record.lineno, words
