"""The credential of `auth: {type: registry_token}`, from its secrets and the registry that it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..config_problems import Location
from ..core.connection import Upstream
from ..core.credentials import BasicCredential, HeaderCredential, bearer
from ..core.oauth2 import MintedSecret, mark_of
from ..core.registry_token import TOKEN_SERVICES, RegistryTokenRequest, TokenService
from ..signing.source_url import parse_url
from .schema.connections import Auth, OAuth2Auth, RegistryTokenAuth

UNKNOWN: Final = (
    "is required, with service: the token service of {} is not known. Ask it with curl -I https://{}/v2/: "
    "realm is the token_url"
)
NOT_FOR_SOURCES: Final = "registry_token needs an upstream: it is for the paths of a registry"
_NONE: Final = TokenService("https://auth.invalid/token", "")
"""Stands for a token service whose problem was reported. Such a configuration is never used."""

Wrong = Callable[[Location, str], None]


def token_url_of(auth: Auth | None, upstream: Upstream | None) -> str:
    """Return the URL to which the secrets of a credential are sent; empty if there is none that is known."""
    if isinstance(auth, RegistryTokenAuth):
        service = _service(auth, upstream)
        return service.url if service is not None else ""
    return auth.token_url if isinstance(auth, OAuth2Auth) else ""


def build(
    at: Location,
    auth: RegistryTokenAuth,
    upstream: Upstream | None,
    *,
    pair: BasicCredential,
    wrong: Wrong,
    direct: bool,
) -> HeaderCredential:
    """Return the credential.

    Args:
        upstream: None for a project that fetches sources.
        pair: user name and password, which only the token service is sent.
        direct: the token service is reached without the gateway's proxy.
    """
    service = _service(auth, upstream)
    if upstream is None:
        wrong((*at, "type"), NOT_FOR_SOURCES)
    elif service is None:
        wrong((*at, "token_url"), UNKNOWN.format(upstream.origin.host, upstream.origin.authority))
    url = parse_url((service or _NONE).url)
    request = RegistryTokenRequest(
        url.origin, url.target, (service or _NONE).service, pair.username, pair.password, direct
    )
    return bearer(MintedSecret(request, mark_of(request)))


def _service(auth: RegistryTokenAuth, upstream: Upstream | None) -> TokenService | None:
    """Return the token service that is given, else the one that is known for the host of the registry.

    So a connection that leads to another registry than its preset sends no password to the service of that.
    """
    if auth.token_url is not None:
        return TokenService(auth.token_url, auth.service or "")
    return TOKEN_SERVICES.get(upstream.origin.host) if upstream is not None else None
