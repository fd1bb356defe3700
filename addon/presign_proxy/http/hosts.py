"""Host names and addresses, in the one spelling that everything here compares."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ..regexes import late
from .message import DEFAULT_PORT, Origin

if TYPE_CHECKING:
    import ipaddress  # below, only where there may be an address: a signer seldom has one, and would wait

_LABEL = late(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_AUTHORITY = late(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]@/?#\\\s]+)(?::([0-9]{1,5}))?")
# A last label that starts like a number makes resolvers read the whole name as an address, in octal,
# hexadecimal or with missing parts (WHATWG URL, 3.5): only the dotted quad is let through.
_NUMERIC: Final = late(r"(?:0x[0-9a-f]*|[0-9]+)")


def parse_host(text: str) -> str | None:
    """Lower-case name or address without brackets and trailing dot; None where it is neither.

    Names are ASCII: an internationalised one must come as `xn--…`, because IDNA mappings differ and
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
    """The origin that `host[:port]` names under a scheme; None where it is not well-formed."""
    return _parse_authority(text, scheme) if len(text) <= 300 else None


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An address as a socket shows it: without its scope, and IPv4 where it is IPv4 inside IPv6."""
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
    """Whether the name or address can only be this machine."""
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
