"""Events that are led to one stream, also where it is at the other end of a tunnel."""

from __future__ import annotations

from mitmproxy.proxy import events
from mitmproxy.proxy.layers.http import HttpStream

from ...errors import Denied


class StreamEvent(events.Event):
    """Something that one stream has to know. Every layer above leads it on."""

    def __init__(self, stream: HttpStream) -> None:
        self.stream = stream


class Overdue(StreamEvent):
    """A stream has waited for its connection for too long."""


class StillThere(StreamEvent):
    """The client of a stream is half-closed for long: ask whether it is there."""


class Departed(StreamEvent):
    """The client of a stream has gone."""


class Stalled(StreamEvent):
    """Nothing more of the body of a request has come for too long."""


class Lapsed(StreamEvent):
    """A request whose body is being read is not granted any more."""

    def __init__(self, stream: HttpStream, why: Denied) -> None:
        super().__init__(stream)
        self.why = why


class Revoked(StreamEvent):
    """What a request rests on was revoked with `now`."""


class Expired(StreamEvent):
    """A WebSocket has lasted as long as it may, or one side of it has ended and the other is silent."""


class Drained(StreamEvent):
    """Other streams have had their turn, and the client has taken what there was of its answer."""
