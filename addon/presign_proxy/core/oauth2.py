"""OAuth 2.0 (RFC 6749): what is asked of a token endpoint, and what counts as its answer."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote_plus, urlencode

from ..errors import Denied
from ..http.message import Fields, Origin
from ..signing.secret import LateSecret, Secret
from .credentials import Fill
from .jwt_assertion import assertion, read_key

Grant = Literal["client_credentials", "refresh_token", "jwt_bearer"]
_ON_THE_WIRE: Final = {"jwt_bearer": "urn:ietf:params:oauth:grant-type:jwt-bearer"}
"""The grants whose `grant_type` has another name (RFC 7523, 2.1)."""
MAX_ANSWER: Final = 64 * 1024
"""Most bytes of an answer of a token endpoint. Tokens with many claims have about 10,000."""
LIFETIME: Final = 300
"""Seconds for which a token is used if the endpoint does not say how long it is valid."""
MAX_LIFETIME: Final = 86_400
EARLY: Final = 60
"""Seconds before its end from which a token is renewed; of a short-lived token, half of its lifetime."""
_TOKEN: Final = re.compile(r"[!-~]{1,32768}")
"""Characters that a header can carry (RFC 6750, 2.1, and what servers really send)."""
_SECONDS: Final = re.compile(r"[0-9]{1,12}")
_ERRORS: Final = frozenset(
    b"access_denied invalid_client invalid_grant invalid_request invalid_resource invalid_scope "
    b"invalid_target server_error slow_down temporarily_unavailable unauthorized_client "
    b"unsupported_grant_type".decode().split()
)
"""The errors that are repeated in the log. Other text of an endpoint may contain what it was sent."""


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
    in_header: bool = True
    """True if the client authenticates by Basic, else in the body (RFC 6749, 2.3.1)."""
    private_key: Secret | None = None
    """Signs the assertion of `jwt_bearer`."""
    claims: tuple[tuple[str, str], ...] = ()
    """Claims of that assertion, in the place of the usual ones."""
    direct: bool = False
    """True if the endpoint is reached without the gateway's proxy."""

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All secrets in it, but for one in a file."""
        all_of_it = (self.client_id, self.client_secret, self.refresh_token, self.private_key)
        return tuple([one for one in all_of_it if one is not None])

    @property
    def late(self) -> tuple[LateSecret, ...]:
        """The secrets that have to be fetched before it can be sent."""
        return tuple([one for one in self.secrets if isinstance(one, LateSecret)])


class MintedSecret(LateSecret):
    """An access token, which a token endpoint issues when a granted request first needs it."""

    __slots__ = ("mark", "request")

    def __init__(self, request: TokenRequest, mark: str) -> None:
        """Args: mark: equal for equal requests, also after a reload; reveals nothing."""
        super().__init__((), 0)
        self.request = request
        self.mark = mark

    @property
    def key(self) -> tuple[str, ...]:
        return ("oauth2", self.mark)

    @property
    def needs(self) -> tuple[LateSecret, ...]:
        return self.request.late


class Minted(NamedTuple):
    """What an endpoint issued: a token for `lifetime` seconds, and perhaps the next refresh token."""

    token: Secret
    lifetime: int
    refresh_token: Secret | None = None


def written(
    request: TokenRequest, fill: Fill, refresh_token: Secret | None, now: int
) -> tuple[Fields, bytes]:
    """Return header fields and body of a request to the endpoint, both with secrets in them.

    Args:
        now: Unix time, whole seconds.

    Raises Denied("upstream") if a program printed something else than a private key.
    """
    form = [("grant_type", _ON_THE_WIRE.get(request.grant, request.grant))]
    client_id, secret, key = (
        fill(one).reveal() if one is not None else None
        for one in (request.client_id, request.client_secret, request.private_key)
    )
    if key is not None:
        form.append(("assertion", _assertion(request, key, client_id, now)))
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
    if secret is not None and request.in_header:
        # Both parts are form-encoded first (RFC 6749, 2.3.1 and appendix B).
        pair = f"{quote_plus(client_id or '')}:{quote_plus(secret)}".encode()
        fields.append((b"Authorization", b"Basic " + base64.b64encode(pair)))
    elif client_id is not None and (secret is not None or key is None):
        form.append(("client_id", client_id))
        form += [("client_secret", secret)] if secret is not None else []
    return tuple(fields), urlencode(form).encode("ascii")


def _assertion(request: TokenRequest, key: str, client_id: str | None, now: int) -> str:
    try:
        found = read_key(key)
    except ValueError as error:
        raise Denied("upstream", f"the private key {error}") from None
    endpoint = f"{request.origin}{request.target.decode('ascii')}"
    usual = {"iss": client_id or found.issuer or "", "aud": endpoint}
    scope = {name: value for name, value in request.plain if name == "scope"}
    return assertion(found, usual | scope | dict(request.claims), now)


def minted(status: int, content_type: bytes, body: bytes) -> Minted:
    """Return what an answer issues. Raises Denied("upstream"), without any text of the answer."""
    if 300 <= status < 400:
        raise _refused("redirects, which is not followed")
    if status != 200:
        raise _refused(f"answers {status}{_error_in(body)}")
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise _refused("answers with something else than JSON")
    found = _object(body)
    token, kind = found.get("access_token"), found.get("token_type", "bearer")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise _refused("answers without an access token that a header can carry")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise _refused("issues tokens of another type than bearer")
    return Minted(Secret(token), _lifetime(found.get("expires_in")), _refresh_token(found))


def _lifetime(value: Any) -> int:
    if value is None:
        return LIFETIME
    if isinstance(value, str) and _SECONDS.fullmatch(value):
        value = int(value)
    # A bool is an int in Python. The comparison is false for NaN.
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        raise _refused("says no valid expires_in")
    return int(min(value, MAX_LIFETIME))


def _refresh_token(found: dict[str, Any]) -> Secret | None:
    token = found.get("refresh_token")
    if token is None:
        return None
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise _refused("answers with a refresh token that is not text")
    return Secret(token)


def _error_in(body: bytes) -> str:
    """Return the error code of an answer (RFC 6749, 5.2), behind a blank; empty if it has no known one."""
    try:
        error = _object(body).get("error")
    except Denied:
        return ""
    return f" {error}" if isinstance(error, str) and error in _ERRORS else ""


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise _refused("answers with broken JSON") from None
    if not isinstance(found, dict):
        raise _refused("answers with JSON that is no object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found


def _refused(why: str) -> Denied:
    return Denied("upstream", f"the token endpoint {why}")
