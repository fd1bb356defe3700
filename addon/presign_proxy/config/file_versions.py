"""Whether files have changed. Polling `stat`, because config maps and network drives defeat notifications.

In threads of their own: a file system may hang, and with it whoever asks it something.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

logger = logging.getLogger(__name__)

State = tuple[int, ...] | None
Version = tuple[State, ...]

EVERY: Final = 0.25
"""Seconds between two looks."""
HUNG: Final = 3.0
"""Seconds without an answer after which the file system is taken to hang."""
_SHARE: Final = 10
"""A look may take a tenth of the time: where there are a hundred thousand files, they are looked at less."""


def version_of(files: Iterable[Path]) -> Version:
    """Changes whenever one of the files is written, replaced, removed or made readable."""
    return tuple(map(state_of, files))


def state_of(path: Path) -> State:
    """None for what cannot be looked at."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    # ctime: of the mode too, which decides whether a file is read.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


class Lookout[Answer]:
    """Asks one question again and again, in a thread of its own, and tells the event loop the answers."""

    def __init__(self, what: str, ask: Callable[[], Answer], tell: Callable[[float, Answer], None]) -> None:
        """
        Args:
            what: is looked at, for the log.
            ask: in the thread; what it raises is logged, and it is asked again.
            tell: in the event loop: when the look began (of `time.monotonic`), and each answer.
        """
        self._what = what
        self._ask = ask
        self._tell = tell
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._began: float | None = None
        self._told = False

    def start(self) -> None:
        """In the event loop that is to be told."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(
                target=self._run, args=(loop,), name=f"presign-look-{self._what.split()[-1]}", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Without waiting: it may hang."""
        self._ended.set()

    def trouble(self, now: float) -> str:
        """A sentence where no answer has come for too long, else nothing. Logged once, as is its end."""
        began = self._began
        hangs = began is not None and now - began > HUNG
        if hangs is not self._told:
            self._told = hangs
            if hangs:
                logger.error("presign: %s", self._complaint)
            else:
                logger.warning("presign: the file system of %s answers again", self._what)
        return self._complaint if hangs else ""

    @property
    def _complaint(self) -> str:
        return f"the file system of {self._what} does not answer; what was read last stays in force"

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        pause = EVERY
        while not self._ended.wait(pause):
            began = self._began = time.monotonic()
            try:
                answer = self._ask()
            except Exception as error:
                logger.error("presign: looking at %s failed (%s)", self._what, type(error).__name__)
                continue
            finally:
                self._began = None
            pause = max(EVERY, _SHARE * (time.monotonic() - began))
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(self._tell, began, answer)
