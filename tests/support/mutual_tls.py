"""An upstream over TLS that asks for a client certificate, and says whose it was shown."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme

from support.gateways import TLS_NAMES


class MutualTls:
    """`required`: without a certificate of `clients` there is no connection; else it is only asked for."""

    def __init__(self, server: trustme.CA, clients: trustme.CA, *, required: bool = True) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.issue_cert(*TLS_NAMES).configure_cert(context)
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        self.shown: list[tuple[str, str]] = []
        """For each request its path, and the common name of the certificate that its connection has shown."""
        shown = self.shown

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                found: Any = self.connection
                shown.append((self.path, _name(found.getpeercert())))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _name(certificate: dict[str, Any] | None) -> str:
    for group in (certificate or {}).get("subject", ()):
        for key, value in group:
            if key == "commonName":
                return str(value)
    return ""


def client_files(authority: trustme.CA, name: str, directory: Path) -> tuple[str, str]:
    """Write a certificate and its key, and return their names in that directory."""
    found = authority.issue_cert(common_name=name)
    cert, key = directory / f"{name}.crt", directory / f"{name}.key"
    cert.write_bytes(b"".join(one.bytes() for one in found.cert_chain_pems))
    key.write_bytes(found.private_key_pem.bytes())
    for path in (cert, key):
        path.chmod(0o600)
    return str(cert), str(key)
