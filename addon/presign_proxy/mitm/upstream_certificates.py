"""TLS with upstreams on the flow path, for connections with authorities or a certificate of their own."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakKeyDictionary

import certifi
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from mitmproxy import ctx
from mitmproxy.addons import tlsconfig
from mitmproxy.connection import Server
from mitmproxy.net import tls as net_tls
from mitmproxy.tls import TlsData
from OpenSSL import SSL, crypto

from ..core.way_out import UpstreamTls
from .flow.routes import route_to

_contexts: Final[WeakKeyDictionary[UpstreamTls, tuple[tuple[Any, ...], SSL.Context]]] = WeakKeyDictionary()
"""For settings that are in use, what the options were when it was made, and the context."""
_OPTIONS: Final = (
    "tls_version_server_min",
    "tls_version_server_max",
    "ciphers_server",
    "tls_ecdh_curve_server",
    "ssl_verify_upstream_trusted_ca",
    "ssl_verify_upstream_trusted_confdir",
)


def start(data: TlsData) -> None:
    """Begin TLS with an upstream. mitmproxy's own addon does it where the connection has no `tls`.

    That addon sets up everything else too, such as the name that the certificate must be for. Then the
    context is replaced: whom it trusts, and what it shows.
    """
    if data.ssl_conn is not None or data.is_dtls or not isinstance(data.conn, Server):
        return
    wanted = route_to(data.conn).tls
    if wanted is None:
        return
    context = _context(wanted)
    addons: Any = ctx.master.addons
    addons.get("tlsconfig").tls_start_server(data)
    connection: Any = data.ssl_conn
    connection.set_context(context)


def _context(wanted: UpstreamTls) -> SSL.Context:
    options: Any = ctx.options
    now = tuple([getattr(options, name) for name in _OPTIONS])
    made = _contexts.get(wanted)
    if made is None or made[0] != now:
        made = _contexts[wanted] = now, _made(wanted, options)
    return made[1]


def _made(wanted: UpstreamTls, options: Any) -> SSL.Context:
    lowest = net_tls.Version[options.tls_version_server_min]
    ciphers = options.ciphers_server.split(":") if options.ciphers_server else ()
    context = net_tls._create_ssl_context(
        method=net_tls.Method.TLS_CLIENT_METHOD,
        min_version=lowest,
        max_version=net_tls.Version[options.tls_version_server_max],
        cipher_list=tuple(ciphers) or tlsconfig._default_ciphers(lowest),
        ecdh_curve=net_tls.get_curve(options.tls_ecdh_curve_server),
    )
    context.set_verify(SSL.VERIFY_PEER, None)
    _trust(context, wanted, options)
    if wanted.key is not None:
        leaf, *others = x509.load_pem_x509_certificates(wanted.chain.encode("latin-1"))
        context.use_certificate(leaf)
        for one in others:
            context.add_extra_chain_cert(one)
        context.use_privatekey(load_pem_private_key(wanted.key.reveal().encode("latin-1"), None))  # type: ignore[arg-type]  # of a kind that TLS knows
        context.check_privatekey()
        SSL._lib.SSL_CTX_set_post_handshake_auth(context._context, 1)  # type: ignore[attr-defined]
    return context


def _trust(context: SSL.Context, wanted: UpstreamTls, options: Any) -> None:
    """Trust the authorities of the connection and no other, or those of mitmproxy's options."""
    if wanted.ca is None:
        file, directory = (
            options.ssl_verify_upstream_trusted_ca,
            options.ssl_verify_upstream_trusted_confdir,
        )
        context.load_verify_locations(file or (None if directory else certifi.where()), directory or None)
        return
    store = context.get_cert_store()
    if store is None:
        raise LookupError("there is no store of authorities")
    for one in x509.load_pem_x509_certificates(wanted.ca.encode("latin-1")):
        store.add_cert(crypto.X509.from_cryptography(one))
