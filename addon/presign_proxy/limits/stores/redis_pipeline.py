"""One connection to Redis that all requests share. Each sends its commands without waiting for others."""

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
"""Seconds without any answer after which a caller that is cancelled also retires the connection."""

LINGER: Final = 60.0
"""Seconds for which a retired connection may still answer: as long as a lease that it was asked for lasts."""

Command = tuple[str | bytes | int, ...]


class Pipeline:
    """A connection that matches answers to commands by their order, because Redis answers in order.

    If the order may be broken, the connection is closed and all waiting callers fail. Otherwise an answer
    could reach the wrong caller, and admit a request that was refused.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        """
        Args:
            connection: connected, without a timeout of its own; only this object may use it from now on.
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
        """Send commands in one piece and return their answers. An error reply is an exception among them.

        Args:
            undo: commands to send after them if the caller stops waiting or gets no answer.

        Raises StoreError if there is no answer. The server may have run the commands, or may still run them.
        """
        if not self.is_open:
            raise StoreError("the store has closed the connection")
        asked_at = self._loop.time()
        packed = _packed(commands)
        mine = [self._loop.create_future() for _ in commands]
        self._waiting.extend([(future, asked_at) for future in mine])
        try:
            # Nothing is awaited before all is written, so the commands are sent in the order of the futures.
            await self._connection.send_packed_command(packed, check_health=False)
            answers = [await future for future in mine]
        except asyncio.CancelledError:
            self._given_up(asked_at)
            self._undo(undo)
            raise
        except (RedisError, OSError, RuntimeError) as error:  # RuntimeError: uvloop's, if it was just closed
            self.close(type(error).__name__)
            raise
        if answers and isinstance(answers[-1], StoreError):
            self._undo(undo)
            raise answers[-1]
        return answers

    def _undo(self, commands: Sequence[Command]) -> None:
        """Send commands that undo others, on the same connection, without waiting for the answers.

        A store that hangs and recovers still runs the commands it was sent. On another connection, it might
        run the undo first.
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
        """Handle a caller that stopped waiting. Its answer will be dropped.

        If the connection has not answered for long, it is abandoned.
        """
        if not self._connection.is_connected:
            self.close("it was cut while asking")
        elif self._waiting and self._waiting[0][1] <= asked_at < self._loop.time() - PATIENCE:
            self._abandon("no answer")

    def _abandon(self, why: str) -> None:
        """Fail all waiting callers and send no new commands, except those of `_undo`."""
        self._retired = True
        self._fail(why)
        if self._lingering is None:
            self._lingering = self._loop.call_later(LINGER, self.close)

    def _fail(self, why: str) -> None:
        """Fail all waiting callers."""
        for future, _ in self._waiting:
            if not future.done():
                # Not set_exception: asyncio logs an exception that no caller retrieves.
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
        """Send no new commands, and close the connection once all commands are answered."""
        self._retired = True
        if not self._waiting:
            self.close()

    def close(self, why: str = "it was closed") -> None:
        """Close the connection and fail all waiting callers."""
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
    # The function of hiredis. That of the connection is written in Python and took a quarter of an admission.
    return b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]
