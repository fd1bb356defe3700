"""The outgoing request, computed whole: strip, retarget, inject. Tables of what is taken off."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from .connections import Connection
from .errors import Malformed
from .injectors import Outgoing, Slots
from .message import Fields, Head, Request
from .query import fold, without

CREDENTIALS: Final = frozenset(
    b"authorization proxy-authorization x-api-key api-key apikey x-goog-api-key private-token job-token "
    b"deploy-token x-auth-token x-access-token x-amz-date x-amz-security-token x-amz-content-sha256 "
    b"x-amz-signature x-amz-credential x-amz-algorithm x-amz-signedheaders x-amz-expires x-amz-region-set "
    b"x-goog-iam-authorization-token ocp-apim-subscription-key x-functions-key".split()
)
"""Headers in which a client brings a credential of its own."""

IDENTITY: Final = frozenset(
    b"forwarded x-real-ip true-client-ip client-ip x-client-ip x-cluster-client-ip x-originating-ip "
    b"x-remote-ip x-remote-addr x-remote-user x-remote-host x-host x-host-override x-http-host-override "
    b"x-backend-host x-server-name x-proxyuser-ip wl-proxy-client-ip proxy-client-ip front-end-https "
    b"x-url-scheme".split()
)
"""Headers that tell an upstream who the client is or which host it meant."""

OVERRIDES: Final = frozenset(
    b"x-http-method x-http-method-override x-method-override x-http-path-override".split()
)
"""Headers that change the method or the path behind our back."""

HOP_BY_HOP: Final = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate te trailer transfer-encoding upgrade "
    b"http2-settings".split()
)
"""RFC 9110, 7.6.1: for this connection only. The adapter frames the outgoing body anew."""

_PREFIXES: Final = (b"x-forwarded", b"x-original-", b"x-rewrite-", b"x-presign")
_SUFFIXES: Final = (b"-connecting-ip",)
_FRAMING: Final = frozenset((b"content-length", b"host", b"content-type", b"content-encoding"))
_PRESIGN_IN_URL = re.compile(rb"x-presign|/ps[12]_|=ps[12]_|[?&]sig=[0-9a-f]{64}")
_ASKS_FOR_MORE: Final = frozenset((b"upgrade", b"service-worker", b"expect"))
PROXY_AUTHORIZATION: Final = b"proxy-authorization"
EXPECT: Final = b"expect"
_NEVER_PASSED: Final = (
    CREDENTIALS | IDENTITY | OVERRIDES | HOP_BY_HOP | {b"", b"host", b"accept-encoding", EXPECT}
)


@lru_cache(maxsize=4096)
def header_key(name: bytes) -> bytes:
    """The spelling under which header names meet in an upstream that maps them to CGI variables."""
    return name.lower().replace(b"_", b"-").strip(b"-")


def nominated(fields: Fields) -> frozenset[bytes]:
    """Names that `Connection` declares to be for this connection only. Raises Malformed.

    Naming what frames or identifies the message is an attack on the next hop (RFC 9110, 7.6.1), not a use.
    """
    names = frozenset(
        header_key(token.strip())
        for name, value in fields
        if header_key(name) in (b"connection", b"proxy-connection")
        for token in value.split(b",")
    )
    if names & _FRAMING:
        raise Malformed("Connection names a header that frames the message")
    return names


def check_upgrade(request: Request, head: Head, *, gateway: bool) -> None:
    """Refuse to change protocols, and to register a script that would outlive the presign."""
    if _ASKS_FOR_MORE.isdisjoint(head.names):
        return
    for name, value in request.fields:
        key = name.lower()
        if key == b"upgrade" and value.strip().lower() != b"h2c":
            raise Malformed("the connection does not allow protocol upgrades")
        if key == b"service-worker" and gateway:
            raise Malformed("service workers are not served")
        if key == EXPECT and value.strip().lower() != b"100-continue":
            raise Malformed("Expect is not 100-continue")


def outgoing(
    request: Request, path: bytes, query: bytes | None, connection: Connection, token_in: bytes = b""
) -> Outgoing:
    """The request as it goes to the upstream, without credential and `Host`.

    Args:
        path: the canonical path, base included.
        query: the query without the presign.
        token_in: the lower-case header in which the presign itself stood, if it was a key token.
    """
    slots = connection.injector.slots
    kept = _kept(request.fields, slots, connection)
    if connection.conduct.reject_client_credentials:
        _reject(request.fields, query, slots, token_in)
    if defaults := connection.conduct.default_fields:
        present = {header_key(name) for name, _ in kept}
        kept += tuple(field for field in defaults if header_key(field[0]) not in present)
    # An encoded reply could carry the credential past the mask.
    kept += ((b"Accept-Encoding", b"identity"),)
    return Outgoing(path, without(query, slots.params) if slots.params else query, kept)


def _kept(fields: Fields, slots: Slots, connection: Connection) -> Fields:
    gone = slots.headers | nominated(fields)
    if not connection.conduct.cookies:
        gone |= {b"cookie"}
    return tuple(
        [
            field
            for field in fields
            if (key := _passing(field[0]))
            and key not in gone
            and not (key == b"referer" and _tells(key, field[1]))
        ]
    )


@lru_cache(maxsize=4096)  # only names of verified requests get here
def _passing(name: bytes) -> bytes:
    """The header key of a name that connections may let pass; empty for one that none does."""
    key = header_key(name)
    if key in _NEVER_PASSED or key.startswith(_PREFIXES) or key.endswith(_SUFFIXES):
        return b""
    return key


def _reject(fields: Fields, query: bytes | None, slots: Slots, token_in: bytes) -> None:
    """Raises Malformed where the client brings a credential of its own."""
    refused = (CREDENTIALS - {PROXY_AUTHORIZATION, token_in}) | (slots.headers - {token_in})
    in_header = any(header_key(name) in refused for name, _ in fields)
    if in_header or without(query, slots.params) != query:
        raise Malformed("the client brings a credential of its own, the connection rejects that")


class Redacted(NamedTuple):
    """Target and header of a refused request as people may see them."""

    target: bytes
    fields: Fields


def redact(target: bytes, fields: Fields) -> Redacted:
    """Without signature and credential. A signature that was refused here may be good elsewhere, so the
    whole query goes.
    """
    path, mark, _ = target.partition(b"?")
    if _PRESIGN_IN_URL.search(fold(path)):
        path = b"/[redacted]"
    shown = tuple(
        (name, b"[redacted]" if _tells(header_key(name), value) else value) for name, value in fields
    )
    return Redacted(path + b"?[redacted]" if mark else path, shown)


def _tells(key: bytes, value: bytes) -> bool:
    return (
        key.startswith(b"x-presign")
        or key in CREDENTIALS
        or key == b"cookie"
        or bool(_PRESIGN_IN_URL.search(fold(value)))
        or value.startswith((b"ps1_", b"ps2_"))
    )
