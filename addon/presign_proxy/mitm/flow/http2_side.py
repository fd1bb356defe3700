"""What both sides of HTTP/2 have in common: frames by turns, and windows that open as bodies move on."""

from __future__ import annotations

import contextlib
import time
from typing import Final, Protocol

import h2.events
import h2.exceptions
from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http._events import RequestHeaders, ResponseHeaders
from mitmproxy.proxy.layers.http._http2 import Http2Connection

from ..backpressure import MAX_HELD
from .coalesce import Commands
from .http2_encoder import BoundedEncoder
from .http2_excess import Excess
from .http2_frames import MAX_FRAME, FrameGate
from .http2_windows import make_windowed, windowed

MAX_WINDOW: Final = MAX_HELD
"""Bytes of one stream that a peer may send before any of them was passed on."""
MAX_ENDED: Final = 100
"""Streams of a connection that have ended and are still known: what its peer had sent by then is no flood."""


class Withholding(Protocol):
    """The HTTP layer, as far as it notes whose windows are held back."""

    withholding: set[Connection]


class OpenWindows(events.Event):
    """Asks a side to open the windows of streams that move again."""


class Turn(events.Event):
    """The turn of a client to begin a stream."""

    def __init__(self, side: Http2Side) -> None:
        self.side = side


class Http2Side(Http2Connection):
    """Handles a bounded number of frames, and the rest once other connections have had a turn. A stream gets
    no further window while what has come for it is not taken.
    """

    gate: FrameGate
    withheld: dict[int, int]
    """By stream, the bytes that the peer sent and got no new window for."""
    turn: commands.RequestWakeup | Turn | None = None
    """The next one, while whole frames wait for it."""
    http_layer: Withholding
    _in_frames: bool = False
    """True if frames are being handled: h2 knows of their ends, and the streams do not yet."""
    _closed: events.ConnectionClosed | None = None
    """The end of the connection, which mitmproxy gets once all that came before was handled."""

    def _bound(self, gate: FrameGate) -> None:
        """Set the limits, before the first byte is sent."""
        self.gate = gate
        self.withheld = {}
        make_windowed(self.h2_conn)
        self.h2_conn.encoder.__class__ = BoundedEncoder
        settings = self.h2_conn.local_settings
        # mitmproxy takes frames eight times as large, of which a head may have dozens, and opens windows
        # of two gigabytes, so that it would have to keep what its peer does not take.
        settings.max_frame_size = self.h2_conn.max_inbound_frame_size = MAX_FRAME
        settings.initial_window_size = MAX_WINDOW
        settings.acknowledge()

    def _is_held(self, stream_id: int) -> bool:
        """Return whether what comes for a stream only waits."""
        raise NotImplementedError

    def _receive_data(self, event: h2.events.DataReceived) -> None:
        """Keep account of a piece of a body, whose window is opened later where it only waits."""
        if self._is_held(event.stream_id):
            length = event.flow_controlled_length
            self.withheld[event.stream_id] = self.withheld.get(event.stream_id, 0) + length
            self.http_layer.withholding.add(self.conn)
            event.flow_controlled_length = 0

    def _open_windows(self) -> Commands:
        """Open the windows of streams that move again."""
        for stream_id in [one for one in self.withheld if not self._is_held(one)]:
            # A stream that has ended gives back what it holds of the connection's window.
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self.h2_conn.acknowledge_received_data(self.withheld.pop(stream_id), stream_id)
        if not self.withheld:
            self.http_layer.withholding.discard(self.conn)
        if data := self.h2_conn.data_to_send():
            yield commands.SendData(self.conn, data)

    def _handle_event(self, event: events.Event) -> Commands:
        if isinstance(event, OpenWindows):
            yield from self._sent(self._open_windows())
        elif isinstance(event, events.DataReceived):
            self.gate.add(event.data)
            if self.turn is None:
                yield from self._take_turn()
        elif isinstance(event, events.Wakeup) and event.command is self.turn:
            self.turn = None
            yield from self._take_turn()
        elif isinstance(event, events.ConnectionClosed) and self.turn is not None:
            self._closed = event
        else:
            if isinstance(event, RequestHeaders) or (
                isinstance(event, ResponseHeaders) and self.is_open_for_us(event.stream_id)
            ):
                self.gate.answered()
            yield from self._sent(super()._handle_event(event))

    def close_connection(self, msg: str) -> Commands:
        """End the connection, and drop what waited to be sent: it would be kept until the garbage collector
        finds the circle that it is in. A side that has ended gets no events and opens no window.
        """
        self.withheld.clear()
        self.http_layer.withholding.discard(self.conn)
        self.gate.forget()
        self._closed = None
        yield from super().close_connection(msg)
        windowed(self).forget()

    def _forget_ended(self) -> None:
        """Forget streams that have ended: mitmproxy keeps each of them as long as the connection lasts."""
        if not self._in_frames and len(self.streams) > 2 * MAX_ENDED:
            for stream_id in list(self.streams):
                if self.is_closed(stream_id):
                    del self.streams[stream_id]

    def _take_turn(self) -> Commands:
        """Handle the frames of one turn."""
        try:
            data = self.gate.take(time.monotonic())
        except Excess as excess:
            yield from self._end(excess)
            return
        if data:
            self._forget_ended()
            self._in_frames = True
            yield from self._sent(super()._handle_event(events.DataReceived(self.conn, data)))
            self._in_frames = False
        if self.gate.is_ready:
            yield from self._wait()
        elif self._closed is not None:
            closed, self._closed = self._closed, None
            yield from super()._handle_event(closed)

    def _wait(self) -> Commands:
        """Ask for the next turn."""
        self.turn = wakeup = commands.RequestWakeup(self.gate.delay)
        yield wakeup

    def _end(self, excess: Excess) -> Commands:
        """End a connection whose peer sends more than it may."""
        yield from self.protocol_error(excess.why, excess.code)

    def _sent(self, stock: Commands) -> Commands:
        """Count what the peer is sent: it opens windows for that."""
        for command in stock:
            if isinstance(command, commands.SendData):
                self.gate.sent(command.data)
            yield command
