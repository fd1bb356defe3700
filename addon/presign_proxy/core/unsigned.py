"""What becomes of a request without a presign where such requests are denied."""

from __future__ import annotations

from typing import Final

from ..errors import Denied, Malformed
from ..http.message import Head, Request, check_grammar
from .common_checks import check_names
from .decision import SECOND, PassThrough
from .recognise import why_unsigned
from .registry import Registry

_METHODS: Final = frozenset((b"GET", b"HEAD", b"PUT"))
"""What signed object stores are asked with."""
_CHALLENGE: Final = ((b"WWW-Authenticate", b'Basic realm="presign"'),)


def judge(registry: Registry, request: Request, head: Head) -> PassThrough:
    """Let through what goes to a host that a connection lists in `also`. Raises Denied for everything else.

    Nothing of ours is added on the way, and the address is judged before it is dialled.
    """
    if request.origin not in registry.also:
        raise _unsigned(registry, request)
    if request.method not in _METHODS:
        raise Denied("unsigned", f"{request.origin} is for GET, HEAD and PUT without a presign")
    check_grammar(request, head)
    # A name for the tunnel and another one inside would lead to any customer of the same provider.
    check_names(request, gateway=False)
    if b"upgrade" in head.names:
        raise Denied("unsigned", "no other protocol is let through without a presign")
    framed = {name.lower(): value for name, value in request.fields}
    has_body = b"transfer-encoding" in framed or framed.get(b"content-length", b"0") != b"0"
    if has_body and request.method != b"PUT":
        raise Malformed("a body stands where no body belongs")
    return SECOND


def _unsigned(registry: Registry, request: Request) -> Denied:
    """The refusal, which may ask for a credential: some clients send theirs only where they are asked."""
    connection = registry.addressed(request.origin, request.path)
    if connection is not None and connection.conduct.challenge:
        return Denied("unsigned", "the request carries no presign yet", 401, fields=_CHALLENGE)
    return Denied("unsigned", why_unsigned(registry, request))
