"""The requests of one client: each begins once the one before it has been answered."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, Literal

from mitmproxy.connection import Client, Server
from mitmproxy.proxy import commands

from ...observe.audit_record import GONE
from ..half_closed import PROBE, may_be_there
from ..sockets import keep_awake
from .client_gate import ClientGate
from .client_writer import Caller, ClientWriter
from .exchange import Exchange
from .judge import Judge
from .request_buffer import RequestBuffer
from .shared import LaneShared

logger = logging.getLogger(__name__)

LINGER: Final = 1.0
"""Seconds for which the rest of a refused upload is dropped: closing at once may destroy our answer."""
_ANSWERING: Final = ("receiving", "trailing")
"""Stages of an exchange whose client has been sent a part of its answer."""

Phase = Literal["open", "foreign", "closing", "handed over"]
"""Foreign: it is mitmproxy's turn, which was not called yet. Closing: nothing more is taken.
Handed over: mitmproxy has the client."""


class Pipeline:
    """Serves the requests of a client one after the other. What is sent ahead waits in the buffer."""

    __slots__ = (
        "_caller",
        "_gate",
        "_judge",
        "_lags",
        "_shared",
        "_waits",
        "buffer",
        "client",
        "exchange",
        "has_ended",
        "phase",
        "writer",
    )

    def __init__(self, client: Client, shared: LaneShared, caller: Caller) -> None:
        self.client = client
        self._shared = shared
        self._caller = caller
        self.phase: Phase = "open"
        self.writer = ClientWriter(client, shared, caller)
        self._gate = ClientGate(client, shared)
        self.buffer = RequestBuffer()
        self._judge: Judge | None = None
        self.exchange: Exchange | None = None
        self.has_ended = False
        """True if the client says no more."""
        self._waits = False
        """True if the client has to take its answers first."""
        self._lags = False
        """True if a body goes on in the next turn of the event loop."""

    def start(self, handler: Any, server: Server) -> None:
        """Begin.

        Args:
            handler: mitmproxy's handler of the client; None where it has gone.
            server: where the client's connection leads, if it is a tunnel.
        """
        io = handler.transports.get(self.client) if handler is not None else None
        self.writer.connect(handler, io)
        self._gate.connect(io)
        self._judge = Judge(self._shared, self.client, server)

    # -- requests -------------------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Take what the client sends: the body of the request that is being sent, or what comes after it."""
        exchange, buffer, data = self.exchange, self.buffer, bytes(data)  # a bytearray behind a CONNECT
        if exchange is not None and exchange.is_sending and not buffer.data:
            data = exchange.upload(data)
        buffer.data = buffer.data + data if buffer.data else data

    def advance(self) -> bool:
        """Begin with what has come, as far as it goes. Return False where mitmproxy has to go on with it."""
        if self.phase == "foreign":
            return False
        buffer = self.buffer
        while buffer.data and self.phase != "closing":
            if self.exchange is not None:
                if not self._passes_on(self.exchange):
                    break
                continue
            if self._waits_for_client():
                break
            size = buffer.next_head()
            if size > 0:
                if not self._begin(size):
                    return False
            elif size < 0:
                return False
            elif self.has_ended:
                buffer.drop()  # the rest of the head never comes
            else:
                buffer.owes_head = True
                self._shared.clients.await_head(self.client)
                break
        if self.has_ended:
            self._advance_to_end()
        self._gate.check(len(buffer.data))
        return True

    def _advance_to_end(self) -> None:
        """Go on with a client that says no more."""
        exchange = self.exchange
        if exchange is None:
            if not self.buffer.data and self.phase != "closing":
                self._end()  # all that it has sent is answered
        elif exchange.is_sending and not self._lags:
            exchange.lose("the client ended in the middle of its body")

    def _passes_on(self, exchange: Exchange) -> bool:
        """Pass on the rest of a body. Return whether it was there, so that the next request can begin."""
        if not exchange.is_sending:
            return False
        self.buffer.data = exchange.upload(self.buffer.drop())
        if self.buffer.data and exchange.is_sending:
            self._lag()  # the rest is of this body, and it is the turn of other clients
            return False
        return True

    def _lag(self) -> None:
        """Go on with a body in small chunks once all other clients have had a turn."""
        if not self._lags:
            self._lags = True
            asyncio.get_running_loop().call_soon(self._catch_up)

    def _catch_up(self) -> None:
        self._lags = False
        self._caller.poke()

    def _waits_for_client(self) -> bool:
        """Return whether the client has to take its answers first, which would pile up otherwise."""
        if not self._waits and self.writer.is_full:
            self._waits = True
            self.writer.when_drained(self.proceed)
        return self._waits

    def _begin(self, size: int) -> bool:
        """Begin with the head in front. Return whether it is for the lane."""
        if not self._shared.open or self._judge is None:
            return False
        buffer = self.buffer
        granted = self._judge.granted(buffer.data[:size], self)
        if granted is None:
            return False
        if buffer.owes_head:
            buffer.owes_head = False
            self._shared.clients.head_came(self.client)
        buffer.data = buffer.data[size:]
        buffer.served = True
        self.exchange = granted
        self._shared.exchanges.add(granted)
        granted.begin()
        return True

    def take_over(self) -> None:
        """Read the client's socket in the place of mitmproxy, once a request of the client was served."""
        if self.buffer.served and self.writer.direct and self.phase != "handed over":
            self._gate.take_over(self.writer.stream, self)

    def received(self, data: bytes) -> None:
        """Take what was read in the place of mitmproxy."""
        try:
            self.writer.watchdog.register_activity()
            if self.phase in ("closing", "handed over"):
                return
            self.take(data)
            if self.phase != "foreign" and not self.advance():
                self.phase = "foreign"
                self._caller.poke()
        except Exception as error:
            if not self.collapse(error):
                self.writer.abort()

    def hand_over(self) -> bytes:
        """Leave the client to mitmproxy. Return what is in the buffer: nothing of it was sent."""
        self.writer.flush()
        self.phase = "handed over"
        self._gate.give_back()
        return self.buffer.drop()

    def take_back(self) -> None:
        """Have the client again. Nothing of its next head has come, which gets a deadline of its own."""
        self.phase = "open"

    # -- what the exchange does -----------------------------------------------------------------------

    def hold(self, on: bool) -> None:
        """Read no more from the client while the upstream does not take what there is."""
        self._gate.hold(on, len(self.buffer.data))

    def proceed(self) -> None:
        """Go on with what has come while the upstream was connected, or the client took its answers."""
        self._waits = False
        if self.buffer.data:
            self._caller.poke()

    def over(self, exchange: Exchange, *, close: bool, now: bool = False) -> None:
        """Go on after an exchange. If `close`, end the connection; if `now`, without waiting."""
        if self.exchange is not exchange:
            return
        self.exchange = None
        if self._gate.held:
            self._gate.hold(False, len(self.buffer.data))
        if close:
            self._end(LINGER if exchange.wants_more and not now else 0)
        # What the client has sent ahead may be in the hands of `_passes_on`.
        if close or self.has_ended or self.buffer.data:
            self._caller.poke()

    def _stop(self) -> None:
        """Take nothing more."""
        self.buffer.drop()
        if self.phase != "handed over":
            self.phase = "closing"

    def _end(self, linger: float = 0) -> None:
        """Take nothing more, and have the connection closed."""
        self._stop()
        self.writer.ask(commands.RequestWakeup(linger) if linger else commands.CloseConnection(self.client))

    def cut(self, exchange: Exchange) -> None:
        """End the connection whose exchange has failed, unless it is over and another one has begun."""
        if self.exchange not in (exchange, None):
            return
        self.exchange = None
        self._end()
        try:
            self._caller.poke()
        except Exception:
            self.writer.abort()

    def collapse(self, error: Exception) -> bool:
        """Take nothing more after a failure of ours. Return whether an exchange answers, and ends all."""
        log_failure(error)
        exchange = self.exchange
        if exchange is not None:
            exchange.collapse(error)
        self._stop()
        return exchange is not None

    # -- the end of the client ------------------------------------------------------------------------

    def end_input(self) -> bool:
        """Note that the client says no more. Return whether it may wait for an answer."""
        exchange = self.exchange
        nothing = (exchange.is_sending and not self._lags) if exchange is not None else not self._waits
        if nothing or self.phase == "closing" or not may_be_there(self.client):
            return False
        self.has_ended = True
        self._shared.clients.half_closed.add(self.client)
        self.ask()
        return True

    def ask(self) -> None:
        """Ask a client that says no more whether it is there, in front of its answer."""
        if self.exchange is not None and not self.is_answering():
            self.writer.send(PROBE)

    def keep_awake(self) -> None:
        """Keep a client that waits for its answer from being taken for idle, unless it is asked instead."""
        if self.client not in self._shared.clients.half_closed:
            keep_awake(self.client)

    def is_answering(self) -> bool:
        """Return whether an answer has begun."""
        return self._waits or (self.exchange is not None and self.exchange.stage in _ANSWERING)

    def give_up(self) -> None:
        """End what the client has asked for, and forget what it has sent ahead: it has gone."""
        self._stop()
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            try:
                exchange.abandon(GONE)
            except Exception as error:
                exchange.collapse(error)


def log_failure(error: Exception) -> None:
    """Log a failure of ours, without its text, which may hold a secret."""
    logger.error("presign: failed in the lane (%s); the client is cut off", type(error).__name__)
