"""The schema of a connection."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from ...core.grants import GRANTS, ClientAuth, Grant
from ...core.path_credential import NO_PATH, fits_a_path
from ...signing import grammar
from ..values import SecretSource
from .cors import CorsEntry
from .limits import LimitEntry
from .upstreams import UpstreamEntry, UpstreamName
from .values import (
    AlsoHost,
    AwsName,
    Duration,
    FixedPart,
    HeaderName,
    HeaderPrefix,
    HeaderValue,
    Instant,
    KeyId,
    KeyShape,
    Method,
    ParamName,
    PathTemplate,
    Port,
    Scope,
    SecretValue,
    Strict,
    TokenUrl,
    UrlHeader,
)


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


class PathAuth(Strict):
    type: Literal["path"]
    template: PathTemplate
    token: SecretValue

    @field_validator("token")
    @classmethod
    def _fits(cls, token: SecretSource) -> SecretSource:
        if token.literal is not None and not fits_a_path(token.literal):
            raise ValueError(NO_PATH)
        return token


# Parameters that the gateway sets itself (RFC 6749, RFC 7521, RFC 7523), or that hold secrets.
_OWN_PARAMS: Final = frozenset(
    b"assertion client_assertion client_assertion_type client_id client_secret code code_verifier "
    b"grant_type password redirect_uri refresh_token scope username".decode().split()
)


_NOT_OF_APPS: Final = frozenset(("client_secret", "scope", "extra", "client_auth", "audience", "subject"))


class OAuth2Auth(Strict):
    type: Literal["oauth2"]
    grant: Grant = "client_credentials"
    token_url: TokenUrl
    client_id: SecretValue | None = None
    client_secret: SecretValue | None = None
    private_key: SecretValue | None = None
    certificate: SecretValue | None = None
    audience: Scope | None = None
    subject: Scope | None = None
    refresh_token: SecretValue | None = None
    scope: Scope | None = None
    extra: dict[ParamName, HeaderValue] = Field(default_factory=dict, max_length=16)
    client_auth: ClientAuth = "basic"

    @field_validator("extra")
    @classmethod
    def _not_ours(cls, extra: dict[str, str]) -> dict[str, str]:
        if ours := sorted(_OWN_PARAMS & extra.keys()):
            raise ValueError(f"{ours[0]} is a parameter that has a key of its own, or none")
        return extra

    @property
    def is_signed(self) -> bool:
        """True if a private key signs what is sent."""
        return GRANTS[self.grant].is_signed or self.client_auth == "assertion"

    @model_validator(mode="after")
    def _fits_its_grant(self) -> Self:
        if GRANTS[self.grant].is_signed and self.client_auth == "assertion":
            raise ValueError(f"client_auth: assertion is for other grants than {self.grant}")
        if self.is_signed != (self.private_key is not None):
            raise ValueError(
                "a private_key belongs to grant: jwt_bearer or github_app, or to client_auth: assertion"
            )
        if self.certificate is not None and self.client_auth != "assertion":
            raise ValueError("a certificate belongs to client_auth: assertion")
        if self.client_secret is not None and self.client_auth == "assertion":
            raise ValueError("client_auth: assertion replaces the client_secret: give only one of them")
        if self.grant == "client_credentials" and self.client_secret is None and not self.is_signed:
            raise ValueError("grant: client_credentials needs a client_secret")
        if (self.grant != "jwt_bearer" or self.client_secret is not None) and self.client_id is None:
            raise ValueError("needs a client_id")
        if not self.is_signed and (self.audience or self.subject):
            raise ValueError("audience and subject are claims of signed assertions; use extra for parameters")
        if (self.grant == "refresh_token") != (self.refresh_token is not None):
            raise ValueError("grant: refresh_token and a refresh_token belong together")
        if self.grant == "github_app" and self.model_fields_set & _NOT_OF_APPS:
            raise ValueError(
                "grant: github_app takes only token_url, client_id and private_key: "
                "the rights of the app are set at GitHub"
            )
        return self


class RegistryTokenAuth(Strict):
    type: Literal["registry_token"]
    username: SecretValue
    password: SecretValue
    token_url: TokenUrl | None = None
    service: Scope | None = None

    @model_validator(mode="after")
    def _names_both(self) -> Self:
        if (self.token_url is None) != (self.service is None):
            raise ValueError("token_url and service belong together: give both, or neither")
        return self


MAX_HELD: Final = 32 * 1024 * 1024


class SigV4Auth(Strict):
    type: Literal["aws_sigv4"]
    access_key_id: SecretValue
    secret_access_key: SecretValue
    session_token: SecretValue | None = None
    service: AwsName | None = None
    region: AwsName | None = None
    client_scope: bool = False
    max_body: Annotated[int, Field(ge=0, le=MAX_HELD)] = 8 * 1024 * 1024


Auth = Annotated[
    BearerAuth | BasicAuth | HeaderAuth | QueryAuth | PathAuth | OAuth2Auth | RegistryTokenAuth | SigV4Auth,
    Field(discriminator="type"),
]


class SigningKeyEntry(Strict):
    id: KeyId | None = None
    secret: SecretValue
    added: Instant | None = None
    not_after: Instant | None = None
    weak: bool = False


class Allow(Strict):
    methods: list[Method] = Field(default=["*"], min_length=1, max_length=64)
    paths: list[str] = Field(default=["*"], min_length=1, max_length=1024)

    @property
    def every_path(self) -> bool:
        """True if nothing is said about paths: then those of all upstreams may be signed."""
        return "paths" not in self.model_fields_set


class Timeouts(Strict):
    connect: Duration = 10
    response: Duration = 600
    body: Duration = 60


class TlsConfig(Strict):
    """The authorities and the client certificate of a connection's upstream: files in PEM form."""

    ca: str | None = Field(default=None, min_length=1)
    client_cert: str | None = Field(default=None, min_length=1)
    client_key: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.client_cert is None) != (self.client_key is None):
            raise ValueError("client_cert and client_key belong together")
        if self.ca is None and self.client_cert is None:
            raise ValueError("needs ca, or client_cert and client_key")
        return self


class KeySlots(Strict):
    """Places besides those of `auth` in which a key token may stand: nothing else in them is sent on."""

    headers: list[HeaderName] = Field(default_factory=list, max_length=16)
    params: list[ParamName] = Field(default_factory=list, max_length=16)
    passwords: list[FixedPart] = Field(default_factory=list, max_length=16)


class CommonConnection(Strict):
    """The members that connections of both schemes have."""

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
    cors: CorsEntry | None = None
    upstream_proxy: Literal["none"] | None = None
    tls: TlsConfig | None = None


class PresignConnection(CommonConnection):
    """A registered API."""

    scheme: Literal["presign"] = "presign"
    preset: str | None = None
    vars: dict[str, str] = Field(default_factory=dict)
    upstream: str
    upstreams: dict[UpstreamName, UpstreamEntry] = Field(default_factory=dict, max_length=32)
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
    websocket: bool = False
    max_duration: Duration = 24 * 60 * 60
    key_shapes: list[KeyShape] = Field(default_factory=list, max_length=16)
    key_slots: KeySlots = KeySlots()


class SourceConnection(CommonConnection):
    """A project whose source URLs the gateway fetches."""

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
