"""Is it ours? Where a request is addressed, and what it claims."""

from __future__ import annotations

from typing import Final

from .carriers import API_PROXY, TOKEN_PATH
from .connections import Registry
from .errors import Denied, Malformed
from .hosts import is_loopback
from .message import Head, Request
from .schemes import presign as presign_scheme
from .schemes import source as source_scheme
from .schemes.presign import Presign
from .schemes.source import Source
from .tokens import PREFIXES

_TOKEN_PATHS: Final = tuple(TOKEN_PATH + start for start in PREFIXES)


def is_gateway(registry: Registry, request: Request) -> bool:
    """Whether the request is addressed to the gateway itself rather than to an API."""
    if request.reverse:
        # mitmproxy has replaced Host by then, so only the path can tell.
        path = request.path
        return path.startswith((API_PROXY, *_TOKEN_PATHS)) or is_source_form(registry, request)
    host, port = request.origin.host, request.origin.port
    if host in registry.hosts:
        return True
    if request.listener is None or port != request.listener[1]:
        return False
    return is_loopback(host) or host == request.listener[0]


def is_source_form(registry: Registry, request: Request) -> bool:
    """Whether a request at the gateway is of scheme source; in reverse mode, `/v1/` may be the API's own."""
    if not source_scheme.FORM.match(request.target):
        return False
    if not request.reverse:
        return True
    project = request.path[len(source_scheme.PREFIX) :].partition(b"/")[0].decode("ascii", "replace")
    return registry.get(project, "source") is not None


def recognise(registry: Registry, request: Request, head: Head, *, gateway: bool) -> Presign | Source | None:
    """What the request claims; None where it carries no part of a presign. Raises Denied."""
    if gateway and is_source_form(registry, request):
        return _source_at_gateway(request, head)
    if gateway and not request.target.startswith((API_PROXY, TOKEN_PATH)):
        raise Denied("not_found", "no such form at a gateway host")
    presign = presign_scheme.recognise(request, head, gateway=gateway)
    if presign is not None or gateway:
        return presign
    return _intercepted_source(registry, request)


def _source_at_gateway(request: Request, head: Head) -> Source:
    source = source_scheme.recognise(request)
    if source is None:
        raise Denied("not_found", "no such form at a gateway host")
    if presign_scheme.recognise(request, head, gateway=False) is not None:
        raise Malformed("it carries presigns of two schemes")
    return source


def _intercepted_source(registry: Registry, request: Request) -> Source | None:
    """`sig` and `exp` on an origin that a project intercepts. Elsewhere they belong to other people."""
    projects = registry.intercepting.get(request.origin)
    if projects is None:
        return None
    try:
        source = source_scheme.recognise_intercepted(request)
        if source is None:
            return None
        matching = [project.id for project in projects if source.project in ("", project.id)]
        if len(matching) != 1:
            raise Denied("invalid", "no project is named and none or several match")
    except Denied as denied:
        denied.bare = True
        raise
    return source._replace(project=matching[0])
