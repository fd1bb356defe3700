"""The URL of a proxy, and the destinations that are reached without one, as they are written."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from ..core.way_out import Exempt, UpstreamProxy
from ..http import percent
from ..http.hosts import parse_authority, parse_host
from ..http.networks import parse_network
from ..regexes import late
from ..signing.secret import Secret

PROXY_URL: Final = r"(http|socks5)://[!-~]+"
"""The pattern of a proxy's URL in a configuration."""
_URL = late(r"(?P<scheme>[a-z0-9]+)://(?:(?P<user>[^@/?#\s]*)@)?(?P<place>[^@/?#\s]+)/?")
_PORT = late(r"(?P<name>.*[^:]|\[[^\]]*\]):(?P<port>[0-9]{1,5})")
_SCHEMES: Final = {"http": "http", "socks5": "socks5", "socks5h": "socks5"}
_MAX_PART: Final = 255
"""Bytes of a user or a password (RFC 1929)."""

NO_URL: Final = (
    "has to be the URL of a proxy with its port, as in http://user@proxy.example:3128 or socks5://…"
)
NO_TLS: Final = "is https: TLS to the proxy itself is not supported; use the http:// port of the proxy"
NO_USER: Final = "names no user in url, and so cannot have a password"
LONG: Final = "is empty, longer than 255 bytes, or holds a control character"


class ProxyAddress(NamedTuple):
    """A proxy's URL in parts. `password`: only from the environment; None if the URL has none."""

    scheme: str
    host: str
    port: int
    user: str = ""
    password: Secret | None = None


def parse_proxy(text: str) -> ProxyAddress:
    """Parse the URL of a proxy. Raises ValueError, whose text holds nothing of it."""
    match = _URL.fullmatch(text) if len(text) <= 1024 else None
    if match is None:
        raise ValueError(NO_URL)
    if match["scheme"] == "https":
        raise ValueError(NO_TLS)
    origin = parse_authority(match["place"], "")  # of no scheme: there is no port that goes without saying
    if match["scheme"] not in _SCHEMES or origin is None:
        raise ValueError(NO_URL)
    name, colon, word = (match["user"] or "").partition(":")
    user = _unquoted(name)
    if (match["user"] is not None and not fits(user)) or ":" in user:
        raise ValueError("its user is empty, longer than 255 bytes, or holds a colon or a control character")
    password = Secret(_unquoted(word)) if colon else None
    if password is not None and not fits(password.reveal()):
        raise ValueError(f"its password {LONG}")
    return ProxyAddress(_SCHEMES[match["scheme"]], origin.host, origin.port, user, password)


def _unquoted(text: str) -> str:
    try:
        return percent.decode(text.encode("utf-8")).decode("utf-8")
    except UnicodeDecodeError:
        return ""


def fits(text: str) -> bool:
    """Return whether a proxy can be told a text as its user or password."""
    return 0 < len(text.encode()) <= _MAX_PART and text.isprintable()


def proxy_of(address: ProxyAddress, password: Secret | None) -> UpstreamProxy:
    """Return the proxy with the password that it is told."""
    said = f"{address.user}\0{password.reveal() if password is not None else ''}"
    return UpstreamProxy(
        "socks5" if address.scheme == "socks5" else "http",
        address.host,
        address.port,
        address.user,
        password,
        hashlib.sha256(said.encode()).hexdigest() if address.user else "",
    )


def parse_exempt(text: str) -> Exempt | None:
    """Parse an entry of `no_proxy`; return None if it is none.

    `example.com` is this name and all below it, `.example.com` only those below it, `10.0.0.0/8` a network,
    `*` everything. Each may end with a port.
    """
    text = text.strip().lower()
    if (network := parse_network(text)) is not None:
        return Exempt(network=network)
    match = _PORT.fullmatch(text)
    port = int(match["port"]) if match else None
    name = match["name"] if match else text
    if port is not None and not 0 < port < 65536:
        return None
    if name == "*":
        return Exempt(port=port)
    if (network := parse_network(name.removeprefix("[").removesuffix("]"))) is not None:
        return Exempt(network=network, port=port)
    below = name.startswith((".", "*."))
    host = parse_host(name.removeprefix("*").removeprefix(".") if below else name)
    if host is None or len(text) > 300:
        return None
    return Exempt("" if below else host, f".{host}", None, port)
