"""Networks of addresses: parsing them, and deciding which addresses are public.

A source may be fetched from public addresses, and from the networks that its project lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any, Final

from ..errors import Denied

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC_4: Final = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",  # this network, RFC 791
        "10.0.0.0/8",  # private, RFC 1918
        "100.64.0.0/10",  # carrier-grade NAT, RFC 6598; also cloud metadata of some providers
        "127.0.0.0/8",  # loopback, RFC 1122
        "168.63.129.16/32",  # a cloud's host agent, in public space
        "169.254.0.0/16",  # link-local, RFC 3927; cloud metadata
        "172.16.0.0/12",  # private, RFC 1918
        "192.0.0.0/24",  # protocol assignments, RFC 6890
        "192.0.2.0/24",  # documentation, RFC 5737
        "192.31.196.0/24",  # AS112, RFC 7535
        "192.52.193.0/24",  # AMT, RFC 7450
        "192.88.99.0/24",  # 6to4 relay, RFC 7526
        "192.168.0.0/16",  # private, RFC 1918
        "192.175.48.0/24",  # AS112, RFC 7534
        "198.18.0.0/15",  # benchmarking, RFC 2544
        "198.51.100.0/24",  # documentation, RFC 5737
        "203.0.113.0/24",  # documentation, RFC 5737
        "224.0.0.0/4",  # multicast, RFC 5771
        "240.0.0.0/4",  # reserved, RFC 1112; broadcast
    )
)
_GLOBAL_6: Final = ip_network("2000::/3")  # global unicast, RFC 4291; all else embeds or is special
_NOT_PUBLIC_6: Final = tuple(
    ip_network(text)
    for text in (
        "2001::/23",  # protocol assignments, RFC 2928: Teredo embeds IPv4, ORCHID is not routed
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4 embeds IPv4, RFC 3056
        "2620:4f:8000::/48",  # AS112, RFC 7534
        "3fff::/20",  # documentation, RFC 9637
    )
)


def is_in(address: Address, networks: Sequence[Network]) -> bool:
    return bool(networks) and any(address in network for network in networks)


def parse_network(text: str) -> Network | None:
    """Parse a network whose host bits are zero; return None for anything else.

    IPv4 inside IPv6 is None too: client addresses are converted to IPv4, so none would ever match it.
    """
    try:
        network = ip_network(text)
    except ValueError:
        return None
    mapped = isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None
    return None if mapped or "%" in text else network


def is_public(address: Address) -> bool:
    """Return whether an address is global unicast and embeds no other address."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _GLOBAL_6 and not any(address in network for network in _NOT_PUBLIC_6)


def judge(answers: Iterable[str], allowed: Sequence[Network]) -> tuple[str, ...]:
    """Return the addresses, at least one, if every answer of the resolver may be dialled.

    Args:
        answers: addresses as text, at least one.
        allowed: networks whose addresses are accepted even if they are not public.

    Raises Denied("invalid") if any answer is bad, because a name used for DNS rebinding mixes good and bad.
    """
    found: list[str] = []
    for text in answers:
        try:
            address = ip_address(text)
        except ValueError:  # also a scoped address, fe80::1%eth0
            raise Denied("invalid", "the source resolves to something that is not an address") from None
        if not is_public(address) and not any(address in network for network in allowed):
            raise Denied("invalid", "the source resolves to an address that is not public")
        found.append(address.compressed)
    if not found:
        raise Denied("upstream", "the source does not resolve")
    return tuple(found)


def may_be_dialled(peer: tuple[Any, ...] | None, allowed: Sequence[Network] | None) -> bool:
    """Return whether a connection leads to an address that `judge` lets through.

    Args:
        peer: the other end of its socket, address and port; None where that is not known.
        allowed: None where nothing is judged.
    """
    try:
        return allowed is None or (peer is not None and bool(judge([peer[0]], allowed)))
    except Denied:
        return False
