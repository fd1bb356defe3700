"""The types of single values in a configuration, each with the form it must have."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema

from ...core.path_credential import is_template
from ...errors import Denied
from ...http.hosts import parse_authority
from ...signing import grammar
from ...signing.source_url import parse_url
from ...signing.tokens import SHAPE
from ..values import (
    DURATION,
    MAX_REGISTRY_KEYS,
    KeySource,
    SecretSource,
    duration,
    instant,
    key_sources,
    secret_source,
)
from .descriptions import add_descriptions

ConnectionId = Annotated[str, Field(pattern=f"^{grammar.CONNECTION_ID}$")]


KeyId = Annotated[str, Field(pattern=f"^{grammar.KEY_ID}$")]


Method = Annotated[str, Field(pattern=rf"^(\*|{grammar.METHOD})$")]


Port = Annotated[int, Field(ge=1, le=65535)]


_PREFIX = re.compile(r"[!-~][ -~]{0,62}[ =:]")


# Headers that frame, route or end a message. Headers of ours (`x-presign…`) are refused as well.
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
        raise ValueError("is a header that only the gateway may set")
    return value


HeaderName = Annotated[
    str, PlainValidator(_header_name), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"})
]


ParamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\[\]-]{1,128}$")]


HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]{0,1024}$")]


def _header_prefix(value: Any) -> str:
    if not isinstance(value, str) or not _PREFIX.fullmatch(value):
        raise ValueError("has to be the text before the key, up to its last blank, = or :, as in 'Token '")
    return value


HeaderPrefix = Annotated[
    str,
    PlainValidator(_header_prefix),
    WithJsonSchema({"type": "string", "pattern": f"^{_PREFIX.pattern}$"}),
]


def _path_template(value: Any) -> str:
    if not isinstance(value, str) or not is_template(value):
        raise ValueError("has to be a path with {token} once, as in /bot{token}, and no / at its end")
    return value


PathTemplate = Annotated[
    str,
    PlainValidator(_path_template),
    WithJsonSchema({"type": "string", "pattern": r"^/[^?#{}]*\{token\}[^?#{}]*$"}),
]


def _token_url(value: Any) -> str:
    try:
        parse_url(value if isinstance(value, str) else "")
    except Denied:
        raise ValueError("has to be an http(s) URL without user name and fragment") from None
    return str(value)


TokenUrl = Annotated[
    str, PlainValidator(_token_url), WithJsonSchema({"type": "string", "pattern": "^https?://[!-~]+$"})
]


Scope = Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,200}$")]


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
            "ttl": {"type": "string", "pattern": f"^{DURATION}$"},
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
    int, PlainValidator(duration), WithJsonSchema({"type": "string", "pattern": f"^{DURATION}$"})
]


Instant = Annotated[int, PlainValidator(instant), WithJsonSchema({"type": "string", "format": "date-time"})]


def _key_shape(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(SHAPE, value) or re.search("ps[12]_", value):
        raise ValueError("has to be the text at the beginning of a provider's keys, as in sk-ant-api03-")
    return value


KeyShape = Annotated[
    str, PlainValidator(_key_shape), WithJsonSchema({"type": "string", "pattern": f"^{SHAPE}$"})
]
AwsName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]
FixedPart = Annotated[str, Field(pattern=r"^[!-9;-~]{1,64}$")]
"""A user name or a password that is the same for all, beside a key."""


def _also_host(value: Any) -> str:
    if not isinstance(value, str) or parse_authority(value, "https") is None:
        raise ValueError("has to be a host, as in objects.example.com, or HOST:PORT; no scheme, path or *")
    return value


# Headers that frame an answer, headers that the gateway removes or sets, and Refresh, which holds more than a
# URL.
_NO_URLS: Final = re.compile(
    "connection|content-(encoding|length|security-policy|type)|date|etag|keep-alive|proxy-.*|refresh|server|"
    "set-cookie2?|trailer|transfer-encoding|upgrade|vary|via|www-authenticate|x-presign-.*",
    re.IGNORECASE,
)


_URL_HEADER: Final = re.compile("[A-Za-z][A-Za-z0-9-]{0,99}")


def _url_header(value: Any) -> str:
    if not isinstance(value, str) or not _URL_HEADER.fullmatch(value) or _NO_URLS.fullmatch(value):
        raise ValueError("has to be the name of a response header whose value is one URL and nothing else")
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


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, json_schema_extra=add_descriptions)
