"""The choice of the protocol with an upstream, with our limits from the first byte."""

from __future__ import annotations

from typing import Any, Final

from mitmproxy import ctx
from mitmproxy.connection import Client, Connection, Server
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layer import Layer
from mitmproxy.proxy.layers.http import HttpClient, RegisterHttpConnection, is_h3_alpn
from mitmproxy.proxy.layers.http._http3 import Http3Client

from ...core.decision import Forward
from .arrival import Arrival
from .coalesce import Commands
from .http1_client import GuardedHttp1Client
from .http2_client import Downloads, GuardedHttp2Client

_BOTH: Final = (b"h2", b"http/1.1")


def offer(client: Client, server: Connection) -> None:
    """Offer HTTP/1.1 too where the client speaks nothing but HTTP/2.

    mitmproxy offers an upstream what the client has offered. An upstream that speaks HTTP/1.1 alone would end
    the handshake, though the request could be sent.
    """
    if client.alpn == b"h2" and isinstance(server, Server) and not server.alpn_offers:
        if b"http/1.1" not in client.alpn_offers and ctx.options.http2:
            server.alpn_offers = _BOTH


def why_not_over(server: Server, grant: Forward, arrival: Arrival) -> str:
    """Return why a request cannot be sent over the protocol of an upstream; empty if it can."""
    if grant.handshake is not None and server.alpn == b"h2":
        return "the upstream speaks HTTP/2, over which WebSocket is not served"
    if arrival.is_grpc and server.alpn != b"h2":
        return "the upstream does not offer HTTP/2 (by ALPN, over TLS), which gRPC needs"
    return ""


class GuardedHttpClient(HttpClient):
    """A layer that begins with our limits: mitmproxy's own opens windows of two gigabytes over HTTP/2."""

    http_layer: Downloads

    @classmethod
    def guard(cls, stock: HttpClient, http_layer: Downloads) -> None:
        """Give this class to a layer that has not begun."""
        stock.__class__ = cls
        vars(stock)["http_layer"] = http_layer

    def _handle_event(self, event: events.Event) -> Commands:
        server = self.context.server
        error = None if server.connected else (yield commands.OpenConnection(server))
        if not error:
            self.child_layer = self._choose(server.alpn)
            begun: Any = self.child_layer.handle_event
            self._handle_event = begun  # type: ignore[method-assign]
            yield from begun(event)
        yield RegisterHttpConnection(server, error)

    def _choose(self, alpn: bytes | None) -> Layer:
        if is_h3_alpn(alpn):
            return Http3Client(self.context)
        if alpn == b"h2":
            return GuardedHttp2Client(self.context, self.http_layer)
        return GuardedHttp1Client(self.context)
