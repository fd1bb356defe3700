"""The shape of the configuration file. Every key that is not here is an error."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from . import grammar
from .hosts import parse_authority, parse_host
from .limits.model import LimitEntry
from .values import (
    MAX_REGISTRY_KEYS,
    REGISTRY_FILE,
    KeySource,
    SecretSource,
    duration,
    instant,
    key_sources,
    secret_source,
)

ConnectionId = Annotated[str, Field(pattern=f"^{grammar.CONNECTION_ID}$")]
KeyId = Annotated[str, Field(pattern=f"^{grammar.KEY_ID}$")]
Method = Annotated[str, Field(pattern=rf"^(\*|{grammar.METHOD})$")]
Port = Annotated[int, Field(ge=1, le=65535)]
_HOST_PORT = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")
_PREFIX = re.compile(r"[!-~][ -~]{0,62}[ =:]")
# Not headers that frame, route or end a message, and none of ours.
_RESERVED: Final = frozenset(
    b"connection content-encoding content-length content-type expect host keep-alive proxy-authorization "
    b"proxy-connection te trailer transfer-encoding upgrade".decode().split()
)


def _header_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(
        r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,126}[A-Za-z0-9])?", value
    ):
        raise ValueError("has to be the name of a header: letters and digits, with - between them")
    folded = value.lower().replace("_", "-")
    if folded in _RESERVED or folded.startswith("x-presign"):
        raise ValueError("is a header that the gateway itself has to set")
    return value


HeaderName = Annotated[
    str, PlainValidator(_header_name), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"})
]
ParamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\[\]-]{1,128}$")]

HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]{0,1024}$")]


def _header_prefix(value: Any) -> str:
    if not isinstance(value, str) or not _PREFIX.fullmatch(value):
        raise ValueError("has to be the words before the key, with the blank, = or : between them")
    return value


HeaderPrefix = Annotated[
    str,
    PlainValidator(_header_prefix),
    WithJsonSchema({"type": "string", "pattern": f"^{_PREFIX.pattern}$"}),
]


_REFERENCES: Final[list[dict[str, Any]]] = [
    {
        "type": "object",
        "properties": {"env": {"type": "string"}},
        "required": ["env"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {"file": {"type": "string"}},
        "required": ["file"],
        "additionalProperties": False,
    },
    {
        "type": "object",
        "properties": {
            "exec": {"type": "array", "items": {"type": "string"}, "minItems": 1},
            "ttl": {"type": "string", "pattern": "^[0-9]{1,9}[smhdw]$"},
        },
        "required": ["exec"],
        "additionalProperties": False,
    },
]

SecretValue = Annotated[
    SecretSource,
    PlainValidator(secret_source),
    WithJsonSchema({"oneOf": [{"type": "string", "minLength": 1}, *_REFERENCES]}),
]


_PASSPHRASE: Final = {
    "type": "object",
    "properties": {"passphrase": {"oneOf": _REFERENCES}},
    "required": ["passphrase"],
    "additionalProperties": False,
}
_ONE_KEY: Final = [*_REFERENCES, _PASSPHRASE]

KeySources = Annotated[
    tuple[KeySource, ...],
    PlainValidator(key_sources),
    WithJsonSchema(
        {
            "oneOf": [
                *_ONE_KEY,
                {
                    "type": "array",
                    "items": {"oneOf": _ONE_KEY},
                    "minItems": 1,
                    "maxItems": MAX_REGISTRY_KEYS,
                },
            ]
        }
    ),
]


Duration = Annotated[
    int, PlainValidator(duration), WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,9}[smhdw]$"})
]


Instant = Annotated[int, PlainValidator(instant), WithJsonSchema({"type": "string", "format": "date-time"})]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class BearerAuth(Strict):
    type: Literal["bearer"]
    token: SecretValue


class BasicAuth(Strict):
    type: Literal["basic"]
    username: SecretValue | None = None
    password: SecretValue | None = None


class HeaderAuth(Strict):
    type: Literal["header"]
    headers: dict[HeaderName, SecretValue] = Field(min_length=1)
    prefix: dict[HeaderName, HeaderPrefix] = Field(default_factory=dict)


class QueryAuth(Strict):
    type: Literal["query"]
    params: dict[ParamName, SecretValue] = Field(min_length=1)


Auth = Annotated[BearerAuth | BasicAuth | HeaderAuth | QueryAuth, Field(discriminator="type")]


class SigningKeyEntry(Strict):
    id: KeyId | None = None
    secret: SecretValue
    added: Instant | None = None
    not_after: Instant | None = None
    weak: bool = False


class Allow(Strict):
    methods: list[Method] = Field(default=["*"], min_length=1, max_length=64)
    paths: list[str] = Field(default=["*"], min_length=1, max_length=1024)


class Timeouts(Strict):
    connect: Duration = 10
    response: Duration = 600
    body: Duration = 60


def _also_host(value: Any) -> str:
    if not isinstance(value, str) or parse_authority(value, "https") is None:
        raise ValueError("has to be a host, as in objects.example.com, or HOST:PORT; no scheme, path or *")
    return value


# What frames an answer, what the gateway takes off or sets, and Refresh, in which a URL is but a part.
_NO_URLS: Final = re.compile(
    "connection|content-(encoding|length|security-policy|type)|date|etag|keep-alive|proxy-.*|refresh|server|"
    "set-cookie2?|trailer|transfer-encoding|upgrade|vary|via|www-authenticate|x-presign-.*",
    re.IGNORECASE,
)
_URL_HEADER: Final = re.compile("[A-Za-z][A-Za-z0-9-]{0,99}")


def _url_header(value: Any) -> str:
    if not isinstance(value, str) or not _URL_HEADER.fullmatch(value) or _NO_URLS.fullmatch(value):
        raise ValueError("is the name of a response header that holds one URL, and has no other meaning")
    return value


AlsoHost = Annotated[
    str,
    PlainValidator(_also_host),
    WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9._:\\[\\]-]{1,300}$"}),
]


UrlHeader = Annotated[
    str,
    PlainValidator(_url_header),
    WithJsonSchema({"type": "string", "pattern": f"^{_URL_HEADER.pattern}$"}),
]


class CommonConnection(Strict):
    """What connections of both schemes have."""

    enabled: bool = True
    signing_keys: list[SigningKeyEntry] = Field(default_factory=list, max_length=4)
    cookies: Literal["strip", "pass"] = "strip"
    redirects: Literal["safe", "pass"] = "safe"
    cache: Literal["private", "pass"] = "private"
    on_client_credentials: Literal["replace", "reject"] = "replace"
    insecure_upstream: bool = False
    pool: bool | Literal["on", "off"] = True
    timeouts: Timeouts = Timeouts()
    limits: list[LimitEntry] = Field(default_factory=list, max_length=16)
    max_uses: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None


class PresignConnection(CommonConnection):
    """A registered API."""

    scheme: Literal["presign"] = "presign"
    preset: str | None = None
    vars: dict[str, str] = Field(default_factory=dict)
    upstream: str
    auth: Auth
    default_headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    allow: Allow = Allow()
    max_lifetime: Duration | None = None
    allow_no_expiry: bool = True
    head_as_get: bool = False
    allow_encoded_slash: bool = False
    also: list[AlsoHost] = Field(default_factory=list, max_length=50)
    allow_networks: list[str] = Field(default_factory=list)
    challenge: Literal["none", "basic"] = "none"
    url_headers: list[UrlHeader] = Field(default_factory=list, max_length=20)


class SourceConnection(CommonConnection):
    """A project whose sources are fetched."""

    scheme: Literal["source"]
    mode: Literal["signed", "allowlist"]
    allowed_origins: list[str] = Field(default_factory=list, max_length=50)
    any_public_origin: bool = False
    formats: list[Annotated[str, Field(pattern=f"^{grammar.EXTENSION}$")]] = Field(min_length=1)
    ports: list[Port] = Field(default_factory=list)
    allow_networks: list[str] = Field(default_factory=list)
    intercept: bool = False
    auth: Auth | None = None


def _scheme(value: Any) -> str:
    scheme = value.get("scheme", "presign") if isinstance(value, dict) else "presign"
    return scheme if isinstance(scheme, str) else ""


ConnectionEntry = Annotated[
    Annotated[PresignConnection, Tag("presign")] | Annotated[SourceConnection, Tag("source")],
    Discriminator(_scheme),
]


class FrontConfig(Strict):
    """The certificate of the gateway's own names, and its key, in PEM form."""

    cert: str = Field(min_length=1)
    key: str = Field(min_length=1)


class GatewayConfig(Strict):
    hosts: list[str] = ["presign.local"]
    tls: FrontConfig | None = None
    unsigned: Literal["pass", "deny"] = "pass"
    trusted_proxies: list[str] = Field(default_factory=list)
    # Of each process. One that asks takes three descriptors, of which `presign serve` allows itself 65,536.
    max_clients: int = Field(default=1000, ge=1, le=30_000)


class RegistryConfig(Strict):
    file: Annotated[str, Field(pattern=f"^{REGISTRY_FILE}$")]
    key: KeySources | None = None


_SignatureId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
_KeyName = Annotated[str, Field(pattern=rf"^{grammar.CONNECTION_ID}/{grammar.KEY_ID}$")]
_PresignName = Annotated[str, Field(pattern=rf"^{grammar.CONNECTION_ID}/{grammar.PRESIGN_ID}$")]
_OneOrAll = Annotated[str, Field(pattern=rf"^(\*|{grammar.CONNECTION_ID})$")]


class RevokedUrl(Strict):
    """One URL. `expires` (Unix time) is when it stops by itself, and so may be forgotten."""

    at: Instant
    expires: int | None = None


class Revoked(Strict):
    """What is revoked, and since when; it holds for the connections of both files."""

    urls: dict[_SignatureId, RevokedUrl] = Field(default_factory=dict)
    keys: dict[_KeyName, Instant] = Field(default_factory=dict)
    ids: dict[_PresignName, Instant] = Field(default_factory=dict)
    connections: dict[ConnectionId, Instant] = Field(default_factory=dict)
    added_before: dict[_OneOrAll, Instant] = Field(default_factory=dict)


class RegistryFile(Strict):
    """A registry: connections in a file of their own, and what is revoked."""

    connections: dict[ConnectionId, ConnectionEntry] = Field(default_factory=dict)
    revoked: Revoked = Revoked()


class AuditConfig(Strict):
    """Where decisions are written down. `required`: grant nothing while they cannot be."""

    file: str = Field(min_length=1)
    required: bool = False


class LimitsConfig(Strict):
    """Where limits are counted. The password is not part of the URL: URLs end up in logs."""

    store: Annotated[str, Field(pattern=r"^(memory://|sqlite:///[^\x00-\x1f]+|rediss?://[!-~]+)$")] = (
        "sqlite:///presign.db"
    )
    password: SecretValue | None = None
    ca: str | None = Field(default=None, min_length=1)


class HostPort(NamedTuple):
    """Where to listen; an IPv6 address stands without brackets."""

    host: str
    port: int


def _host_port(value: Any) -> HostPort:
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    host = parse_host(match[1]) if match else None
    if match is None or host is None or not 0 < int(match[2]) < 65536:
        raise ValueError("has to be HOST:PORT, as in 127.0.0.1:9464")
    return HostPort(host, int(match[2]))


class AdminConfig(Strict):
    """Where health and figures are asked for; nothing that is proxied ever gets there."""

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
