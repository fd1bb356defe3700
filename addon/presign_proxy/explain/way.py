"""What is said of the way to an upstream: directly or through the proxy, and with which TLS settings."""

from __future__ import annotations

from ..core.connection import Connection
from ..core.way_out import WayOut
from ..http.message import Origin


def way_of(way_out: WayOut, known: Connection, origin: Origin | None) -> tuple[str, ...]:
    """Return sentences about the way; none where it is the ordinary one.

    Args:
        origin: where it leads; None if that depends on the source.
    """
    said = []
    if way_out.https is not None or way_out.http is not None:
        said.append(_proxy(way_out, known, origin))
    if known.tls is not None and known.tls.ca is not None:
        said.append("TLS: only the authorities of tls.ca are trusted")
    if known.tls is not None and known.tls.chain:
        said.append("TLS: the client certificate of the connection is shown")
    return tuple(said)


def _proxy(way_out: WayOut, known: Connection, origin: Origin | None) -> str:
    if known.direct:
        return "reached directly: upstream_proxy is none"
    if origin is None:
        return f"reached {way_out}"
    proxy = way_out.proxy_for(origin.scheme, origin.host, origin.port)
    return f"reached through {proxy}" if proxy is not None else "reached directly: the proxy is not for it"
