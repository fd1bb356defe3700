"""The lane as mitmproxy sees it: a layer that speaks HTTP/1.1 with one client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import commands, events, layer
from mitmproxy.proxy.context import Context

from ...http.message import MAX_HEAD
from ...observe.audit_record import GONE
from ..backpressure import MAX_HELD, GatedReader
from ..bell import Bell
from ..half_closed import PROBE, may_be_there
from ..sockets import handler_of, keep_awake, speaks_h1
from . import request_head
from .client_reader import ClientReader
from .exchange import Exchange
from .judge import Judge
from .shared import LaneShared

logger = logging.getLogger(__name__)

LINGER: Final = 1.0
"""Seconds for which the rest of a refused upload is dropped: closing at once may destroy our answer."""
_ANSWERING: Final = ("receiving", "trailing")
"""Stages of an exchange whose client has been sent a part of its answer."""
HIGH: Final = 128 * 1024
"""Bytes that wait for the client to take them, before no more is read from its upstream."""

Commands = layer.CommandGenerator[None]


class LaneEvent(events.Event):
    """Something has happened beside the client's connection. Led to its lane by every layer above."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane


class Lane(layer.Layer):
    """Serves presigned requests itself, and hands everything else to mitmproxy's own layer, for good."""

    bell: Bell | None = None
    """None: the answers to a client over HTTP/1 wait in its socket."""

    def __init__(self, context: Context, stock: layer.Layer, shared: LaneShared) -> None:
        """
        Args:
            stock: the guarded HTTP layer that would have been here, not yet started.
        """
        super().__init__(context)
        context.layers.remove(self)  # what looks at the stack shall find mitmproxy's own layer
        self.client = context.client
        self._stock = stock
        self._shared = shared
        self._over = False
        self._served = False
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._pending: list[commands.Command] = []
        self._writer: Any = None
        self._watchdog: Any = None
        self._io: Any = None
        self._direct = False
        self._client_reader: ClientReader | None = None
        self._closing = self._ended = False
        self._foreign = False
        self._held = self._shut = self._waits = self._lags = False
        self._owes = True
        self._looked_at = 0
        """Bytes of the buffer in which no head ends."""
        self._unsent = 0
        self._judge: Judge | None = None

    def handle_event(self, event: events.Event) -> Commands:
        if self._over:
            if not isinstance(event, LaneEvent) or event.lane is not self:  # of another one, in a tunnel
                yield from self._stock.handle_event(event)
            return
        yield from super().handle_event(event)

    def _handle_event(self, event: events.Event) -> Commands:
        if self._over:  # what was waiting when it was handed over
            yield from self._stock.handle_event(event)
            return
        try:
            yield from self._handle(event)
        except Exception as error:
            self._collapse(error)
            pending, self._pending = self._pending, []
            with contextlib.suppress(Exception):
                self._write_out()
            yield from pending
            yield commands.CloseConnection(self.client)

    def _collapse(self, error: Exception) -> bool:
        """Something of ours failed: take nothing more. Whether there was an exchange, which ends the
        connection when it has answered.
        """
        _tell_of(error)
        exchange = self._exchange
        if exchange is not None:
            exchange.collapse(error)
        self._closing, self._buffer = True, b""
        return exchange is not None

    def _handle(self, event: events.Event) -> Commands:
        if isinstance(event, events.Start):
            peer: Any = self.client.peername
            if peer is None:  # it was gone before it was accepted, and nothing is sent for it
                self._closing = True
                yield commands.CloseConnection(self.client)
                return
            self._start()
            if not speaks_h1(self.client):
                yield from self._hand_over()
        elif isinstance(event, events.DataReceived) and event.connection is self.client:
            if not self._closing:
                self._take(event.data)
                yield from self._next()
                self._take_over()
        elif isinstance(event, events.ConnectionClosed) and event.connection is self.client:
            if not self._owes_answer():
                self.give_up()
                yield commands.CloseConnection(self.client)
        elif isinstance(event, LaneEvent):
            yield from self._next()
        elif isinstance(event, events.Wakeup):
            yield commands.CloseConnection(self.client)
        yield from self._flush()

    def _owes_answer(self) -> bool:
        """Whether a client that says no more may wait for an answer."""
        exchange = self._exchange
        nothing = (exchange.is_sending and not self._lags) if exchange is not None else not self._waits
        if nothing or self._closing or not may_be_there(self.client):
            return False
        self._ended = True
        self._shared.clients.half_closed.add(self.client)
        self.ask()
        return True

    def ask(self) -> None:
        """Ask a client that says no more whether it is there, in front of its answer."""
        if self._exchange is not None and not self.is_answering():
            self.send(PROBE)

    def keep_awake(self) -> None:
        """The client waits for its answer; one that says no more is asked instead."""
        if not self._ended:
            keep_awake(self.client)

    def is_answering(self) -> bool:
        """Whether an answer has begun."""
        return self._waits or (self._exchange is not None and self._exchange.stage in _ANSWERING)

    def give_up(self) -> None:
        """The client has gone, and with it what it has sent ahead."""
        self._closing, self._buffer = True, b""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            try:
                exchange.abandon(GONE)
            except Exception as error:
                exchange.collapse(error)

    def departures(self) -> list[events.Event]:
        """What is to be told beside: nothing."""
        return []

    def _flush(self) -> Commands:
        pending, self._pending, self._unsent = self._pending, [], 0
        if pending:
            self._write_out()
        yield from pending

    def _start(self) -> None:
        self._shared.clients.attach(self.client, self)
        handler = handler_of(self.client)
        self._io = io = handler.transports.get(self.client) if handler is not None else None
        self._writer = io.writer if io is not None else None
        self._direct = not self.client.tls and self._writer is not None
        self._watchdog = handler.timeout_watchdog if handler is not None else None
        self._judge = Judge(self._shared, self.client, self.context.server)

    # -- requests -------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """What the client sends: the body of the request that is being sent, or what comes after it."""
        exchange, data = self._exchange, bytes(data)  # behind a CONNECT it is a bytearray
        if exchange is not None and exchange.is_sending and not self._buffer:
            data = exchange.upload(data)
        self._buffer = self._buffer + data if self._buffer else data

    def _next(self) -> Commands:
        """Begin with what has come, or hand it over."""
        if self._foreign or not self._advance():
            yield from self._hand_over()

    def _advance(self) -> bool:
        """Begin with what has come, as far as it goes. False where mitmproxy has to go on with it."""
        while self._buffer and not self._closing:
            if self._exchange is not None:
                if not self._passes_on(self._exchange):
                    break
                continue
            if self._waits_for_client():
                break
            # What was looked at before is not looked at again: a head may come byte by byte.
            seen, self._looked_at = self._looked_at, 0
            end = self._buffer.find(request_head.END, max(seen - 3, 0), MAX_HEAD)
            if end >= 0:
                if not self._begin(end + 4):
                    return False
            elif len(self._buffer) >= MAX_HEAD or not request_head.may_begin(self._buffer, seen):
                return False
            else:
                if self._ended:
                    self._buffer = b""  # it never gets more of a head
                    break
                self._looked_at = len(self._buffer)
                self._owes = True
                self._shared.clients.await_head(self.client)
                break
        if self._ended and self._exchange is None and not (self._buffer or self._closing):
            self._end()  # all that it has sent is answered
        if self._ended and not self._lags and self._exchange is not None and self._exchange.is_sending:
            self._exchange.lose("the client ended in the middle of its body")
        self._gate()
        return True

    def _passes_on(self, exchange: Exchange) -> bool:
        """Whether the rest of a request's body was there, so that the next request can begin."""
        if not exchange.is_sending:
            return False
        data, self._buffer = self._buffer, b""
        self._buffer = exchange.upload(data)
        if self._buffer and exchange.is_sending:
            self._lag()  # it is of this body: somebody else's turn
            return False
        return True

    def _lag(self) -> None:
        """Go on with a body in small chunks once everybody else has had a turn."""
        if not self._lags:
            self._lags = True
            asyncio.get_running_loop().call_soon(self._catch_up)

    def _catch_up(self) -> None:
        self._lags = False
        self._poke()

    def _waits_for_client(self) -> bool:
        """Whether it has to take its answers first: those of all that it may send at once would pile up."""
        if not self._waits and self.is_full:
            self._waits = True
            self.when_drained(self.proceed)
        return self._waits

    def _begin(self, size: int) -> bool:
        """Take the next head out of the buffer, if it is for the lane."""
        if not self._shared.open or self._judge is None:
            return False
        granted = self._judge.granted(self._buffer[:size], self)
        if granted is None:
            return False
        if self._owes:
            self._owes = False
            self._shared.clients.head_came(self.client)
        self._buffer = self._buffer[size:]
        self._served = True
        self._exchange = granted
        self._shared.exchanges.add(granted)
        granted.begin()
        return True

    def _hand_over(self) -> Commands:
        """From here on it is mitmproxy's: nothing of what is in the buffer was sent anywhere."""
        yield from self._flush()  # of what was before, which is to be read before it
        self._write_out()
        self._over = True
        data, self._buffer, self._held = self._buffer, b"", False
        self._gate()
        if self._client_reader is not None:
            self._client_reader.give_back()
            self._client_reader = None
        yield from self._stock.handle_event(events.Start())
        if data:
            yield from self._stock.handle_event(events.DataReceived(self.client, data))
        if self._ended:
            yield from self._stock.handle_event(events.ConnectionClosed(self.client))

    # -- beside mitmproxy -----------------------------------------------------------------------------

    def _take_over(self) -> None:
        """From now on, without mitmproxy: it goes on where something comes that is not the lane's.

        Only in its task that reads: while another one tells what came, that one may hold what came next.
        """
        if self._client_reader is not None or not (self._served and self._direct) or self._over or self._shut:
            return
        if asyncio.current_task() is self._io.handler:
            self._client_reader = ClientReader.over(self._writer, self._io.reader, self)

    def received(self, data: bytes) -> None:
        """Take what the intake brings."""
        try:
            self._watchdog.register_activity()
            if self._closing or self._over:
                return
            self._take(data)
            if not self._foreign and not self._advance():
                self._foreign = True
                self._poke()
        except Exception as error:
            if not self._collapse(error):
                self._abort()

    # -- what the exchange does -----------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Write to the client."""
        if not self._direct:
            self._pending.append(commands.SendData(self.client, data))
            self._unsent += len(data)
            self._poke()
        else:
            self._watchdog.register_activity()  # a client that is being sent something is not idle
            self._shared.write_batch.write(self._writer.transport, data)

    def _write_out(self) -> None:
        """What was written goes out before what mitmproxy does to the connection next."""
        if self._direct:
            self._shared.write_batch.flush(self._writer.transport)

    @property
    def is_full(self) -> bool:
        """Whether the client does not take what there is."""
        waiting: int = self._writer.transport.get_write_buffer_size()
        return waiting + self._unsent > HIGH

    def when_drained(self, go_on: Callable[[], None]) -> None:
        self._shared.run(self._drain(go_on))

    async def _drain(self, go_on: Callable[[], None]) -> None:
        try:
            if self._unsent:
                await self._tell()
            await self._writer.drain()
        except OSError:
            return  # its end is being told of
        go_on()

    def hold(self, on: bool) -> None:
        """Read no more from the client while the upstream does not take what there is."""
        self._held = on
        self._gate()

    def _gate(self) -> None:
        """Read on, unless an upstream does not take it, or it would pile up here."""
        shut = self._held or len(self._buffer) > MAX_HELD
        if shut != self._shut:
            self._shut = shut
            self._shared.clients.pause(self.client, shut)
            if self._client_reader is not None:
                self._client_reader.read(not shut)
        if self._client_reader is None:
            reader = self._io.reader if self._io is not None else None
            if isinstance(reader, GatedReader):  # which looks at `held_bytes` itself
                reader.hold(self._held)

    def proceed(self) -> None:
        """The upstream is connected, or the client takes its answers: go on with what has come meanwhile."""
        self._waits = False
        if self._buffer:
            self._poke()

    def over(self, exchange: Exchange, *, close: bool, now: bool = False) -> None:
        """An exchange has ended, and with it, if `close`, the connection; `now` without waiting."""
        if self._exchange is not exchange:
            return
        self._exchange = None
        self.hold(False)
        if close:
            self._end(LINGER if exchange.wants_more and not now else 0)
        # What it has sent ahead may be in the hands of who passes the rest of a body on.
        if close or self._ended or self._buffer:
            self._poke()

    def _end(self, linger: float = 0) -> None:
        """Take nothing more, and close the connection."""
        self._closing, self._buffer = True, b""
        close = commands.RequestWakeup(linger) if linger else commands.CloseConnection(self.client)
        self._pending.append(close)

    def cut(self, exchange: Exchange) -> None:
        """End the connection whose exchange has failed, unless it is over and another one has begun."""
        if self._exchange not in (exchange, None):
            return
        self._exchange = None
        self._end()
        try:
            self._poke()
        except Exception:
            self._abort()

    def _abort(self) -> None:
        """Without mitmproxy, which could not be told; it is told of the end."""
        if self._writer is not None:
            self._writer.transport.abort()

    def _poke(self) -> None:
        self._shared.run(self._tell())

    async def _tell(self) -> None:
        try:
            handler = handler_of(self.client)
            if handler is not None and not self._over and self.client.state & ConnectionState.CAN_WRITE:
                await handler.server_event(LaneEvent(self))
        except Exception as error:
            _tell_of(error)
            self._abort()

    # -- what the ledger asks -------------------------------------------------------------------------

    def is_idle(self) -> bool:
        return self._exchange is None

    def is_idle_stranger(self) -> bool:
        return not self._served

    def held_bytes(self) -> int:
        return len(self._buffer)

    def backlog_of(self, server: Any) -> int:  # noqa: ARG002 - a lane has none of mitmproxy's servers
        return 0

    def is_shut(self, server: Any) -> bool:  # noqa: ARG002
        return False

    def is_unanswered(self, server: Any) -> bool:  # noqa: ARG002
        return False


def _tell_of(error: Exception) -> None:
    logger.error("presign: failed in the lane (%s); the client is cut off", type(error).__name__)
