"""The grants by which tokens are asked for: the name that each has on the wire, and the secrets it needs."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

Grant = Literal["client_credentials", "refresh_token", "jwt_bearer", "github_app"]
ClientAuth = Literal["basic", "post", "assertion"]
"""How a client authenticates: by Basic or in the body (RFC 6749, 2.3.1), by an assertion (RFC 7523, 2.2)."""


class GrantType(NamedTuple):
    """What is particular to one grant."""

    on_the_wire: str
    """The parameter `grant_type`; empty if the endpoint takes no form."""
    asks: tuple[str, ...]
    """The members of a new entry that each hold one secret."""
    is_signed: bool = False
    """True if a private key signs what is sent in place of a secret."""


GRANTS: Final[dict[Grant, GrantType]] = {
    "client_credentials": GrantType("client_credentials", ("client_id", "client_secret")),
    "refresh_token": GrantType("refresh_token", ("client_id", "client_secret", "refresh_token")),
    "jwt_bearer": GrantType(
        "urn:ietf:params:oauth:grant-type:jwt-bearer", ("private_key",), is_signed=True
    ),  # RFC 7523, 2.1
    "github_app": GrantType("", ("client_id", "private_key"), is_signed=True),
}
