"""Well-formed presigned requests of every carrier, and what can be done to their bytes."""

# ruff: noqa: E501 - tables of bytes, a row each

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from support.signing import presign_headers, presign_query, source_url, token

GATEWAY = "presign.local"
WAYS = ("direct", "absolute", "intercept", "tunnel", "connect", "tls", "reverse")
"""To the gateway in origin-form and in absolute-form; to the API in absolute-form, through a plain tunnel;
to the gateway and to the API with TLS inside CONNECT; to a gateway in reverse mode."""

Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass
class Message:
    """A request in pieces that can still be changed. Lines are without their ends."""

    method: bytes
    target: bytes
    fields: list[bytes]
    body: bytes = b""
    version: bytes = b"HTTP/1.1"
    space: bytes = b" "
    ends: dict[int, bytes] = field(default_factory=dict)
    """Other ends than CR LF, by line."""
    presign_at: int = 0
    """Where in the target its query begins, if the presign stands there."""

    def __bytes__(self) -> bytes:
        start = self.method + self.space + self.target + (b" " + self.version if self.version else b"")
        lines = [start, *self.fields, b""]
        return b"".join(line + self.ends.get(at, b"\r\n") for at, line in enumerate(lines)) + self.body


@dataclass(frozen=True)
class Sample:
    """One draw: the bytes, and how they go."""

    way: str
    connection: str
    data: bytes
    done: tuple[str, ...]
    """The mutations."""


PATHS = (
    "v1/models", "v1/a/b", "v1/caf%C3%A9", "v1/x;p=1/y", "v1/", "v1/a+b:c@d", "v1/%6Dodels", "v1/%7euser", "x/y"
)  # fmt: skip
SEVERAL = ("@up/*", "@raw/*", "*,@up/*", "@raw/v1/*,@up/v1/*", "@up*", "%40up/*", "*/@up/*", "@UP/*")
"""Patterns for the upstreams `up` and `raw`, and some that are for neither."""
LEADING = (
    "",
    "@up/",
    "@up/",
    "@raw/",
    "%40up/",
    "@UP/",
    "@other/",
    "@raw/../@up/",
    "@up;/",
    "/@up/",
    "@up%2F",
    "@u%70/",
)
EXTRA = ("", "", "q=1", "flag&x=%20&y=1+2", "a=b;c", "key=own", "&&", "a=%00", "sig=1&exp=2")
BODIES = (b"", b"abc", b"0\r\n\r\n", b"GET /admin HTTP/1.1\r\nHost: presign.local\r\n\r\n", bytes(range(256)))
METHODS = ("GET", "POST", "PUT", "HEAD", "DELETE")
CARRIERS = ("query", "query", "header", "path", "bearer", "basic", "own")


def in_an_hour(now: int) -> int:
    return now + 3600


class Samples:
    """Draws samples against the connections of one configuration.

    `upstreams` are `host:port` by connection; `secret` signs for all of them.
    """

    def __init__(
        self, config: Mapping[str, Any], upstreams: Mapping[str, str], secret: str, now: int
    ) -> None:
        self.connections = config["connections"]
        self.upstreams, self.secret, self.now = upstreams, secret, now
        self.plain = [name for name in upstreams if name.startswith("conn_") and name != "conn_tls"]

    def sample(self) -> st.SearchStrategy[Sample]:
        return st.composite(self._sample)()

    def _sample(self, draw: Draw) -> Sample:
        way = draw(st.sampled_from(WAYS))
        name = {"tls": "conn_tls"}.get(way) or draw(st.sampled_from(self.plain))
        if way in ("direct", "absolute", "connect") and draw(st.integers(0, 9)) == 0:
            message = self._source(draw, way)
        else:
            message = self.presigned(draw, way, name)
            if draw(st.integers(0, 19)) == 0:
                _as_preflight(draw, message)
        done = []
        for _ in range(draw(st.sampled_from((0, 1, 1, 1, 2, 2, 3)))):
            mutate = draw(st.sampled_from(MUTATIONS))
            mutate(draw, message)
            done.append(mutate.__name__.lstrip("_"))
        data = bytes(message)
        if draw(st.integers(0, 7)) == 0:
            data += self._following(draw, way, name)
            done.append("pipeline")
        if draw(st.integers(0, 5)) == 0:
            data = scar(draw, data)
            done.append("scar")
        return Sample(way, name, data, tuple(done))

    def _following(self, draw: Draw, way: str, name: str) -> bytes:
        if draw(st.booleans()):
            return bytes(self.presigned(draw, way, name))
        host = self._host(way, name)
        return f"GET /api/proxy/{name}/admin HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    def _host(self, way: str, name: str) -> str:
        return self.upstreams[name] if way in ("intercept", "tunnel", "tls", "reverse") else GATEWAY

    def _places(self, name: str) -> list[str]:
        """`host:port/base` of each upstream of a connection."""
        found = self.connections[name]
        others = [one if isinstance(one, str) else one["url"] for one in found["upstreams"].values()]
        return [url.partition("://")[2] for url in (found["upstream"], *others)]

    def presigned(self, draw: Draw, way: str, name: str, asked: tuple[str, ...] = METHODS) -> Message:
        """A request that is good, or nearly: its method and path may not be signed for."""
        method = draw(st.sampled_from(asked))
        path = draw(st.sampled_from(PATHS))
        extra = draw(st.sampled_from(EXTRA))
        methods = draw(st.sampled_from((method, "*", "DELETE,GET,HEAD,POST,PUT")))
        paths = draw(st.sampled_from(("*", "v1/*", path, "/v1/*", "v1/*,x/*")))
        carrier = draw(st.sampled_from(CARRIERS))
        at_gateway = way in ("direct", "absolute", "connect") or (way == "reverse" and draw(st.booleans()))
        host, base = self._host(way, name), "" if at_gateway else "/base" if name == "conn_tornado" else ""
        if "upstreams" in self.connections[name]:
            paths = draw(st.sampled_from((paths, *SEVERAL)))
            if at_gateway:
                path = draw(st.sampled_from(LEADING)) + path
            elif way != "tunnel":
                host, _, base = draw(st.sampled_from(self._places(name))).partition("/")
                base = f"/{base}"
            else:
                base = "/main"
        prefix = f"/api/proxy/{name}" if at_gateway and carrier in ("query", "header") else base
        grant = (self.secret, name, in_an_hour(self.now), methods, paths)
        query, fields = [extra] if extra else [], []
        if carrier == "path" and not at_gateway:
            carrier = "bearer"
        if at_gateway and carrier in ("bearer", "basic", "own"):
            prefix = f"/api/proxy/{name}"
        if carrier == "query":
            query.insert(draw(st.integers(0, len(query))), presign_query(*grant))
        elif carrier == "header":
            fields += [f"{key}: {value}" for key, value in presign_headers(*grant).items()]
        elif carrier == "path":
            prefix = f"/p/{token(*grant)}"
        else:
            self._key(carrier, name, token(*grant), query, fields)
        target = f"{prefix}/{path}" + (f"?{'&'.join(query)}" if query else "")
        if way in ("absolute", "intercept"):
            target = f"http://{host}{target}"
        message = Message(method.encode(), target.encode(), [f"Host: {host}".encode()])
        message.fields += [one.encode() for one in fields]
        if draw(st.booleans()):
            message.fields.append(draw(st.sampled_from(HARMLESS)))
        if method in ("POST", "PUT") or draw(st.integers(0, 9)) == 0:
            self._body(draw, message)
        return message

    def _key(self, carrier: str, name: str, word: str, query: list[str], fields: list[str]) -> None:
        auth = self.connections[name]["auth"]
        if carrier == "own" and auth["type"] == "header":
            fields += [f"{slot}: {word}" for slot in auth["headers"]]
        elif carrier == "own" and auth["type"] == "query":
            query += [f"{slot}={word}" for slot in auth["params"]]
        elif carrier == "own" and auth["type"] == "aws_sigv4":
            fields.append(f"X-Amz-Security-Token: {word}")
        elif carrier == "basic":
            fields.append(f"Authorization: Basic {base64.b64encode(f'user:{word}'.encode()).decode()}")
        else:
            fields.append(f"Authorization: Bearer {word}")

    def _body(self, draw: Draw, message: Message) -> None:
        body = draw(st.sampled_from(BODIES))
        if draw(st.booleans()):
            message.fields.append(b"Content-Length: %d" % len(body))
            message.body = body
        else:
            message.fields.append(b"Transfer-Encoding: chunked")
            message.body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"

    def _source(self, draw: Draw, way: str) -> Message:
        path = draw(st.sampled_from(("/a.png", "/", "/a/b?x=1", "/%41", "/é")))
        src = f"http://{self.upstreams['pk_lab']}{path}"
        target = source_url(self.secret, "pk_lab", src, in_an_hour(self.now))
        if way == "absolute":
            target = f"http://{GATEWAY}{target}"
        method = draw(st.sampled_from((b"GET", b"GET", b"HEAD", b"POST")))
        return Message(method, target.encode(), [f"Host: {GATEWAY}".encode()])


def _as_preflight(draw: Draw, message: Message) -> None:
    """What a browser asks before a page may send the request; or nearly that, from a page of anybody's."""
    origin = draw(
        st.sampled_from((PAGE, PAGE, b"https://evil.test", b"null", b"HTTPS://page.test", PAGE + b"."))
    )
    message.method = draw(st.sampled_from((b"OPTIONS", b"OPTIONS", b"GET", b"options")))
    message.fields += [
        b"Origin: " + origin,
        b"Access-Control-Request-Method: " + draw(st.sampled_from((b"POST", b"X Y", b""))),
    ]
    if draw(st.booleans()):
        message.fields.append(
            b"Access-Control-Request-Headers: "
            + draw(st.sampled_from((b"authorization", b"a,,b", b"*", b"\x00")))
        )


PAGE = b"https://page.test"
"""The origin whose pages may call a connection that lists them."""
HARMLESS = (
    b"Accept: */*", b"X-Custom: a, b", b"X-Utf8: caf\xc3\xa9", b"Cookie: a=b", b"X-Forwarded-For: 1.2.3.4",
    b"Authorization-X: q", b"Referer: http://x/?X-Presign-Signature=1", b"Accept-Encoding: gzip", b"TE: trailers",
    b"Expect: 100-continue", b"Connection: close", b"Content-Type: text/plain", b"X-Forwarded-Proto: https",
)  # fmt: skip

# -- the request line ---------------------------------------------------------------------------------

PATH_BITS = (
    b"..", b".", b"/", b"//", b"/../", b"/./", b"%2e%2e", b"%2E.", b"%2f", b"%5c", b"\\", b"..;/", b";/", b";a=b",
    b"%00", b"\x00", b"\x01", b"\t", b" ", b"%20", b"%0d%0a", b"\r", b"#", b"%23", b"?", b"%3f", b"%252e", b"%25",
    b"%", b"%1", b"%zz", b"%c0%af", b"%ef%bc%8e", b"\xef\xbc\x8f", b"\xc3\xa9", b"\xff", b"%ff", b"%41", b"%7E",
    b"*", b"|", b"{", b"\"", b"<", b"`", b"^", b"@", b":", b"[", b"admin", b"http://evil.test/", b"\xe2\x80\xa5", b"\x85",
    b"%c2%85", b"%u002e", b"+",
)  # fmt: skip


def _path(draw: Draw, message: Message) -> None:
    end = message.target.find(b"?")
    at = draw(st.integers(0, end if end >= 0 else len(message.target)))
    message.target = message.target[:at] + draw(st.sampled_from(PATH_BITS)) + message.target[at:]


def _segment(draw: Draw, message: Message) -> None:
    path, mark, query = message.target.partition(b"?")
    parts = path.split(b"/")
    parts.insert(draw(st.integers(0, len(parts))), draw(st.sampled_from(PATH_BITS)))
    message.target = b"/".join(parts) + mark + query


def _encode(draw: Draw, message: Message) -> None:
    at = draw(st.integers(0, max(0, len(message.target) - 1)))
    octet = message.target[at : at + 1]
    spelling = draw(st.sampled_from((b"%%%02x", b"%%%02X", b"%%25%02x")))
    if octet:
        message.target = message.target[:at] + spelling % octet[0] + message.target[at + 1 :]


def _case(draw: Draw, message: Message) -> None:
    at = draw(st.integers(0, len(message.target)))
    to = draw(st.integers(at, len(message.target)))
    message.target = message.target[:at] + message.target[at:to].swapcase() + message.target[to:]


def _method(draw: Draw, message: Message) -> None:
    other = (b"get", b"GET ", b"GET\t", b" GET", b"PATCH", b"TRACE", b"CONNECT", b"G\x00T", b"", b"PRI", b"OPTIONS",
             b"GET /admin", b"GET /x HTTP/1.1\r\nX:", b"M-SEARCH", b"post")  # fmt: skip
    message.method = draw(st.sampled_from(other))


def _version(draw: Draw, message: Message) -> None:
    other = (b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b"HTTP/1.1 ", b" HTTP/1.1", b"HTTP/11", b"", b"HTTP/1.10",
             b"HTTP/0.9", b"X HTTP/1.1", b"HTTP/1.1\tx", b"HTTP/1,1")  # fmt: skip
    message.version = draw(st.sampled_from(other))


def _spaces(draw: Draw, message: Message) -> None:
    message.space = draw(st.sampled_from((b"  ", b"\t", b"\x0b", b"\r", b" \r\n ")))


def _form(draw: Draw, message: Message) -> None:
    starts = (b"http://presign.local", b"HTTP://PRESIGN.LOCAL", b"https://presign.local", b"http://evil.test",
              b"http://presign.local@evil.test", b"//presign.local", b"ftp://presign.local", b"http:", b"http:///",
              b"http://presign.local:80", b"http://presign.local:8080", b"http://presign.local.", b"*", b"",
              b"presign.local:80", b"http://presign.local#", b"http://presign.local\\")  # fmt: skip
    at = message.target.find(b"/", message.target.find(b"//") + 2 if b"://" in message.target[:8] else 0)
    message.target = draw(st.sampled_from(starts)) + message.target[max(at, 0) :]


# -- presign fields -----------------------------------------------------------------------------------

FIELDS = (
    b"X-Presign-Paths=*", b"x-presign-paths=*", b"X-Presign-Paths[]=*", b"X_Presign_Paths=*", b"X-Presign-Expires=0",
    b"X-Presign-Foo=1", b"X%2DPresign-Paths=*", b"X-Presign-Methods=*", b"X-Presign-Connection=conn_h11",
    b"X-Presign-Signature=" + b"0" * 64, b"a;X-Presign-Paths=*", b"a#X-Presign-Paths=*", b"a=1;X-Presign-Paths=*",
    b"X-Presign-Paths", b"%58-Presign-Paths=*", b"X-Presign-Paths%00=*", b"+X-Presign-Paths=*", b"X.Presign.Paths=*",
    b"sig=1", b"exp=1", b"key=ps1_x", b"key=mine", b"KEY=mine", b"k%65y=mine", b"key[]=mine", b"x?X-Presign-Paths=*",
)  # fmt: skip


def _parameter(draw: Draw, message: Message) -> None:
    path, mark, query = message.target.partition(b"?")
    pieces = query.split(b"&") if mark else []
    how = draw(st.sampled_from(("insert", "double", "drop", "swap")))
    at = draw(st.integers(0, len(pieces)))
    if how == "insert" or not pieces:
        pieces.insert(at, draw(st.sampled_from(FIELDS)))
    elif how == "double":
        pieces.insert(at, draw(st.sampled_from(pieces)))
    elif how == "drop":
        pieces.pop(at - 1)
    else:
        pieces.reverse()
    message.target = path + b"?" + draw(st.sampled_from((b"&", b"&", b"&", b";"))).join(pieces)


def _carrier(draw: Draw, message: Message) -> None:
    """A part of another carrier beside the one there is, or the same once more."""
    found = [line for line in message.fields if b"presign" in line.lower() or b"ps1_" in line]
    others = [b"X-Presign-Paths: *", b"x_presign_paths: *", b"X-Presign-Foo: 1", b"X-Presign-Expires: 0",
              b"Authorization: Bearer ps1_x." + b"0" * 64, b"X-Whatever: ps1_a", b"Proxy-Authorization: Bearer ps1_a",
              b"X-Presign-Connection: conn_h11", b"Authorization: Bearer mine", b"X-Api-Key: mine", b"x-api-key: ps1_"]  # fmt: skip
    line = draw(st.sampled_from(found + others))
    message.fields.insert(draw(st.integers(0, len(message.fields))), line)


# -- header fields ------------------------------------------------------------------------------------

LINES = (
    b"Host: evil.test", b"Host: presign.local", b"Host:", b"Host : presign.local", b"Host: presign.local:80",
    b"Host: PRESIGN.LOCAL", b"Host: presign.local, evil.test", b"Host: presign.local@evil.test", b"Host: presign.local.",
    b"Connection: Authorization", b"Connection: close, X-Custom", b"Connection: Host", b"Connection: keep-alive",
    b"Connection: Content-Length", b"Connection: Transfer-Encoding", b"Proxy-Connection: keep-alive",
    b"Connection: x-presign-signature", b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket",
    b"HTTP2-Settings: AAMAAABkAAQAAP__", b": x", b"X", b"X Y: z", b"X-A : b", b" X-Folded: a", b"\tfolded",
    b"X-A: a\rb", b"X-A: a\x00b", b"X-A: a\x0bb", b"X-A:\x0cb", b"X-A: \x7f", b"X-\xc3\xa9: a", b"X-A\x00: b", b"X-A: b\r",
    b"X-A: b\r\n folded", b"X-A: b\r\n\tfolded", b"X-A: \r\n b", b"X-A: b\nX-B: c", b"X-A: b\n\nGET / HTTP/1.1",
    b"Authorization: Bearer mine", b"Authorization_: q", b"X_Api_Key: mine", b"Cookie: a=b", b"Forwarded: for=1.1.1.1",
    b"X-Forwarded-Host: evil.test", b"X-Original-URL: /admin", b"X-Rewrite-URL: /admin", b"Trailer: Authorization",
    b"TE: chunked", b"Keep-Alive: timeout=5", b"Expect: 100-continue", b"Expect: 200-ok", b"Max-Forwards: 0",
    b"X-HTTP-Method-Override: DELETE", b"Content_Length: 3", b"Transfer_Encoding: chunked", b"Range: bytes=0-",
    b"Content-Encoding: gzip", b"\x00", b"=:=", b"Cache-Control: no-store", b"Origin: https://page.test", b"Origin: null",
    b"Access-Control-Request-Method: POST", b"Access-Control-Request-Headers: authorization", b"Access_Control_Request_Method: GET",
)  # fmt: skip


def _line(draw: Draw, message: Message) -> None:
    message.fields.insert(draw(st.integers(0, len(message.fields))), draw(st.sampled_from(LINES)))


def _fields(draw: Draw, message: Message) -> None:
    how = draw(st.sampled_from(("double", "drop", "swap", "case", "spaces", "blank", "many")))
    at = draw(st.integers(0, max(0, len(message.fields) - 1)))
    if not message.fields:
        return
    line = message.fields[at]
    if how == "double":
        message.fields.append(line)
    elif how == "drop":
        message.fields.pop(at)
    elif how == "swap":
        message.fields.reverse()
    elif how == "case":
        name, colon, value = line.partition(b":")
        message.fields[at] = name.swapcase() + colon + value
    elif how == "spaces":
        name, _, value = line.partition(b":")
        message.fields[at] = (
            name
            + draw(st.sampled_from((b":", b":\t", b" :", b":  ", b"\t:", b":\x0b")))
            + value.strip()
            + b" \t"
        )
    elif how == "blank":
        message.fields.insert(at, b"")
    else:
        message.fields += [b"X-%d: 1" % number for number in range(draw(st.sampled_from((90, 100, 120))))]


def _ends(draw: Draw, message: Message) -> None:
    at = draw(st.integers(0, len(message.fields) + 1))
    message.ends[at] = draw(
        st.sampled_from((b"\n", b"\r", b"\r\r\n", b"\n\r", b"\x00\r\n", b"", b"\r\n\r\n"))
    )


# -- framing ------------------------------------------------------------------------------------------

FRAMING = (
    b"Content-Length: 0", b"Content-Length: 3", b"Content-Length: 5", b"Content-Length: +3", b"Content-Length: -1",
    b"Content-Length: 0x3", b"Content-Length: 3, 3", b"Content-Length: 3,4", b"Content-Length: 03", b"Content-Length: 3 ",
    b"Content-Length: 3_0", b"Content-Length: \xd9\xa3", b"Content-Length:", b"Content-Length: 1e1", b"content-length: 10",
    b"Content-Length : 3", b"Content-Length: 9999999", b"Content-Length: 3\x00", b"Content-Length: 18446744073709551619",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: Chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: identity", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding:\tchunked", b"Transfer-Encoding: chunked\x00", b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: \"chunked\"", b"Transfer-Encoding:", b"Transfer-Encoding: chunked;q=1", b"Transfer-Encoding: chunked,",
    b"Transfer-Encoding:\r\n chunked", b"Transfer\xadEncoding: chunked", b"X: x\nTransfer-Encoding: chunked", b"TE: trailers, chunked",
)  # fmt: skip


def _framing(draw: Draw, message: Message) -> None:
    line = draw(st.sampled_from(FRAMING))
    at = draw(st.integers(0, len(message.fields)))
    name = line[:7].lower()
    same = [number for number, other in enumerate(message.fields) if other[:7].lower() == name]
    if same and draw(st.booleans()):
        message.fields[same[0]] = line
    else:
        message.fields.insert(at, line)


CHUNKS = (
    b"3\r\nabc\r\n0\r\n\r\n", b"03\r\nabc\r\n0\r\n\r\n", b"3;ext=1\r\nabc\r\n0\r\n\r\n", b"3 ;e\r\nabc\r\n0\r\n\r\n", b"+3\r\nabc\r\n0\r\n\r\n",
    b"-3\r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"3_0\r\nabc\r\n0\r\n\r\n", b"A\r\n0123456789\r\n0\r\n\r\n", b"a\r\n0123456789\r\n0\r\n\r\n",
    b"3\nabc\n0\n\n", b"3\r\nabc\r\n0\r\n", b"3\r\nabc\r\n", b"3\r\nabcd\r\n0\r\n\r\n", b"3\r\nabc0\r\n\r\n", b"3\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"3\r\nabc\r\n0\r\nAuthorization: Bearer mine\r\n\r\n", b"3\r\nabc\r\n00\r\n\r\n", b"\r\n3\r\nabc\r\n0\r\n\r\n", b"3 \r\nabc\r\n0\r\n\r\n",
    b" 3\r\nabc\r\n0\r\n\r\n", b"3;\x00\r\nabc\r\n0\r\n\r\n", b"3;a=\"\r\nabc\r\n0\r\n\r\n", b"\xd9\xa3\r\nabc\r\n0\r\n\r\n", b"ffffffffffffffff\r\nabc",
    b"3\r\nabc\rX0\r\n\r\n", b"0\r\n\r\nGET /admin HTTP/1.1\r\nHost: presign.local\r\n\r\n", b"3;\nx\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n0;x\r\n\r\n",
    b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", b"abc", b"",
)  # fmt: skip


def _body(draw: Draw, message: Message) -> None:
    message.body = draw(st.sampled_from(CHUNKS))


def _smuggle(draw: Draw, message: Message) -> None:
    """Two framings at once, the body being one request to one reader and two to another."""
    inner = b"GET /api/proxy/conn_h11/admin HTTP/1.1\r\nHost: presign.local\r\nX: "
    message.method = b"POST"
    message.fields = [line for line in message.fields if line[:7].lower() not in (b"content", b"transfe")]
    kind = draw(st.sampled_from(("te.cl", "cl.te", "te.te", "cl.0")))
    if kind == "te.cl":
        message.fields += [b"Content-Length: 4", b"Transfer-Encoding: chunked"]
        message.body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner)
    elif kind == "cl.te":
        message.body = b"0\r\n\r\n" + inner
        message.fields += [b"Content-Length: %d" % len(message.body), b"Transfer-Encoding: chunked"]
    elif kind == "te.te":
        message.body = b"0\r\n\r\n" + inner
        odd = draw(st.sampled_from([line for line in FRAMING if line.startswith(b"Transfer")]))
        message.fields += [b"Transfer-Encoding: chunked", odd]
    else:
        message.body = inner
        message.fields.append(b"Content-Length: %d" % len(inner))


MUTATIONS = (
    _path, _path, _segment, _segment, _encode, _encode, _case, _method, _version, _spaces, _form, _parameter, _parameter,
    _carrier, _carrier, _line, _line, _fields, _fields, _ends, _framing, _framing, _body, _smuggle,
)  # fmt: skip


def scar(draw: Draw, data: bytes) -> bytes:
    """Anything, anywhere."""
    at = draw(st.integers(0, len(data)))
    octets = draw(
        st.sampled_from((b"\r", b"\n", b"\r\n", b"\x00", b" ", b"\t", b":", b"%", b"/", b"\xff", b"&", b""))
    )
    cut = draw(st.sampled_from((0, 1, 1, 2)))
    return data[:at] + octets + data[at + cut :]


# -- HTTP/2 and tunnels -------------------------------------------------------------------------------


@dataclass(frozen=True)
class H2Sample:
    """A header list and its data, for a tunnel to `host` under `sni`."""

    host: str
    sni: str
    fields: tuple[tuple[str, str], ...]
    body: bytes | None


H2_FIELDS = (
    (":method", "GET"), (":path", "/admin"), (":authority", "evil.test"), (":scheme", "http"), (":protocol", "websocket"),
    (":unknown", "x"), ("host", "evil.test"), ("host", GATEWAY), ("Host", GATEWAY), ("connection", "close"), ("te", "trailers"),
    ("te", "chunked"), ("transfer-encoding", "chunked"), ("content-length", "3"), ("content-length", "0"), ("content-length", "9"),
    ("x-a", "1\r\nx-b: 2"), ("x-a", "a\x00b"), ("x-a", "a\nb"), ("x-a", "\x0bb"), ("x-a", " b "), ("X-A", "b"), ("x a", "b"), ("", "x"), ("x-a:", "b"),
    ("x-presign-paths", "*"), ("x_presign_paths", "*"), ("authorization", "Bearer mine"), ("cookie", "a=b"), ("upgrade", "h2c"),
    ("x-forwarded-for", "1.2.3.4"), ("expect", "100-continue"), ("x-utf8", "caf\xc3\xa9"), ("proxy-connection", "x"), ("trailer", "x"),
)  # fmt: skip


def h2_samples(samples: Samples) -> st.SearchStrategy[H2Sample]:
    """Requests to the gateway and to the TLS API as HTTP/2, their header lists mutated."""

    def build(draw: Draw) -> H2Sample:
        way, name = draw(
            st.sampled_from((("connect", draw(st.sampled_from(samples.plain))), ("tls", "conn_tls")))
        )
        message = samples.presigned(draw, way, name)
        for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
            draw(st.sampled_from((_path, _segment, _encode, _case, _parameter)))(draw, message)
        pairs = [line.decode("latin-1").partition(": ") for line in message.fields]
        framing = ("host", "transfer-encoding", "content-length")
        fields = [(key.lower(), value) for key, _, value in pairs if key.lower() not in framing]
        host = samples.upstreams[name] if way == "tls" else GATEWAY
        pseudo = [(":method", message.method.decode()), (":scheme", "https")]
        pseudo += [(":path", message.target.decode("latin-1")), (":authority", host)]
        body = draw(
            st.sampled_from((None, b"", b"abc", b"0\r\n\r\n", b"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n"))
        )
        listed = [*pseudo, *fields]
        for _ in range(draw(st.sampled_from((0, 1, 1, 2)))):
            how = draw(st.sampled_from(("insert", "insert", "replace", "drop", "swap", "tail")))
            at = draw(st.integers(0, len(listed) - 1))
            if how == "insert":
                listed.insert(draw(st.integers(0, len(listed))), draw(st.sampled_from(H2_FIELDS)))
            elif how == "replace":
                listed[at] = (listed[at][0], draw(st.sampled_from(H2_FIELDS))[1])
            elif how == "drop":
                listed.pop(at)
            elif how == "swap":
                listed.append(listed.pop(at))
            else:
                tail = draw(
                    st.sampled_from(
                        (" ", "\r", "\n", "\x00", "\t", " HTTP/1.1", " HTTP/1.1\r\nX: y", "#", "?")
                    )
                )
                listed[at] = (listed[at][0], listed[at][1] + tail)
        return H2Sample(GATEWAY if way == "connect" else "api.tls.test", "", tuple(listed), body)

    return st.composite(build)()


@dataclass(frozen=True)
class NamesSample:
    """A good request through a tunnel, under names that may disagree."""

    dialled: str
    sni: str
    data: bytes


def names_samples(samples: Samples, port: int) -> st.SearchStrategy[NamesSample]:
    """CONNECT host × SNI × Host × the host of a whole URL."""
    names = (GATEWAY, "api.tls.test", "evil.test")

    def build(draw: Draw) -> NamesSample:
        way = draw(st.sampled_from(("connect", "tls")))
        name = "conn_tls" if way == "tls" else draw(st.sampled_from(samples.plain))
        message = samples.presigned(draw, way, name)
        usual = GATEWAY if way == "connect" else "api.tls.test"
        dialled, sni, host = (draw(st.sampled_from((usual, usual, usual, *names))) for _ in range(3))
        suffix = draw(
            st.sampled_from(
                ("" if way == "connect" else f":{port}", f":{port}", ":443", "", ".", "@evil.test")
            )
        )
        message.fields[0] = f"Host: {host}{suffix}".encode()
        if draw(st.integers(0, 3)) == 0:
            start = draw(st.sampled_from(("https://", "http://"))) + draw(st.sampled_from(names)) + suffix
            message.target = start.encode() + message.target
        return NamesSample(dialled, sni, bytes(message))

    return st.composite(build)()
