"""When a configuration is read again: its files have changed, somebody has asked, or it has failed before."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from .file_versions import Lookout, State, Version, state_of, version_of
from .live import LiveConfig, Reloaded
from .registry_file.notice import Notice, read_notice
from .registry_file.storage import PrivateFileError

logger = logging.getLogger(__name__)

FIRST: Final = 0.25
"""Seconds after which what has failed is tried again; each further time it is twice as long."""
LAST: Final = 4.0
_SHARE: Final = 10
"""A reload that fails again and again may take a tenth of the time."""
_LOOK: Final = 0.05

Reload = Callable[[float], Awaitable[Reloaded]]
"""Args: seconds for which the files have been left alone."""
Looked = tuple[tuple[Path, ...], Version]


class Notices:
    """Reads what is revoked again and again, and has it heeded at once."""

    def __init__(self, live_config: LiveConfig) -> None:
        self._live_config = live_config
        self.place: Path | None = None
        self._seen: State = None
        self.trouble = ""
        """Why it cannot be read, as a sentence; empty where it can."""

    def ask(self) -> tuple[State, Notice | None, str]:
        """In the thread: the notice where it is another one, and what is wrong with it."""
        path = self.place
        if path is None:
            return None, None, ""
        state = state_of(path)
        if state is None or state == self._seen:
            return state, None, ""
        try:
            with self._live_config.spares.lent():
                return state, read_notice(path), ""
        except PrivateFileError as error:
            return None, None, f"{path}: {error}"  # and is read again the next time

    def told(self, _: float, answer: tuple[State, Notice | None, str]) -> None:
        """In the event loop."""
        state, notice, wrong = answer
        if wrong != self.trouble:
            self.trouble = wrong
            if wrong:
                logger.error("presign: what is revoked is read from the registry alone: %s", wrong)
        if not wrong:
            self._seen = state
        if notice is not None:
            self._live_config.heed(notice)


class Reloader:
    """Looks at files in threads, and has one reload at a time run when it is due."""

    def __init__(self, live_config: LiveConfig) -> None:
        self._live_config = live_config
        self._task: asyncio.Task[None] | None = None
        self._files: dict[Path, State] = {}
        """Files, each in the state that is known of it."""
        self._secrets: dict[Path, State] = {}
        self._watched = 0.0
        self._changed = 0.0
        self._again: float | None = None
        self._failures = 0
        self.asked = False
        """Whether somebody wants them to be read now, changed or not."""
        self._notices = Notices(live_config)
        self._lookouts = (
            Lookout("what is revoked", self._notices.ask, self._notices.told),
            Lookout("the configuration", lambda: _looked(self._files), self._told_files),
            Lookout("the secrets", lambda: _looked(self._secrets), self._told_secrets),
        )

    def start(self) -> None:
        for one in self._lookouts:
            one.start()

    def close(self) -> None:
        for one in self._lookouts:
            one.close()
        if self._task is not None:
            self._task.cancel()

    def watch(self) -> None:
        """The files of the configuration that is in force now, as they were read, are those to look at."""
        loaded = self._live_config.loaded
        if loaded is not None:
            self._files, self._secrets = dict(loaded.record.files), dict(loaded.lent.files)
            self._notices.place = loaded.record.notice_place
            self._watched = time.monotonic()
            if self._live_config.lacking:
                self._plan(self._watched + FIRST)

    def tick(self, now: float, reload: Reload) -> None:
        """Begin a reload if one is due. It may wait for programs and disks, and nothing waits for it."""
        if self._task is not None and not self._task.done():
            return
        if self.asked:
            self.asked = False
            self._failures = 0
            still = float("inf")  # who asks knows that all was written
        elif self._again is not None and now >= self._again:
            still = now - self._changed
        else:
            return
        self._again = None
        self._task = asyncio.get_running_loop().create_task(self._run(still, reload))

    async def settled(self) -> None:
        """Wait until what was asked for has been read."""
        # What ends it is a tick.
        while self.asked or (self._task is not None and not self._task.done()):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)

    def trouble(self, now: float) -> str:
        """What hangs, as a sentence; empty where nothing does."""
        found = [one.trouble(now) for one in self._lookouts]
        return next(filter(None, [*found, self._notices.trouble]), "")

    # -- a reload -------------------------------------------------------------------------------------

    async def _run(self, still: float, reload: Reload) -> None:
        began = time.monotonic()
        outcome = Reloaded("failed")
        try:
            outcome = await reload(still)
        except Exception as error:
            logger.error("presign: the reload failed (%s)", type(error).__name__)
        now = time.monotonic()
        if outcome.kind in ("ok", "overtaken"):
            self._failures = 0
        elif outcome.kind == "waits":
            self._plan(max(now + FIRST, self._changed + outcome.wait))
        else:
            pause = min(LAST, FIRST * 2.0 ** min(self._failures, 16))
            self._failures += 1
            self._plan(now + max(pause, _SHARE * (now - began)))

    def _plan(self, at: float) -> None:
        self._again = at if self._again is None else min(at, self._again)

    # -- what the lookouts say ------------------------------------------------------------------------

    def _told_files(self, began: float, looked: Looked) -> None:
        if began > self._watched and self._has_changed(self._files, looked):
            self._is_due()

    def _told_secrets(self, began: float, looked: Looked) -> None:
        if began > self._watched and self._has_changed(self._secrets, looked):
            self._is_due()

    def _is_due(self) -> None:
        self._changed = time.monotonic()
        self._failures = 0
        self._again = self._changed

    @staticmethod
    def _has_changed(known: dict[Path, State], looked: Looked) -> bool:
        files, version = looked
        changed = False
        for path, state in zip(files, version, strict=True):
            if path in known and known[path] != state:
                known[path] = state
                changed = True
        return changed


def _looked(files: dict[Path, State]) -> Looked:
    found = tuple(files)
    return found, version_of(found)
