"""One worker as its supervisor sees it: a process, a channel, and its last report."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from .capacity import RoomTable
from .channel import Channel, Message

Stage = Literal["starting", "spare", "called", "serving", "draining", "gone"]

_MAIN: Final = Path(__file__).with_name("__main__.py")
_HELD: Final = {signal.SIGINT, signal.SIGHUP, signal.SIGTERM}
"""Signals that would end a process before it has installed handlers for them."""


class WorkerProcess:
    """A worker's process. After its start it is a spare that accepts nothing, until it is called to serve."""

    def __init__(self, child: subprocess.Popen[bytes], channel: Channel, row: int) -> None:
        self._child = child
        self.row = row
        """Its row in the table of free capacity."""
        self.channel = channel
        self.stage: Stage = "starting"
        self.said: Message = {}
        """The worker's last report."""
        self.reported_at = self.since = time.monotonic()
        self.failure: list[str] = []
        """Why the worker cannot serve, as it reported."""
        self.killed_for = ""
        self.has_drained = False

    @classmethod
    async def start(
        cls,
        hello: Message,
        sockets: Sequence[socket.socket],
        table: RoomTable,
        changed: Callable[[WorkerProcess, Message], None],
    ) -> WorkerProcess:
        """Start a new program, never a fork of this one, that inherits the sockets. Raises OSError.

        Args:
            hello: the first message to it.
            table: gives it a row until it has ended.
            changed: called with each of its messages, and with an empty one at its end.
        """
        row = table.take()
        ours, theirs = socket.socketpair()
        listening = [one.fileno() for one in sockets]
        try:
            child = _spawn(theirs.fileno(), [*listening, table.descriptor])
        except BaseException:
            table.give_back(row)
            ours.close()
            raise
        finally:
            theirs.close()
        found = cls(child, await Channel.over(ours), row)
        found.channel.send(hello | {"sockets": listening, "room": table.descriptor, "row": row})
        found._following = asyncio.create_task(found._follow(changed))
        return found

    @property
    def pid(self) -> int:
        return self._child.pid

    def enter(self, stage: Stage) -> None:
        self.stage, self.since = stage, time.monotonic()

    def call(self) -> None:
        """Order the worker to accept clients."""
        self.enter("called")
        self.channel.send({"do": "serve"})

    def drain(self) -> None:
        """Order the worker to accept nothing more and to end when its requests have ended."""
        self.enter("draining")
        self.channel.send({"do": "drain"})

    def kill(self, why: str = "") -> None:
        self.killed_for = self.killed_for or why
        with contextlib.suppress(OSError):
            if self._child.returncode is None:  # not reaped, so no other process has its number
                self._child.kill()

    def how_it_ended(self) -> str:
        code = self._child.returncode
        if self.killed_for:
            return self.killed_for
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(-code).name}"
        return f"ended with exit code {code}"

    async def _follow(self, changed: Callable[[WorkerProcess, Message], None]) -> None:
        while (message := await self.channel.receive()) is not None:
            self.reported_at = time.monotonic()
            changed(self, message)
        self.channel.close()
        await self._reap()
        self.has_drained = self.stage == "draining" and self._child.returncode == 0 and not self.killed_for
        self.enter("gone")
        changed(self, {})

    async def _reap(self) -> None:
        """Reap a worker whose channel has ended. Kill it if it does not end in time."""
        ends = time.monotonic() + _LAST_WORDS
        while self._child.poll() is None:
            if time.monotonic() > ends:
                self.kill()
            await asyncio.sleep(0.01)

    _following: asyncio.Task[None] | None = None


_LAST_WORDS: Final = 3.0
"""Seconds in which a worker must end once its channel has ended."""


def _spawn(channel: int, shared: Sequence[int]) -> subprocess.Popen[bytes]:
    """Start the worker's program. Its command line holds only numbers; its environment is ours.

    It runs as a file and with -P: `-m` would search every module in the working directory first.
    """
    flags: list[Any] = ["-P", *(["-" + "O" * sys.flags.optimize] if sys.flags.optimize else [])]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    try:
        return subprocess.Popen(  # noqa: S603 - this interpreter, and a file of this package
            [sys.executable, *flags, str(_MAIN), str(channel), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            pass_fds=[channel, *shared],
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
