"""How much of the answers to one client waits here, and which upstreams are not read because of that.

Only the HTTP layer knows which stream's answer comes on which upstream connection, and what of it the client
has taken.
"""

from __future__ import annotations

from mitmproxy.connection import Connection
from mitmproxy.proxy import events
from mitmproxy.proxy.layers.http._http2 import Http2Server

from ..backpressure import MAX_BACKLOG, SHARE, is_too_much
from ..client_state import ClientStates
from ..waker import Waker
from .http1_client import GuardedHttp1Client
from .http2_client import GuardedHttp2Client
from .http2_windows import all_unsent, unsent
from .layer_stack import descendants
from .stream_events import Drained
from .upstream_sharing import SharingHttp1Client, SharingHttpLayer


class BackloggedHttpLayer(SharingHttpLayer):
    """An HTTP layer that knows what of its answers waits, and when that may have become less."""

    clients: ClientStates
    waker: Waker
    """Rings when the client has taken something."""
    listening = False
    """True while data that the client has just sent are handled."""

    def may_open(self, event: events.Event) -> bool:
        """Return whether less may wait once an event was handled: data of the client open its windows, in a
        turn an upstream's bytes are passed on, and what rests goes on. Data of an upstream only add to it.
        """
        return self.listening or isinstance(event, events.Wakeup | Drained)

    def is_unanswered(self, server: Connection) -> bool:
        """Return whether the next bytes of an upstream are the first of its answer."""
        streams = [self.streams[one] for one in self._streams_of(server)]
        return bool(streams) and not any(getattr(one, "head_sent", False) for one in streams)

    def backlog_of(self, server: Connection) -> int:
        """Return how many bytes of an upstream wait: for their turn, or for an HTTP/2 client's window. Those
        for a client over HTTP/1 wait in its socket.
        """
        rests = any(getattr(self.streams[one], "rests", False) for one in self._streams_of(server))
        client = self.connections.get(self.context.client)
        waiting = self._before_turn(server) + rests
        if isinstance(client, Http2Server):
            waiting += sum(unsent(client, one) for one in self._streams_of(server))
        return waiting

    def is_shut(self, server: Connection) -> bool:
        """Return whether nothing more is to be read from an upstream. One over HTTP/2 has its windows: no
        stream holds up others.
        """
        if getattr(server, "alpn", None) == b"h2":
            return self._before_turn(server) > MAX_BACKLOG
        if self._before_turn(server) > SHARE:
            return True
        return any(self._takes_nothing(one) for one in self._streams_of(server))

    def is_behind(self, stream_id: int) -> bool:
        """Return whether what comes for a stream only waits: for a hook, or for its client to take more."""
        stream = self.streams.get(stream_id)
        return stream is not None and (stream._paused is not None or self._takes_nothing(stream_id))

    def _takes_nothing(self, stream_id: int) -> bool:
        """Return whether so much waits for the client that no more is wanted."""
        if getattr(self.streams[stream_id], "rests", False):
            return True  # whatever it comes to once it is unpacked
        client = self.connections.get(self.context.client)
        if not isinstance(client, Http2Server):
            return False
        return is_too_much(unsent(client, stream_id), all_unsent(client), self.clients.fairness.shares.room)

    def _streams_of(self, server: Connection) -> list[int]:
        """Return the streams whose answers come on an upstream connection. A client over HTTP/2 may have a
        hundred streams, with as many connections, each of which asks again and again.
        """
        for one in descendants(self.connections.get(server)):
            if isinstance(one, SharingHttp1Client):
                return [one.stream_id] if one.stream_id in self.streams else []
        streams = self.streams.items()
        return [one for one, stream in streams if getattr(stream.flow, "server_conn", None) is server]

    def _before_turn(self, server: Connection) -> int:
        """Return how many bytes of an upstream wait for their turn."""
        layers = descendants(self.connections.get(server))
        return sum(one.backlog for one in layers if isinstance(one, GuardedHttp1Client | GuardedHttp2Client))
