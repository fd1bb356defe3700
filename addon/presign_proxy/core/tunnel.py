"""CONNECT: no presign travels on it, and with `unsigned: deny` it leads to known places only."""

from __future__ import annotations

from typing import Final

from ..errors import Denied
from ..http.message import Request, head_of
from ..signing import presign_scheme
from .recognise import is_gateway
from .registry import Registry

REASON: Final = b"Forbidden: no connection of the presign gateway leads there"
"""Many clients show nothing of a refused tunnel but its status line."""


def refused(registry: Registry | None, request: Request) -> str | None:
    """The code with which a tunnel is refused; None where it may be built.

    Args:
        request: with `/` for its target, because a CONNECT has none.
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
    if not registry.deny_unsigned or known or is_gateway(registry, request):
        return None
    return "unsigned"
