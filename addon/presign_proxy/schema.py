"""The shape of the configuration file. Every key that is not here is an error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema

from . import grammar
from .hosts import parse_host
from .limits.model import LimitEntry

_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d|w)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

ConnectionId = Annotated[str, Field(pattern=f"^{grammar.CONNECTION_ID}$")]
KeyId = Annotated[str, Field(pattern=f"^{grammar.KEY_ID}$")]
Method = Annotated[str, Field(pattern=rf"^(\*|{grammar.METHOD})$")]
Port = Annotated[int, Field(ge=1, le=65535)]
_HOST_PORT = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):([0-9]{1,5})")
_PREFIX = re.compile(r"[!-~][ -~]{0,62}[ =:]")
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
DEFAULT_TTL: Final = 300
MAX_REGISTRY_KEYS: Final = 4
# Not headers that frame, route or end a message, and none of ours.
_RESERVED: Final = frozenset(
    b"connection content-encoding content-length content-type expect host keep-alive proxy-authorization "
    b"proxy-connection te trailer transfer-encoding upgrade".decode().split()
)


def _header_name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(
        r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,126}[A-Za-z0-9])?", value
    ):
        raise ValueError("is the name of a header: letters and digits, with - between them")
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
        raise ValueError("is the words before the key, with the blank, = or : between them")
    return value


HeaderPrefix = Annotated[
    str,
    PlainValidator(_header_prefix),
    WithJsonSchema({"type": "string", "pattern": f"^{_PREFIX.pattern}$"}),
]


class SecretSource(NamedTuple):
    """Where a secret value is: exactly one of the first four is set.

    `ttl`: seconds for which what `exec` printed is good.
    """

    literal: str | None = None
    env: str | None = None
    file: str | None = None
    exec: tuple[str, ...] | None = None
    ttl: int = DEFAULT_TTL

    def __repr__(self) -> str:
        return "SecretSource(…)"


def _secret_source(value: Any) -> SecretSource:
    """The text itself, `{env: NAME}`, `{file: PATH}` or `{exec: [argv…], ttl: 5m}`."""
    if isinstance(value, str) and value:
        return SecretSource(literal=value)
    if isinstance(value, dict):
        return _reference(value)
    raise ValueError("is a secret: write its text, {env: NAME}, {file: PATH} or {exec: [argv…]}")


def _reference(value: dict[str, Any]) -> SecretSource:
    if value.keys() == {"env"} and isinstance(name := value["env"], str):
        if not _ENV.fullmatch(name):
            raise ValueError("env is the name of an environment variable, not a value")
        return SecretSource(env=name)
    if value.keys() == {"file"} and isinstance(path := value["file"], str) and path:
        return SecretSource(file=path)
    if "exec" in value and value.keys() <= {"exec", "ttl"}:
        argv = value["exec"]
        if not isinstance(argv, list) or not argv or not all(isinstance(one, str) for one in argv):
            raise ValueError("exec is a list of texts, the program first: no shell reads it")
        if not argv[0] or any("\0" in one for one in argv):
            raise ValueError("exec names no program, or holds a NUL")
        ttl = duration(value["ttl"]) if "ttl" in value else DEFAULT_TTL
        return SecretSource(exec=tuple(argv), ttl=ttl)
    raise ValueError("is a secret: write its text, {env: NAME}, {file: PATH} or {exec: [argv…]}")


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
    PlainValidator(_secret_source),
    WithJsonSchema({"oneOf": [{"type": "string", "minLength": 1}, *_REFERENCES]}),
]


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where a key of the registry is, or the passphrase from which one is derived."""

    source: SecretSource
    passphrase: bool = False


def _key_source(value: Any) -> KeySource:
    """`{env: NAME}`, `{file: PATH}`, `{exec: [argv…]}` or `{passphrase: …}` with one of those."""
    if isinstance(value, dict) and value.keys() == {"passphrase"} and isinstance(value["passphrase"], dict):
        return KeySource(_reference(value["passphrase"]), passphrase=True)
    if isinstance(value, dict) and value.keys() != {"passphrase"}:
        return KeySource(_reference(value))
    raise ValueError("is {env: NAME}, {file: PATH}, {exec: [argv…]}, or {passphrase: …} with one of those")


def _key_sources(value: Any) -> tuple[KeySource, ...]:
    listed = value if isinstance(value, list) else [value]
    if not 1 <= len(listed) <= MAX_REGISTRY_KEYS:
        raise ValueError(f"is one key, or a list of 1 to {MAX_REGISTRY_KEYS} of them")
    return tuple(map(_key_source, listed))


_PASSPHRASE: Final = {
    "type": "object",
    "properties": {"passphrase": {"oneOf": _REFERENCES}},
    "required": ["passphrase"],
    "additionalProperties": False,
}
_ONE_KEY: Final = [*_REFERENCES, _PASSPHRASE]

KeySources = Annotated[
    tuple[KeySource, ...],
    PlainValidator(_key_sources),
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


def duration(value: Any) -> int:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("is a duration: a number and one of s, m, h, d, w, as in 90s or 7d")
    seconds = int(match[1]) * _SECONDS[match[2]]
    if seconds == 0:
        raise ValueError("is longer than nothing")
    return seconds


Duration = Annotated[
    int, PlainValidator(duration), WithJsonSchema({"type": "string", "pattern": "^[0-9]{1,9}[smhdw]$"})
]


def instant(value: Any) -> int:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("is a point in time with its zone, as in 2027-01-01T00:00:00Z")
    return int(moment.timestamp())


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
    # Of each process. One that asks takes two descriptors, of which `presign serve` allows itself 65,536.
    max_clients: int = Field(default=1000, ge=1, le=30_000)


class RegistryConfig(Strict):
    file: Annotated[str, Field(pattern=r"^.+\.(enc|yaml|yml|json)$")]
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
        raise ValueError("is HOST:PORT, as in 127.0.0.1:9464")
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
