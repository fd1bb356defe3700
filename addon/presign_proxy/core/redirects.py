"""Redirects for clients that use the gateway as their proxy."""

from __future__ import annotations

import re
from typing import Final

from ..http.hosts import parse_address, parse_authority

# A form that all clients read alike: a host after two slashes, no user name, control, blank or backslash.
_AWAY: Final = re.compile(r"(?:(https?):)?//([^/?#@\\]+)(?:[/?#].*)?", re.IGNORECASE)
_PLAIN: Final = re.compile(rb"[!-\[\]-~]+")
_DIRECT: Final = frozenset(("localhost", "local"))
"""Top-level names that macOS and browsers request without a proxy."""


def comes_back(value: bytes, scheme: str) -> bool:
    """Return whether a client follows a redirect to another origin through this gateway.

    Then the redirect is safe, because the gateway lets no presign pass to that origin. A client has one proxy
    for each scheme, so the scheme must be the one that it used. Many clients request addresses and names
    without a dot directly.

    Args:
        value: the value of `Location`.
        scheme: the scheme for which the gateway is the client's proxy; empty if it is not.
    """
    found = _AWAY.fullmatch(value.decode("ascii")) if scheme and _PLAIN.fullmatch(value) else None
    if found is None or (found[1] or scheme).lower() != scheme:
        return False
    named = parse_authority(found[2], scheme)
    if named is None or parse_address(named.host) is not None:
        return False
    return "." in named.host and named.host.rpartition(".")[2] not in _DIRECT
