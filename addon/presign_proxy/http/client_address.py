"""The address of a client, also behind proxies that the operator trusts."""

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
"""Most trusted proxies in a row. A client wrote a longer list; no real network has so many."""
CLIENT_PREFIX: Final = 64
"""Bits of an IPv6 address that one client cannot choose (RFC 6177: a site has a /64 or more)."""

_FORWARDED_FOR: Final = b"x-forwarded-for"
# Proxies write an address. Some add the port of the connection, and put IPv6 in brackets then.
_HOP = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")


def client_of(request: Request, trusted: Sequence[Network]) -> Address | None:
    """Return the client's address, as `client_address` does; None if it is unknown.

    Inside a tunnel opened through a trusted proxy the address is unknown. Only the CONNECT could carry it,
    and the client wrote the X-Forwarded-For inside. We do not fall back to the proxy's own address: a list
    of clients that contains it would admit every client behind the proxy.
    """
    if request.tunnelled and (peer := parse_address(request.client)) is not None and is_in(peer, trusted):
        return None
    return client_address(request.client, request.fields, trusted)


def client_address(peer: str, fields: Fields, trusted: Sequence[Network]) -> Address | None:
    """Return the client's address; None if it is unknown. No list of clients admits an unknown address.

    The address is the peer's, unless the peer is a trusted proxy. Then X-Forwarded-For is read from right to
    left, because each proxy appends the address of its own client. The first address that is not trusted is
    the client; the client itself may have written what is left of it. If all addresses are trusted, the
    leftmost is the client. IPv4 inside IPv6 counts as IPv4.

    Args:
        peer: the address as the socket shows it.
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
    """Return the origin to which a client of the gateway sent its request; empty in reverse mode.

    In reverse mode the origin is unknown. A trusted proxy that ends TLS says so in X-Forwarded-Proto. Only
    the last value counts: the client may have written those before it.
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
    """Return an address, as a socket shows it, in its canonical spelling."""
    return _shown(peer) if len(peer) <= 64 else peer


@lru_cache(maxsize=1024)
def _shown(peer: str) -> str:
    address = parse_address(peer)
    return peer if address is None else str(address)


@lru_cache(maxsize=1024)
def bucket(address: Address | None) -> str:
    """Return the name under which a client is counted: its IPv4 address, or the /64 of its IPv6 address.

    All clients without a known address share the name `unknown`.
    """
    if isinstance(address, IPv6Address):
        return str(IPv6Network((int(address), CLIENT_PREFIX), strict=False))
    return str(address) if address is not None else "unknown"
