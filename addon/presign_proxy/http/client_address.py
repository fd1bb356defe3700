"""Who asks: the address of a client, where proxies that the operator trusts may stand before the gateway."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

from .hosts import parse_address
from .message import DEFAULT_PORT, Fields, Origin, Request
from .networks import Address, Network, is_in

MAX_HOPS: Final = 16
"""Trusted proxies in a row; a longer list is somebody's, not a network's."""
CLIENT_PREFIX: Final = 64
"""Bits of an IPv6 address that one client cannot choose (RFC 6177: a site has a /64 or more)."""

_FORWARDED_FOR: Final = b"x-forwarded-for"
# As proxies write it: an address, some with the port of the connection, IPv6 then in brackets.
_HOP = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")


def client_of(request: Request, trusted: Sequence[Network]) -> Address | None:
    """The address a request comes from, as `client_address` has it.

    Nobody can tell of what comes inside a tunnel from a trusted proxy: at most, that adds whom it heard to
    the CONNECT, and X-Forwarded-For inside is the client's own words. Nor is it the proxy's address: a list
    of clients that holds that would admit whomever it connects.
    """
    if request.tunnelled and (peer := parse_address(request.client)) is not None and is_in(peer, trusted):
        return None
    return client_address(request.client, request.fields, trusted)


def client_address(peer: str, fields: Fields, trusted: Sequence[Network]) -> Address | None:
    """The address a request comes from; None where nobody can tell, which no list of clients admits.

    It is the peer's, unless that is a trusted proxy: then X-Forwarded-For is read from its right end, where
    each proxy adds whom it heard, as far as the first that is not trusted. What stands left of that is
    whatever the client wrote. Where all are trusted it is the leftmost; IPv4 inside IPv6 is IPv4.

    Args:
        peer: as the socket shows it.
        fields: the header of the request, its size checked.
    """
    address = parse_address(peer)
    if address is None or not is_in(address, trusted):
        return address
    lines = [value for name, value in fields if name.lower() == _FORWARDED_FOR]
    if not lines:
        return address
    hops = b",".join(lines).decode("latin-1").rsplit(",", MAX_HOPS)
    for hop in reversed(hops if len(hops) <= MAX_HOPS else hops[1:]):
        found = _parse_hop(hop.strip(" \t"))
        if found is None or not is_in(found, trusted):
            return found
        address = found
    return address if len(hops) <= MAX_HOPS else None


def public_origin(request: Request, trusted: Sequence[Network]) -> str:
    """Where a client that is at the gateway has sent its request, as a URL begins; empty in reverse mode,
    where that is not known.

    A trusted proxy that ends TLS says so in X-Forwarded-Proto; what stands left of its word is the client's.
    """
    if request.reverse:
        return ""
    origin, peer = request.origin, parse_address(request.client)
    if trusted and not request.tunnelled and peer is not None and is_in(peer, trusted):
        lines = [value for name, value in request.fields if name.lower() == b"x-forwarded-proto"]
        if lines and lines[-1].rpartition(b",")[2].strip().lower() == b"https":
            port = 443 if origin.port == DEFAULT_PORT[origin.scheme] else origin.port
            origin = Origin("https", origin.host, port)
    return str(origin)


def _parse_hop(text: str) -> Address | None:
    match = _HOP.fullmatch(text)
    if match is None:
        return None
    try:
        address = ip_address(match[1] or match[2] or match[3])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def shown(peer: str) -> str:
    """An address as a socket shows it, in its one spelling."""
    return _shown(peer) if len(peer) <= 64 else peer


@lru_cache(maxsize=1024)
def _shown(peer: str) -> str:
    address = parse_address(peer)
    return peer if address is None else str(address)


@lru_cache(maxsize=1024)
def bucket(address: Address | None) -> str:
    """Under which name a client is counted: its IPv4 address, or the /64 of its IPv6 one; all that nobody
    can tell apart share one.
    """
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), CLIENT_PREFIX), strict=False))
    return str(address) if address is not None else "unknown"
