"""The parser of pasted text: it returns the request that the gateway would receive."""

from __future__ import annotations

import base64
import json
import re
from typing import Final, Literal, NamedTuple
from urllib.parse import quote, unquote

from ...errors import Denied
from ...http.message import Fields, Request
from ...http.networks import parse_network
from ...http.paths import canonical_path
from ...signing import grammar
from ...signing.carrier_names import API_PROXY, TOKEN_PATH
from ...signing.tokens import has_start
from . import curl, lenient
from .urls import MAX_TEXT, Located, UnreadableUrl, locate, looks_like_url

Kind = Literal["url", "token", "headers", "curl"]

GATEWAY: Final = "http://presign.local"
_PROXY_FORM: Final = API_PROXY.decode()
_TOKEN_FORM: Final = TOKEN_PATH.decode()

# Only the blanks that HTTP drops: a list may contain other kinds of space.
_BLANKS: Final = " \t\r\n"
_LINE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:")
_REQUEST_LINE = re.compile(r"([!-~]+) (\S+) HTTP/[0-9.]+")
_SHAPE: Final = r"[A-Za-z0-9._-]{0,32}?"
_ASSIGNED = re.compile(
    rf"(?<![A-Za-z0-9_])(?:export |set |\$env:)?[A-Za-z_][A-Za-z0-9_]*=(?=[\"']?{_SHAPE}ps[0-9]_)"
)
_TOKEN = re.compile(rf"(?:(?:Bearer|token) )?({_SHAPE})(ps[0-9]_\S*)", re.IGNORECASE)
_QUOTES: Final = ("<>", '""', "''", "``", "()")
_METHOD = re.compile(grammar.METHOD)


class Presented(NamedTuple):
    """A pasted text as a request. `assumed` has one sentence for each guess and for each dropped part.

    `path_assumed` is True if no path was given. Then the path is a guess that the signature allows.
    """

    kind: Kind
    request: Request
    assumed: tuple[str, ...] = ()
    path_assumed: bool = False


class Wanted(NamedTuple):
    """The options beside the text.

    They are the method, the path below the connection, the URL for headers, the gateway, and the client's
    address.
    """

    method: str | None = None
    path: str | None = None
    url: str | None = None
    gateway: str = GATEWAY
    client: str | None = None


def parse(
    text: str,
    *,
    method: str | None = None,
    path: str | None = None,
    url: str | None = None,
    gateway: str = GATEWAY,
    client: str | None = None,
) -> Presented:
    """Return the request of a URL, a token, header lines (also as a JSON object) or a curl command line.

    Args:
        method: the method, if the text names none. By default GET if it is signed, else the first signed one.
        path: the path below the connection, for tokens and headers, which name none.
        url: the URL to which headers are sent, if not to the gateway.
        gateway: the gateway's own `http(s)://host[:port]`.
        client: the address of the client. By default one that the presign admits.

    Raises UnreadableUrl, a ValueError that repeats nothing of the text.
    """
    if len(text) > MAX_TEXT:
        raise UnreadableUrl("this is longer than any request")
    wanted = Wanted(method, path, url, gateway, client)
    plain, assumed = _unwrapped(text.removeprefix("\ufeff").strip(_BLANKS))
    if re.match(r"(?:\$ )?curl(?:\.exe)?\s", plain):
        presented = _from_curl(plain, wanted)
    elif token := _TOKEN.fullmatch(_ASSIGNED.sub("", plain, count=1).strip("\"'")):
        presented = _from_token(token[1], token[2], wanted)
    elif plain.startswith("{"):
        presented = _from_fields("headers", _json(plain), wanted)
    elif looks_like_url(plain):
        presented = _request("url", locate(plain.strip(), wanted.gateway), (), wanted)
    elif _LINE.match(_bare_line(plain)) or _REQUEST_LINE.match(plain):
        presented = _from_lines(plain, wanted)
    else:
        raise UnreadableUrl(
            "this is neither a URL, a token (ps1_…, ps2_…), header lines nor a curl command line"
        )
    return presented._replace(assumed=(*assumed, *presented.assumed))


def _unwrapped(text: str) -> tuple[str, tuple[str, ...]]:
    """Remove the quotes or brackets around the whole text."""
    for opening, closing in _QUOTES:
        if len(text) > 2 and text[0] == opening and text[-1] == closing and opening not in text[1:-1]:
            return text[1:-1].strip(), (f"The {opening}{closing} around it is not part of it.",)
    return text, ()


def _from_curl(text: str, wanted: Wanted) -> Presented:
    command = curl.parse(text.removeprefix("$ "))
    fields = tuple((_bytes(name), _bytes(value)) for name, value in command.fields)
    located = locate(command.url, wanted.gateway)
    proxied: tuple[str, ...] = ()
    if command.proxy is not None:
        # The proxy is the gateway, so the gateway does not listen at the host of the URL.
        proxied = ("curl sends it through the proxy it was given, which is the gateway.",)
        assumed = tuple(said for said in located.assumed if not said.startswith("A gateway listens"))
        located = located._replace(listener=_listening(command.proxy, wanted), assumed=assumed)
    presented = _request("curl", located, fields, wanted._replace(method=wanted.method or command.method))
    return presented._replace(assumed=(*command.assumed, *proxied, *presented.assumed))


def _listening(proxy: str, wanted: Wanted) -> tuple[str, int] | None:
    """Return the address of a proxy `[http://]host[:port]`. 1080 is curl's default port."""
    host = proxy.partition("://")[2] or proxy
    origin = locate(f"http://{host.rstrip('/')}/", wanted.gateway).origin
    return origin.host, origin.port if origin.port != 80 or host.endswith(":80") else 1080


def _from_token(shape: str, token: str, wanted: Wanted) -> Presented:
    """Return the request of a bare token, as a path token at the gateway. No connection id is needed then."""
    fields = lenient.read(_probe(f"{_TOKEN_FORM}{token}/"))
    path, assumed = _path(fields.first("paths"), wanted)
    address = f"{wanted.gateway.rstrip('/')}{_TOKEN_FORM}{quote(token, safe='/+=~.,;:!()*')}{path}"
    how = "The token is taken as a path token, /p/{token}/{path}; as an API key it grants the same."
    presented = _request("token", locate(address, wanted.gateway), (), wanted)
    shaped = f"The {shape} before the token is a shape, which programs look at: it is not signed."
    assumed = (shaped, *assumed) if shape else assumed
    return presented._replace(assumed=(how, *assumed, *presented.assumed), path_assumed=wanted.path is None)


def _bare_line(text: str) -> str:
    """Return the first line without the mark that `curl -v` puts before it."""
    return text.partition("\n")[0].removeprefix("> ").strip()


def _from_lines(text: str, wanted: Wanted) -> Presented:
    """Return the request of header lines, with or without a request line before them."""
    stripped = (line.strip(_BLANKS).removeprefix("> ").removeprefix(">") for line in text.split("\n"))
    lines = [line for line in stripped if line]
    if found := _REQUEST_LINE.fullmatch(lines[0]):
        wanted = wanted._replace(method=wanted.method or found[1])
        if "://" in found[2]:  # absolute form, as a proxy gets it
            wanted = wanted._replace(url=wanted.url or found[2])
        else:
            wanted = wanted._replace(path=wanted.path or found[2])
        lines = lines[1:]
    pairs: list[tuple[str, str]] = []
    for line in lines:
        if not _LINE.match(line):
            raise UnreadableUrl("a header line has the form `Name: value`, and one of these does not")
        name, _, value = line.partition(":")
        pairs.append((name, value.strip(_BLANKS)))
    return _from_fields("headers", pairs, wanted, whole=found is not None)


def _json(text: str) -> list[tuple[str, str]]:
    try:
        found = json.loads(text)
    except ValueError:
        raise UnreadableUrl("this begins like a JSON object but is not valid JSON") from None
    headers = found.get("headers", found) if isinstance(found, dict) else None
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        raise UnreadableUrl("headers in JSON must be one object of names and texts")
    if any(value != value.strip(" \t") for value in headers.values()):
        raise UnreadableUrl("a value begins or ends with a blank: no HTTP header can carry that")
    return list(headers.items())


def _from_fields(
    kind: Kind, pairs: list[tuple[str, str]], wanted: Wanted, *, whole: bool = False
) -> Presented:
    """Return the request of header fields, sent to the given URL, their Host or the connection they name."""
    host = next((value for name, value in pairs if name.lower() == "host"), None)
    fields = tuple((_bytes(name), _bytes(value)) for name, value in pairs if name.lower() != "host")
    if wanted.url is not None:
        return _request(kind, locate(wanted.url, wanted.gateway), fields, wanted)
    if host is not None:
        located = locate(f"https://{host}{wanted.path or '/'}", wanted.gateway)
        if located.listener is not None:
            located = locate(f"http://{host}{wanted.path or '/'}", wanted.gateway)
        said = f"The request goes to {located.origin}, as its Host says."
        presented = _request(kind, located, fields, wanted)
        return presented._replace(assumed=(said, *presented.assumed), path_assumed=wanted.path is None)
    if whole and wanted.path is not None and wanted.path.startswith((_PROXY_FORM, _TOKEN_FORM)):
        return _request(kind, locate(wanted.path, wanted.gateway), fields, wanted)
    loose = lenient.read(_probe("/", fields))
    connection = loose.first("connection_id")
    if connection is None and not (loose.tokens or has_start(b"\n".join(value for _, value in fields))):
        raise UnreadableUrl(
            "these headers name no connection (X-Presign-Connection): give the URL to which they are sent"
        )
    path, assumed = _path(loose.first("paths"), wanted)
    target = f"{_PROXY_FORM}{quote(connection or 'unknown', safe='')}{path}"
    presented = _request(kind, locate(target, wanted.gateway), fields, wanted)
    return presented._replace(assumed=(*assumed, *presented.assumed), path_assumed=wanted.path is None)


def _path(paths: str | None, wanted: Wanted) -> tuple[str, tuple[str, ...]]:
    """Return the requested path, and the assumptions about it."""
    if wanted.path is not None:
        return f"/{wanted.path.removeprefix('/')}", ()
    path = _matching((paths or "").split(",")[0])
    return path, (f"No path was given: {path} is assumed, which the first signed pattern matches.",)


def _matching(pattern: str) -> str:
    """Return a path that a pattern matches; `/` if there is no simple one."""
    filled = re.sub(r"(?:^|(?<=/))\*+(?=/)", "x", pattern.removeprefix("/")).replace("*", "")
    try:
        return canonical_path(quote(f"/{filled}", safe="/%!$&'()*+,;=:@~").encode()).decode("ascii")
    except (Denied, UnicodeEncodeError):
        return "/"


def _request(kind: Kind, located: Located, fields: Fields, wanted: Wanted) -> Presented:
    assumed = list(located.assumed)
    if located.userinfo is not None:
        fields += ((b"Authorization", _basic(located.userinfo)),)
        assumed.append("The part before the @ of the URL is sent as Authorization: Basic.")
    host = located.origin.authority
    request = Request(
        method=_bytes(wanted.method or "GET"),
        target=located.target,
        fields=((b"Host", host.encode()), *fields),
        version=b"HTTP/1.1",
        origin=located.origin,
        names=(("host", host),),
        listener=located.listener,
    )
    if wanted.method is None:
        method = _first_method(lenient.read(request).first("methods"))
        assumed.append(f"No method was given: {method} is assumed.")
        request = request._replace(method=method.encode())
    client = wanted.client or _first_client(lenient.read(request).first("client"))
    if client and wanted.client is None:
        assumed.append(f"No client was given: {client} is assumed, which the signed policy admits.")
    return Presented(kind, request._replace(client=client), tuple(assumed))


def _first_client(networks: str | None) -> str:
    """Return an address in the first of some networks; empty if there is none."""
    network = parse_network((networks or "").partition(",")[0])
    return str(network.network_address) if network is not None else ""


def _first_method(methods: str | None) -> str:
    items = [item.strip() for item in (methods or "").split(",")]
    if "GET" in items or not _METHOD.fullmatch(items[0]):
        return "GET"
    return items[0]


def _basic(userinfo: str) -> bytes:
    user, _, password = userinfo.partition(":")
    return b"Basic " + base64.b64encode(_bytes(f"{unquote(user)}:{unquote(password)}"))


def _probe(target: str, fields: Fields = ()) -> Request:
    """Return a request that is only read and never explained, to find the fields in a part of a request."""
    return Request(b"GET", _bytes(target), fields, b"HTTP/1.1", locate(GATEWAY, GATEWAY).origin)


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise UnreadableUrl("this is not Unicode text") from None
