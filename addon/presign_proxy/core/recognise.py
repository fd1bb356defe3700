"""Recognition: where a request is addressed, and which presign it claims to have."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..errors import Denied, Malformed
from ..http.hosts import is_loopback, parse_address
from ..http.message import Head, Request
from ..http.navigation import is_browser
from ..http.networks import is_in
from ..signing import presign_scheme, source_scheme
from ..signing.carrier_names import API_PROXY, TOKEN_PATH
from ..signing.presign_scheme import Presign
from ..signing.source_scheme import Source
from ..signing.tokens import PREFIXES
from .connection import Connection
from .decision import Facts
from .registry import Registry

_OF_ADDRESS: Final = frozenset(("invalid", "malformed", "path_not_allowed", "host_mismatch"))
"""Codes that result if a request for the gateway is mistaken for one to an API."""
NOT_OUR_NAME: Final = (
    "The gateway does not answer to the host of this URL. Its names are listed under gateway.hosts; an "
    "address or localhost counts with the gateway's own port only."
)
_TOKEN_PATHS: Final = tuple(TOKEN_PATH + start for start in PREFIXES)
_OF_REGISTRIES: Final = b"/v2/"
"""Where clients of container registries begin, without a credential: a registry is a host and no path."""
_CHALLENGE: Final = ((b"WWW-Authenticate", b'Basic realm="presign"'),)


_PLAIN: Final = (
    "This gateway serves its URLs over TLS only: write https:// in place of http://. What was sent has "
    "crossed the network unencrypted, so ask for a new URL or key."
)


class Form(NamedTuple):
    """Where a request is addressed."""

    gateway: bool
    """To the gateway itself, and not to an API."""
    source: bool
    """To the gateway, in the form of scheme source."""


def form_of(registry: Registry, request: Request) -> Form:
    """Return where a request is addressed. Worked out once for each request."""
    if request.reverse:
        # mitmproxy has already replaced Host, so only the path shows it. `/v1/` may be the API's own path, so
        # the project must exist.
        source = bool(source_scheme.FORM.match(request.target)) and _project(registry, request) is not None
        return Form(source or has_gateway_form(request), source)
    gateway = _is_gateway(registry, request)
    return Form(gateway, gateway and source_scheme.FORM.match(request.target) is not None)


def _is_gateway(registry: Registry, request: Request) -> bool:
    host, port = request.origin.host, request.origin.port
    if host in registry.hosts:
        return True
    if request.listener is None or port != request.listener[1]:
        return False
    return is_loopback(host) or host == request.listener[0]


def check_encrypted(registry: Registry, request: Request, form: Form, facts: Facts) -> None:
    """Refuse a presign that came to the gateway unencrypted from another machine. Raises Denied.

    A trusted proxy has ended TLS itself. In reverse mode, the origin is the target's.
    """
    if not form.gateway or not _is_exposed(registry, request):
        return
    facts.step = "address"
    why = "it came over plain HTTP, and gateway.tls is set without plain_http"
    raise Denied("host_mismatch", why, sentence=_PLAIN)


def _is_exposed(registry: Registry, request: Request) -> bool:
    """Return whether a request to the gateway crossed a network unencrypted although it serves TLS only."""
    if not registry.tls_only or request.origin.scheme == "https" or request.reverse:
        return False
    client = parse_address(request.client)
    near = is_loopback(request.client or request.origin.host)  # an explanation may know no client
    return not near and (client is None or not is_in(client, registry.trusted_proxies))


def has_gateway_form(request: Request) -> bool:
    """Return whether the path has the form of scheme presign at a gateway host. The host may be any."""
    return request.path.startswith((API_PROXY, *_TOKEN_PATHS))


def at_another_name(request: Request, denied: Denied) -> Denied:
    """Return the refusal of a request whose path has the gateway's form, but whose host is not its name.

    The usual reasons are a published port, or a name that `gateway.hosts` does not list. The answer is the
    same whether or not the connection exists and the signature is valid. It reveals only what the client
    wrote itself.
    """
    if denied.code not in _OF_ADDRESS or not has_gateway_form(request):
        return denied
    # That no key made the signature would mislead: it was looked for among the keys of another host.
    why = "" if denied.code == "invalid" else f"; {denied.detail}"
    found = Denied("not_found", f"{_is_none_of_ours(request)}{why}")
    found.sentence = NOT_OUR_NAME
    return found


def why_unsigned(registry: Registry, request: Request) -> str:
    """Return why a request counts as one without a presign, for the audit log."""
    none = "the request carries no presign"
    if not is_source_of_another_name(registry, request):
        return none
    return f"{_is_none_of_ours(request)}, and at other hosts sig and exp do not count as a presign"


def is_source_of_another_name(registry: Registry, request: Request) -> bool:
    """Return whether the path has the form of scheme source with an existing project.

    Callers use it for requests that are not at a host of the gateway.
    """
    return bool(source_scheme.FORM.match(request.target)) and _project(registry, request) is not None


def _project(registry: Registry, request: Request) -> Connection | None:
    """Return the project that a path of scheme source names; None if there is no such project."""
    name = request.path[len(source_scheme.PREFIX) :].partition(b"/")[0].decode("ascii", "replace")
    return registry.get(name, "source")


def _is_none_of_ours(request: Request) -> str:
    where = f"{request.origin.host}:{request.origin.port}"
    return f"{where} is not one of the gateway's names, but the path has its form"


def recognise(registry: Registry, request: Request, head: Head, form: Form) -> Presign | Source | None:
    """Return the claim of a request; None if it carries no part of a presign. Raises Denied."""
    if form.source:
        return _source_at_gateway(request, head)
    if form.gateway and not request.target.startswith((API_PROXY, TOKEN_PATH)):
        return _key_at_gateway(registry, request, head)
    presign = presign_scheme.recognise(request, head, gateway=form.gateway)
    if presign is not None or form.gateway:
        return presign
    return _intercepted_source(registry, request)


def _key_at_gateway(registry: Registry, request: Request, head: Head) -> Presign:
    """Recognise a key token at the gateway, with a path of the API itself. Raises Denied.

    A key token names its connection, so the path need not. Some SDKs let users configure only a host.
    """
    presign = presign_scheme.recognise(request, head, gateway=True)
    if presign is None and request.path.startswith(_OF_REGISTRIES) and registry.destinations.challenges:
        if not _is_exposed(registry, request) and may_challenge(request, head):  # or the key came unencrypted
            raise challenge()
    if presign is None or presign.carrier != "key":
        raise Denied("not_found", "no such form at a gateway host")
    return presign


def may_challenge(request: Request, head: Head) -> bool:
    """Return whether a client may be asked for a credential.

    Not a browser. It would keep the key, and send it with what pages of any other site make it request.
    """
    return not is_browser(request.fields, head)


def challenge() -> Denied:
    """Return the refusal that asks for a credential, because some clients send theirs only then."""
    return Denied("unsigned", "the request carries no presign yet", 401, fields=_CHALLENGE)


def _source_at_gateway(request: Request, head: Head) -> Presign | Source:
    """Recognise a request at the gateway whose path begins with `/v1/`. Raises Denied.

    It is of scheme source, unless it has a key token and no signature of a source: the paths of many APIs
    begin with `/v1/`.
    """
    presign = presign_scheme.recognise(request, head, gateway=True)
    key = presign is not None and presign.carrier == "key" and not request.reverse
    if presign is not None and key and not source_scheme.names_signature(request.query):
        return presign
    source = source_scheme.recognise(request)
    if source is None:
        raise Denied("not_found", "no such form at a gateway host")
    if presign is not None:
        raise Malformed("it carries presigns of two schemes")
    return source


def _intercepted_source(registry: Registry, request: Request) -> Source | None:
    """Recognise `sig` and `exp` on an origin that a project intercepts. Elsewhere they belong to the API."""
    projects = registry.destinations.intercepting.get(request.origin)
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
