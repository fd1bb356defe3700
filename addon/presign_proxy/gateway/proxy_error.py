"""A proxy that does not let the gateway through. Its words are never repeated: they may echo a password."""

from __future__ import annotations

from typing import Final

MARK: Final = "the upstream proxy "
"""The beginning of each reason."""


class ProxyError(OSError):
    """Raised where a proxy refuses, or says something that is no answer. The text holds nothing of it."""

    def __init__(self, why: str) -> None:
        """Args: why: what the proxy did, as in "refused the connection"."""
        super().__init__(MARK + why)
