"""The schema of `cors`: the pages of other origins that may call a connection."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import Field, PlainValidator, WithJsonSchema

from ...http.message import DEFAULT_PORT
from .values import Duration, Strict

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]{0,31})://(?P<host>[a-z0-9](?:[a-z0-9._-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'+.^_`|~-]{1,128}")
ANY: Final = "*"


def _page_origin(value: Any) -> str:
    """Return an origin as browsers write it: lower-case, without the usual port (RFC 6454, 6.2)."""
    if value == ANY:
        return ANY
    if value == "null":
        raise ValueError('"null" is the origin of every sandboxed page and file: use * if you mean any page')
    text = value.lower() if isinstance(value, str) else ""
    match = _ORIGIN.fullmatch(text)
    if match is None or int(match["port"] or 1) > 65535:
        raise ValueError(
            "has to be the origin of a page, as in https://app.example.com or http://localhost:5173, or * "
            "for any page. It has no path, no / at its end, and no * in it"
        )
    usual = DEFAULT_PORT.get(match["scheme"])
    return text.rpartition(":")[0] if match["port"] == str(usual) else text


def _field_name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError("has to be the name of a header, as in X-Request-Id")
    return value


def _any_or_name(value: Any) -> str:
    return ANY if value == ANY else _field_name(value)


PageOrigin = Annotated[
    str,
    PlainValidator(_page_origin),
    WithJsonSchema({"type": "string", "pattern": r"^(\*|[a-z][a-z0-9+.-]*://[^/*]+)$"}),
]
FieldName = Annotated[
    str, PlainValidator(_field_name), WithJsonSchema({"type": "string", "pattern": f"^{_NAME.pattern}$"})
]
AnyOrName = Annotated[
    str,
    PlainValidator(_any_or_name),
    WithJsonSchema({"type": "string", "pattern": rf"^(\*|{_NAME.pattern})$"}),
]


class CorsEntry(Strict):
    """The pages that may call the connection, and what they may send and read."""

    origins: list[PageOrigin] = Field(min_length=1, max_length=100)
    headers: list[AnyOrName] = Field(default=[ANY], max_length=100)
    expose: list[FieldName] = Field(default_factory=list, max_length=100)
    max_age: Duration = 600
