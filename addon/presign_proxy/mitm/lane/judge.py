"""The judge of request heads: each begins an exchange, or is left to mitmproxy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from mitmproxy.connection import Client, Server

from ...core.decision import Deny, Forward, PassThrough, Preflight
from ...http.hosts import parse_authority
from ...http.message import Origin, Request
from ..client_state import LaneDecision
from ..flow.incoming_request import listener_of, may_tunnel
from . import request_head
from .exchange import Exchange
from .grant_cache import Granted, Key
from .granted_request import GrantedRequest, granted_request
from .shared import LaneShared
from .websocket import WebSocketExchange

if TYPE_CHECKING:
    from .client_side import ClientSide


class Judge:
    """The judge of one client's heads. It knows where the client's connection leads."""

    def __init__(self, shared: LaneShared, client: Client, server: Server) -> None:
        self._shared = shared
        self._client = client
        self._listener = listener_of(client)
        self._sni = (("sni", client.sni),) if client.sni else ()
        self._origin: Origin | None = None
        self._tunnelled = False
        if server.address is not None:
            scheme = "https" if server.tls else "http"
            self._origin = Origin(scheme, server.address[0].lower(), server.address[1])
            self._tunnelled = may_tunnel(client)
        peer = client.peername[0]
        self._place = (self._origin, self._listener, self._sni, peer, self._tunnelled, bool(client.tls))

    def granted(self, raw: bytes, lane: ClientSide) -> Exchange | None:
        """Return the exchange that a head begins; None where it is not simple, or not granted."""
        shared = self._shared
        now, key = int(time.time()), Key(raw, self._place)
        known = shared.grants.find(key, shared.admission.registry, now)
        if known is not None:
            again = shared.admission.decide_again(known.request.forward)
            if not isinstance(again, Forward):
                self._leave(known.request.request, again)
                return None
            asked = known.request
            granted = GrantedRequest(asked.head, asked.request, again, asked.mask)
            return exchange_of(lane, shared, granted, known.wire)
        head = request_head.parse(raw)
        if head is None:
            return None
        host = head.host.decode("latin-1")
        origin = self._origin or parse_authority(host, "https" if self._client.tls else "http")
        if origin is None:
            return None
        request = request_head.request_of(
            head,
            origin,
            (("host", host), *self._sni),
            self._listener,
            self._client,
            tunnelled=self._tunnelled,
        )
        decision = shared.admission.decide(request, now)
        if not isinstance(decision, Forward):
            self._leave(request, decision)
            return None
        granted = granted_request(head, request, decision)
        wire = granted.outgoing()
        if wire is not None and decision.resolve is None:
            shared.grants.keep(key, Granted(granted, wire))
        return exchange_of(lane, shared, granted, wire)

    def _leave(self, request: Request, decision: Deny | PassThrough | Preflight) -> None:
        """Leave a request to the flow path, with the decision on it."""
        judged = LaneDecision(request, self._shared.admission.registry, decision)
        self._shared.clients.hand_over(self._client, judged)


def exchange_of(
    lane: ClientSide, shared: LaneShared, granted: GrantedRequest, wire: bytes | None
) -> Exchange:
    """Return the exchange of a granted request: one with a response, or one that may become a WebSocket."""
    kind = Exchange if granted.forward.handshake is None else WebSocketExchange
    return kind(lane, shared, granted, wire)
