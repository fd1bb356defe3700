"""The schema of the configuration file. A key that is not listed here is an error."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from ...http.hosts import parse_host
from ..proxy_url import PROXY_URL, parse_exempt, parse_proxy
from ..values import (
    GATEWAY_URL,
    REGISTRY_FILE,
)
from .connections import ConnectionEntry
from .values import (
    ConnectionId,
    KeySources,
    SecretValue,
    Strict,
)

_HOST_PORT = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")


class FrontConfig(Strict):
    """The certificate of the gateway's own names, and its key, in PEM form."""

    cert: str = Field(min_length=1)
    key: str = Field(min_length=1)
    plain_http: bool = False


def _proxy_url(value: Any) -> str:
    found = parse_proxy(value if isinstance(value, str) else "")
    if found.password is not None:
        raise ValueError("holds a password, and URLs end up in logs: write it as password, beside url")
    return str(value)


def _exempt(value: Any) -> str:
    if not isinstance(value, str) or parse_exempt(value) is None:
        raise ValueError("has to be a name, .suffix, address, network or *, each with or without :PORT")
    return value


ProxyUrl = Annotated[
    str, PlainValidator(_proxy_url), WithJsonSchema({"type": "string", "pattern": f"^{PROXY_URL}$"})
]
NoProxy = Annotated[
    str, PlainValidator(_exempt), WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 300})
]


class ProxyConfig(Strict):
    """The proxy that upstreams are reached through."""

    url: ProxyUrl
    password: SecretValue | None = None
    no_proxy: list[NoProxy] = Field(default_factory=list, max_length=1000)


UpstreamProxyChoice = Annotated[
    Annotated[ProxyConfig, Tag("one")] | Annotated[Literal["env"], Tag("env")],
    Discriminator(lambda value: "env" if isinstance(value, str) else "one"),
]


class GatewayConfig(Strict):
    hosts: list[str] = Field(default=["presign.local"])
    # The address that `presign sign` puts into URLs. The gateway itself answers to `hosts`.
    url: Annotated[str, Field(pattern=f"^{GATEWAY_URL}$")] | None = None
    tls: FrontConfig | None = None
    unsigned: Literal["pass", "deny"] = "pass"
    trusted_proxies: list[str] = Field(default_factory=list)
    upstream_proxy: UpstreamProxyChoice | None = None
    # In each process. A busy client takes three descriptors, and `presign serve` allows itself 65,536.
    max_clients: int = Field(default=1000, ge=1, le=30_000)

    @property
    def tls_only(self) -> bool:
        """Whether URLs of the gateway are refused over plain HTTP."""
        return self.tls is not None and not self.tls.plain_http


class RegistryConfig(Strict):
    file: Annotated[str, Field(pattern=f"^{REGISTRY_FILE}$")]
    key: KeySources | None = None


class AuditConfig(Strict):
    """The audit file. `required`: grant nothing while it cannot be written."""

    file: str = Field(min_length=1)
    required: bool = False


class LimitsConfig(Strict):
    """The store that counts limits. The password is not part of the URL, because URLs end up in logs."""

    store: Annotated[str, Field(pattern=r"^(memory://|sqlite:///[^\x00-\x1f]+|rediss?://[!-~]+)$")] = (
        "sqlite:///presign.db"
    )
    password: SecretValue | None = None
    ca: str | None = Field(default=None, min_length=1)


class HostPort(NamedTuple):
    """An address to listen on; an IPv6 address has no brackets here."""

    host: str
    port: int


def _host_port(value: Any) -> HostPort:
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    host = parse_host(match[1]) if match else None
    if match is None or host is None or not 0 < int(match[2]) < 65536:
        raise ValueError("has to be HOST:PORT, as in 127.0.0.1:9464")
    return HostPort(host, int(match[2]))


class AdminConfig(Strict):
    """The listener for health and metrics. No proxied request ever reaches it."""

    listen: Annotated[
        HostPort,
        PlainValidator(_host_port),
        WithJsonSchema({"type": "string", "pattern": f"^{_HOST_PORT.pattern}$"}),
    ]


PRESETS_FILE: Final = r"[^\x00-\x1f]+\.(yaml|yml|json)"


class Config(Strict):
    """The whole file."""

    gateway: GatewayConfig = GatewayConfig()
    presets: Annotated[str, Field(pattern=f"^{PRESETS_FILE}$")] | None = None
    registry: RegistryConfig | None = None
    connections: dict[ConnectionId, ConnectionEntry] = Field(default_factory=dict)
    audit: AuditConfig | None = None
    limits: LimitsConfig = LimitsConfig()
    admin: AdminConfig | None = None
