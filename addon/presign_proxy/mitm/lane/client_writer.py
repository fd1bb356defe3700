"""What is sent to a client, and what mitmproxy is asked to do with its connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from mitmproxy.connection import Client
from mitmproxy.proxy import commands

from ..tcp import reset

if TYPE_CHECKING:
    from .shared import LaneShared

HIGH: Final = 128 * 1024
"""Bytes that wait for the client to take them, before no more is read from its upstream."""


class Caller(Protocol):
    """The layer, which mitmproxy calls."""

    def poke(self) -> None:
        """Have mitmproxy call the layer soon: to go on, and for the writer's `commands`."""

    async def call(self) -> None:
        """Call the layer as mitmproxy does."""


class ClientWriter:
    """Writes to the socket itself where the client speaks no TLS; else mitmproxy's layer for TLS does."""

    __slots__ = ("_caller", "_client", "_commands", "_shared", "_unsent", "direct", "stream", "watchdog")

    def __init__(self, client: Client, shared: LaneShared, caller: Caller) -> None:
        self._client = client
        self._shared = shared
        self._caller = caller
        self._commands: list[commands.Command] = []
        self.watchdog: Any = None
        """mitmproxy's, which ends a client that is idle for too long; None where the client has gone."""
        self.stream: Any = None
        """mitmproxy's stream writer of the client; None where the client has none."""
        self.direct = False
        """True if the socket is written to without mitmproxy."""
        self._unsent = 0
        """Bytes that mitmproxy is going to be asked to send."""

    def connect(self, handler: Any, io: Any) -> None:
        """Begin.

        Args:
            handler: mitmproxy's handler of the client; None where it has gone.
            io: what that has of the client's own connection, or None.
        """
        self.stream = io.writer if io is not None else None
        self.direct = not self._client.tls and self.stream is not None
        self.watchdog = handler.timeout_watchdog if handler is not None else None

    def send(self, data: bytes) -> None:
        """Write to the client."""
        if not self.direct:
            self._commands.append(commands.SendData(self._client, data))
            self._unsent += len(data)
            self._caller.poke()
        else:
            self.watchdog.register_activity()  # a client that is being sent something is not idle
            self._shared.write_batch.write(self.stream.transport, data)

    def ask(self, command: commands.Command) -> None:
        """Ask mitmproxy for something, once it is called for `commands`."""
        self._commands.append(command)

    def end_output(self) -> bool:
        """Say no more to the client, which may still send. Return whether that is possible: not over TLS."""
        if not self.direct:
            return False
        self.ask(commands.CloseTcpConnection(self._client, half_close=True))
        self._caller.poke()
        return True

    def commands(self) -> list[commands.Command]:
        """Return what mitmproxy is asked to do now. What was written goes out before that is done."""
        asked = self._commands
        if asked:
            self._commands, self._unsent = [], 0
            self.flush()
        return asked

    def flush(self) -> None:
        """Send what was written, before mitmproxy does something to the connection."""
        if self.direct:
            self._shared.write_batch.flush(self.stream.transport)

    @property
    def is_full(self) -> bool:
        """True if the client does not take what there is."""
        waiting: int = self.stream.transport.get_write_buffer_size()
        return waiting + self._unsent > HIGH

    def when_drained(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` once the client has taken what there is."""
        self._shared.run(self._drain(go_on))

    async def _drain(self, go_on: Callable[[], None]) -> None:
        try:
            if self._unsent:
                await self._caller.call()
            await self.stream.drain()
        except OSError:
            return  # mitmproxy notices the end of the connection
        go_on()

    def reset(self) -> None:
        """End the connection with RST, and drop what the client has not taken."""
        if self.stream is not None:
            self._shared.write_batch.drop(self.stream.transport)
            reset(self.stream.transport)

    def abort(self) -> None:
        """End the connection without mitmproxy, which cannot be called; it notices the end."""
        if self.stream is not None:
            self.stream.transport.abort()
