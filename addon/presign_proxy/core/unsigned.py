"""The decision on a request without a presign if such requests are denied."""

from __future__ import annotations

from typing import Final

from ..errors import Denied, Malformed
from ..http.message import Head, Request, check_grammar
from .common_checks import check_names
from .decision import SECOND, PassThrough
from .recognise import challenge, may_challenge, why_unsigned
from .registry import Registry

_METHODS: Final = frozenset((b"GET", b"HEAD", b"PUT"))
"""The methods that clients use with signed URLs of object stores."""


def judge(registry: Registry, request: Request, head: Head) -> PassThrough:
    """Let a request pass if it goes to a host that a connection lists in `also`. Raises Denied otherwise.

    The gateway adds nothing to it, and checks the address before it connects.
    """
    if request.origin not in registry.also:
        raise _unsigned(registry, request, head)
    if request.method not in _METHODS:
        raise Denied("unsigned", f"{request.origin} is for GET, HEAD and PUT without a presign")
    check_grammar(request, head)
    # With one name for the tunnel and another inside, it would reach any customer of the same provider.
    check_names(request, gateway=False)
    if b"upgrade" in head.names:
        raise Denied("unsigned", "no other protocol is let through without a presign")
    framed = {name.lower(): value for name, value in request.fields}
    has_body = b"transfer-encoding" in framed or framed.get(b"content-length", b"0") != b"0"
    if has_body and request.method != b"PUT":
        raise Malformed("a GET or HEAD without a presign has a body")
    return SECOND


def _unsigned(registry: Registry, request: Request, head: Head) -> Denied:
    """Return the refusal. It may be a challenge, because some clients send credentials only after one."""
    connection = registry.addressed(request.origin, request.path)
    if connection is not None and connection.conduct.challenge and may_challenge(request, head):
        return challenge()
    return Denied("unsigned", why_unsigned(registry, request))
