"""Where a redirect leads a client whose proxy the gateway is."""

from __future__ import annotations

import re
from typing import Final

from ..http.hosts import parse_address, parse_authority

# Read alike by every client: a host right behind two slashes; no user name, control, blank or backslash.
_AWAY: Final = re.compile(r"(?:(https?):)?//([^/?#@\\]+)(?:[/?#].*)?", re.IGNORECASE)
_PLAIN: Final = re.compile(rb"[!-\[\]-~]+")
_DIRECT: Final = frozenset(("localhost", "local"))
"""Top-level names that macOS and browsers ask without any proxy."""


def comes_back(value: bytes, scheme: str) -> bool:
    """Whether a client follows a redirect to another origin through this gateway, which lets no presign go
    there.

    A client has one proxy for each scheme, so only under the scheme that it came by. Addresses and names
    without a dot are asked directly by many.

    Args:
        value: of `Location`.
        scheme: under which the client asks its proxy; empty where the gateway is no proxy to it.
    """
    found = _AWAY.fullmatch(value.decode("ascii")) if scheme and _PLAIN.fullmatch(value) else None
    if found is None or (found[1] or scheme).lower() != scheme:
        return False
    named = parse_authority(found[2], scheme)
    if named is None or parse_address(named.host) is not None:
        return False
    return "." in named.host and named.host.rpartition(".")[2] not in _DIRECT
