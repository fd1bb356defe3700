"""What is known of each client connection: what serves it, what it has to send, whether it has gone."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from mitmproxy.connection import Client, Server

from ..core.decision import Deny, PassThrough, Preflight
from ..core.registry import Registry
from ..http.message import Request
from ..http.networks import Network
from ..limits.client_shares import STREAMS
from .backpressure import OneOfMany
from .client_connection import ClientConnection
from .half_closed import HalfClosed
from .http2_fairness import Http2Fairness


class LaneDecision(NamedTuple):
    """A decision of the lane on a request that it does not serve: the flow path answers or passes it."""

    request: Request
    registry: Registry | None
    decision: Deny | PassThrough | Preflight


class ClientStates:
    """The states of all client connections. Each is forgotten when its client has gone."""

    def __init__(
        self,
        max_clients: Callable[[], int] = lambda: STREAMS,
        proxies: Callable[[], Sequence[Network]] = tuple,
    ) -> None:
        """
        Args:
            max_clients: how many client connections there may be.
            proxies: the networks of trusted proxies, each of which has many clients behind it.
        """
        self.proxies = proxies
        self.fairness = Http2Fairness(max_clients)
        self.half_closed = HalfClosed()
        self.gone: WeakSet[Client] = WeakSet()
        """Half-closed clients, and clients that are not read from, that were found to have gone."""
        self.paused: WeakSet[Client] = WeakSet()
        """Clients on the lane that are not read from for now; so their end is not read either."""
        self.raw_tunnels: WeakSet[Client] = WeakSet()
        """Clients of tunnels that carry no HTTP. mitmproxy reports only an end of theirs, not a reset."""
        self.cut_off: WeakSet[Client] = WeakSet()
        """Clients that were cut off because our code failed. No hook reports the ends of their requests."""
        self._layers: WeakKeyDictionary[Client, ClientConnection] = WeakKeyDictionary()
        # Since when the head of a request is awaited.
        self._heads: WeakKeyDictionary[Client, float] = WeakKeyDictionary()
        self._decisions: WeakKeyDictionary[Client, LaneDecision] = WeakKeyDictionary()
        # Clients on the flow path that are not read from for now, because so much of theirs waits here.
        self._full: WeakSet[Client] = WeakSet()
        self._departed: WeakSet[Client] = WeakSet()

    # -- what serves a client -------------------------------------------------------------------------

    def attach(self, client: Client, layer: ClientConnection) -> None:
        """Note what serves a client from now on."""
        self._layers[client] = layer

    def layer_of(self, client: Client) -> ClientConnection | None:
        """Return what serves a client, or None."""
        return self._layers.get(client)

    def all(self) -> list[Client]:
        """Return the clients that are served, or whose heads are awaited, the oldest first."""
        return list({**dict.fromkeys(self._layers.keys()), **dict.fromkeys(self._heads.keys())})

    def idle_strangers(self) -> list[Client]:
        """Return the clients that were never granted anything and ask for nothing now, the oldest first."""
        layers = list(self._layers.items())
        return [client for client, layer in layers if client not in self._heads and layer.is_idle_stranger()]

    def idle(self) -> list[Client]:
        """Return the clients that ask for nothing now, whatever they were granted before."""
        layers = list(self._layers.items())
        return [client for client, layer in layers if client not in self._heads and layer.is_idle()]

    def holds_too_much(self, client: Client) -> bool:
        """Return whether so much of what a client sent waits here that no more of it is to be read."""
        layer = self._layers.get(client)
        full = layer is not None and layer.holds_too_much()
        (self._full.add if full else self._full.discard)(client)
        return full

    def gating(self, client: Client, server: Server) -> tuple[Callable[[], bool], OneOfMany | None]:
        """Return what shuts the gate of an upstream connection, and that connection if it is one of many."""
        one = OneOfMany(server, lambda: self._layers.get(client), self.fairness.reads)
        return one.is_shut, one if client.alpn == b"h2" else None

    # -- heads that are awaited -----------------------------------------------------------------------

    def await_head(self, client: Client) -> None:
        """Start the deadline for the next head, unless it runs already."""
        self._heads.setdefault(client, time.monotonic())

    def head_came(self, client: Client) -> None:
        """End the deadline for the head."""
        self._heads.pop(client, None)

    def awaits_head_since(self, client: Client) -> float | None:
        """Return since when a head is awaited, on the monotonic clock, or None."""
        return self._heads.get(client)

    def awaited_longer_than(self, seconds: float, now: float) -> list[Client]:
        """Return the clients whose heads are awaited for longer than so many seconds."""
        return [client for client, since in list(self._heads.items()) if now - since > seconds]

    # -- decisions of the lane ------------------------------------------------------------------------

    def hand_over(self, client: Client, decided: LaneDecision) -> None:
        """Keep the lane's decision on the next request of a client, so that it is not decided on twice."""
        self._decisions[client] = decided

    def take_over(
        self, client: Client, request: Request, registry: Registry | None
    ) -> Deny | PassThrough | Preflight | None:
        """Return what the lane decided on this very request under this very registry, or None."""
        decided = self._decisions.pop(client, None)
        if decided is None or decided.registry is not registry or decided.request != request:
            return None
        return decided.decision

    def pause(self, client: Client, on: bool) -> None:
        """Note that a client on the lane is not read from for now, or is read from again."""
        (self.paused.add if on else self.paused.discard)(client)
        if not on:
            self.half_closed.read_on(client)

    # -- clients that have gone -----------------------------------------------------------------------

    def note_gone(self, client: Client) -> None:
        """Note that a client was found to have gone."""
        self.half_closed.discard(client)
        self.paused.discard(client)
        self.gone.add(client)

    def silent(self) -> set[Client]:
        """Return the clients whose end may have gone unnoticed: those that are half-closed, those that are
        not read from while too much of theirs waits, and those of raw tunnels.
        """
        return {*self.half_closed.all(), *self.paused, *self._full, *self.raw_tunnels}

    def forget(self, client: Client) -> None:
        """Forget a client that has gone. Its layers refer back to it: weak keys alone would keep both."""
        self._layers.pop(client, None)
        self.fairness.forget(client)
        self._heads.pop(client, None)
        self._decisions.pop(client, None)
        self.half_closed.discard(client)
        for clients in (self.cut_off, self.gone, self.paused, self._full, self.raw_tunnels):
            clients.discard(client)
        self._departed.add(client)

    def has_departed(self, client: Client) -> bool:
        """Return whether a client is known to have gone, also while its upstreams are still being ended."""
        return client in self.gone or client in self._departed
