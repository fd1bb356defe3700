"""TLS with clients, as far as mitmproxy leaves the size of the first message open."""

from __future__ import annotations

from typing import Final

from mitmproxy.proxy import layer, layers

MAX_HELLO: Final = 16 * 1024
"""Bytes of a ClientHello; with post-quantum key shares they have about two thousand."""


class GuardedClientTLSLayer(layers.ClientTLSLayer):
    """A ClientHello of bounded size: mitmproxy parses all of it again with every byte that comes."""

    def receive_handshake_data(self, data: bytes) -> layer.CommandGenerator[tuple[bool, str | None]]:
        try:
            if not self.client_hello_parsed and len(self.recv_buffer) + len(data) > MAX_HELLO:
                self.recv_buffer.clear()
                return False, "the ClientHello is too large"
            return (yield from super().receive_handshake_data(data))
        except Exception as error:
            return False, f"presign: failed at the handshake ({type(error).__name__})"
