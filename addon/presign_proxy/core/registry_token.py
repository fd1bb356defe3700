"""Token services of container registries, and what is asked of them.

https://distribution.github.io/distribution/spec/auth/token/ describes the request.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlencode

from ..http.message import Fields, Origin
from ..signing.secret import LateSecret, Secret
from .credentials import Fill


class TokenService(NamedTuple):
    """The token service of a registry: its URL, and the name that it knows the registry by."""

    url: str
    service: str


TOKEN_SERVICES: Final = {
    "registry-1.docker.io": TokenService("https://auth.docker.io/token", "registry.docker.io"),
    "ghcr.io": TokenService("https://ghcr.io/token", "ghcr.io"),
    "quay.io": TokenService("https://quay.io/v2/auth", "quay.io"),
    "registry.gitlab.com": TokenService("https://gitlab.com/jwt/auth", "container_registry"),
}
"""The token services of public registries, by the host of the registry.

A registry names its token service in each answer 401, but the gateway never reads that: it would send the
password to whatever place a registry, or somebody who plays one, names there.
"""


@dataclass(frozen=True, slots=True)
class RegistryTokenRequest:
    """One request to a token service. Without a `scope`, its token opens no repository."""

    origin: Origin
    target: bytes
    service: str
    username: Secret
    password: Secret
    direct: bool = False
    """True if the service is reached without the gateway's proxy."""
    scope: str = ""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The secret in it. A user name is none."""
        return (self.password,)

    @property
    def late(self) -> tuple[LateSecret, ...]:
        """What has to be fetched before it can be sent."""
        return tuple([one for one in (self.username, self.password) if isinstance(one, LateSecret)])


def written_for_registry(request: RegistryTokenRequest, fill: Fill) -> tuple[bytes, Fields]:
    """Return target and header fields of a request to the service. The fields have the password in them."""
    pair = f"{fill(request.username).reveal()}:{fill(request.password).reveal()}".encode()
    asked = [("service", request.service)]
    if request.scope:
        asked.append(("scope", request.scope))
    fields = (
        (b"Accept", b"application/json"),
        (b"Accept-Encoding", b"identity"),
        (b"User-Agent", b"presign-proxy"),
        (b"Authorization", b"Basic " + base64.b64encode(pair)),
    )
    return request.target + b"?" + urlencode(asked).encode("ascii"), fields
