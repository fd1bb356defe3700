"""Which requests of one client may share an upstream connection on the flow path.

mitmproxy reuses any connection of the same client that leads to the same place. Behind a balancer that client
is many people, so the rules of the lane's pool hold here too. Over HTTP/2 requests are told apart by their
frames, and share a connection, unless the upstream does not read what was sent on it: a head would leave with
its credential as late as the upstream likes.
"""

from __future__ import annotations

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import GetHttpConnection
from mitmproxy.proxy.layers.http._events import HttpEvent, RequestHeaders
from mitmproxy.proxy.layers.http._http1 import Http1Client
from mitmproxy.proxy.layers.http._http2 import Http2Client

from ...http.connection_reuse import has_plain_answer, reads_body
from ..sockets import is_silent, is_stuck
from .coalesce import Commands
from .layer_stack import descendants
from .upstream_connections import WaitingHttpLayer


class SharingHttp1Client(Http1Client):
    """The upstream's side of HTTP/1, closed when it is unknown what the upstream takes for a request."""

    owner: str | None = None
    """The id of the connection in whose name requests are sent here; empty for those without a grant."""
    spent = False
    """True if no further request may be sent."""

    def send(self, event: HttpEvent) -> Commands:
        if isinstance(event, RequestHeaders):
            method = event.request.data.method
            self.spent |= not has_plain_answer(method) or not (event.end_stream or reads_body(method))
            self.spent |= "upgrade" in event.request.headers  # what follows may be no HTTP to the upstream
        yield from super().send(event)

    def read_headers(self, event: events.ConnectionEvent) -> Commands:
        early = self.request is not None and not self.request_done
        yield from super().read_headers(event)
        if early and (self.response is not None or self.buf):
            self.spent = True  # what is still uploaded may be left unread

    def mark_done(self, *, request: bool = False, response: bool = False) -> Commands:
        yield from super().mark_done(request=request, response=response)
        if self.spent and self.request is None and self.state == self.read_headers:
            self.state = self.done
            yield commands.CloseConnection(self.conn)


class SharingHttpLayer(WaitingHttpLayer):
    """An HTTP layer whose connections over HTTP/1 stay with one connection of the registry."""

    def own(self, connection: Connection, owner: str) -> None:
        """Note the connection of the registry in whose name a request is sent."""
        for one in descendants(self.connections.get(connection)):
            if isinstance(one, SharingHttp1Client):
                one.owner = owner

    def may_serve(self, connection: Connection, event: GetHttpConnection) -> bool:
        for one in descendants(self.connections.get(connection)):
            if isinstance(one, SharingHttp1Client) and event.connection_spec_matches(connection):
                if one.owner is None:
                    return True  # nothing was sent on it yet
                return one.owner == self._client_of(event) and is_silent(
                    self.context.client, self.dialled(connection)
                )
            if isinstance(one, Http2Client) and event.connection_spec_matches(connection):
                return not is_stuck(self.context.client, self.dialled(connection))
        return True

    def _client_of(self, event: GetHttpConnection) -> str:
        """Return the id of the connection of the registry in whose name a socket is asked for, or nothing."""
        flow_state = getattr(self.command_sources.get(event), "flow_state", None)
        grant = flow_state.grant if flow_state is not None else None
        return grant.connection.id if grant is not None else ""
