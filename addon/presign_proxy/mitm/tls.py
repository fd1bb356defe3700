"""TLS towards clients: the gateway's own names answer with the owner's certificate, where there is one.

All other names are intercepted ones, and get a certificate of mitmproxy's authority as ever.
"""

from __future__ import annotations

from typing import Any

from mitmproxy import ctx
from mitmproxy.addons import tlsconfig
from mitmproxy.certs import Cert
from mitmproxy.connection import Client
from mitmproxy.net import tls as net_tls
from mitmproxy.proxy.layers import modes
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from ..config.tls_certificate import Certificate
from ..http.hosts import parse_host


class Front:
    """The TLS front, which answers for the names of the gateway."""

    def __init__(self) -> None:
        self._certificate: Certificate | None = None
        self._hosts: frozenset[str] = frozenset()

    def use(self, certificate: Certificate | None, hosts: frozenset[str]) -> None:
        """Use a certificate for these names from now on; connections that are there keep what they have."""
        self._certificate, self._hosts = certificate, hosts

    def start(self, data: TlsData) -> None:
        """Answer for a name of the gateway. mitmproxy's own addon answers for all others."""
        client, certificate = data.conn, self._certificate
        if certificate is None or data.ssl_conn is not None or not isinstance(client, Client):
            return
        if data.is_dtls or parse_host(client.sni or client.sockname[0]) not in self._hosts:
            return
        connection = SSL.Connection(_context(certificate))
        connection.use_certificate(certificate.chain[0])
        connection.use_privatekey(certificate.key)
        connection.set_app_data(_protocols(data))
        connection.set_accept_state()
        data.ssl_conn = connection


def _context(certificate: Certificate) -> SSL.Context:
    """Return a context with the options of mitmproxy's own addon, which keeps one for each combination."""
    options: Any = ctx.options
    addons: Any = ctx.master.addons
    lowest = net_tls.Version[options.tls_version_client_min]
    ciphers = options.ciphers_client.split(":") if options.ciphers_client else ()
    return net_tls.create_client_proxy_context(
        method=net_tls.Method.TLS_SERVER_METHOD,
        min_version=lowest,
        max_version=net_tls.Version[options.tls_version_client_max],
        cipher_list=tuple(ciphers) or tlsconfig._default_ciphers(lowest),
        ecdh_curve=net_tls.get_curve(options.tls_ecdh_curve_client),
        chain_file=None,  # mitmproxy keeps what it once read of a file
        alpn_select_callback=tlsconfig.alpn_select_callback,
        request_client_cert=False,
        extra_chain_certs=tuple(Cert(one) for one in certificate.chain[1:]),
        dhparams=addons.get("tlsconfig").certstore.dhparams,
    )


def _protocols(data: TlsData) -> tlsconfig.AppData:
    """Return the protocols that mitmproxy would offer: over TLS to the proxy itself, HTTP/1 only."""
    client, layers = data.context.client, data.context.layers
    direct = len(layers) == 2 and isinstance(layers[0], modes.HttpProxy)
    return tlsconfig.AppData(
        client_alpn=b"http/1.1" if direct else client.alpn,
        server_alpn=data.context.server.alpn,
        http2=ctx.options.http2,
    )
