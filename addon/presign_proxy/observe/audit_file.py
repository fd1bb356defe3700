"""The file of audit records, which may be rotated, or standard error. Written off the event loop."""

from __future__ import annotations

import contextlib
import errno
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
from typing import Final

from ..file_access import tried

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger(__name__)

MAX_QUEUED: Final = 10_000
"""The most records that wait to be written. Further ones are counted and dropped."""
KEPT_FOR_PERMITS: Final = MAX_QUEUED // 2
"""Places in the queue that refusals leave free, so that forwarded requests are recorded first."""
INTERVAL: Final = 0.2
"""Seconds between writes. Waking the thread for each record would cost more than the record itself."""
STUCK: Final = 2.0
"""Seconds after which a write that has not returned counts as failed."""
_BATCH: Final = 1000
_PIPE: Final = 4096
"""The most bytes that a pipe takes atomically (PIPE_BUF of Linux; macOS has 512)."""


class LineFile:
    """Appends whole lines to a file that only its owner can read, or to standard error.

    Another program may rename, remove or truncate the file at any time. If it is gone from its path, a new
    one is opened. Lines are always written at the end.
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
        """Write lines, each with its line end.

        Return how many are in the file, and the error that stopped the others. Pass the first of those again.
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
        """Return the bytes for one write: for a pipe, which the log shares, lines it takes atomically."""
        if self._path is not None or len(data) <= _PIPE:
            return data
        return data[: bytes(data[:_PIPE]).rfind(b"\n") + 1 or _PIPE]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other workers from writing in the middle of data that a pipe does not take atomically.

        All workers share one pipe as standard error. A file is written by one appending call, without a lock.
        """
        if self._path is not None or sys.platform == "win32":
            yield
            return
        locked = False
        with contextlib.suppress(OSError):  # standard error may be something that has no locks
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            locked = True
        try:
            yield
        finally:
            if locked:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _follow(self) -> None:
        """Open the path again if the file was moved away from it. Raises OSError."""
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
        """Return how many bytes of the first line are already written. Raises OSError.

        If another process has written behind them (workers share a file), the half line is ended instead.
        """
        if self._begins_behind_half:
            # The half line is of a process that was stopped, or had no space, in the middle. Only it is lost.
            os.write(self._descriptor, b"\n")
            self._begins_behind_half = False
        part, size = self._part, os.fstat(self._descriptor).st_size
        if part and size != self._end:
            if size:
                os.write(self._descriptor, b"\n")
            self._part = part = 0
        return part


def try_out(path: Path) -> None:
    """Check that `LineFile` could open a path, and leave nothing behind. Raises OSError, ValueError."""
    tried(path, _opened)


def _opened(path: Path) -> int:
    """Open the file for appending, without following a link. Raises OSError.

    It never waits: opening a FIFO could block for ever.
    """
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
    """Return whether a file ends with a line end; True if that cannot be read."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            return size == 0 or os.pread(descriptor, 1, size - 1) == b"\n"
        finally:
            os.close(descriptor)
    return True


def _check(found: os.stat_result) -> None:
    """Check that it is a regular file. Raises OSError."""
    if stat.S_ISLNK(found.st_mode):
        raise OSError(errno.ELOOP, "is a symbolic link: name the file itself")
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is a directory, a device or a pipe, not a file")


def _whole(lines: list[bytes], written: int) -> tuple[int, int]:
    """Return how many whole lines the first `written` bytes are, and how many bytes of the next line."""
    for count, line in enumerate(lines):
        if written < len(line):
            return count, written
        written -= len(line)
    return len(lines), 0


@dataclass(slots=True)
class LineCounts:
    """The numbers of lines written and lost. A new sink continues the counts of the old one."""

    written: int = 0
    dropped: int = 0


class AuditSink:
    """Writes records as JSON lines in a thread of its own, so that a slow or full disk never stops a request.

    Records that cannot be written wait in a bounded queue.
    """

    def __init__(self, file: str, base: Path, lines: LineCounts | None = None) -> None:
        """
        Args:
            file: a path, relative to `base`, or "-" for standard error.
            lines: the counts to continue.

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

    def write(self, line: str, *, granted: bool) -> None:
        """Queue a record.

        It comes as text. If the thread made the text, it would hold the interpreter for milliseconds, and the
        event loop with all its clients would wait.

        Args:
            line: a JSON object in ASCII, without a line end.
            granted: whether the request was forwarded.
        """
        room = MAX_QUEUED if granted else MAX_QUEUED - KEPT_FOR_PERMITS
        if len(self._queue) >= room:
            self._lost += 1
            self.lines.dropped += 1
            return
        if self._lost:
            line = f'{line[:-1]},"lost_before":{self._lost}}}'
            self._lost = 0
        self._queue.append(line.encode("ascii") + b"\n")

    @property
    def queued(self) -> int:
        return len(self._queue) + len(self._unwritten)

    @property
    def trouble(self) -> str:
        """The reason why lines cannot be written now; empty if they can."""
        if self._error:
            return self._error
        if self._since and time.monotonic() - self._since > STUCK:
            return "no answer from the disk"
        if len(self._queue) >= MAX_QUEUED - KEPT_FOR_PERMITS:
            return "too many lines wait"
        return ""

    def stop(self) -> None:
        """Tell the thread to write what is queued and to end, without waiting for it."""
        self._stopped.set()

    def close(self) -> None:
        """Write what is queued, then end."""
        self.stop()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopped.wait(INTERVAL):
            self._drain()
        self._drain()
        self.lines.dropped += self.queued
        self._file.close()

    def _drain(self) -> None:
        """Write the queue. Lines that cannot be written are kept, and the thread goes on."""
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
        """Log the first failure, and its end."""
        why = "" if error is None else (error.strerror or "it cannot be written").lower()
        if why and not self._error:
            logger.error("presign: the audit log cannot be written (%s)", why)
        elif self._error and not why:
            logger.warning("presign: the audit log can be written again")
        self._error = why
