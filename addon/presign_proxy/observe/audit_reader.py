"""Reading the audit log: lines one after the other, in constant memory, also while the file is rotated."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

MAX_LINE: Final = 1 << 20
"""The most bytes of a line that is read. The gateway writes shorter ones: a head has at most 64 KiB."""
INTERVAL: Final = 0.25
"""Seconds between two looks at a file that is followed."""


_YEAR_9999: Final = 253_370_764_800
"""Unix time of the year 9999. In some zones, its end has no text form."""


def opened(path: Path) -> BinaryIO:
    """Open a file, or a pipe that a shell made. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    kind = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
        os.close(descriptor)
        raise OSError(0, "is not a file", str(path))
    return os.fdopen(descriptor, "rb")


def record_of(line: bytes) -> dict[str, Any] | None:
    """Parse a line; None if it is not a whole record. Whatever is written there, it raises nothing."""
    try:
        found = json.loads(line, parse_constant=_refuse)
        # JSON of other programs may have numbers without an end, which no JSON can repeat.
        json.dumps(found, allow_nan=False)
    except (ValueError, RecursionError):
        return None
    moment = found.get("time") if isinstance(found, dict) else None
    if not isinstance(moment, (int, float)) or isinstance(moment, bool) or not 0 <= moment < _YEAR_9999:
        return None
    whole: dict[str, Any] = found
    return whole


def _refuse(_: str) -> NoReturn:
    raise ValueError("is not JSON")


class Lines:
    """The whole lines of an open file, and how many are no records.

    Args:
        containing: a text without which a line is passed over, unread.
    """

    def __init__(self, file: BinaryIO, containing: bytes = b"") -> None:
        self.file = file
        self._containing = containing
        self.unreadable = 0
        self._part = b""
        self._is_too_long = False

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the records up to the present end of the file. Call it again to get what came since."""
        while piece := self.file.readline(MAX_LINE):
            line = self._part + piece
            if not line.endswith(b"\n"):
                if len(line) >= MAX_LINE:
                    self._is_too_long, line = True, b""
                self._part = line
                continue
            too_long, self._part, self._is_too_long = self._is_too_long, b"", False
            if line.isspace() and not too_long:
                continue  # a worker ended the half line of another one
            if self._containing not in line:
                continue
            found = None if too_long else record_of(line)
            if found is None:
                self.unreadable += 1
            else:
                yield found

    def end(self) -> Iterator[dict[str, Any]]:
        """Yield the last line if it is a record that lacks only its line end. No more will come."""
        part, self._part = self._part, b""
        found = record_of(part) if part and self._containing in part else None
        if found is not None:
            yield found
        elif part or self._is_too_long:
            self.unreadable += 1
        self._is_too_long = False

    def restart(self) -> None:
        """Read from the beginning of the file, which was truncated."""
        self.file.seek(0)
        self._part, self._is_too_long = b"", False


def follow(path: Path, lines: Lines) -> Iterator[dict[str, Any] | None]:
    """Yield what is appended to a file, for ever; None whenever there is nothing more at the moment.

    The file may be renamed, removed or truncated; the next one at its path is then read from its beginning.
    """
    is_left = False
    while True:
        yield from lines.records()
        if is_left:
            yield from lines.end()
            with suppress(FileNotFoundError):
                following = opened(path)
                lines.file.close()
                lines.file = following
            is_left = False
            continue
        mine = os.fstat(lines.file.fileno())
        if mine.st_size < lines.file.tell():
            lines.restart()
            continue
        yield None
        time.sleep(INTERVAL)
        # Another worker may still write to the old file, so it is read once more before it is left.
        is_left = _is_elsewhere(path, mine)


def _is_elsewhere(path: Path, mine: os.stat_result) -> bool:
    """Return whether another file is at the path now."""
    try:
        there = path.stat()
    except OSError:
        return False
    return (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino)
