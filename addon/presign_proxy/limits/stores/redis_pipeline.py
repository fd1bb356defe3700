"""One connection to Redis on which everybody asks at once, without waiting for what others have asked."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from .store import StoreError

PATIENCE: Final = 0.2
"""Seconds without an answer after which whoever gives up waiting gives up the connection as well."""

LINGER: Final = 60.0
"""Seconds for which a connection that was given up may still answer: as long as what it was asked holds."""

Command = tuple[str | bytes | int, ...]


class Pipeline:
    """Redis answers in the order in which it was asked. As soon as that may not hold any more the connection
    is given up, with all who wait on it: an answer that reached somebody else would admit what was refused.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        """
        Args:
            connection: connected, without a time-out of its own; used by nobody else from now on.
        """
        self._connection = connection
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._retired = False
        self._undoing: set[asyncio.Task[None]] = set()
        self._lingering: asyncio.TimerHandle | None = None
        self._listening = self._loop.create_task(self._listen())

    @property
    def is_open(self) -> bool:
        return not self._closed and not self._retired and self._connection.is_connected

    async def ask(self, *commands: Command, undo: Sequence[Command] = ()) -> list[Any]:
        """The answers to commands that are sent in one piece; an error reply is an exception among them.

        Args:
            undo: what is asked behind them where nobody waits for their answers any more.

        Raises StoreError where there is no answer: what was asked may have been done, or be done yet.
        """
        if not self.is_open:
            raise StoreError("the store has closed the connection")
        asked_at = self._loop.time()
        packed = _packed(commands)
        mine = [self._loop.create_future() for _ in commands]
        self._waiting.extend([(future, asked_at) for future in mine])
        try:
            # Nothing is awaited before all of it is written: the order of asking is that of the futures.
            await self._connection.send_packed_command(packed, check_health=False)
            answers = [await future for future in mine]
        except asyncio.CancelledError:
            self._given_up(asked_at)
            self._undo(undo)
            raise
        except (RedisError, OSError, RuntimeError) as error:  # the last: of uvloop, where it was just closed
            self.close(type(error).__name__)
            raise
        if answers and isinstance(answers[-1], StoreError):
            self._undo(undo)
            raise answers[-1]
        return answers

    def _undo(self, commands: Sequence[Command]) -> None:
        """Ask for it on this very connection, and wait for nothing. A store that stood still reads what it
        was asked once it goes on, and does it; on another connection it might read this before.
        """
        if not commands or self._closed or not self._connection.is_connected:
            return
        answered = self._loop.create_future()
        answered.set_result(None)
        self._waiting.extend([(answered, self._loop.time()) for _ in commands])
        sent = asyncio.Task(self._send(_packed(commands)), loop=self._loop, eager_start=True)
        if not sent.done():
            self._undoing.add(sent)
            sent.add_done_callback(self._undoing.discard)

    async def _send(self, packed: bytes) -> None:
        try:
            await self._connection.send_packed_command(packed, check_health=False)
        except (RedisError, OSError, RuntimeError) as error:
            self.close(type(error).__name__)

    def _given_up(self, asked_at: float) -> None:
        """Somebody waits no longer. The answer is dropped when it comes, unless none has come for long."""
        if not self._connection.is_connected:
            self.close("it was cut while asking")
        elif self._waiting and self._waiting[0][1] <= asked_at < self._loop.time() - PATIENCE:
            self._forsake("no answer")

    def _forsake(self, why: str) -> None:
        """Nobody waits for its answers, and nothing new is asked; what takes back is, see `_undo`."""
        self._retired = True
        self._fail(why)
        if self._lingering is None:
            self._lingering = self._loop.call_later(LINGER, self.close)

    def _fail(self, why: str) -> None:
        """Tell all who wait that there is no answer."""
        for future, _ in self._waiting:
            if not future.done():
                # Not set_exception: who has stopped waiting would leave it for the log.
                future.set_result(StoreError(f"the store failed ({why})"))

    async def _listen(self) -> None:
        why = "it was closed"
        try:
            while True:
                try:
                    answer = await self._connection.read_response(disconnect_on_error=False)
                except ResponseError as error:
                    answer = error
                if not self._waiting:
                    why = "an answer to nothing"
                    return
                future, _ = self._waiting.popleft()
                if not future.done():
                    future.set_result(answer)
                if self._retired and not self._waiting:
                    return
        except (RedisError, OSError, ValueError) as error:
            why = type(error).__name__
        finally:
            self.close(why)
            with contextlib.suppress(Exception):
                await self._connection.disconnect(nowait=True)

    def retire(self) -> None:
        """Ask nothing more on it, and give it up once all that was asked is answered."""
        self._retired = True
        if not self._waiting:
            self.close()

    def close(self, why: str = "it was closed") -> None:
        """Give it up: nobody who waits gets an answer."""
        if self._closed:
            return
        self._closed = True
        if self._lingering is not None:
            self._lingering.cancel()
        self._fail(why)
        self._waiting.clear()
        if asyncio.current_task() is not self._listening:
            self._listening.cancel()


def _packed(commands: Sequence[Command]) -> bytes:
    # hiredis's own: the connection's is written in Python, and took a quarter of an admission.
    return b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]
