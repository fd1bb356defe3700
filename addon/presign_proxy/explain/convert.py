"""One carrier into another: the same grant, without the secret."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import Denied
from ..http.message import head_of
from ..http.query import target
from ..signing import presign_scheme, source_scheme
from ..signing.carrier_names import API_PROXY, TOKEN_PATH
from ..signing.presign_scheme import Presign
from ..signing.signer import Signed
from ..signing.source_scheme import Source
from .input.paste import Presented
from .input.urls import UnreadableUrl


class Converted(NamedTuple):
    """A grant, and the path with query it was asked for with; None where nobody said one."""

    signed: Signed
    path: str | None


def signed_from(presented: Presented, *, connection: str | None = None, base: str = "") -> Converted:
    """The grant that a request carries, for `Signed.url`, `.headers` and `.token`.

    Nothing is verified: whoever holds a presign may carry it otherwise, good or bad.

    Args:
        connection: its id, for a presign that names none (a URL of the API's own without
            X-Presign-Connection).
        base: the connection's base path, such as `/v1`, which a URL of the API's own begins with and one
            of the gateway leaves out.

    Raises Unreadable where there is no well-formed presign, or none of scheme presign.
    """
    presign = _recognised(presented)
    named = presign.connection_id or connection
    if named is None:
        raise UnreadableUrl("the URL names no connection: say which one it is for")
    if connection is not None and named != connection:
        raise UnreadableUrl(f'the presign is for connection "{named}", not for the one that was given')
    fields = (named, presign.expires, presign.methods, presign.paths, presign.signature)
    signed = Signed(*fields, presign.written)
    return Converted(signed, None if presented.path_assumed else _path(presign, base))


def claimed(presented: Presented) -> Presign | Source:
    """What a request carries, signed by either scheme, at whichever host. Nothing is verified.

    Raises Unreadable.
    """
    request = presented.request
    gateway = request.path.startswith((API_PROXY, TOKEN_PATH))
    try:
        found: Presign | Source | None = presign_scheme.recognise(request, head_of(request), gateway=gateway)
        found = found or source_scheme.recognise(request) or source_scheme.recognise_intercepted(request)
    except Denied as denied:
        raise UnreadableUrl(f"it is not well-formed: {denied.detail}") from None
    if found is None or found.signature is None:
        raise UnreadableUrl("it carries no signature")
    return found


def _recognised(presented: Presented) -> Presign:
    request = presented.request
    gateway = request.path.startswith((API_PROXY, TOKEN_PATH))
    try:
        presign = presign_scheme.recognise(request, head_of(request), gateway=gateway)
    except Denied as denied:
        raise UnreadableUrl(f"it cannot be converted as it stands: {denied.detail}") from None
    if presign is None:
        raise UnreadableUrl("it carries no presign (a source URL with sig and exp has one form only)")
    return presign


def _path(presign: Presign, base: str) -> str:
    """The path below the connection with the query, as received. Raises Unreadable."""
    path = presign.path
    prefix = base.rstrip("/").encode()
    if not presign.gateway and prefix:
        if not path.startswith(prefix + b"/"):
            raise UnreadableUrl(f"the path is not below the connection's base path, {base}")
        path = path[len(prefix) :]
    try:
        return target(path, presign.query).decode("utf-8")
    except UnicodeDecodeError:
        raise UnreadableUrl("the path is not UTF-8") from None
