"""TLS towards upstreams: the lane trusts what mitmproxy trusts, neither more nor less."""

from __future__ import annotations

import ssl
from typing import Any

import certifi


def context(options: Any) -> ssl.SSLContext:
    """Return a context that verifies certificate and name against the authorities of mitmproxy's options.

    Not `ssl.create_default_context`, which writes the keys of all sessions to `$SSLKEYLOGFILE`.
    """
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    file, directory = options.ssl_verify_upstream_trusted_ca, options.ssl_verify_upstream_trusted_confdir
    if file or directory:
        found.load_verify_locations(cafile=file or None, capath=directory or None)
    else:
        found.load_verify_locations(cafile=certifi.where())
    found.set_alpn_protocols(["http/1.1"])
    return found
