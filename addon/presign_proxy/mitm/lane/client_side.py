"""The client's side of the lane, as an exchange sees it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mitmproxy.connection import Client


class ClientOutput(Protocol):
    """Where the answers of a client go."""

    @property
    def is_full(self) -> bool:
        """True if the client does not take what there is."""

    def send(self, data: bytes) -> None:
        """Write to the client."""

    def end_output(self) -> bool:
        """Say no more to the client, which may still send. Return whether that is possible."""

    def reset(self) -> None:
        """End the connection with RST, and drop what the client has not taken."""

    def when_drained(self, go_on: Callable[[], None]) -> None:
        """Call `go_on` once the client has taken what there is."""


class ClientSide(Protocol):
    """What an exchange asks of its client's side. The argument `exchange` is the one that calls."""

    @property
    def client(self) -> Client:
        """mitmproxy's connection of the client."""

    @property
    def writer(self) -> ClientOutput:
        """Where its answers go."""

    def hold(self, on: bool) -> None:
        """Read no more from the client while the upstream does not take what there is."""

    def keep_awake(self) -> None:
        """Keep the client, which waits for its answer, from being taken for idle."""

    def proceed(self) -> None:
        """Go on with what has come meanwhile."""

    def over(self, exchange: Any, *, close: bool, now: bool = False) -> None:
        """Go on after an exchange. If `close`, end the connection; if `now`, without waiting."""

    def cut(self, exchange: Any) -> None:
        """End the connection whose exchange has failed."""
