"""The decision on a preflight: a browser asks whether a page of another origin may send a request."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ..errors import Denied
from ..http.message import Head, Request, check_grammar, check_size
from ..signing.carrier_names import API_PROXY
from ..signing.grammar import ANY
from ..signing.source_scheme import PREFIX
from .connection import Connection
from .cors import Cors, is_preflight, origin_of
from .decision import Facts, Preflight
from .recognise import Form
from .registry import Registry

_OF_SOURCES: Final = ("GET", "HEAD")


def judge(registry: Registry, request: Request, head: Head, form: Form, facts: Facts) -> Preflight | None:
    """Return the answer to a preflight; None if no rule admits its page. Raises Denied.

    A preflight contains no presign in a header: browsers send no header of the page with it. So it is
    answered without a grant, and it grants nothing. What no rule admits is treated like any other request.
    """
    known = registry.destinations.cors
    if known is None or not is_preflight(request, head):
        return None
    origin = origin_of(head, request.fields)
    if not known.admits(origin):
        return None
    for rules, methods in _rules(registry, request, form):
        if rules.admits(origin):
            check_size(request, head)
            check_grammar(request, head)
            return Preflight(facts, rules.preflight(request, head, methods))
    return None


def name_it(denied: Denied, request: Request, head: Head, facts: Facts) -> None:
    """Let the detail of a refusal say, for the audit log, that a browser asked.

    Only behind a valid signature. The client gets the same answer.
    """
    if not facts.verified or facts.known is None or not is_preflight(request, head):
        return
    rules = facts.known.conduct.cors
    if denied.code != "method_not_allowed" or (rules and rules.admits(origin_of(head, request.fields))):
        return
    denied.detail += ": it is a preflight of a page whose origin cors.origins does not list"


def _rules(registry: Registry, request: Request, form: Form) -> Iterable[tuple[Cors, tuple[str, ...]]]:
    """Yield the rules that apply, with the methods that are allowed."""
    if form.source:
        yield from _of(registry.get(_named(request, PREFIX), "source"))
    elif form.gateway and request.target.startswith(API_PROXY):
        yield from _of(registry.get(_named(request, API_PROXY), "presign"))
    elif form.gateway:
        yield from _of_any(registry)
    else:
        reached = registry.addressed(request.origin, request.path)
        if reached is not None:
            yield from _of(reached)
        elif registry.leads_to(request.origin.host, request.origin.port):
            yield from _of_any(registry)  # several connections have this upstream
        for project in registry.destinations.intercepting.get(request.origin, ()):
            yield from _of(project)


def _named(request: Request, prefix: bytes) -> str:
    return request.target[len(prefix) :].partition(b"/")[0].decode("ascii", "replace")


def _of_any(registry: Registry) -> Iterable[tuple[Cors, tuple[str, ...]]]:
    """Yield the rules for an unknown connection: the presign names it, and comes with the request itself."""
    if registry.destinations.cors is not None:
        yield registry.destinations.cors, ANY


def _of(connection: Connection | None) -> Iterable[tuple[Cors, tuple[str, ...]]]:
    if connection is not None and connection.conduct.cors is not None:
        yield connection.conduct.cors, _OF_SOURCES if connection.source else connection.ceiling.methods
