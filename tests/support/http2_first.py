"""TLS for httpx that rather speaks HTTP/2."""

import ssl
from collections.abc import Iterable
from pathlib import Path


class Http2First(ssl.SSLContext):
    """httpx offers `http/1.1, h2`, and mitmproxy takes the first: without this it would speak HTTP/1.1."""

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        super().set_alpn_protocols(sorted(alpn_protocols))


def http2_first(authority: Path) -> ssl.SSLContext:
    """A context that trusts this authority and no other."""
    trust = Http2First(ssl.PROTOCOL_TLS_CLIENT)
    trust.load_verify_locations(authority)
    return trust
