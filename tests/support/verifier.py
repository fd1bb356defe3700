"""An independent verifier: the specification read once more, literally, and sharing no code with the product.

`read` takes the bytes of a client apart as RFC 9112 has it, strictly; `Verifier.grants` says what an upstream
must get for one request, or that it must get nothing. It is slow and simple on purpose.
"""

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote_to_bytes

Pairs = tuple[tuple[bytes, bytes], ...]
Origin = tuple[str, str, int]
"""Scheme, host, port."""

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Asked:
    """One request as a client sent it."""

    method: bytes
    target: bytes
    fields: Pairs
    body: bytes
    version: bytes = b"HTTP/1.1"
    authority: bytes | None = None
    """Over HTTP/2; empty where there is none."""

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key.lower() == name]


@dataclass
class Read:
    """What a strict reader finds: whole requests, and whether the rest is `clean` (nothing), `broken`, or
    `short` (the beginning of something).
    """

    requests: list[Asked] = field(default_factory=list)
    rest: str = "clean"
    blank: bool = False
    """An empty line stood before a request: it may be ignored, and wait for more (RFC 9112, 2.2)."""
    left: bytes = b""
    """What is no whole request."""

    @property
    def heads(self) -> list[bool]:
        """For each request, whether its answer has no body because of its method."""
        return [asked.method == b"HEAD" for asked in self.requests]

    @property
    def is_clean(self) -> bool:
        """Whether there are whole requests and nothing else."""
        return self.rest == "clean" and bool(self.requests) and not self.blank


class Broken(Exception):
    """Not HTTP."""


class Short(Exception):
    """It ends too early."""


def read(data: bytes) -> Read:
    """All requests in what a client sent on one connection."""
    found = Read()
    try:
        while data:
            start = re.sub(rb"\A(?:\r?\n)+", b"", data)
            found.blank |= start != data
            if not start:
                break
            found.left = start
            asked, data = _one(start)
            found.left = b""
            found.requests.append(asked)
    except Broken:
        found.rest = "broken"
    except Short:
        found.rest = "short"
    return found


def first(data: bytes) -> Asked | None:
    """The first request in what a client sent, whatever follows it; None if there is no whole one."""
    try:
        return _one(re.sub(rb"\A(?:\r?\n)+", b"", data))[0]
    except (Broken, Short):
        return None


def _line(data: bytes) -> tuple[bytes, bytes]:
    # RFC 9112, 2.2: a recipient may take a single LF for a line break, never a bare CR.
    line, end, rest = data.partition(b"\n")
    if not end:
        raise Short
    return line.removesuffix(b"\r"), rest


def _one(data: bytes) -> tuple[Asked, bytes]:
    line, data = _line(data)
    # RFC 9112, 3: blanks may be taken for the one space between words, and ignored around them.
    start = re.fullmatch(
        rb"[ \t]*(%s)[ \t]+([^\x00-\x20\x7f]+)[ \t]+(HTTP/1\.[0-9])[ \t]*" % TOKEN,
        line,
    )
    if not start:
        raise Broken
    fields = []
    while True:
        line, data = _line(data)
        if not line:
            break
        pair = re.fullmatch(rb"(%s):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*)" % TOKEN, line)
        if not pair:
            raise Broken
        fields.append((pair[1], pair[2].rstrip(b" \t")))
    head = Asked(start[1], start[2], tuple(fields), b"", start[3])
    lengths, codings = head.all(b"content-length"), head.all(b"transfer-encoding")
    body = b""
    if codings:
        if lengths or len(codings) > 1 or codings[0].lower() != b"chunked" or start[3] == b"HTTP/1.0":
            raise Broken
        body, data = _chunked(data)
    elif lengths:
        if len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,12}", lengths[0]):
            raise Broken
        length = int(lengths[0])
        if len(data) < length:
            raise Short
        body, data = data[:length], data[length:]
    return Asked(start[1], start[2], tuple(fields), body, start[3]), data


def read_h2(fields: Pairs, body: bytes | None) -> Asked | None:
    """The request of an HTTP/2 header list and its data; None for a malformed one (RFC 9113, 8)."""
    pseudo = [field for field in fields if field[0].startswith(b":")]
    plain = tuple(field for field in fields if not field[0].startswith(b":"))
    named = dict(pseudo)
    if tuple(pseudo) != fields[: len(pseudo)] or len(named) != len(pseudo):
        return None
    if (
        not {b":method", b":scheme", b":path"}
        <= set(named)
        <= {b":method", b":scheme", b":path", b":authority"}
    ):
        return None
    for name, value in plain:
        if (
            not re.fullmatch(TOKEN, name)
            or name != name.lower()
            or re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", value)
        ):
            return None
        if name in (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"):
            return None
    if not re.fullmatch(TOKEN, named[b":method"]):
        return None
    lengths = [value for name, value in plain if name == b"content-length"]
    if lengths and lengths != [str(len(body or b"")).encode()]:
        return None
    authority = named.get(b":authority", b"")
    return Asked(named[b":method"], named[b":path"], plain, body or b"", b"HTTP/2", authority)


def _chunked(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, data = _line(data)
        size = re.fullmatch(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[^\x00-\x08\x0a-\x1f\x7f]*)?", line)
        if not size:
            raise Broken
        count = int(size[1], 16)
        if not count:
            break
        if len(data) < count + 2:
            raise Short
        if data[count : count + 2] != b"\r\n":
            raise Broken
        body, data = body + data[:count], data[count + 2 :]
    while True:  # trailers
        line, data = _line(data)
        if not line:
            return body, data


@dataclass(frozen=True)
class Way:
    """How a request came: what was CONNECTed to, under which SNI; in reverse mode, the target."""

    listener: int
    tunnel: Origin | None = None
    sni: str | None = None
    reverse: Origin | None = None


@dataclass(frozen=True)
class Granted:
    """What the upstream gets."""

    connection: str
    method: bytes
    host: str
    target: bytes
    body: bytes
    sent: Pairs
    upstream: str = ""
    """The name of one besides the connection's default upstream."""


class No(Exception):
    """Not granted."""


class Verifier:
    """Holds requests against a configuration: the very mapping that is written to `config.yaml`.

    `secrets` are the signing secrets, by connection.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.hosts = config["gateway"]["hosts"]
        self.connections: Mapping[str, Any] = config["connections"]

    def grants(self, asked: Asked, way: Way, now: int) -> Granted | None:
        """What an upstream gets of this request; None for nothing."""
        try:
            return self._grants(asked, way, now)
        except (No, UnicodeDecodeError):
            return None

    # -- SPEC §1.2: where it is addressed -------------------------------------------------------------

    def _grants(self, asked: Asked, way: Way, now: int) -> Granted:
        origin, target = self._addressed(asked, way)
        if not re.fullmatch(rb"/[^\x00-\x20\x7f#]*", target):
            raise No
        if len(asked.fields) > 100:
            raise No
        raw_path, mark, raw_query = target.partition(b"?")
        query = raw_query if mark else None
        at_gateway = origin[1] in self.hosts or (
            origin[1] in ("localhost", "127.0.0.1", "::1") and origin[2] == way.listener
        )
        if way.reverse:
            source = re.match(rb"/v1/([^/?]*)/", raw_path)
            project = source is not None and self._is_source(source[1].decode("latin-1"))
            at_gateway = raw_path.startswith((b"/api/proxy/", b"/p/ps1_")) or project
        by_key = False
        if at_gateway and re.match(rb"/v1/[^/?]*/", raw_path):
            by_key = not way.reverse and self._is_by_key(asked, query)
            if not by_key:
                return self._source(asked, raw_path, query, now)
        named: str | None = None
        token: bytes | None = None
        if at_gateway and not raw_path.startswith((b"/api/proxy/", b"/p/")):
            by_key = True  # a key token names its connection, so that the path is the API's own
        elif at_gateway:
            form = re.fullmatch(rb"/(api/proxy|p)/([^/]*)(/.*)", raw_path)
            if not form:
                raise No
            if form[1] == b"p":
                token = form[2]
            else:
                named = form[2].decode("ascii")
            # A base URL that ends in a slash, joined to a path that begins with one.
            joint = token is not None and form[3].startswith(b"//")
            raw_path = form[3][1:] if joint else form[3]
        fields, query = self._presign(asked, query, token)
        if by_key and "slot" not in fields:
            raise No
        if fields.setdefault("Connection", named or fields.get("Connection", "")) != (
            named or fields["Connection"]
        ):
            raise No
        name = fields["Connection"] or self._only_one(origin, raw_path)
        connection = self.connections.get(name)
        if connection is None or "upstream" not in connection:
            raise No
        if _is_preflight(asked) and asked.all(b"origin")[0].decode("latin-1") in _origins(connection):
            raise No  # the gateway itself answers a browser's question
        self._verify(connection, name, fields, now)
        self._slot(connection, fields)
        self._methods(connection, asked.method, fields["Methods"])
        if any(
            folded(header) in ("x-http-method-override", "x-http-method", "x-method-override")
            and value.strip().upper() != asked.method
            for header, value in asked.fields
        ):
            raise No
        other, path = self._upstream(connection, None if at_gateway else origin, canonical(raw_path))
        scheme, host, port, base = split_url(_url_of(connection, other))
        ceiling = connection.get("allow", {}).get("paths")
        for listed in (fields["Paths"].split(","), *([ceiling] if ceiling else [])):
            below = [_below(item, other, "upstreams" in connection) for item in listed]
            if not any(item is not None and matches(item, path) for item in below):
                raise No
        own = set(connection["auth"].get("params", {}))
        if query is not None and own:
            kept = [piece for piece in query.split(b"&") if not _may_be_read_as(piece, own)]
            query = b"&".join(kept) if kept else None
        sent = (base + path).encode() + (b"" if query is None else b"?" + query)
        return self._granted(asked, name, host, port, scheme, sent, other)

    def _upstream(self, connection: Mapping[str, Any], origin: Origin | None, path: str) -> tuple[str, str]:
        """The name of the upstream, empty for the default one, and the path below it."""
        others = connection.get("upstreams", {})
        if origin is None:
            if not others or not path.startswith("/@"):
                return "", path
            name, slash, rest = path[2:].partition("/")
            if name not in others or not slash:
                raise No
            return name, slash + rest
        found = []
        for name in ("", *others):
            scheme, host, port, base = split_url(_url_of(connection, name))
            if origin == (scheme, host, port) and path.startswith(base + "/"):
                found.append((name, path.removeprefix(base)))
        if len(found) != 1:
            raise No
        return found[0]

    def _granted(
        self, asked: Asked, name: str, host: str, port: int, scheme: str, target: bytes, other: str = ""
    ) -> Granted:
        authority = host if PORTS[scheme] == port else f"{host}:{port}"
        return Granted(name, asked.method, authority, target, asked.body, asked.fields, other)

    def _addressed(self, asked: Asked, way: Way) -> tuple[Origin, bytes]:
        hosts = asked.all(b"host")
        over_h2 = asked.authority is not None
        if len(hosts) > 1 or (not hosts and not over_h2):
            raise No
        names = hosts + ([asked.authority] if asked.authority else [])
        if over_h2 and not names:
            raise No
        target = asked.target
        absolute = re.fullmatch(rb"([Hh][Tt][Tt][Pp][Ss]?)://([^/?#@]+)(/.*)", target)
        sni = way.sni
        if way.reverse:
            # mitmproxy has replaced Host; a whole URL means no more than a strange Host does.
            return way.reverse, absolute[3] if absolute else target
        if absolute:
            scheme = absolute[1].decode().lower()
            origin = authority_of(absolute[2], scheme)
            # Raw bytes are percent-encoded where a URL is whole; elsewhere only in the path.
            target = re.sub(rb"[\x80-\xff]", lambda octet: b"%%%02X" % octet[0][0], absolute[3])
            if way.tunnel and origin != way.tunnel:
                raise No
        elif way.tunnel:
            origin = way.tunnel
        else:
            origin = authority_of(names[0], "http")
        if any(authority_of(one, origin[0]) != origin for one in names):
            raise No
        if sni is not None and sni.lower() != origin[1]:
            raise No
        return origin, target

    def _only_one(self, origin: Origin, raw_path: bytes) -> str:
        path = canonical(raw_path)
        found = []
        for name, connection in self.connections.items():
            for other in ("", *connection.get("upstreams", {})) if "upstream" in connection else ():
                scheme, host, port, base = split_url(_url_of(connection, other))
                if (scheme, host, port) == origin and path.startswith(base + "/"):
                    found.append(name)
        if len(set(found)) != 1:
            raise No
        return found[0]

    # -- SPEC §1.1: one grant, four carriers ----------------------------------------------------------

    def _presign(
        self, asked: Asked, query: bytes | None, token: bytes | None
    ) -> tuple[dict[str, str], bytes | None]:
        claims: list[dict[str, str]] = []
        in_query: dict[str, str] = {}
        rest = []
        for piece in query.split(b"&") if query is not None else ():
            name, equals, value = piece.partition(b"=")
            exact = re.fullmatch(rb"X-Presign-(Connection|Expires|Methods|Paths|Signature)", name)
            if exact:
                key = exact[1].decode()
                if not equals or key in in_query:
                    raise No
                in_query[key] = form_decoded(value)
            elif looks_like_a_field(piece):
                raise No
            elif re.fullmatch(rb"ps1_.*\.[0-9a-f]{64}.*", value, re.DOTALL):
                claims.append(token_fields(value) | {"slot": "?" + folded_name(piece)})
            else:
                rest.append(piece)
        if in_query:
            claims.append(in_query)
        if token is not None:
            claims.append(token_fields(token))
        in_header: dict[str, str] = {}
        for raw, value in asked.fields:
            name = raw.lower()
            if name.replace(b"_", b"-").startswith(b"x-presign"):
                exact = re.fullmatch(rb"x-presign-(connection|expires|methods|paths|signature)", name)
                if not exact or exact[1].decode().title() in in_header:
                    raise No
                in_header[exact[1].decode().title()] = value.decode("utf-8")
                continue
            if value.startswith(b"ps1_"):
                claims.append(token_fields(value) | {"slot": name.decode("latin-1")})
            elif name == b"authorization":
                word, _, rest_value = value.partition(b" ")
                rest_value = rest_value.strip(b" \t").removeprefix(b"token=")
                if word.lower() == b"basic":
                    try:
                        user, _, password = base64.b64decode(rest_value, validate=True).partition(b":")
                    except ValueError:
                        continue
                    rest_value = password or user
                if rest_value.startswith(b"ps1_"):
                    claims.append(token_fields(rest_value) | {"slot": "authorization"})
        if in_header:
            claims.append(in_header)
        slots = [claim.get("slot", "") for claim in claims]
        same = len({tuple(sorted((claim | {"slot": ""}).items())) for claim in claims}) == 1
        if len(claims) > 1 and same and all(slots) and len(set(slots)) == len(slots):
            claims = [claims[0] | {"slot": "\n".join(slots)}]  # the same token where several SDKs put it
        if len(claims) != 1:
            raise No
        # Where nothing is left of a query, its question mark goes too.
        if query is not None and len(rest) == len(query.split(b"&")):
            return claims[0], query
        return claims[0], b"&".join(rest) if rest else None

    def _is_by_key(self, asked: Asked, query: bytes | None) -> bool:
        """Whether a key token stands on it, and nothing of a source's signature."""
        names = [folded_name(piece) for piece in query.split(b"&")] if query is not None else []
        try:
            fields, _ = self._presign(asked, query, None)
        except No:
            return False
        return "slot" in fields and not {"sig", "exp"} & set(names)

    def _slot(self, connection: Mapping[str, Any], fields: dict[str, str]) -> None:
        auth = connection["auth"]
        own = {name.lower() for name in auth.get("headers", {})} | {
            "?" + name for name in auth.get("params", {})
        }
        if auth["type"] == "aws_sigv4":
            own |= {"x-amz-security-token", "?x-amz-security-token"}
        for slot in fields.get("slot", "authorization").split("\n"):
            if slot != "authorization" and slot not in own:
                raise No

    # -- SPEC §2: verifying ---------------------------------------------------------------------------

    def _verify(self, connection: Mapping[str, Any], name: str, fields: dict[str, str], now: int) -> None:
        if any(key not in fields for key in ("Expires", "Methods", "Paths", "Signature")):
            raise No
        expires, methods, paths = fields["Expires"], fields["Methods"], fields["Paths"]
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) or not re.fullmatch(r"0|[1-9][0-9]{0,11}", expires):
            raise No
        text = f"PRESIGN-HMAC-SHA256\n{name}\n{expires}\n{methods}\n{paths}"
        if not any(
            hmac.new(key["secret"].encode(), text.encode(), hashlib.sha256).hexdigest() == fields["Signature"]
            for key in connection["signing_keys"]
        ):
            raise No
        if expires != "0" and now > int(expires):
            raise No
        for value in (methods, paths):
            items = value.split(",")
            wild = [item for item in items if re.fullmatch(r"/?\*+", item)]
            if "" in items or items != sorted(set(items)) or len(items) > 64 or (wild and len(items) > 1):
                raise No
            if len(value.encode()) > 8192 or any(unicodedata.category(char) == "Cc" for char in value):
                raise No

    def _methods(self, connection: Mapping[str, Any], method: bytes, signed: str) -> None:
        name = method.decode("ascii")
        allowed = connection.get("allow", {}).get("methods", ["*"])
        if name in ("CONNECT", "TRACE", "TRACK") or not re.fullmatch(r"[A-Z][A-Z0-9_-]*", name):
            raise No
        if signed != "*" and name not in signed.split(","):
            raise No
        if allowed != ["*"] and name not in allowed:
            raise No

    # -- SPEC §1.3: scheme source, signed -------------------------------------------------------------

    def _is_source(self, project: str) -> bool:
        return self.connections.get(project, {}).get("scheme") == "source"

    def _source(self, asked: Asked, path: bytes, query: bytes | None, now: int) -> Granted:
        form = re.fullmatch(rb"/v1/([A-Za-z0-9_-]{1,64})/([A-Za-z0-9_-]+)\.([A-Za-z0-9]+)", path)
        if not form or not self._is_source(form[1].decode()) or asked.method not in (b"GET", b"HEAD"):
            raise No
        if asked.body or asked.all(b"transfer-encoding") or asked.all(b"content-length") not in ([], [b"0"]):
            raise No
        project = self.connections[form[1].decode()]
        found: dict[bytes, bytes] = {}
        for piece in (query or b"").split(b"&"):
            name, equals, value = piece.partition(b"=")
            if name in (b"sig", b"exp"):
                if name in found or not equals:
                    raise No
                found[name] = value
            elif folded_name(piece) in ("sig", "exp") or looks_like_a_field(piece):
                raise No
        src = plain_base64url(form[2])
        exp = found.get(b"exp", b"").decode("ascii")
        text = f"{form[1].decode()}:{src}:{exp}"
        signed = [
            hmac.new(key["secret"].encode(), text.encode(), hashlib.sha256).hexdigest()
            for key in project["signing_keys"]
        ]
        if (
            not re.fullmatch(r"0|[1-9][0-9]{0,11}", exp)
            or found.get(b"sig", b"").decode("ascii") not in signed
        ):
            raise No
        if now > int(exp) or form[3].decode() not in project["formats"]:
            raise No
        if any(name.lower().replace(b"_", b"-").startswith(b"x-presign") for name, _ in asked.fields):
            raise No
        url = re.fullmatch(r"(https?)://([^/?#@\\\s]+)(/[^?#\\\s]*)?(\?[^#\\\s]*)?", src)
        if not url:
            raise No
        origin = f"{url[1]}://{url[2]}"
        if origin not in project["allowed_origins"]:
            raise No
        scheme, host, port, _ = split_url(origin)
        target = quote((url[3] or "/") + (url[4] or ""), safe="%/:?#[]@!$&'()*+,;=-._~\\")
        return self._granted(asked, form[1].decode(), host, port, scheme, target.encode())


def _is_preflight(asked: Asked) -> bool:
    """Whether a browser asks what a page may send (Fetch Standard, 4.8)."""
    once = all(len(asked.all(name)) == 1 for name in (b"origin", b"access-control-request-method"))
    return asked.method == b"OPTIONS" and once and not asked.body and not asked.all(b"transfer-encoding")


def _origins(connection: Mapping[str, Any]) -> list[str]:
    origins: list[str] = connection.get("cors", {}).get("origins", [])
    return origins


def _url_of(connection: Mapping[str, Any], name: str) -> str:
    """The URL of an upstream by its name."""
    found = connection["upstreams"][name] if name else connection["upstream"]
    return found if isinstance(found, str) else str(found["url"])


def _below(pattern: str, name: str, several: bool) -> str | None:
    """The rest of a pattern for the upstream of this name; None for a pattern of another upstream."""
    bare = pattern.removeprefix("/")
    if not several:
        return pattern
    if name:
        return bare.removeprefix(f"@{name}/") if bare.startswith(f"@{name}/") else None
    return None if bare.startswith("@") else pattern


def split_url(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and base path of an upstream as configured."""
    found = re.fullmatch(r"(https?)://([^/:]+)(?::([0-9]+))?(/.*)?", url)
    assert found
    return found[1], found[2], int(found[3] or PORTS[found[1]]), (found[4] or "").rstrip("/")


def authority_of(text: bytes, scheme: str) -> Origin:
    """The origin that a Host names."""
    found = re.fullmatch(r"([A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", text.decode("latin-1"))
    if not found:
        raise No
    return scheme, found[1].lower().removesuffix("."), int(found[2] or PORTS[scheme])


def form_decoded(value: bytes) -> str:
    """`+` is a space, then `%XX`, strict UTF-8."""
    value = value.replace(b"+", b" ")
    if re.search(rb"%(?![0-9A-Fa-f]{2})", value):
        raise No
    return unquote_to_bytes(value).decode("utf-8")


def plain_base64url(text: bytes) -> str:
    """Text of base64url without padding, which must encode to the same again."""
    try:
        raw = base64.urlsafe_b64decode(text + b"=" * (-len(text) % 4))
    except ValueError:
        raise No from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != text:
        raise No
    return raw.decode("utf-8")


def token_fields(token: bytes) -> dict[str, str]:
    """The fields of a token."""
    form = re.fullmatch(rb"ps1_([A-Za-z0-9_-]+)\.([0-9a-f]{64})", token)
    if not form:
        raise No
    values = plain_base64url(form[1]).split("\n")
    if len(values) != 4:
        raise No
    names = ("Connection", "Expires", "Methods", "Paths")
    return dict(zip(names, values, strict=True)) | {"Signature": form[2].decode()}


def folded(text: bytes) -> str:
    """As any framework might read a name."""
    for _ in range(3):
        text = unquote_to_bytes(text)
    return text.decode("latin-1").lower().replace("_", "-")


def folded_name(piece: bytes) -> str:
    return re.sub(r"[\[].*|[ +\t\r\n\0]", "", folded(piece.partition(b"=")[0])).replace(".", "-")


def _may_be_read_as(piece: bytes, names: set[str]) -> bool:
    """Whether some server finds one of these names in a parameter, also behind `;`, `#`, `?` or `%26`."""
    readings = {piece, unquote_to_bytes(piece), unquote_to_bytes(unquote_to_bytes(piece))}
    return any(folded_name(part) in names for one in readings for part in re.split(rb"[;#?&]", one))


def looks_like_a_field(piece: bytes) -> bool:
    """Whether the name of a parameter, or one hidden behind `;`, `#` or `?`, is one of ours to anybody."""
    return any(
        "x-presign" in re.sub(r"[.]", "-", folded(part.partition(b"=")[0]))
        for part in re.split(rb"[;#?]", piece)
    )


UNRESERVED = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"


def spelled(text: bytes) -> str:
    """One spelling: unreserved decoded, other escapes upper-case, what may not stand in a path encoded."""
    parts = re.findall(rb"%[0-9A-Fa-f]{2}|.", text, re.DOTALL)
    found = []
    for part in parts:
        octet = bytes([int(part[1:], 16)]) if len(part) == 3 else part
        escaped = len(part) == 3 and octet not in [bytes([one]) for one in UNRESERVED]
        found.append(f"%{octet[0]:02X}" if escaped else quote(octet, safe="/:@!$&'()*+,;=-._~%"))
    return "".join(found)


def canonical(raw: bytes) -> str:
    """SPEC §2, *canonical path*. Raises No for every refused one."""
    if re.search(rb"[\\#?]|%(?![0-9A-Fa-f]{2})", raw) or not raw.startswith(b"/"):
        raise No
    path = spelled(raw)
    if re.search(r"%2F|%5C|%25[0-9A-Fa-f]{2}", path, re.IGNORECASE):
        raise No
    text = unquote_to_bytes(path).decode("utf-8")
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise No
    if re.search("[\uff0e\uff0f\uff3c]", text):
        raise No
    segments = [re.split("[;]", segment)[0] for segment in text.split("/")[1:]]
    whole = text.split("/")[1:]
    for at, name in enumerate(segments):
        last_and_empty = at == len(segments) - 1 and not whole[at]
        if name in (".", "..") or (not name and not last_and_empty):
            raise No
    return path


def matches(pattern: str, path: str) -> bool:
    """`*` is any run of characters; an escape is one character, and some are the plain ones (SPEC §2)."""

    def is_same(signed: str, sent: str) -> bool:
        escapes = [f"%{ord(char):02X}" for char in "!$&'()*,=:@"]
        plain = [one if one not in escapes else chr(int(one[1:], 16)) for one in (signed, sent)]
        return plain[0] == plain[1] or (signed, sent) in ((";", "%3B"), ("+", "%2B"))

    units = re.findall(r"%[0-9A-F]{2}|.", path.removeprefix("/"))
    parts = re.findall(r"%[0-9A-F]{2}|.", spelled(pattern.encode().removeprefix(b"/")))
    reached = {0}
    for part in parts:
        if part == "*":
            reached = set(range(min(reached), len(units) + 1)) if reached else reached
        else:
            reached = {at + 1 for at in reached if at < len(units) and is_same(part, units[at])}
    return len(units) in reached
