"""What the clients over HTTP/2 of one worker share, so that none of them keeps the others waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..limits.client_shares import Shares, streams_of
from . import sockets, waker
from .http2_turns import Turns

READS: Final = 4
"""Pieces of answers to clients over HTTP/2 that are read in one turn of the event loop."""


class Http2Fairness:
    """The room and the turns that clients over HTTP/2 share."""

    def __init__(self, max_clients: Callable[[], int]) -> None:
        """Args: max_clients: how many client connections there may be."""
        self.shares = Shares(lambda: streams_of(max_clients()))
        """Streams under way, and bytes of answers that wait for their clients."""
        self.starts = Turns(sockets.call)
        """The turns in which streams are begun."""
        self.reads = Turns(waker.call, READS)
        """The turns in which answers are read."""

    def forget(self, client: Any) -> None:
        """Give back the share of a client that has gone."""
        self.shares.forget(client)
