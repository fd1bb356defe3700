"""What serves one client connection, as the rest of the gateway sees it."""

from __future__ import annotations

from typing import Protocol

from mitmproxy.connection import Connection
from mitmproxy.proxy import events, layer

from .waker import Waker

Commands = layer.CommandGenerator[None]


class ClientConnection(Protocol):
    """One client's connection: mitmproxy's HTTP layer with our guards (`mitm/flow/`), or the lane."""

    @property
    def waker(self) -> Waker | None:
        """The waker that wakes when the client has taken something; None for a client over HTTP/1."""

    def is_idle(self) -> bool:
        """Return whether no request is under way."""

    def is_idle_stranger(self) -> bool:
        """Return whether no request is under way, and none was ever granted."""

    def is_answering(self) -> bool:
        """Return whether an answer has begun."""

    def holds_too_much(self) -> bool:
        """Return whether so much of the client waits here that no more of it is to be read."""

    def backlog_of(self, server: Connection) -> int:
        """Return how many bytes from an upstream wait here for the client."""

    def is_shut(self, server: Connection) -> bool:
        """Return whether nothing more is to be read from an upstream."""

    def is_unanswered(self, server: Connection) -> bool:
        """Return whether the next bytes of an upstream are the first of an answer to this client."""

    def ask(self) -> events.Event | None:
        """Ask a half-closed client whether it is there. A returned event has to be led to the layer."""

    def give_up(self) -> None:
        """End what is under way: the client has gone."""

    def departures(self) -> list[events.Event]:
        """Return the events that end each stream of a client that has gone."""


class FlowPath(ClientConnection, Protocol):
    """mitmproxy's HTTP layer with our guards (`mitm/flow/`), as the lane before it sees it."""

    quiet: bool
    """True if a credential has been sent for this client, from here or from the lane."""

    def handle_event(self, event: events.Event) -> Commands:
        """Handle an event."""

    def is_between_requests(self) -> bool:
        """Return whether another parser may read what the client sends next."""

    def awaits(self, event: events.Event) -> bool:
        """Return whether an event is of an upstream connection that is kept here, or was asked for here."""
