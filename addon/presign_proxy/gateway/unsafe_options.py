"""mitmproxy options that would undo what the gateway promises."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final

_UNSAFE: Final[Mapping[str, tuple[Any, str]]] = {
    "ssl_insecure": (False, "credentials would go to whoever answers"),
    "proxy_debug": (False, "it prints what is sent, credentials included"),
    "validate_inbound_headers": (True, "requests could be smuggled"),
    "connection_strategy": ("lazy", "hosts would be dialled before the request is known"),
}
"""Option: the only safe value, and what happens otherwise."""

_BYPASSES: Final = ("ignore_hosts", "allow_hosts", "tcp_hosts", "udp_hosts")
_NOT_HTTP: Final = (
    "dns",
    *(f"reverse:{scheme}:" for scheme in ("dns", "tcp", "tls", "udp", "dtls", "quic", "http3")),
)
_KEYLOGS: Final = ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE")


def unsafe(options: Any, *, deny_unsigned: bool) -> Iterator[str]:
    """What is wrong with the options, as sentences."""
    for name, (safe, why) in _UNSAFE.items():
        if name in options and getattr(options, name) != safe:
            yield f"presign: option {name} must be {safe!r}: {why}"
    if not deny_unsigned:
        return
    for mode in options.mode:
        if mode.startswith(_NOT_HTTP):
            yield f"presign: mode {mode.partition(':')[0]} carries something else than HTTP: unsigned is deny"
    for name in _BYPASSES:
        if name in options and getattr(options, name):
            yield f"presign: option {name} is not allowed with unsigned: deny: such hosts bypass the gateway"
    for name in keylogs():
        yield f"presign: ${name} is not allowed with unsigned: deny: it records all TLS session keys"


def keylogs() -> list[str]:
    """The environment variables by which TLS session keys are being recorded."""
    return [name for name in _KEYLOGS if os.environ.get(name)]


def mistyped(options: Any) -> Iterator[str]:
    """Options that begin like ours but are none: mitmproxy ignores them in silence."""
    for name in options.deferred:
        if name.startswith("presign"):
            yield f"presign: there is no option {name}; there are presign_config, _unsigned and _lane"
