"""The schema of the upstreams of a connection besides the default one."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from ...http.patterns import UPSTREAM_NAME
from .values import AwsName, FixedPart, HeaderName, HeaderPrefix, ParamName, PathTemplate, Strict

UpstreamName = Annotated[str, Field(pattern=f"^{UPSTREAM_NAME}$")]

_MEMBERS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "none": ((), ()),
    "bearer": ((), ()),
    "basic": ((), ("username", "password")),
    "header": (("header",), ("prefix",)),
    "query": (("param",), ()),
    "path": (("template",), ()),
    "aws_sigv4": ((), ("service", "region")),
}
"""For each form, the members that it needs and those that it may have."""


class AuthForm(Strict):
    """Where an upstream takes the secret of its connection. It holds no secret itself."""

    type: Literal["none", "bearer", "basic", "header", "query", "path", "aws_sigv4"]
    username: FixedPart | None = None
    password: FixedPart | None = None
    header: HeaderName | None = None
    prefix: HeaderPrefix | None = None
    param: ParamName | None = None
    template: PathTemplate | None = None
    service: AwsName | None = None
    region: AwsName | None = None

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        needed, permitted = _MEMBERS[self.type]
        given = self.model_fields_set - {"type"}
        if stray := sorted(given - {*needed, *permitted}):
            raise ValueError(f"{stray[0]} does not belong to type: {self.type}")
        if missing := [name for name in needed if name not in given]:
            raise ValueError(f"type: {self.type} needs {missing[0]}")
        if self.username is not None and self.password is not None:
            raise ValueError("username and password leave no place for the secret: give only one of them")
        return self


class FullUpstream(Strict):
    """An upstream that takes the secret of the connection in another form."""

    url: str
    auth: AuthForm | None = None


def _kind(value: object) -> str:
    return "url" if isinstance(value, str) else "full"


UpstreamEntry = Annotated[
    Annotated[str, Tag("url")] | Annotated[FullUpstream, Tag("full")],
    Discriminator(_kind),
]
"""A URL, if the upstream takes the secret as the default one does."""


def full(entry: str | FullUpstream) -> FullUpstream:
    """Return an entry in its long form."""
    return FullUpstream(url=entry) if isinstance(entry, str) else entry
