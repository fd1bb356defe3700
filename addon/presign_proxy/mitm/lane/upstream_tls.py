"""TLS towards upstreams: the lane trusts what mitmproxy trusts, or what a connection says in its place."""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Iterator
from typing import Any

import certifi

from ...core.way_out import UpstreamTls


def context(options: Any, own: UpstreamTls | None = None) -> ssl.SSLContext:
    """Return a context that verifies certificate and name.

    Not `ssl.create_default_context`, which writes the keys of all sessions to `$SSLKEYLOGFILE`.

    Args:
        options: mitmproxy's, whose authorities are trusted.
        own: the settings of a connection: authorities that are trusted instead, and a client certificate.
    """
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.minimum_version = ssl.TLSVersion.TLSv1_2
    file, directory = options.ssl_verify_upstream_trusted_ca, options.ssl_verify_upstream_trusted_confdir
    if own is not None and own.ca is not None:
        found.load_verify_locations(cadata=own.ca)
    elif file or directory:
        found.load_verify_locations(cafile=file or None, capath=directory or None)
    else:
        found.load_verify_locations(cafile=certifi.where())
    if own is not None and own.key is not None:
        with _as_file(f"{own.key.reveal()}\n{own.chain}") as path:
            # Without a function for the password, OpenSSL would ask the terminal for it.
            found.load_cert_chain(path, password=lambda: "")
        found.post_handshake_auth = True
    found.set_alpn_protocols(["http/1.1"])
    return found


@contextlib.contextmanager
def _as_file(text: str) -> Iterator[str]:
    """Lend a text as a file: `ssl` reads a client certificate from nothing else. It is in memory on Linux.

    The configuration's own files are not read again: they may have changed since they were judged, and a disk
    may hang.
    """
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("presign-client-certificate"), "w", encoding="latin-1") as kept:
            kept.write(text)
            kept.flush()
            yield f"/proc/self/fd/{kept.fileno()}"
        return
    with tempfile.NamedTemporaryFile("w", encoding="latin-1") as file:  # only its owner can read it
        file.write(text)
        file.flush()
        yield file.name
