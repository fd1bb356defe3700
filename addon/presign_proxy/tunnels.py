"""CONNECT: no presign travels on it, and with `unsigned: deny` it leads to known places only."""

from __future__ import annotations

from .connections import Registry
from .errors import Denied
from .message import Request, head_of
from .recognition import is_gateway
from .schemes import presign as presign_scheme


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
    if not registry.deny_unsigned or known or is_gateway(registry, request):
        return None
    return "unsigned"
