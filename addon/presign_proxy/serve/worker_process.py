"""One worker as its supervisor sees it: a process, a channel, and what it last said."""

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
"""Signals that would end a process before it has said what it does on them."""


class WorkerProcess:
    """Starts with everything read and nothing accepted: a spare, until it is called to serve."""

    def __init__(self, child: subprocess.Popen[bytes], channel: Channel, row: int) -> None:
        self._child = child
        self.row = row
        """In the table of who has room."""
        self.channel = channel
        self.stage: Stage = "starting"
        self.said: Message = {}
        """Its last report."""
        self.heard = self.since = time.monotonic()
        self.failure: list[str] = []
        """Why it cannot serve, in its own words."""
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
        """Start a program of its own, never a fork of this one, that inherits the sockets.

        Args:
            hello: the first message to it.
            table: in which it has a row, until it has ended.
            changed: told of each of its messages, and of its end by an empty one.

        Raises OSError.
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

    @property
    def is_gone(self) -> bool:
        return self.stage == "gone"

    def enter(self, stage: Stage) -> None:
        self.stage, self.since = stage, time.monotonic()

    def call(self) -> None:
        """Accept from now on."""
        self.enter("called")
        self.channel.send({"do": "serve"})

    def drain(self) -> None:
        """Accept nothing more, end when what is under way has ended."""
        self.enter("draining")
        self.channel.send({"do": "drain"})

    def kill(self, why: str = "") -> None:
        self.killed_for = self.killed_for or why
        with contextlib.suppress(OSError):
            if self._child.returncode is None:  # not reaped: nobody else has its number
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
            self.heard = time.monotonic()
            changed(self, message)
        self.channel.close()
        await self._reap()
        self.has_drained = self.stage == "draining" and self._child.returncode == 0 and not self.killed_for
        self.enter("gone")
        changed(self, {})

    async def _reap(self) -> None:
        """A worker whose channel has ended is ending; one that does not is of no use to anybody."""
        ends = time.monotonic() + _LAST_WORDS
        while self._child.poll() is None:
            if time.monotonic() > ends:
                self.kill()
            await asyncio.sleep(0.01)

    _following: asyncio.Task[None] | None = None


_LAST_WORDS: Final = 3.0
"""Seconds that a worker has to end in, once it has hung up."""


def _spawn(channel: int, shared: Sequence[int]) -> subprocess.Popen[bytes]:
    """Nothing but numbers on its command line; its environment is ours.

    As a file, and with -P: `-m` would look for every module in the working directory first.
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
