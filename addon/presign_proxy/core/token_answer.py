"""What counts as the answer of a token endpoint (RFC 6749, 5), of GitHub for an app, or of a registry's."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Final, NamedTuple

from ..errors import Denied
from ..signing.secret import Secret
from .grants import Grant

MAX_ANSWER: Final = 64 * 1024
"""Most bytes of an answer of a token endpoint. Tokens with many claims have about 10,000."""
LIFETIME: Final = 300
"""Seconds for which a token is used if the endpoint does not say how long it is valid."""
REGISTRY_LIFETIME: Final = 60
"""The same for a token service of a registry, whose specification says so."""
MAX_LIFETIME: Final = 86_400
_TOKEN: Final = re.compile(r"[!-~]{1,32768}")
"""Characters that a header can carry (RFC 6750, 2.1, and what servers really send)."""
_SECONDS: Final = re.compile(r"[0-9]{1,12}")
_INSTANT: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
"""An instant with its zone (RFC 3339)."""
_ERRORS: Final = frozenset(
    b"access_denied invalid_client invalid_grant invalid_request invalid_resource invalid_scope "
    b"invalid_target server_error slow_down temporarily_unavailable unauthorized_client "
    b"unsupported_grant_type".decode().split()
)
"""The errors that are repeated in the log. Other text of an endpoint may contain what it was sent."""

_OF_SCOPE: Final[dict[int, int | None]] = {400: None, 401: None, 403: 403, 404: 403}
"""The statuses that concern one scope, each with what the client gets if it is not the usual 502.

Some services say 401 also to a known account that lacks a right. So it does not hold for other scopes.
"""
_NO_ACCESS: Final = "The registry does not permit this request to the account of the connection."


class Minted(NamedTuple):
    """What an endpoint issued: a token for `lifetime` seconds, and perhaps the next refresh token."""

    token: Secret
    lifetime: int
    refresh_token: Secret | None = None


class ScopeRefused(Denied):
    """A registry's token service refuses what one request needs. It may issue a token for another request."""

    NO_ACCESS: Final = 403
    """The status of an account that lacks the right."""


def issued(grant: Grant, status: int, content_type: bytes, body: bytes, now: int) -> Minted:
    """Return what an answer issues. Raises Denied("upstream"), without any text of the answer.

    Args:
        now: Unix time, whole seconds.
    """
    found = _read(201 if grant == "github_app" else 200, status, content_type, body)
    if grant == "github_app":
        return Minted(_token(found.get("token")), _time_until(found.get("expires_at"), now))
    token, kind = _token(found.get("access_token")), found.get("token_type", "bearer")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise _refused("issues tokens of another type than bearer")
    return Minted(token, _lifetime(found.get("expires_in")), _refresh_token(found))


def issued_for_registry(status: int, content_type: bytes, body: bytes, now: int) -> Minted:
    """Return what an answer of a registry's token service issues. Raises Denied("upstream"), ScopeRefused.

    Such an answer has `token`, or `access_token`, or both with one value; perhaps `expires_in`, and
    `issued_at` if it is an older one that the service hands out again.

    Args:
        now: Unix time, whole seconds.
    """
    if status in _OF_SCOPE:
        refused = _refused(f"answers {status}")
        raise ScopeRefused(refused.code, refused.detail, _OF_SCOPE[status], sentence=_NO_ACCESS)
    found = _read(200, status, content_type, body)
    names = [found[name] for name in ("token", "access_token") if found.get(name) is not None]
    token = _token(names[0] if names else None)
    if any(name != names[0] for name in names):
        raise _refused("answers with two tokens that differ")
    lifetime = _lifetime(found.get("expires_in"), REGISTRY_LIFETIME)
    if found.get("issued_at") is not None:
        lifetime = min(lifetime, _seconds_until(found["issued_at"], "issued_at", now - lifetime))
    return Minted(token, lifetime)


def _read(wanted: int, status: int, content_type: bytes, body: bytes) -> dict[str, Any]:
    if 300 <= status < 400:
        raise _refused("redirects, which is not followed")
    if status != wanted:
        raise _refused(f"answers {status}{_error_in(body)}")
    if content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise _refused("answers with something else than JSON")
    return _object(body)


def _token(value: Any) -> Secret:
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise _refused("answers without an access token that a header can carry")
    return Secret(value)


def _lifetime(value: Any, usual: int = LIFETIME) -> int:
    if value is None:
        return usual
    if isinstance(value, str) and _SECONDS.fullmatch(value):
        value = int(value)
    # A bool is an int in Python. The comparison is false for NaN.
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 1:
        raise _refused("says no valid expires_in")
    return int(min(value, MAX_LIFETIME))


def _time_until(value: Any, now: int) -> int:
    """Return the seconds until an instant of GitHub's."""
    return min(_seconds_until(value, "expires_at", now), MAX_LIFETIME)


def _seconds_until(value: Any, member: str, now: int) -> int:
    """Return the seconds from `now` until an instant (RFC 3339), which must not be past."""
    try:
        if not isinstance(value, str) or not _INSTANT.fullmatch(value):
            raise ValueError
        left = int(datetime.fromisoformat(value.upper()).timestamp()) - now
    except (ValueError, OverflowError):
        raise _refused(f"says no valid {member}") from None
    if left < 1:
        raise _refused(f"issues a token that has ended, by its {member}: check the clock of this machine")
    return left


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
        found = json.loads(body.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
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


def _no_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


def _refused(why: str) -> Denied:
    return Denied("upstream", f"the token endpoint {why}")
