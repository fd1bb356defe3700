"""Watch files for changes by polling `stat`: notifications miss config maps and network drives.

Each watcher has a thread of its own: a file system may hang, and then the thread that asks it hangs too.
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
"""Seconds between two looks at the files."""
HUNG: Final = 3.0
"""Seconds without an answer after which the file system counts as hanging."""
_SHARE: Final = 10
"""Looking may take one tenth of the time. A hundred thousand files are therefore looked at less often."""


def version_of(files: Iterable[Path]) -> Version:
    """Return a value that changes when a file is written, replaced, removed or made readable."""
    return tuple(map(state_of, files))


def state_of(path: Path) -> State:
    """Return the state of a file; None if `stat` fails."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    # The ctime also changes with the mode, which decides whether the file is read.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


class Lookout[Answer]:
    """A watcher that repeats one check in a thread of its own, and passes the results to the event loop."""

    def __init__(self, what: str, ask: Callable[[], Answer], tell: Callable[[float, Answer], None]) -> None:
        """
        Args:
            what: the thing that is watched, for the log.
            ask: the check. It runs in the thread; its exceptions are logged, and it runs again.
            tell: is called in the event loop with the start of the check (`time.monotonic`) and its result.
        """
        self._what = what
        self._ask = ask
        self._tell = tell
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._began: float | None = None
        self._told = False

    def start(self) -> None:
        """Start the thread. Call this in the event loop that gets the results."""
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(
                target=self._run, args=(loop,), name=f"presign-look-{self._what.split()[-1]}", daemon=True
            )
            self._thread.start()

    def close(self) -> None:
        """Tell the thread to end, without waiting for it: it may hang."""
        self._ended.set()

    def trouble(self, now: float) -> str:
        """Return a sentence if the check takes too long, else "". Start and end of a hang are logged once."""
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
