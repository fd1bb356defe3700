"""The types of `auth`: how each puts a credential on a request, and which members hold its secrets."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, cast

from ..core.grants import GRANTS, Grant

AuthName = Literal["bearer", "basic", "header", "query", "path", "oauth2", "registry_token", "aws_sigv4"]


class AuthType(NamedTuple):
    """One type of `auth`, in an entry and in a preset."""

    places: tuple[str, ...] = ()
    """The members of an entry that each hold one secret."""
    group: str = ""
    """The member of an entry that maps names to secrets."""
    plain: tuple[str, ...] = ()
    """The members of an entry that hold no secret."""
    replaced: tuple[str, ...] = ()
    """The members besides `token` of which the first in an entry is the API key that `rotate` replaces."""
    together: tuple[str, ...] = ()
    """The members that `rotate` replaces all at once: one is good for nothing without the others."""
    named_by: str = ""
    """The member of a preset that gives the name of the key in that group."""
    of_preset: frozenset[str] = frozenset()
    """All members that a preset may have."""


AUTH_TYPES: Final[dict[AuthName, AuthType]] = {
    "bearer": AuthType(places=("token",)),
    "basic": AuthType(
        places=("username", "password"),
        replaced=("password", "username"),
        of_preset=frozenset(("username", "password", "asks", "public")),
    ),
    "header": AuthType(
        group="headers",
        plain=("prefix",),
        named_by="header",
        of_preset=frozenset(("header", "prefix", "asks", "public")),
    ),
    "query": AuthType(group="params", named_by="param", of_preset=frozenset(("param", "asks", "public"))),
    "path": AuthType(places=("token",), plain=("template",), of_preset=frozenset(("template",))),
    "oauth2": AuthType(
        places=("client_id", "client_secret", "refresh_token", "private_key", "certificate"),
        plain=("grant", "token_url", "scope", "extra", "client_auth", "audience", "subject"),
        replaced=("refresh_token", "client_secret", "private_key"),
        of_preset=frozenset(("grant", "token_url", "scope", "extra", "client_auth", "asks", "public")),
    ),
    "registry_token": AuthType(
        places=("username", "password"),
        plain=("token_url", "service"),
        replaced=("password",),
        of_preset=frozenset(("token_url", "service", "asks", "public")),
    ),
    "aws_sigv4": AuthType(
        places=("access_key_id", "secret_access_key", "session_token"),
        plain=("service", "region", "client_scope", "max_body"),
        together=("access_key_id", "secret_access_key", "session_token"),
        of_preset=frozenset(("service", "region", "max_body", "asks", "public")),
    ),
}
GROUPS: Final[dict[str, str]] = {name: one.group for name, one in AUTH_TYPES.items() if one.group}
"""For each type that has one: the member that maps names to secrets."""
PLAIN: Final = frozenset(("type", *[member for one in AUTH_TYPES.values() for member in one.plain]))
"""All members of `auth` that hold no secret, of any type."""


def places_of(kind: AuthName, grant: str | None) -> tuple[str, ...]:
    """Return the members of a new entry that each hold one secret.

    Args:
        grant: of `oauth2`; None for its default.
    """
    if kind == "aws_sigv4":
        return ("access_key_id", "secret_access_key")  # only temporary keys have a session token
    if kind != "oauth2":
        return AUTH_TYPES[kind].places
    return GRANTS[cast("Grant", grant or "client_credentials")].asks
