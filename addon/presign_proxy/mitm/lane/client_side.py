"""The client's side of the lane, as what serves on it sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mitmproxy.connection import Client


class ClientSide(Protocol):
    """Where the answers of one client go. `exchange` is the one that calls."""

    @property
    def client(self) -> Client: ...

    @property
    def is_full(self) -> bool:
        """Whether the client does not take what there is."""

    def send(self, data: bytes) -> None:
        """Write to the client."""

    def when_drained(self, go_on: Callable[[], None]) -> None: ...

    def hold(self, on: bool) -> None:
        """Read no more from the client while the upstream does not take what there is."""

    def keep_awake(self) -> None: ...

    def proceed(self) -> None:
        """Go on with what has come meanwhile."""

    def over(self, exchange: Any, *, close: bool, now: bool = False) -> None:
        """An exchange has ended, and with it, if `close`, the connection; `now` without waiting."""

    def cut(self, exchange: Any) -> None:
        """End the connection whose exchange has failed."""
