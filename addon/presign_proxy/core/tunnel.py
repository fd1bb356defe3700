"""The check of CONNECT: it must carry no presign, and with `unsigned: deny` its host must be known."""

from __future__ import annotations

from typing import Final

from ..errors import Denied
from ..http.message import Request, head_of
from ..signing import presign_scheme
from .recognise import form_of
from .registry import Registry

REASON: Final = b"Forbidden: no connection of the presign gateway leads there"
"""The reason phrase of a refused tunnel. Many clients show only the status line."""


def refused(registry: Registry | None, request: Request) -> str | None:
    """Return the code with which a tunnel is refused; None if it may be built.

    Args:
        request: the CONNECT, with `/` as its target, because a CONNECT has none.
    """
    try:
        if presign_scheme.recognise(request, head_of(request), gateway=False) is not None:
            return "malformed"
    except Denied as denied:
        return denied.code
    if registry is None:
        return "unsigned"
    origin = request.origin
    known = origin.host in registry.hosts or registry.leads_to(origin.host, origin.port)
    known = known or registry.second_host(origin.host, origin.port) is not None
    if not registry.deny_unsigned or known or form_of(registry, request).gateway:
        return None
    return "unsigned"
