"""OAuth 2.0 (RFC 6749): what is asked of a token endpoint. `token_answer` has what counts as its answer."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, fields, replace
from typing import Final
from urllib.parse import quote_plus, urlencode

from ..errors import Denied
from ..http.message import Fields, Origin
from ..signing.secret import LateSecret, Secret
from .credentials import Fill
from .grants import GRANTS, ClientAuth, Grant
from .jwt_assertion import assertion, read_client_key, read_key
from .registry_token import RegistryTokenRequest

EARLY: Final = 60
"""Seconds before its end from which a token is renewed; of a short-lived token, half of its lifetime."""
_OF_CLIENT: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """One request for tokens, again and again the same. `plain` are parameters that are no secrets."""

    origin: Origin
    target: bytes
    grant: Grant
    client_id: Secret | None
    client_secret: Secret | None = None
    refresh_token: Secret | None = None
    refresh_file: str | None = None
    """The file that holds the refresh token, absolute. The gateway replaces it if the endpoint does."""
    plain: tuple[tuple[str, str], ...] = ()
    client_auth: ClientAuth = "basic"
    private_key: Secret | None = None
    """Signs the assertion of the grant, or that of the client."""
    certificate: Secret | None = None
    """The certificate of that key, by which the endpoint knows it."""
    claims: tuple[tuple[str, str], ...] = ()
    """Claims of that assertion, in the place of the usual ones."""
    direct: bool = False
    """True if the endpoint is reached without the gateway's proxy."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All secrets in it, but for one in a file. A certificate is none."""
        all_of_it = (self.client_id, self.client_secret, self.refresh_token, self.private_key)
        return tuple([one for one in all_of_it if one is not None])

    @property
    def late(self) -> tuple[LateSecret, ...]:
        """What has to be fetched before it can be sent."""
        found = self.secrets if self.certificate is None else (*self.secrets, self.certificate)
        return tuple([one for one in found if isinstance(one, LateSecret)])


class MintedSecret(LateSecret):
    """An access token, which a token endpoint issues when a granted request first needs it."""

    __slots__ = ("mark", "request")

    def __init__(self, request: TokenRequest | RegistryTokenRequest, mark: str) -> None:
        """Args: mark: equal for equal requests, also after a reload; reveals nothing."""
        super().__init__((), 0)
        self.request = request
        self.mark = mark

    @property
    def key(self) -> tuple[str, ...]:
        if isinstance(self.request, RegistryTokenRequest):
            return ("registry_token", self.mark, self.request.scope)
        return ("oauth2", self.mark)

    @property
    def family(self) -> tuple[str, ...]:
        """Equal for the tokens of all scopes of one registry; of OAuth 2.0, each token is alone."""
        return self.key[:2]

    @property
    def needs(self) -> tuple[LateSecret, ...]:
        return self.request.late

    def at(self, scope: str) -> MintedSecret:
        """Return the token of a registry for another scope. Only of a registry."""
        if not isinstance(self.request, RegistryTokenRequest):
            raise LookupError("only tokens of registries have a scope for each request")
        return MintedSecret(replace(self.request, scope=scope), self.mark)


def written(
    request: TokenRequest, fill: Fill, refresh_token: Secret | None, now: int, unique: str
) -> tuple[Fields, bytes]:
    """Return header fields and body of a request to the endpoint, both with secrets in them.

    Args:
        now: Unix time, whole seconds.
        unique: the id of this one request, for an assertion that has to have one.

    Raises Denied("upstream") if a program printed something else than a private key.
    """
    key = request.private_key
    signed = _assertion(request, fill, key, now, unique) if key is not None else ""
    if request.grant == "github_app":
        return _of_app(signed)
    grant = GRANTS[request.grant]
    form = [("grant_type", grant.on_the_wire)]
    if grant.is_signed:
        form.append(("assertion", signed))
        form += [one for one in request.plain if one[0] != "scope"]  # the scope is a claim
    else:
        form += request.plain
    if refresh_token is not None:
        form.append(("refresh_token", refresh_token.reveal()))
    fields: list[tuple[bytes, bytes]] = [
        (b"Accept", b"application/json"),
        (b"Accept-Encoding", b"identity"),
        (b"Content-Type", b"application/x-www-form-urlencoded"),
    ]
    in_header, in_form = _client(request, fill, signed)
    return (*fields, *in_header), urlencode(form + in_form).encode("ascii")


def _client(request: TokenRequest, fill: Fill, signed: str) -> tuple[Fields, list[tuple[str, str]]]:
    """Return how the client authenticates: header fields, and parameters."""
    client_id = fill(request.client_id).reveal() if request.client_id is not None else ""
    secret = fill(request.client_secret).reveal() if request.client_secret is not None else None
    if request.client_auth == "assertion":
        return (), [
            ("client_id", client_id),
            ("client_assertion_type", _OF_CLIENT),
            ("client_assertion", signed),
        ]
    if secret is None:  # a public client, or none: the assertion of a grant says who asks
        return (), [("client_id", client_id)] if client_id and not signed else []
    if request.client_auth == "post":
        return (), [("client_id", client_id), ("client_secret", secret)]
    # Both parts are form-encoded first (RFC 6749, 2.3.1 and appendix B).
    pair = f"{quote_plus(client_id)}:{quote_plus(secret)}".encode()
    return ((b"Authorization", b"Basic " + base64.b64encode(pair)),), []


def _of_app(signed: str) -> tuple[Fields, bytes]:
    """Return a request of a GitHub App for the token of an installation: the assertion is its credential."""
    fields = (
        (b"Accept", b"application/vnd.github+json"),
        (b"Accept-Encoding", b"identity"),
        (b"X-GitHub-Api-Version", b"2022-11-28"),
        (b"User-Agent", b"presign-proxy"),  # GitHub refuses requests without one
        (b"Authorization", b"Bearer " + signed.encode("ascii")),
    )
    return fields, b""


def _assertion(request: TokenRequest, fill: Fill, key: Secret, now: int, unique: str) -> str:
    certificate = fill(request.certificate).reveal() if request.certificate is not None else None
    try:
        text = fill(key).reveal()
        found = read_client_key(text, certificate) if request.client_auth == "assertion" else read_key(text)
    except ValueError as error:
        raise Denied("upstream", f"the private key {error}") from None
    client_id = fill(request.client_id).reveal() if request.client_id is not None else None
    issuer = {"iss": client_id or found.issuer or ""}
    if request.grant == "github_app":
        return assertion(found, issuer, now)
    endpoint = f"{request.origin}{request.target.decode('ascii')}"
    if request.client_auth == "assertion":
        of_client = issuer | {"sub": issuer["iss"], "aud": endpoint, "jti": unique}
        return assertion(found, of_client | dict(request.claims), now)
    scope = {name: value for name, value in request.plain if name == "scope"}
    return assertion(found, issuer | {"aud": endpoint} | scope | dict(request.claims), now)


def mark_of(request: TokenRequest | RegistryTokenRequest) -> str:
    """Return a text that differs whenever a request for tokens does, in whatever field."""
    digest = hashlib.sha256()
    for one in fields(request):
        digest.update(repr(_told(getattr(request, one.name))).encode() + b"\0")
    return digest.hexdigest()


def _told(value: object) -> object:
    if isinstance(value, LateSecret):
        return value.key, value.ttl
    return value.reveal() if isinstance(value, Secret) else value
