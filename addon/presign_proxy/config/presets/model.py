"""The schema of presets: of custom ones, and of the built-in ones, which a test checks against it."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import Field, TypeAdapter, ValidationError, field_validator, model_validator

from ...core.grants import GRANTS, ClientAuth, Grant
from ...core.strip_list import is_credential
from ...errors import Denied
from ...http.field_names import header_key
from ...http.paths import canonical_path
from ...signing.source_url import parse_url
from ..auth_types import AUTH_TYPES, AuthName
from ..schema.connections import MAX_HELD, KeySlots
from ..schema.upstreams import UpstreamEntry, UpstreamName
from ..schema.values import (
    AlsoHost,
    AwsName,
    FixedPart,
    HeaderName,
    HeaderPrefix,
    HeaderValue,
    KeyShape,
    ParamName,
    PathTemplate,
    Scope,
    Strict,
    UrlHeader,
)

PresetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
Text = Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,200}$")]
"""Text that messages print. It has no control characters, which could move the terminal's cursor."""
UrlTemplate = Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]
EnvName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
VarName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]

VARIABLE: Final = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}")
LABEL: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
"""Every value of a host variable matches this besides its own pattern, so it stays inside its label."""

_NAMES: Final[dict[str, TypeAdapter[str]]] = {
    "basic": TypeAdapter(Literal["username", "password"]),
    "header": TypeAdapter(HeaderName),
    "query": TypeAdapter(ParamName),
    "aws_sigv4": TypeAdapter(Literal["access_key_id", "secret_access_key", "session_token"]),
    "registry_token": TypeAdapter(Literal["username", "password"]),
    "oauth2": TypeAdapter(
        Literal["client_id", "client_secret", "refresh_token", "private_key", "certificate"]
    ),
}


class HostVariable(Strict):
    """A part of the host that differs between customers: the pattern of its values, and a description."""

    pattern: Annotated[str, Field(pattern=r"^[!-~]{1,200}$")]
    about: Text

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error:
            raise ValueError("is not a regular expression") from None
        return pattern


class PresetAuth(Strict):
    """The place of the provider's key: one `token`, or several secrets that it `asks` for by name."""

    type: AuthName
    header: HeaderName | None = None
    prefix: HeaderPrefix | None = None
    param: ParamName | None = None
    username: FixedPart | None = None
    password: FixedPart | None = None
    template: PathTemplate | None = None
    token_url: UrlTemplate | None = None
    grant: Grant | None = None
    scope: Scope | None = None
    extra: dict[ParamName, HeaderValue] = Field(default={})
    client_auth: ClientAuth | None = None
    service: Scope | None = None
    region: AwsName | None = None
    max_body: Annotated[int, Field(ge=0, le=MAX_HELD)] | None = None
    asks: dict[str, Text] = Field(default={}, min_length=2, max_length=8)
    public: list[str] = Field(default=[])

    @property
    def _has_one_secret(self) -> bool:
        return self.grant is not None and len(GRANTS[self.grant].asks) == 1

    @field_validator("asks")
    @classmethod
    def _each_once(cls, asks: dict[str, str]) -> dict[str, str]:
        if len({name.lower() for name in asks}) < len(asks):
            raise ValueError("names a value twice")
        return asks

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        if self.model_fields_set - AUTH_TYPES[self.type].of_preset - {"type"}:
            raise ValueError("has a member that does not belong to its type")
        places = {"header": self.header, "query": self.param, "path": self.template}
        if self.type in places and (places[self.type] is None) != bool(self.asks):
            raise ValueError("has to name one place for the key, or ask for several secrets")
        if self.type == "oauth2" and (self.token_url is None or bool(self.asks) == self._has_one_secret):
            raise ValueError("needs a token_url, and asks for its secrets unless the grant needs only one")
        if self.type == "aws_sigv4" and not self.asks:
            raise ValueError("has to ask for access_key_id and secret_access_key")
        if self.type == "registry_token" and self.asks.keys() != {"username", "password"}:
            raise ValueError("has to ask for username and password")
        if (self.prefix or self.username or self.password) and self.asks:
            raise ValueError("asks cannot be combined with prefix, username or password")
        if not set(self.public) <= set(self.asks) or (self.asks and len(self.public) == len(self.asks)):
            raise ValueError("public has to name some of the values under asks, but not all of them")
        if self.username and self.password:
            raise ValueError("leaves no place for the key")
        try:
            for name in self.asks:
                _NAMES[self.type].validate_python(name)
        except ValidationError:
            raise ValueError("asks names a value that its type has no place for") from None
        return self


class Preset(Strict):
    """The known facts about a provider."""

    name: Text
    upstream: str
    auth: PresetAuth
    headers: dict[HeaderName, HeaderValue] = Field(default={})
    docs: Annotated[str, Field(pattern=r"^https?://[!-~]+$")] | None = None
    sample: str | None = None
    env: list[EnvName] = Field(default=[])
    base_env: list[EnvName] = Field(default=[])
    sdk_base: str = ""
    allow_encoded_slash: bool = False
    also: list[AlsoHost] = Field(default=[], max_length=50)
    upstreams: dict[UpstreamName, UpstreamEntry] = Field(default={}, max_length=32)
    challenge: Literal["none", "basic"] = "none"
    redirects: Literal["safe", "pass"] = "safe"
    url_headers: list[UrlHeader] = Field(default=[], max_length=20)
    websocket: bool = False
    key_shapes: list[KeyShape] = Field(default=[], max_length=16)
    key_slots: KeySlots | None = None
    sniffed: bool = False
    vars: dict[VarName, HostVariable] = Field(default={})

    @field_validator("headers")
    @classmethod
    def _holds_no_credential(cls, headers: dict[str, str]) -> dict[str, str]:
        keys = [header_key(name.encode()) for name in headers]
        if any(map(is_credential, keys)) or len(set(keys)) < len(keys):
            raise ValueError("names a header twice, or one for credentials")
        return headers

    @field_validator("sample", "sdk_base")
    @classmethod
    def _is_relative(cls, path: str | None) -> str | None:
        if path and not _is_canonical(path):
            raise ValueError("has to be a path in its canonical form, without its leading slash and a query")
        return path

    @field_validator("env", "base_env")
    @classmethod
    def _are_different(cls, env: list[str]) -> list[str]:
        if len(set(env)) < len(env):
            raise ValueError("names a variable twice")
        return env

    @model_validator(mode="after")
    def _upstream_is_a_url(self) -> Self:
        named, asked = VARIABLE.findall(self.upstream), VARIABLE.findall(self.auth.token_url or "")
        if sorted({*named, *asked}) != sorted(self.vars) or len(set(named)) < len(named):
            raise ValueError("upstream and vars have to name the same variables, each once")
        _check_url(self.auth.token_url)
        host = _check_domain(self.upstream, "upstream")
        if named != VARIABLE.findall(host):
            raise ValueError("a variable may stand only in the host of upstream")
        if not _is_url(VARIABLE.sub("x", self.upstream)):
            raise ValueError("upstream is not an http(s) URL without user name, query and fragment")
        return self


class PresetsFile(Strict):
    """The file of custom presets, by name."""

    presets: dict[PresetName, Preset] = Field(min_length=1)


def _check_domain(url: str, what: str) -> str:
    """Return the host of a URL. A connection that fills in a variable must not choose its domain."""
    host = url.partition("://")[2].partition("/")[0].partition(":")[0]
    domain = host.split(".")[-2:]
    if "{" in host and (len(domain) < 2 or any("{" in label for label in domain)):
        raise ValueError(f"the last two labels of the host of {what} must not contain a variable")
    return host


def _check_url(token_url: str | None) -> None:
    """Check the URL of a token endpoint. A variable in its path fills one segment, or a part of one."""
    if token_url is not None:
        _check_domain(token_url, "token_url")
        if not _is_url(VARIABLE.sub("x", token_url)):
            raise ValueError("token_url is not an http(s) URL without user name, query and fragment")


def _is_canonical(path: str) -> bool:
    try:
        raw = b"/" + path.encode("ascii")
        return not path.startswith("/") and canonical_path(raw) == raw
    except (UnicodeEncodeError, Denied):
        return False


def _is_url(text: str) -> bool:
    try:
        url = parse_url(text)
        base = canonical_path(url.target)
    except Denied:
        return False
    return base == url.target and not any(char in text for char in "{}?")
