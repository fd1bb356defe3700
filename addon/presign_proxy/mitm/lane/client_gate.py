"""The gate before a client's socket: it is shut while what the client sends would pile up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from mitmproxy.connection import Client

from ...http.message import MAX_HEAD
from ..backpressure import GatedReader
from .client_reader import ClientReader, Taker

if TYPE_CHECKING:
    from .shared import LaneShared


MAX_AHEAD: Final = MAX_HEAD
"""Bytes held of what one client sent, before no more is read from it: as many as the longest head has.

A client that sends requests ahead and takes no answer holds no more than that, and what one read brings.
"""


class ClientGate:
    """Reads on, unless an upstream does not take what there is, or too much of it is held here."""

    __slots__ = ("_client", "_io", "_reader", "_shared", "_shut", "held")

    def __init__(self, client: Client, shared: LaneShared) -> None:
        self._client = client
        self._shared = shared
        self._io: Any = None
        self.held = False
        """True if an upstream does not take what there is."""
        self._shut = False
        self._reader: ClientReader | None = None
        """What reads the socket in the place of mitmproxy; None where that reads."""

    def connect(self, io: Any) -> None:
        """Begin.

        Args:
            io: what mitmproxy's handler has of the client's own connection, or None.
        """
        self._io = io

    def hold(self, on: bool, held_bytes: int) -> None:
        """Read no more from the client while the upstream does not take what there is."""
        self.held = on
        self.check(held_bytes)

    def check(self, held_bytes: int) -> None:
        """Open or shut.

        Args:
            held_bytes: how much the client has sent that is held here.
        """
        shut = self.held or held_bytes > MAX_AHEAD
        if shut != self._shut:
            self._shut = shut
            self._shared.clients.pause(self._client, shut)
            if self._reader is not None:
                self._reader.read(not shut)
        if self._reader is None:
            reader = self._io.reader if self._io is not None else None
            if isinstance(reader, GatedReader):  # which looks at the bytes that are held itself
                reader.hold(self.held, self)

    def take_over(self, stream: Any, taker: Taker) -> None:
        """Read the socket in the place of mitmproxy from now on.

        Only in mitmproxy's task that reads: while another task runs, that one may hold bytes that it has not
        delivered yet, and what is read here would overtake them.
        """
        if self._reader is None and not self._shut and asyncio.current_task() is self._io.handler:
            self._reader = ClientReader.over(stream, self._io.reader, taker)

    def give_back(self) -> None:
        """Open, and let mitmproxy read again."""
        self.hold(False, 0)
        if self._reader is not None:
            self._reader.give_back()
            self._reader = None
