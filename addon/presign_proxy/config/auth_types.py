"""How a credential is put on a request: the types of `auth`, and where each keeps its secrets."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

AuthName = Literal["bearer", "basic", "header", "query"]


class AuthType(NamedTuple):
    """One type of `auth`, in an entry and in a preset."""

    places: tuple[str, ...] = ()
    """Members of an entry that are a secret each."""
    group: str = ""
    """The member of an entry that holds secrets by name."""
    named_by: str = ""
    """The member of a preset that says under which name the key goes into that group."""
    of_preset: frozenset[str] = frozenset()
    """All members that a preset may have."""


AUTH_TYPES: Final[dict[AuthName, AuthType]] = {
    "bearer": AuthType(places=("token",)),
    "basic": AuthType(
        places=("username", "password"), of_preset=frozenset(("username", "password", "asks", "public"))
    ),
    "header": AuthType(
        group="headers", named_by="header", of_preset=frozenset(("header", "prefix", "asks", "public"))
    ),
    "query": AuthType(group="params", named_by="param", of_preset=frozenset(("param", "asks", "public"))),
}
GROUPS: Final[dict[str, str]] = {name: one.group for name, one in AUTH_TYPES.items() if one.group}
"""By type: the member that holds secrets by name."""
