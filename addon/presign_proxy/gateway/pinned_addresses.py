"""The addresses of destinations that were judged, and that a client's connections go to from then on."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakKeyDictionary

MAX_PINS: Final = 256
"""Names that are pinned for one client."""


class PinnedAddresses:
    """For each client connection, the judged address of each name and port.

    A name is not resolved a second time between the judgement and the connection: it could answer differently
    (DNS rebinding).
    """

    def __init__(self) -> None:
        self._of: WeakKeyDictionary[Any, dict[tuple[str, int], str]] = WeakKeyDictionary()

    def pin(self, client: Any, host: str, port: int, address: str) -> None:
        """Let this client's connections to a name go to the address that was judged last."""
        pins = self._of.setdefault(client, {})
        if len(pins) >= MAX_PINS:
            pins.clear()
        pins[host, port] = address

    def find(self, client: Any, host: str, port: int) -> str | None:
        """Return the address that this client's connections to a name go to, or None."""
        return self._of.get(client, {}).get((host, port))

    def forget(self, client: Any) -> None:
        """Drop the addresses of a client that has gone."""
        self._of.pop(client, None)
