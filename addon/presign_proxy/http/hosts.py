"""Host names and addresses in their canonical spelling, which all comparisons use."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ..regexes import late
from .message import DEFAULT_PORT, Origin

if TYPE_CHECKING:
    import ipaddress  # imported below on use: it is slow to import, and a signer seldom has an address

_LABEL = late(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_AUTHORITY = late(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/?#\\\s]+)(?::([0-9]{1,5}))?")
# If the last label is a number, resolvers read the whole name as an address: in octal, in hexadecimal or with
# missing parts (WHATWG URL, 3.5). Of those only the dotted quad is accepted.
_NUMERIC: Final = late(r"(?:0x[0-9a-f]*|[0-9]+)")


def parse_host(text: str) -> str | None:
    """Return the lower-case name or address, without brackets and trailing dot; None if it is neither.

    Names are ASCII. An internationalised name must be written as `xn--…`, because IDNA mappings differ and
    some turn `①②⑦.0.0.1` into an address.
    """
    host = text.lower()
    if host.startswith("[") and host.endswith("]"):
        import ipaddress

        try:
            return ipaddress.IPv6Address(host[1:-1]).compressed
        except ValueError:
            return None
    host = host.removesuffix(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        return None
    if _NUMERIC.fullmatch(host.rpartition(".")[2]):
        import ipaddress

        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            return None
    return host


@lru_cache(maxsize=1024)
def _parse_authority(text: str, scheme: str) -> Origin | None:
    match = _AUTHORITY.fullmatch(text)
    host = parse_host(match[1]) if match else None
    if match is None or host is None:
        return None
    port = int(match[2]) if match[2] else DEFAULT_PORT.get(scheme, 0)
    return Origin(scheme, host, port) if 0 < port < 65536 else None


def parse_authority(text: str, scheme: str) -> Origin | None:
    """Return the origin that `host[:port]` names under a scheme; None if it is not well-formed."""
    return _parse_authority(text, scheme) if len(text) <= 300 else None


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address as a socket shows it. Drops the scope; IPv4 inside IPv6 becomes IPv4.

    Returns None if it is not an address.
    """
    return _parse_address(text) if len(text) <= 64 else None


@lru_cache(maxsize=1024)
def _parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    import ipaddress

    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def is_loopback(host: str) -> bool:
    """Return whether the name or address always means this machine."""
    return len(host) <= 300 and _is_loopback(host)


@lru_cache(maxsize=1024)
def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    if ":" not in host and not host[-1:].isdigit():
        return False  # a name
    import ipaddress

    try:
        address = ipaddress.ip_address(host)
        return address.is_loopback or address.is_unspecified
    except ValueError:
        return False
