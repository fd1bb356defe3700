"""Where audit records go: a file that may be rotated, or standard error, off the event loop."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..file_access import tried

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

MAX_QUEUED: Final = 10_000
"""Records that wait to be written; more are counted and dropped."""
KEPT_FOR_PERMITS: Final = MAX_QUEUED // 2
"""Places that refusals leave free: what was forwarded is told of first."""
INTERVAL: Final = 0.2
"""Seconds between writes: waking a thread for each record would cost more than the record."""
STUCK: Final = 2.0
"""Seconds after which a write that has not come back counts as failed."""
_BATCH: Final = 1000
_PIPE: Final = 4096
"""Bytes that a pipe takes in one piece (PIPE_BUF of Linux; macOS has 512)."""


# Made once: json.dumps makes one anew whenever it is told more than what to write.
_ENCODE: Final = json.JSONEncoder(separators=(",", ":")).encode


class LineFile:
    """Appends whole lines to a file that its owner alone can read, or to standard error.

    Somebody may rename the file, remove it or cut it to nothing at any time: it is opened anew where it is
    not there any more, and always written at its end.
    """

    def __init__(self, path: Path | None) -> None:
        """Args: path: None for standard error. Raises OSError, ValueError."""
        self._path = path
        self._descriptor = os.dup(2) if path is None else _opened(path)
        self._part = 0
        """Bytes of the next line that are in the file already: the disk was full in the middle of it."""
        self._end = 0
        self._begins_behind_half = path is not None and not _ends_whole(path)

    def append(self, lines: list[bytes]) -> tuple[int, OSError | None]:
        """Write lines, each with its end. Returns how many are in the file, and why not the others; the first
        of those is to be given again.
        """
        at, failure = None, None
        try:
            self._follow()
            at, data = self._resumed(), memoryview(b"".join(lines))
            with self._alone():
                while at < len(data):
                    at += os.write(self._descriptor, self._piece(data[at:]))
        except OSError as error:
            failure = error
        if at is None:
            return 0, failure
        done, self._part = _whole(lines, at)
        with contextlib.suppress(OSError):
            self._end = os.fstat(self._descriptor).st_size
        return done, failure

    def close(self) -> None:
        os.close(self._descriptor)

    def _piece(self, data: memoryview) -> memoryview:
        """What to write at once: whole lines that a pipe takes in one piece, for the log goes there too."""
        if self._path is not None or len(data) <= _PIPE:
            return data
        return data[: bytes(data[:_PIPE]).rfind(b"\n") + 1 or _PIPE]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other workers from writing between two parts of what does not fit into a pipe at once.

        Standard error is one pipe for all of them; files are written by one call, at their end.
        """
        if self._path is not None or sys.platform == "win32":
            yield
            return
        locked = False
        with contextlib.suppress(OSError):  # it may be something that knows no locks
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            locked = True
        try:
            yield
        finally:
            if locked:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _follow(self) -> None:
        """Leave a file that has been moved away. Raises OSError."""
        if self._path is None:
            return
        mine = os.fstat(self._descriptor)
        try:
            there = self._path.lstat()
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            opened = _opened(self._path)
            os.close(self._descriptor)
            self._descriptor, self._part = opened, 0
            self._begins_behind_half = not _ends_whole(self._path)

    def _resumed(self) -> int:
        """How much of the first line not to write again. Raises OSError.

        Where somebody else has written behind it (workers share a file), the half line is ended instead.
        """
        if self._begins_behind_half:
            # Of a process that the disk, or its end, kept from finishing it: only that line is lost.
            os.write(self._descriptor, b"\n")
            self._begins_behind_half = False
        part, size = self._part, os.fstat(self._descriptor).st_size
        if part and size != self._end:
            if size:
                os.write(self._descriptor, b"\n")
            self._part = part = 0
        return part


def try_out(path: Path) -> None:
    """What `LineFile` would do with a path, leaving nothing behind. Raises OSError, ValueError."""
    tried(path, _opened)


def _opened(path: Path) -> int:
    """Raises OSError. No link is followed, and nothing is waited for: a FIFO would never be opened."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        _check(path.lstat())
    descriptor = os.open(path, flags, 0o600)
    try:
        _check(os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _ends_whole(path: Path) -> bool:
    """Whether a file ends with the end of a line, as far as that can be seen."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        finally:
            os.close(descriptor)
    return True


def _check(found: os.stat_result) -> None:
    """Raises OSError."""
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "is a symbolic link: name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is a directory, a device or a pipe, not a file")


def _whole(lines: list[bytes], written: int) -> tuple[int, int]:
    """How many of the lines the first `written` bytes are, and how much of the one after them."""
    for count, line in enumerate(lines):
        if written < len(line):
            return count, written
        written -= len(line)
    return len(lines), 0


@dataclass(slots=True)
class LineCounts:
    """How many lines were written, and how many are lost; goes on where one sink follows another."""

    written: int = 0
    dropped: int = 0


class AuditSink:
    """Writes records as JSON lines from a thread of its own; a slow or full disk never stops a request.

    What cannot be written waits, as many records as there is room for.
    """

    def __init__(self, file: str, base: Path, lines: LineCounts | None = None) -> None:
        """
        Args:
            file: a path, relative to `base`, or "-" for standard error.
            lines: to count in.

        Raises OSError, ValueError.
        """
        self.lines = lines or LineCounts()
        self._file = LineFile(None if file == "-" else base / file)
        self._queue: deque[bytes] = deque()
        self._unwritten: list[bytes] = []
        self._stopped = threading.Event()
        self._error = ""
        self._since = 0.0
        self._lost = 0
        self._thread = threading.Thread(target=self._run, name="presign-audit", daemon=True)
        self._thread.start()

    def write(self, record: dict[str, Any]) -> None:
        """Spelled out here and not in the thread, which would keep the interpreter from the event loop for
        milliseconds, and every client waiting.
        """
        room = MAX_QUEUED if record.get("decision") == "forward" else MAX_QUEUED - KEPT_FOR_PERMITS
        if len(self._queue) >= room:
            self._lost += 1
            self.lines.dropped += 1
            return
        if self._lost:
            record = {**record, "lost_before": self._lost}
            self._lost = 0
        self._queue.append(_line(record))

    @property
    def queued(self) -> int:
        return len(self._queue) + len(self._unwritten)

    @property
    def trouble(self) -> str:
        """Why lines cannot be written now; empty where they can."""
        if self._error:
            return self._error
        if self._since and time.monotonic() - self._since > STUCK:
            return "no answer from the disk"
        if len(self._queue) >= MAX_QUEUED - KEPT_FOR_PERMITS:
            return "too many lines wait"
        return ""

    def stop(self) -> None:
        """Have what is queued written, without waiting for it."""
        self._stopped.set()

    def close(self) -> None:
        """Write what is queued, then close."""
        self.stop()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL):
            self._drain()
        self._drain()
        self.lines.dropped += self.queued
        self._file.close()

    def _drain(self) -> None:
        """Write what there is; what cannot be written is kept, and does not end the thread."""
        while self._unwritten or self._queue:
            if not self._unwritten:
                count = min(len(self._queue), _BATCH)
                self._unwritten = [self._queue.popleft() for _ in range(count)]
            self._since = time.monotonic()
            done, error = self._file.append(self._unwritten)
            self._since = 0.0
            self.lines.written += done
            del self._unwritten[:done]
            self._tell(error)
            if error is not None:
                return

    def _tell(self, error: OSError | None) -> None:
        """Of the first failure, and of its end."""
        why = "" if error is None else (error.strerror or "it cannot be written").lower()
        if why and not self._error:
            logger.error("presign: the audit log cannot be written (%s)", why)
        elif self._error and not why:
            logger.warning("presign: the audit log can be written again")
        self._error = why


def _line(record: dict[str, Any]) -> bytes:
    return _ENCODE(record).encode("ascii") + b"\n"
