"""Run a reload when it is due: the files have changed, the operator asks, or the last reload failed."""

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
"""Seconds before the first retry of a failed reload; each further wait is twice as long, up to `LAST`."""
LAST: Final = 4.0
_SHARE: Final = 10
"""A reload that keeps failing may take one tenth of the time."""
_LOOK: Final = 0.05

Reload = Callable[[float], Awaitable[Reloaded]]
"""Args: seconds for which the files have not changed."""
Looked = tuple[tuple[Path, ...], Version]


class Notices:
    """Reads the notice of revocations again and again, and applies it at once."""

    def __init__(self, live_config: LiveConfig) -> None:
        self._live_config = live_config
        self.place: Path | None = None
        self._seen: State = None
        self.trouble = ""
        """A sentence that says why the notice cannot be read; empty if it can."""

    def ask(self) -> tuple[State, Notice | None, str]:
        """Return the file's state, the notice if it is new, and what is wrong. Runs in the thread."""
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
            return None, None, f"{path}: {error}"  # with state None, the next check reads it again

    def receive(self, _: float, answer: tuple[State, Notice | None, str]) -> None:
        """Apply a result of `ask`. Runs in the event loop."""
        state, notice, wrong = answer
        if wrong != self.trouble:
            self.trouble = wrong
            if wrong:
                logger.error("presign: revocations are read from the registry alone: %s", wrong)
        if not wrong:
            self._seen = state
        if notice is not None:
            self._live_config.use_notice(notice)


class Reloader:
    """Watches files in threads, and runs one reload at a time when it is due."""

    def __init__(self, live_config: LiveConfig) -> None:
        self._live_config = live_config
        self._task: asyncio.Task[None] | None = None
        self._files: dict[Path, State] = {}
        """The files of the configuration, each with its last known state."""
        self._secrets: dict[Path, State] = {}
        self._watched = 0.0
        self._changed = 0.0
        self._again: float | None = None
        self._failures = 0
        self.asked = False
        """True if the operator wants a reload now, changed files or not."""
        self._notices = Notices(live_config)
        self._lookouts = (
            Lookout("the revocations", self._notices.ask, self._notices.receive),
            Lookout("the configuration", lambda: _looked(self._files), self._receive_files),
            Lookout("the secrets", lambda: _looked(self._secrets), self._receive_secrets),
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
        """Watch the files of the configuration in force, starting from the state in which they were read."""
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
            still = float("inf")  # the operator who asks knows that the files are complete
        elif self._again is not None and now >= self._again:
            still = now - self._changed
        else:
            return
        self._again = None
        self._task = asyncio.get_running_loop().create_task(self._run(still, reload))

    async def settled(self) -> None:
        """Wait until the reload that the operator asked for has ended."""
        # `tick` starts it, so there is no event to wait for.
        while self.asked or (self._task is not None and not self._task.done()):  # noqa: ASYNC110
            await asyncio.sleep(_LOOK)

    def trouble(self, now: float) -> str:
        """Return a sentence about a check that hangs or an unreadable notice; empty if all is well."""
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

    # -- results of the lookouts ----------------------------------------------------------------------

    def _receive_files(self, began: float, looked: Looked) -> None:
        if began > self._watched and self._has_changed(self._files, looked):
            self._is_due()

    def _receive_secrets(self, began: float, looked: Looked) -> None:
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
