"""mitmproxy options that would break the gateway's promises."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

_UNSAFE: Final[Mapping[str, tuple[Any, str]]] = {
    "ssl_insecure": (False, "credentials would go to any server that answers"),
    "proxy_debug": (False, "it prints what is sent, credentials included"),
    "validate_inbound_headers": (True, "requests could be smuggled"),
    "connection_strategy": ("lazy", "hosts would be dialled before the request is known"),
}
"""For each option, its only safe value, and what happens with another."""

_BYPASSES: Final = ("ignore_hosts", "allow_hosts", "tcp_hosts", "udp_hosts")
_NOT_HTTP: Final = (
    "dns",
    *(f"reverse:{scheme}:" for scheme in ("dns", "tcp", "tls", "udp", "dtls", "quic", "http3")),
)
_KEYLOGS: Final = ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE")


def unsafe(options: Any, *, deny_unsigned: bool) -> Iterator[str]:
    """Yield a sentence for each unsafe option."""
    for name, (safe, why) in _UNSAFE.items():
        if name in options and getattr(options, name) != safe:
            yield f"presign: option {name} must be {safe!r}: {why}"
    if not deny_unsigned:
        return
    for mode in options.mode:
        if mode.startswith(_NOT_HTTP):
            yield f"presign: mode {mode.partition(':')[0]} does not carry HTTP, and unsigned is deny"
    for name in _BYPASSES:
        if name in options and getattr(options, name):
            yield f"presign: option {name} is not allowed with unsigned: deny: such hosts bypass the gateway"
    for name in keylogs():
        yield f"presign: ${name} is not allowed with unsigned: deny: it records all TLS session keys"


def keylogs() -> list[str]:
    """Return the environment variables that make TLS session keys be recorded."""
    return [name for name in _KEYLOGS if os.environ.get(name)]


def mistyped(options: Any) -> Iterator[str]:
    """Yield a sentence for each unknown option that begins like ours: mitmproxy ignores it silently."""
    for name in options.deferred:
        if name.startswith("presign"):
            yield f"presign: there is no option {name}; there are presign_config, _unsigned and _lane"
